import { announce, byId, h, setText } from "./dom.js";
import { changed, onChange, state } from "./state.js";
import { act, follow } from "./stream.js";
import { drawCharts } from "./charts.js";
import { drawDetail, fetchDetails } from "./detail.js";
import { drawFindings, showMore } from "./findings.js";
import { drawNow, drawProcesses } from "./processes.js";
import { drawWaiting } from "./waiting.js";

function choose(id) {
  state.chosenFinding = id;
  state.chosenProcess = state.findings.get(id)?.process ?? state.chosenProcess;
  changed();
  byId("detail").focus({ preventScroll: true });
  byId("detail").scrollIntoView({ block: "nearest" });
}

let actions = "";
function drawHead() {
  if (state.about === null) return;
  setText(byId("title"), state.about.title);
  setText(byId("program"), state.about.program);
  const { notes, now } = state.about;
  if (now) setText(byId("now-title"), now);
  if (notes?.length && byId("notes").hidden) {
    byId("notes").hidden = false;
    byId("notes").replaceChildren(...notes.map((each) => h("li", {}, each)));
  }
  const wanted = JSON.stringify(state.about.actions);
  if (wanted === actions) return;
  actions = wanted;
  byId("actions").replaceChildren(...state.about.actions.map(([name, label]) => {
    const button = h("button", { type: "button" }, label);
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        const said = await act(name);
        announce(said);
        setText(byId("program"), said);
      } catch {
        announce("The server did not answer.");
      } finally {
        button.disabled = false;
      }
    });
    return button;
  }));
}

onChange(() => {
  drawHead();
  drawWaiting();
  drawNow(choose);
  drawProcesses();
  drawFindings(choose);
  drawCharts();
  fetchDetails(changed);
  drawDetail();
  const open = [...state.findings.values()].filter((each) => each.ended === null).length;
  document.title = open ? `(${open}) ${state.about?.title ?? "otel-leaks"}` : state.about?.title ?? "otel-leaks";
});

byId("filter").addEventListener("input", (event) => {
  state.filter = event.target.value;
  changed();
});
byId("more").addEventListener("click", () => { showMore(); changed(); });
// Times such as "for 20 s" advance even while nothing arrives.
setInterval(changed, 1000);
follow();
