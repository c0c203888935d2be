// How a question is asked and an answer read, as bridge_edge does it in Python: data/card.py, data/thinking.py,
// runtimes/think.py. An engine is {stream(text, max, {signal, named})}: an async generator of {text, count: all so far,
// ids: the new ones, where they are to be named}.

export function promptOf(student, question, budget) {
  let prompt = question;
  if (student.question) {
    const [head, tail] = student.question;
    const framed = tail.trim() && question.trimEnd().endsWith(tail.trim());
    prompt = framed ? question.trim() : head + question.trim() + tail;
  }
  if (budget && student.budgets.length) prompt += "\n" + student.signal.replace("{budget}", budget);
  const [before, after] = student.frame;
  const text = before + prompt + after;
  return student.form ? text.normalize(student.form) : text;
}

function normal(answer) {
  const trimmed = answer.trim().replace(/^[.!;:"']+|[.!;:"']+$/g, "").toLowerCase();
  return trimmed.replace(/(?<=\d),(?=\d{3}\b)/g, "").replace(/\s+/g, " ").replace(/^\$+/, "").trim();
}

// The rationale, and the answer where one can be read: after the last marker, one of the choices where there are any.
export function parse(student, text) {
  const at = text.lastIndexOf(student.marker);
  if (at < 0) return { rationale: text.trim(), answer: null };
  const rationale = text.slice(0, at).trim();
  const given = text.slice(at + student.marker.length).trim().split("\n")[0].trim();
  if (!given) return { rationale, answer: null };
  if (!student.answers.length) return { rationale, answer: given };
  return { rationale, answer: student.answers.find((choice) => normal(choice) === normal(given)) ?? null };
}

// How many tokens stand before the marker, and whether it is there. `ends[i]` is the length of the text after token i.
export function thought(student, text, ends) {
  let at = text.indexOf(student.marker);
  const answering = at >= 0;
  if (!answering) {
    const last = text.slice(text.lastIndexOf("\n") + 1);
    if (!last || !student.marker.startsWith(last)) return { tokens: ends.length, answering: false };
    at = text.length - last.length;
  }
  return { tokens: ends.filter((end) => end <= at).length, answering };
}

// Yields {text, tokens, ids, thought, closed} as the answer grows. Beyond the budget the thought is cut, the marker put
// in its place, and the model goes on from there. It reads the thought as text, so that a cut right behind a full stop
// may be other tokens than in Python.
export async function* answer(engine, student, question, { budget = null, signal = null, named = false } = {}) {
  const prompt = promptOf(student, question, budget);
  const ids = [];
  const ends = [];
  let text = "";
  let told = null;
  for await (const step of engine.stream(prompt, budget ? budget + student.room : student.new, { signal, named })) {
    ids.push(...step.ids);
    text = step.text;
    while (ends.length < step.count) ends.push(text.length);
    told = budget ? thought(student, text, ends) : null;
    if (told && told.tokens > budget) break;
    yield { text, ids, tokens: ends.length, thought: told?.tokens ?? null, closed: false };
  }
  if (!told || told.tokens <= budget || signal?.aborted) return;
  let head = text.slice(0, ends[budget - 1]);
  const kept = ids.slice(0, budget);
  head += head && !head.endsWith("\n") ? "\n" + student.marker : student.marker;
  yield { text: head, ids: kept, tokens: ends.length, thought: budget, closed: true };
  for await (const step of engine.stream(prompt + head, student.room, { signal, named })) {
    const all = { text: head + step.text, ids: [...kept, ...step.ids], tokens: ends.length + step.count };
    yield { ...all, thought: budget, closed: true };
  }
}
