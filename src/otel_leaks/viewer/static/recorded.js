// Replaces stream.js if the page is a file, which then includes the data.

import { apply, state } from "./state.js";
import { byId, setText } from "./dom.js";

let recorded = { details: {} };

export function follow() {
  recorded = JSON.parse(byId("recorded").textContent);
  state.about = recorded.about;
  state.at = recorded.at;
  apply(recorded.changes);
  setText(byId("connection"), "Saved in this file");
}

export async function details(id) {
  return recorded.details[id];
}

// A file has no server, so it has no actions.
export async function act() {
  return "";
}
