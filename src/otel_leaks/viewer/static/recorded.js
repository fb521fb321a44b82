// In the place of stream.js where the page is a file: what it shows stands in the file.

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

// A file has no buttons that do anything elsewhere.
export async function act() {
  return "";
}
