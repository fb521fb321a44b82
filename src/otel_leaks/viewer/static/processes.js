// The list of processes, and what leaks now.

import { arrange, byId, h, setText } from "./dom.js";
import { changed, openFindings, shownProcess, state } from "./state.js";
import { clock, counted, duration, nearby, now, plural, processName } from "./words.js";

const SILENT_S = 15;
const rows = new Map();
const cards = new Map();
const CARDS = 3;

export function drawProcesses() {
  const shown = shownProcess();
  const open = new Map();
  for (const finding of openFindings()) open.set(finding.process, (open.get(finding.process) ?? 0) + 1);
  for (const id of rows.keys()) if (!state.processes.has(id)) rows.delete(id);
  const processes = [...state.processes.values()].sort(
    (one, other) => (open.get(other.id) ?? 0) - (open.get(one.id) ?? 0) || one.id - other.id,
  );
  arrange(byId("process-list"), processes.map((process) => row(process, open.get(process.id) ?? 0, process === shown)));
  const [one, many] = state.about?.processes ?? ["Process", "Processes"];
  setText(byId("processes-title"), processes.length > 1 ? `${many} (${processes.length})` : one);
}

function row(process, open, isShown) {
  let known = rows.get(process.id);
  if (known === undefined) {
    const parts = { name: h("span", { class: "name" }), open: h("span", { class: "open" }), numbers: h("span", { class: "numbers" }), silent: h("span", { class: "silent" }) };
    const button = h("button", { type: "button", onclick: () => { state.chosenProcess = process.id; changed(); } }, parts.name, parts.open, parts.numbers, parts.silent);
    known = { element: h("li", {}, button), button, ...parts };
    rows.set(process.id, known);
  }
  const latest = process.readings.at(-1)?.[1] ?? {};
  const silent = state.about?.recorded ? 0 : now() - process.seen;
  setText(known.name, processName(process));
  setText(known.open, open ? `${open} open` : "");
  setText(known.numbers, Object.entries(latest).map(([kind, [count]]) => `${count} ${plural(kind)}`).join(", "));
  setText(known.silent, silent > SILENT_S ? `silent for ${duration(silent)}` : "");
  known.button.setAttribute("aria-pressed", String(isShown));
  return known.element;
}

// One card for each leak, even if several evidences report it.
function leaks() {
  const found = new Map();
  for (const finding of openFindings()) {
    const key = `${finding.process} ${finding.kind} ${finding.function || finding.id}`;
    found.set(key, [...(found.get(key) ?? []), finding]);
  }
  return [...found];
}

export function drawNow(choose) {
  const open = leaks();
  byId("now").hidden = open.length === 0;
  const shown = open.slice(0, CARDS);
  for (const key of cards.keys()) if (!shown.some(([each]) => each === key)) cards.delete(key);
  const elements = shown.map(([key, findings]) => card(key, findings, choose));
  if (open.length > CARDS) elements.push(h("p", { class: "soft" }, `and ${open.length - CARDS} more below`));
  arrange(byId("now-list"), elements);
}

// The current count: of its function, or of the kind if the kind has too many.
function current(process, finding) {
  const population = process?.readings.at(-1)?.[1][finding.kind];
  if (population === undefined) return null;
  if (finding.evidence === "threshold" && !finding.function) return population[0];
  const pairs = population[2];
  for (let at = 0; at < pairs.length; at += 2) {
    if (process.names[pairs[at]] === finding.function) return pairs[at + 1];
  }
  return null;
}

function card(key, findings, choose) {
  let known = cards.get(key);
  if (known === undefined) {
    const button = h("button", { type: "button" }, "Show evidence");
    known = h("div", { class: "card" }, h("p", { class: "what" }), button, h("p", { class: "who" }));
    button.addEventListener("click", () => choose(known.finding));
    cards.set(key, known);
  }
  const [what, button, who] = known.children;
  const finding = findings[0];
  known.finding = finding.id;
  const process = state.processes.get(finding.process);
  const limit = findings.find((each) => each.limit !== null)?.limit;
  const count = current(process, finding) ?? finding.count;
  const since = finding.opened === null ? "" : Math.min(...findings.map((each) => each.opened));
  setText(what, `${counted(count, finding.kind)}${finding.function ? `: ${finding.function}` : ""}`);
  const parts = [`${findings.map((each) => each.evidence).reverse().join(", ")}${since && `, since ${clock(since)} (${duration(Math.max(1, now() - since))})`}`];
  if (limit !== undefined) parts.push(`limit ${limit}`);
  if (finding.origin) parts.push(`created by ${nearby(finding.origin)}`);
  if (finding.operation) parts.push(`request ${finding.operation}`);
  if (process && state.processes.size > 1) parts.push(processName(process));
  setText(who, parts.join(" · "));
  button.setAttribute("aria-label", `Show evidence of ${finding.function || finding.evidence}`);
  return known;
}
