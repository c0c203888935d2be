// Load an exported folder with transformers.js and complete prompts greedily; one JSON line on stdout.
// Usage: node greedy.cjs NODE_MODULES FOLDER '["prompt", ...]' NEW_TOKENS
const [modules, folder, prompts, count] = process.argv.slice(2);
const path = require("node:path");
const js = require(require.resolve("@huggingface/transformers", { paths: [modules] }));

js.env.allowLocalModels = true;
js.env.allowRemoteModels = false; // what is not in the folder is an error, never a download
js.env.localModelPath = path.dirname(folder) + path.sep;

async function main() {
  const name = path.basename(folder);
  const tokenizer = await js.AutoTokenizer.from_pretrained(name);
  // No dtype and no file are named: config.json says both.
  const session_options = { intraOpNumThreads: 1, logSeverityLevel: 3 };
  const model = await js.AutoModelForCausalLM.from_pretrained(name, { device: "cpu", session_options });
  const found = [];
  for (const prompt of JSON.parse(prompts)) {
    const inputs = tokenizer.apply_chat_template([{ role: "user", content: prompt }], {
      add_generation_prompt: true,
      return_dict: true,
    });
    const output = await model.generate({ ...inputs, max_new_tokens: Number(count) });
    const ids = output.tolist()[0].map(Number);
    const start = inputs.input_ids.dims[1];
    found.push({ prompt: ids.slice(0, start), completion: ids.slice(start) });
  }
  console.log(JSON.stringify({ version: js.env.version, found }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
