// An ONNX student by transformers.js, in a worker of its own, so that the page stays alive while it computes.
import { Inbox } from "./inbox.js";

export async function open(student, files, threads) {
  const worker = new Worker(new URL("engine-worker.js", import.meta.url), { type: "module" });
  const inbox = new Inbox();
  worker.onmessage = ({ data }) => inbox.put(data);
  worker.onerror = (event) => inbox.put({ type: "error", message: event.message });

  worker.postMessage({ type: "load", files, ends: student.ends, context: student.context, threads });
  const loaded = await inbox.next();
  if (loaded.type === "error") throw new Error(loaded.message);

  async function* stream(text, max, { signal = null }) {
    if (signal) signal.addEventListener("abort", () => worker.postMessage({ type: "stop" }), { once: true });
    worker.postMessage({ type: "ask", text, max });
    let message = null;
    try {
      for (let count = 1; ; count++) {
        message = await inbox.next();
        if (message.type === "error") throw new Error(message.message);
        if (message.type === "end") return;
        yield { ids: [message.id], text: message.text, count };
      }
    } finally {
      if (message.type === "token") {
        worker.postMessage({ type: "stop" }); // left early: wait until it has stopped
        while ((await inbox.next()).type === "token");
      }
    }
  }

  return { stream, threads: loaded.threads, close: () => worker.terminate() };
}
