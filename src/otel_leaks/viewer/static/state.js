// All data of the page, and the listeners for changes.

export const state = {
  epoch: null,
  about: null,
  processes: new Map(),
  findings: new Map(),
  chosenProcess: null,
  chosenFinding: null,
  filter: "",
  // In a saved file, the time at which it stands still, seconds since the epoch.
  at: null,
};

const listeners = [];
let asked = false;

export const onChange = (listener) => listeners.push(listener);

// Draws at most once a frame, however much arrives, and not at all in a hidden tab.
export function changed() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    for (const listener of listeners) listener();
  });
}

export function apply(changes) {
  if (state.epoch !== changes.epoch) {
    // Another run of the server, which has no data of the previous one.
    state.epoch = changes.epoch;
    state.processes.clear();
    state.findings.clear();
    state.chosenProcess = state.chosenFinding = null;
  }
  for (const sent of changes.processes) {
    const known = state.processes.get(sent.id) ?? { readings: [], names: [] };
    state.processes.set(sent.id, {
      ...known,
      ...sent,
      names: sent.names ?? known.names,
      readings: sent.all ? sent.readings : known.readings.concat(sent.readings),
    });
  }
  for (const sent of changes.findings) state.findings.set(sent.id, sent);
  for (const id of changes.goneProcesses) state.processes.delete(id);
  for (const id of changes.goneFindings) state.findings.delete(id);
  changed();
}

// Open ones first, the newest first within each group; those without a known time keep their order.
export function findings() {
  return [...state.findings.values()].sort(
    (one, other) => (one.ended !== null) - (other.ended !== null) || other.opened - one.opened || (one.opened === null ? one.id - other.id : other.id - one.id),
  );
}

// An object that is alive in a process need not be a leak.
export function openFindings() {
  return findings().filter((each) => each.ended === null && each.evidence !== "alive");
}

// The process whose charts are shown: the chosen one, else one that leaks, else the first.
export function shownProcess() {
  const leaking = openFindings()[0]?.process;
  for (const id of [state.chosenProcess, leaking]) {
    if (state.processes.has(id)) return state.processes.get(id);
  }
  return state.processes.values().next().value ?? null;
}

export function shownFinding() {
  return state.findings.get(state.chosenFinding) ?? findings()[0] ?? null;
}

export function matches(finding) {
  const wanted = state.filter.toLowerCase();
  const process = state.processes.get(finding.process);
  return [finding.message, finding.function, finding.fingerprint, finding.evidence, finding.kind, finding.operation, (finding.origin ?? []).join(" "), process?.service ?? ""]
    .some((text) => text.toLowerCase().includes(wanted));
}
