// What comes by callback, read one by one: a sender that fails when nobody reads any more disturbs nobody.
export class Inbox {
  #items = [];
  #wake = () => {};

  put(item) {
    this.#items.push(item);
    this.#wake();
  }

  async next() {
    while (!this.#items.length) await new Promise((resolve) => (this.#wake = resolve));
    return this.#items.shift();
  }
}
