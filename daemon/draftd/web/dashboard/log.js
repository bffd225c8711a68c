// The log of one worker. Lines for machines are shown only if they are asked for.

import { $, make } from "./dom.js";
import { clock } from "./format.js";

const KEPT_LINES = 500; // of each worker's log
const logs = new Map(); // worker's name -> its lines; profiles may share a worker
let shown = "";
let workerOf = (name) => name;

const fits = (line) => $("log-raw").checked || !line.chatter;

export function showLog(name) {
  shown = name;
  $("log-of").value = name;
  $("lines").replaceChildren(...(logs.get(workerOf(name)) ?? []).filter(fits).map(lineElement));
  scroll();
}

function lineElement({ time, text, chatter }) {
  const line = make("p", {}, make("time", {}, clock(time)), text);
  if (text.includes("Draft tokens accepted:")) line.className = "acceptance";
  if (chatter) line.className = "for-machines";
  return line;
}

export function addLines(name, lines) {
  const kept = logs.get(name) ?? [];
  logs.set(name, [...kept, ...lines].slice(-KEPT_LINES));
  if (name !== workerOf(shown)) return;
  const list = $("lines");
  list.append(...lines.filter(fits).map(lineElement));
  while (list.childElementCount > KEPT_LINES) list.firstElementChild.remove();
  scroll();
}

// Replace all lines, as after a lost connection.
export function replaceLogs(bodies) {
  logs.clear();
  for (const [name, lines] of Object.entries(bodies)) logs.set(name, lines);
}

function scroll() {
  if ($("log-follow").checked) $("lines").scrollTop = $("lines").scrollHeight;
}

export function showLogNames(status) {
  workerOf = (name) => status.workers.find((row) => row.name === name)?.worker ?? name;
  const workers = new Set(status.workers.map((row) => row.worker));
  for (const name of logs.keys()) if (!workers.has(name)) logs.delete(name);
  const names = status.workers.map((row) => row.name);
  $("log").hidden = !names.length; // a daemon of peers alone has no workers
  const select = $("log-of");
  if (names.join("\n") === [...select.options].map((option) => option.value).join("\n")) return;
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  const first = names.find((name) => name === status.default_model) ?? names[0] ?? "";
  showLog(names.includes(shown) ? shown : first);
}

export const redraw = () => showLog(shown);

$("log-of").addEventListener("change", (event) => showLog(event.target.value));
$("log-follow").addEventListener("change", scroll);
$("log-raw").addEventListener("change", redraw);
