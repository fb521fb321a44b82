// The stream of changes: it reconnects by itself, even after the server was restarted.

import { apply, changed, state } from "./state.js";
import { byId, setText } from "./dom.js";

const AGAIN_MS = 1000;
// Read only once: links within the page change the part of the address that has the token.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) sessionStorage.setItem("token", given);

export function follow() {
  const source = new EventSource("api/changes");
  source.addEventListener("open", () => connected(true));
  source.addEventListener("about", (event) => {
    state.about = JSON.parse(event.data);
    changed();
  });
  source.addEventListener("changes", (event) => {
    connected(true);
    apply(JSON.parse(event.data));
  });
  source.addEventListener("error", () => {
    connected(false);
    // The browser gives up after a response that is not a stream.
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, AGAIN_MS);
  });
}

function connected(is) {
  const place = byId("connection");
  place.classList.toggle("lost", !is);
  setText(place, is ? "Live" : "Connection lost; what is shown stays. Reconnecting");
}

export async function details(id) {
  const answer = await fetch(`api/findings/${id}`);
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said;
}

export async function act(name) {
  const token = sessionStorage.getItem("token") ?? "";
  const answer = await fetch(`api/actions/${encodeURIComponent(name)}`, { method: "POST", headers: { "X-Token": token } });
  const said = await answer.json();
  return answer.ok ? said.said : said.error;
}
