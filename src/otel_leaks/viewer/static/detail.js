// The evidence of one finding.

import { byId, copyButton, h, setText } from "./dom.js";
import { icicle } from "./icicle.js";
import { shownFinding, state } from "./state.js";
import { details } from "./stream.js";
import { clock, counted, duration, meaning, place, processName, short } from "./words.js";

const KEPT = 100;
const cache = new Map();
const asked = new Set();
const opened = new Set();
let drawn = "";

const versionOf = (finding) => `${state.epoch} ${finding.id} ${finding.reports} ${finding.last} ${finding.ended !== null}`;

// Evidence is requested when it arrives, so that it can be read after the program has ended.
export function fetchDetails(again) {
  const shown = shownFinding();
  const wanted = [...state.findings.values()].slice(-20);
  if (shown) wanted.push(shown);
  for (const finding of wanted) {
    const version = versionOf(finding);
    const key = `${state.epoch} ${finding.id}`;
    if (cache.get(key)?.version === version || asked.has(version)) continue;
    asked.add(version);
    details(finding.id)
      .then((detail) => {
        cache.set(key, { version, detail });
        while (cache.size > KEPT) cache.delete(cache.keys().next().value);
      })
      .catch((error) => { if (!cache.has(key)) cache.set(key, { version, error: String(error.message) }); })
      .finally(() => { asked.delete(version); again(); });
  }
}

export function drawDetail() {
  const finding = shownFinding();
  const body = byId("detail-body");
  const known = finding && cache.get(`${state.epoch} ${finding.id}`);
  const version = finding ? JSON.stringify([versionOf(finding), state.filter, known?.version]) : "none";
  if (version === drawn) return;
  drawn = version;
  if (finding === null) {
    setText(byId("detail-title"), "Evidence");
    body.replaceChildren(h("p", { class: "soft" }, "When a leak is found, this is where its stacks are."));
    return;
  }
  setText(byId("detail-title"), `Evidence: ${finding.evidence}${meaning(finding.evidence) ? `, ${meaning(finding.evidence)}` : ""}`);
  const focused = body.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  body.replaceChildren(...parts(finding, known));
  if (focused) body.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function parts(finding, known) {
  const process = state.processes.get(finding.process);
  const facts = [
    ["count", `${counted(finding.count, finding.kind)}${finding.limit === null ? "" : `, limit ${finding.limit}`}${finding.opened === null ? "" : `, peak ${finding.peak}`}`],
  ];
  if (finding.opened !== null) facts.push(["opened", clock(finding.opened)], ["oldest", `since ${clock(finding.oldest)} or earlier`]);
  if (finding.ended) facts.push(["ended", `${clock(finding.ended.at)}, after ${duration(finding.ended.duration)}: ${finding.ended.message}`]);
  if (finding.reports > 1) facts.push(["last reminder", clock(finding.last)]);
  if (finding.refersTo) facts.push(["same leak as", `the finding of ${finding.refersTo} before`]);
  if (finding.pool) facts.push(["pool", finding.pool]);
  if (finding.operation) facts.push(["request", finding.operation]);
  if (process) facts.push([(state.about?.processes?.[0] ?? "process").toLowerCase(), processName(process)]);
  const all = [h("p", { class: "message" }, finding.message), list(facts)];
  if (!known) return [...all, h("p", { class: "soft" }, "Fetching the stacks")];
  if (known.error) return [...all, h("p", { class: "soft" }, known.error)];
  const { detail } = known;
  all.push(h("div", { class: "buttons" }, copyButton("Copy report as Markdown", () => detail.markdown, { "data-key": "markdown" })));
  const wanted = state.filter.toLowerCase();
  const found = detail.sites.filter((site) => wanted === "" || matching(site, wanted));
  const shown = found.length ? found : detail.sites;
  const graph = icicle(shown.filter((site) => site.stack.length), wanted);
  if (graph) all.push(h("h3", {}, finding.kind.endsWith("task") ? "Who awaits whom, outermost on top" : "Stacks, outermost on top"), graph);
  const hidden = detail.sites.length - shown.length;
  all.push(h("h3", {}, `${shown.length} of ${detail.siteCount} ${detail.siteCount === 1 ? "place" : "places"} in the code${hidden ? `, ${hidden} filtered out` : ""}`));
  shown.forEach((site, at) => all.push(siteOf(finding, site, at, wanted)));
  if (detail.traces.length) all.push(...traces(detail.traces));
  return all;
}

const matching = (site, wanted) =>
  [site.function, site.fingerprint, site.operation, site.thread, ...site.stack.flat().map(String), ...(site.origin ?? []).map(String)].some((text) => text.toLowerCase().includes(wanted));

function list(facts) {
  return h("dl", { class: "facts" }, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

function siteOf(finding, site, at, wanted) {
  const key = `${finding.id} ${site.fingerprint} ${at}`;
  const isTask = finding.kind.endsWith("task");
  const facts = [];
  if (site.origin) facts.push(["created by", place(site.origin)]);
  if (site.library) facts.push(["through", site.library]);
  if (site.application) facts.push(["waits in your code at", place(site.application)]);
  if (site.operation) facts.push(["request", site.operation]);
  if (site.awaited !== null) facts.push(["awaited by", site.awaited ? "other code, which waits as well" : "nothing"]);
  if (site.thread) facts.push(["thread", site.thread]);
  facts.push(...site.facts);
  if (finding.kind !== "destroyed_task" && site.age > 0) facts.push(["oldest", `at least ${duration(site.age)}`]);
  facts.push(["fingerprint", h("span", {}, h("code", {}, site.fingerprint), ", the same on every host")]);
  const text = site.stack.map(([name, file, line], depth) => `${"  ".repeat(depth)}${name}  ${file}:${line}`).join("\n");
  const element = h("details", { class: "site" },
    h("summary", { "data-key": `summary ${at}` }, h("strong", {}, String(site.count)), " in ", h("span", { class: "mono" }, site.function)),
    site.hint && h("p", { class: "hint" }, h("strong", {}, "Hint: "), site.hint),
    list(facts),
    site.stack.length > 0 && h("p", { class: "soft" }, isTask ? "Await chain, outermost first" : "Stack, outermost first"),
    site.stack.length > 0 && h("ol", { class: "stack mono", tabindex: "0", "aria-label": `Stack of ${short(site.function)}` },
      site.stack.map(([name, file, line], depth) => level(name, file, line, depth, wanted))),
    h("div", { class: "buttons" },
      site.stack.length > 0 && copyButton("Copy stack", () => text, { "data-key": `stack ${at}` }),
      site.ignore && copyButton("Copy ignore line", () => site.ignore, { "data-key": `ignore ${at}` }),
      copyButton("Copy failing test", () => site.test, { "data-key": `test ${at}` })));
  element.open = opened.has(key) || (at === 0 && !opened.has(`not ${key}`));
  element.addEventListener("toggle", () => {
    opened.delete(element.open ? `not ${key}` : key);
    opened.add(element.open ? key : `not ${key}`);
  });
  return element;
}

function level(name, file, line, depth, wanted) {
  const isFound = wanted !== "" && `${name} ${file}`.toLowerCase().includes(wanted);
  return h("li", { class: isFound ? "found" : undefined }, `${"  ".repeat(Math.min(depth, 24))}${name}  `, h("span", { class: "at" }, `${file}:${line}`));
}

function traces(sent) {
  const arrived = sent.filter((each) => each.spans.length);
  const missing = sent.length - arrived.length;
  const parts = [h("h3", {}, `Traces of the requests that created them (${sent.length})`)];
  for (const each of arrived.slice(0, 5)) parts.push(trace(each));
  const ids = [...arrived.slice(5), ...sent.filter((each) => !each.spans.length)].map((each) => each.id);
  if (ids.length) {
    parts.push(h("details", { class: "trace" },
      h("summary", {}, missing ? `${ids.length} more ids, ${missing} of spans that did not arrive here` : `${ids.length} more ids`),
      h("ul", {}, ids.map((id) => h("li", { class: "mono" }, id)))));
  }
  return parts;
}

function trace({ id, span, spans }) {
  const depths = new Map();
  return h("div", { class: "trace" },
    h("p", {}, "trace ", h("code", {}, id), " ", copyButton("Copy id", () => id, { "data-key": `trace ${id}`, "aria-label": `Copy trace id ${id}` })),
    h("ul", {}, spans.map((each) => {
      const depth = (depths.get(each.parent) ?? -1) + 1;
      depths.set(each.id, depth);
      const item = h("li", { class: each.error ? "error" : undefined }, `${each.name}, ${duration(each.duration)}, at ${clock(each.start)}${each.error ? ", failed" : ""}${each.id === span ? ", created in it" : ""}`);
      item.style.paddingLeft = `${Math.min(depth, 10) * 1.2}em`;
      return item;
    })));
}
