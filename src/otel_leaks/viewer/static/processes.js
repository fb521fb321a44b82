// The list of processes, and what leaks now.

import { arrange, byId, h, setText } from "./dom.js";
import { changed, openFindings, shownProcess, state } from "./state.js";
import { clock, counted, duration, now, place, plural, processName } from "./words.js";

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
  setText(byId("processes-title"), processes.length > 1 ? `Processes (${processes.length})` : "Process");
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
  const silent = now() - process.seen;
  setText(known.name, processName(process));
  setText(known.open, open ? `${open} open` : "");
  setText(known.numbers, Object.entries(latest).map(([kind, [count]]) => `${count} ${plural(kind)}`).join(", "));
  setText(known.silent, silent > SILENT_S ? `silent for ${duration(silent)}` : "");
  known.button.setAttribute("aria-pressed", String(isShown));
  return known.element;
}

export function drawNow(choose) {
  const open = openFindings();
  byId("now").hidden = open.length === 0;
  const shown = open.slice(0, CARDS);
  for (const id of cards.keys()) if (!shown.some((each) => each.id === id)) cards.delete(id);
  const elements = shown.map((finding) => card(finding, choose));
  if (open.length > CARDS) {
    const more = cards.get("more") ?? h("p", { class: "soft" });
    cards.set("more", more);
    setText(more, `and ${open.length - CARDS} more below`);
    elements.push(more);
  }
  arrange(byId("now-list"), elements);
}

// How many there are by now: of its function, or of the kind where that has too many.
function current(process, finding) {
  const population = process?.readings.at(-1)?.[1][finding.kind];
  if (population === undefined) return null;
  if (finding.evidence === "threshold") return population[0];
  const pairs = population[2];
  for (let at = 0; at < pairs.length; at += 2) {
    if (process.names[pairs[at]] === finding.function) return pairs[at + 1];
  }
  return null;
}

function card(finding, choose) {
  let known = cards.get(finding.id);
  if (known === undefined) {
    known = h("div", { class: "card" }, h("p", { class: "what" }), h("p", { class: "who" }),
      h("button", { type: "button", onclick: () => choose(finding.id) }, "Show evidence"));
    cards.set(finding.id, known);
  }
  const [what, who, button] = known.children;
  const process = state.processes.get(finding.process);
  const limit = finding.limit === null ? "" : `, limit ${finding.limit}`;
  const count = current(process, finding) ?? finding.count;
  setText(what, `${counted(count, finding.kind)}${limit}${finding.function ? `: ${finding.function}` : ""}`);
  const parts = [`${finding.evidence}, since ${clock(finding.opened)} (${duration(now() - finding.opened)})`];
  if (finding.origin) parts.push(`created by ${place(finding.origin)}`);
  if (finding.operation) parts.push(`request ${finding.operation}`);
  if (process && state.processes.size > 1) parts.push(processName(process));
  setText(who, parts.join(" · "));
  button.setAttribute("aria-label", `Show evidence of ${finding.evidence}: ${finding.function}`);
  return known;
}
