// The page: waits for a whole version, loads the student, asks and shows. No framework, nothing from outside.
import { open } from "./engine.js";
import { Refused, load } from "./files.js";
import { answer, parse } from "./student.js";

const at = (id) => document.getElementById(id);
const isolated = self.crossOriginIsolated === true;
const BOUNDS = [16, 32, 64]; // offered where the student has learnt none
let student, engine, running;

function state(text, done = null, total = null) {
  at("state").textContent = text;
  at("status").hidden = !text;
  at("progress").hidden = total === null;
  if (total !== null) Object.assign(at("progress"), { value: done, max: total });
}

function list(id, tag, lines) {
  at(id).replaceChildren(...lines.map((line) => Object.assign(document.createElement(tag), { textContent: line })));
}

const counted = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
const mega = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

// Resolves once a checked version is kept here; rejects where the first one fails its check.
async function keepOffline() {
  if (!self.isSecureContext) {
    throw new Refused("This page needs https or a local address: else a browser can neither check nor keep it.");
  }
  const workers = navigator.serviceWorker;
  if (!workers) return; // as in some private windows: everything is fetched and checked each time
  const kept = new Promise((resolve, reject) => {
    workers.addEventListener("controllerchange", resolve, { once: true });
    workers.addEventListener("message", ({ data }) => {
      if (workers.controller) {
        const refused = `An update to version ${data.version} was not taken: ${data.message}. This version goes on.`;
        if (data.type === "failed") notice(refused, null);
      } else if (data.type === "progress") {
        state(`Downloading ${mega(data.done)} of ${mega(data.total)}, once.`, data.done, data.total);
      } else {
        reject(new Refused(`${data.message}. It was not loaded.`));
      }
    });
  });
  kept.catch(() => {}); // told by whoever waits for it
  const registration = await workers.register("sw.js", { updateViaCache: "none" });
  registration.addEventListener("updatefound", () => watch(registration.installing));
  if (registration.waiting) offer(registration.waiting);
  if (!workers.controller && !registration.active) await kept; // a forced reload has a worker, but goes past it
  navigator.storage?.persist?.();
}

function watch(worker) {
  worker?.addEventListener("statechange", () => {
    if (worker.state === "installed" && navigator.serviceWorker.controller) offer(worker);
  });
}

async function offer(worker) {
  const [newest] = await versions();
  const changes = newest?.changed?.length ? ` Changes: ${newest.changed.join(", ")}.` : "";
  notice(`Version ${newest?.version ?? ""} is here, whole and checked.${changes}`, () => {
    navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
    worker.postMessage("take over");
  });
}

function notice(text, use) {
  at("news").textContent = text;
  at("switch").hidden = !use;
  at("switch").onclick = use;
  at("update").hidden = false;
}

async function versions() {
  try {
    return await (await fetch("VERSIONS.json")).json();
  } catch {
    return [];
  }
}

async function fill() {
  at("about").textContent = student.about;
  list("measured", "li", student.measured.length ? student.measured : ["Its accuracy was not measured."]);
  const bytes = student.files.reduce((sum, file) => sum + file.bytes, 0);
  const facts = [["Model", `${student.kind.toUpperCase()}, ${mega(bytes)}`], ["Engine", student.engine]];
  if (navigator.serviceWorker?.controller) facts.push(["Version", await (await fetch("version")).text()]);
  const cells = facts.flatMap(([name, value]) => [["dt", name], ["dd", value]]);
  at("facts").replaceChildren(
    ...cells.map(([tag, textContent]) => Object.assign(document.createElement(tag), { textContent })),
  );
  list("versions", "li", (await versions()).map((v) => `${v.version}: ${v.changed.join(", ")}`));
  at("examples").hidden = !student.examples.length;
  at("examples").append(
    ...student.examples.map((text) => {
      const button = Object.assign(document.createElement("button"), { type: "button" });
      button.append(Object.assign(document.createElement("span"), { textContent: text }));
      button.onclick = () => ((at("question").value = text), at("question").focus());
      return button;
    }),
  );
  const learnt = student.budgets.length > 0;
  at("unlearnt").hidden = learnt;
  const choices = [["", "as much as it takes"], ...(learnt ? student.budgets : BOUNDS).map((b) => [b, `${b} tokens`])];
  at("budget").append(...choices.map(([value, text]) => new Option(text, value)));
}

// Half of the cores, as they may be slow ones, and at most four; ?threads=N asks for another number.
function threads() {
  const asked = Number(new URLSearchParams(location.search).get("threads"));
  return asked || Math.max(1, Math.min(4, Math.floor((navigator.hardwareConcurrency || 1) / 2)));
}

async function memory() {
  if (!isolated || !performance.measureUserAgentSpecificMemory) return null;
  const idle = new Promise((resolve) => setTimeout(resolve, 30_000, null)); // browsers answer when it suits them
  return Promise.race([performance.measureUserAgentSpecificMemory().then((m) => m.bytes), idle]).catch(() => null);
}

function show(step, ended) {
  const { rationale, answer: found } = parse(student, step.text);
  at("rationale").textContent = rationale;
  if (found !== null) at("answer").textContent = found;
  at("warning").hidden = !ended || found !== null;
  if (ended && found === null) {
    at("answer").textContent = "No answer";
    at("warning").textContent = "No answer could be read from this reply; what was written is under Reasoning.";
  }
}

async function reply(question, budget, named = false) {
  running = new AbortController();
  const start = performance.now();
  let first = null;
  let last = { text: "", ids: [], tokens: 0, thought: null, closed: false };
  at("reply").hidden = false;
  at("answer").textContent = "…";
  at("figures").textContent = "";
  for await (const step of answer(engine, student, question, { budget, named, signal: running.signal })) {
    first ??= performance.now();
    last = step;
    show(step, false);
    at("figures").textContent = counted(step.tokens, "token");
  }
  const end = performance.now();
  const speed = last.tokens > 1 ? (1000 * (last.tokens - 1)) / (end - first) : null;
  show(last, true);
  const figures = [
    counted(last.tokens, "token"),
    first && `first after ${(first - start).toFixed(0)} ms`,
    speed && `${speed.toFixed(speed < 10 ? 1 : 0)} tokens/s on ${counted(engine.threads, "thread")}`,
    last.thought !== null && `thought ${last.thought} of ${budget}${last.closed ? ", closed at the bound" : ""}`,
    running.signal.aborted && "stopped",
  ].filter(Boolean);
  at("figures").textContent = figures.join(", ");
  memory().then((bytes) => bytes && (at("figures").textContent = [...figures, `memory ${mega(bytes)}`].join(", ")));
  return { ...last, ...parse(student, last.text), speed };
}

async function submit(event) {
  event?.preventDefault();
  const question = at("question").value.trim();
  if (!question || at("ask").disabled) return;
  at("stop").hidden = false;
  hand("ask", "stop"); // a disabled or hidden button loses the keyboard's focus
  at("ask").disabled = true;
  try {
    await reply(question, Number(at("budget").value) || null);
  } catch (error) {
    at("answer").textContent = "";
    at("warning").hidden = false;
    at("warning").textContent = `This question could not be answered: ${error.message}`;
  } finally {
    at("ask").disabled = false;
    hand("stop", "ask");
    at("stop").hidden = true;
  }
}

function hand(from, to) {
  if (document.activeElement === at(from)) at(to).focus();
}

async function start() {
  await keepOffline();
  student = await (await fetch("student.json")).json();
  await fill();
  const tell = (done, total) => state(`Checking ${mega(done)} of ${mega(total)}.`, done, total);
  const files = await load(student.files, tell);
  state("Loading the model.");
  engine = await open(student, files, isolated ? threads() : 1);
  state("");
  at("ask").disabled = false;
  return { threads: engine.threads, isolated };
}

at("form").addEventListener("submit", submit);
at("stop").addEventListener("click", () => running?.abort());
at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event);
});
self.ready = start(); // a test asks through the page's own functions
self.reply = reply;
self.ready.catch((error) => {
  state(error instanceof Refused ? error.message : `The model could not be loaded: ${error.message}`);
  at("state").classList.add("warning");
});
