// Formats numbers, times and kinds.

import { state } from "./state.js";

const NOUNS = {
  asyncio_task: ["asyncio task", "asyncio tasks"],
  thread: ["thread", "threads"],
  destroyed_task: ["destroyed task", "destroyed tasks"],
  work_item: ["job", "jobs"],
  thread_pool: ["thread pool", "thread pools"],
  event_loop: ["event loop", "event loops"],
  async_generator: ["async generator", "async generators"],
  child_process: ["child process", "child processes"],
};
const EVIDENCE = {
  threshold: "too many",
  growth: "it only ever grows",
  outlived: "it outlived its request",
  destroyed: "nobody could ever wake it",
  uncancelled: "asked to end, and does not",
  retained: "finished, and still held",
  saturated: "nothing is done any more",
  stalled: "blocks everybody",
  alive: "which need be no leak",
};

export const counted = (number, kind) => {
  const [one, many] = NOUNS[kind] ?? [kind, kind];
  return `${number} ${number === 1 ? one : many}`;
};
export const plural = (kind) => (NOUNS[kind] ?? [kind, kind])[1];
export const meaning = (evidence) => EVIDENCE[evidence] ?? "";

export function duration(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return "0 s";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export function clock(seconds) {
  const at = new Date(seconds * 1000);
  if (Number.isNaN(at.getTime())) return "at an unknown time";
  const time = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  return at.toDateString() === new Date().toDateString() ? time : `${at.toLocaleDateString()} ${time}`;
}

export const place = (where) => (where === null ? "" : `${where[0]}, ${where[1]}:${where[2]}`);
// The same without folders, for narrow places.
export const nearby = (where) => (where === null ? "" : `${short(where[0])}, ${where[1].split(/[\\/]/).at(-1)}:${where[2]}`);
export const short = (name) => name.split(".").at(-1) || name;
export const now = () => state.at ?? Date.now() / 1000;

export function processName(process) {
  const who = process.pid ? `pid ${process.pid}` : process.instance.slice(0, 8);
  return who ? `${process.service} (${who})` : process.service;
}
