// Shown while nothing has arrived: what the page waits for, and what to configure.

import { byId, copyButton, h } from "./dom.js";
import { state } from "./state.js";

export function drawWaiting() {
  const section = byId("waiting");
  section.hidden = state.about === null || state.epoch === null || state.processes.size > 0;
  byId("columns").hidden = state.processes.size === 0;
  if (section.hidden || section.childElementCount > 0) return;
  const { http, grpc, program } = state.about;
  const set = (endpoint, protocol) =>
    [
      `export OTEL_EXPORTER_OTLP_ENDPOINT=${endpoint}`,
      `export OTEL_EXPORTER_OTLP_PROTOCOL=${protocol}`,
      "export OTEL_METRIC_EXPORT_INTERVAL=1000",
    ].join("\n");
  section.append(
    h("h2", { id: "waiting-title" }, program ? "Waiting for the program's first export" : "Waiting for telemetry"),
    h("p", {}, program
      ? `${program} was started, and sends its counts every second once it runs.`
      : "No process has sent anything yet. Set these variables for a service that has otel-leaks, and start it:"),
  );
  if (program) return;
  const blocks = [["Variables", set(http, "http/protobuf")]];
  if (grpc) blocks.push(["The same for gRPC", set(grpc, "grpc")]);
  blocks.push(["A program without any set-up", "otel-leaks run app.py"]);
  for (const [label, text] of blocks) {
    section.append(h("h3", {}, label), h("pre", { tabindex: "0" }, text), h("div", {}, copyButton(`Copy: ${label.toLowerCase()}`, () => text)));
  }
}
