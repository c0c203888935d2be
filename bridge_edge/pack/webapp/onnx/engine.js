// An ONNX student by transformers.js, in a worker of its own, so that the page stays alive while it computes.

export async function open(student, files, threads) {
  const worker = new Worker(new URL("engine-worker.js", import.meta.url), { type: "module" });
  let wake = () => {};
  const inbox = [];
  worker.onmessage = ({ data }) => (inbox.push(data), wake());
  worker.onerror = (event) => (inbox.push({ type: "error", message: event.message }), wake());

  async function next() {
    while (!inbox.length) await new Promise((resolve) => (wake = resolve));
    const message = inbox.shift();
    if (message.type === "error") throw new Error(message.message);
    return message;
  }

  worker.postMessage({ type: "load", files, ends: student.ends, context: student.context, threads });
  const { threads: used } = await next();

  async function* stream(text, max, { signal = null }) {
    if (signal) signal.addEventListener("abort", () => worker.postMessage({ type: "stop" }), { once: true });
    worker.postMessage({ type: "ask", text, max });
    let count = 0;
    let done = false;
    try {
      for (;;) {
        const message = await next();
        if (message.type === "end") {
          done = true;
          return;
        }
        yield { ids: [message.id], text: message.text, count: ++count };
      }
    } finally {
      if (!done) {
        worker.postMessage({ type: "stop" });
        while ((await next()).type !== "end");
      }
    }
  }

  return { stream, threads: used, close: () => worker.terminate() };
}
