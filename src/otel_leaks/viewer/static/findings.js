// Findings: open ones first, the newest first within each group.

import { arrange, byId, h, setText } from "./dom.js";
import { findings, matches, shownFinding, state } from "./state.js";
import { clock, counted, duration, processName } from "./words.js";

const STEP = 50;
const rows = new Map();
let most = STEP;

export function drawFindings(choose) {
  const all = findings();
  const found = all.filter(matches);
  const shown = shownFinding();
  for (const id of rows.keys()) if (!state.findings.has(id)) rows.delete(id);
  arrange(byId("finding-list"), found.slice(0, most).map((finding) => row(finding, finding === shown, choose)));
  const open = all.filter((each) => each.ended === null).length;
  const areTimed = all.some((each) => each.opened !== null);
  setText(byId("findings-title"), all.length === 0 ? "Findings" : areTimed ? `Findings: ${open} open, ${all.length - open} past` : `Findings (${all.length})`);
  setText(byId("findings-none"), all.length === 0 ? "Nothing has been found." : found.length === 0 ? "None matches the filter." : "");
  const more = byId("more");
  more.hidden = found.length <= most;
  setText(more, `Show more (${found.length - most})`);
}

export function showMore() {
  most += STEP;
}

function row(finding, isShown, choose) {
  let known = rows.get(finding.id);
  if (known === undefined) {
    const parts = { badge: h("span", { class: "badge" }), evidence: h("strong", {}), count: h("span", {}), name: h("span", { class: "function mono" }), when: h("span", { class: "when" }) };
    const button = h("button", { type: "button", onclick: () => choose(finding.id) },
      h("span", { class: "head" }, parts.badge, parts.evidence, parts.count), parts.name, parts.when);
    known = { element: h("li", {}, button), button, ...parts };
    rows.set(finding.id, known);
  }
  const process = state.processes.get(finding.process);
  known.badge.className = `badge ${finding.ended || finding.evidence === "alive" ? "past" : "open"}`;
  setText(known.badge, finding.ended ? "ended" : finding.opened === null ? finding.evidence : "open");
  setText(known.evidence, finding.opened === null ? "" : finding.evidence);
  setText(known.count, counted(finding.count, finding.kind));
  setText(known.name, finding.function || finding.pool);
  const who = process && state.processes.size > 1 ? `, ${processName(process)}` : "";
  setText(known.when, finding.opened === null
    ? who.slice(2)
    : finding.ended
      ? `${clock(finding.opened)}, for ${duration(finding.ended.duration)}, peak ${finding.peak}${who}`
      : `since ${clock(finding.opened)}${who}`);
  known.button.setAttribute("aria-pressed", String(isShown));
  return known.element;
}
