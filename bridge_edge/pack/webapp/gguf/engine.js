// A GGUF student by wllama (llama.cpp as wasm). Its worker comes from a blob; the wasm lies beside this file.
import { Inbox } from "./inbox.js";
import { Wllama } from "./vendor/wllama.js";

const LOUD = { debug() {}, log() {}, warn: console.warn, error: console.error };

const local = (name) => new URL(`vendor/${name}`, import.meta.url).href;

function plainer(error) {
  const long = /exceeds the available context/.test(error.message);
  return long ? new Error("The question is too long for this model.") : error;
}

export async function open(student, files, threads) {
  const llama = new Wllama({ default: local("wllama.wasm") }, { suppressNativeLog: true, logger: LOUD });
  // For browsers that lack what the first build needs; unless told, wllama sends them to a CDN.
  llama.setCompat({ worker: local("compat.js"), wasm: local("compat.wasm") });
  await llama.loadModel([...files.values()], {
    n_ctx: student.context,
    n_parallel: 1,
    n_gpu_layers: 0,
    n_threads: threads,
  });

  // What names the token ids fails in the engine at a character of several tokens, so it is only on where it is asked
  // for, or where an end of this student is none that the engine knows.
  const strange = student.ends.some((id) => !llama.isTokenEOG(id));

  async function* stream(text, max, { signal = null, named = false }) {
    const stop = new AbortController();
    const inbox = new Inbox();
    if (signal) signal.addEventListener("abort", () => stop.abort(), { once: true });
    const words = {
      prompt: text,
      max_tokens: max,
      temperature: 0,
      n_probs: named || strange ? 1 : 0,
      timings_per_token: true, // counts: a character of several tokens comes as one
      cache_prompt: false, // another batch would round differently
      stream: true,
      onData: (chunk) => inbox.put({ chunk }),
      abortSignal: stop.signal,
    };
    const running = llama.createCompletion(words).then(() => inbox.put({}), (error) => inbox.put({ error }));
    let all = "";
    try {
      for (;;) {
        const { chunk, error } = await inbox.next();
        if (error && error.name !== "AbortError") throw plainer(error);
        if (!chunk || chunk.choices[0].finish_reason) return;
        const { text: piece, logprobs } = chunk.choices[0];
        const ids = (logprobs?.content ?? []).map((token) => token.id);
        if (student.ends.includes(ids.at(-1))) return;
        all += piece;
        yield { ids, text: all, count: chunk.timings.predicted_n };
      }
    } finally {
      stop.abort(); // left early: free the slot
      await running;
    }
  }

  return { stream, threads: llama.getNumThreads(), close: () => llama.exit() };
}
