// The worker of engine.js. Files come as blobs that the page has checked; nothing is fetched but the wasm beside it.
import { AutoModelForCausalLM, AutoTokenizer, StoppingCriteria, env } from "./vendor/transformers.js";

let tokenizer, model, context, ends;
let stopped = false;

class Stop extends StoppingCriteria {
  _call(rows) {
    return rows.map((row) => stopped || ends.has(Number(row.at(-1))));
  }
}

// Computing never leaves the worker's task, so a message (stop) would wait until the end: let one in before each step.
function breathe() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => (port1.close(), resolve());
    port2.postMessage(null);
  });
}

async function load(message) {
  const { files, threads } = message;
  context = message.context;
  ends = new Set(message.ends);
  env.allowRemoteModels = false;
  env.allowLocalModels = true;
  env.localModelPath = "/model/";
  env.useBrowserCache = env.useWasmCache = false; // the service worker keeps everything
  env.fetch = async (path) => {
    const blob = files.get(String(path).split("/student/")[1]);
    return blob ? new Response(blob) : new Response(null, { status: 404 });
  };
  const { wasm } = env.backends.onnx;
  wasm.wasmPaths = { wasm: new URL("vendor/ort.wasm", import.meta.url).href };
  wasm.numThreads = threads;
  tokenizer = await AutoTokenizer.from_pretrained("student");
  const session_options = { logSeverityLevel: 3 };
  model = await AutoModelForCausalLM.from_pretrained("student", { device: "wasm", session_options });
  const forward = model.forward.bind(model);
  model.forward = async (inputs) => (await breathe(), forward(inputs));
  postMessage({ type: "ready", threads });
}

async function ask({ text, max }) {
  const inputs = tokenizer(text, { add_special_tokens: false });
  const length = inputs.input_ids.dims[1];
  if (length >= context) throw new Error("The question is too long for this model.");
  const found = [];
  let prompt = true; // the first call brings it back
  stopped = false;
  const put = ([ids]) => {
    if (prompt) return void (prompt = false);
    const id = Number(ids[0]);
    if (ends.has(id)) return;
    found.push(id);
    postMessage({ type: "token", id, text: tokenizer.decode(found, { skip_special_tokens: true }) });
  };
  await model.generate({
    ...inputs,
    max_new_tokens: Math.min(max, context - length),
    do_sample: false,
    streamer: { put, end() {} },
    stopping_criteria: [new Stop()],
  });
  postMessage({ type: "end" });
}

const ACTIONS = { load, ask, stop: async () => void (stopped = true) };
onmessage = async ({ data }) => {
  try {
    await ACTIONS[data.type](data);
  } catch (error) {
    postMessage({ type: "error", message: error.message });
  }
};
