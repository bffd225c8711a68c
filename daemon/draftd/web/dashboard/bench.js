// The bench: started and watched here, run by the daemon in a process of its own.

import { $, make, put, spoken } from "./dom.js";
import * as show from "./format.js";
import { bench, startBench, stopBench } from "./stream.js";

let running = false;
let shown = null; // when the bench whose result is shown began
let demo = null; // whether the daemon measures its own models; not known at first

export async function showBench(status) {
  showNames(status);
  const told = status.bench;
  running = told?.running ?? false;
  put($("bench-start"), running ? "Stop" : "Start");
  $("bench-progress").hidden = !running;
  if (running) {
    $("bench-progress").max = told.total || 1;
    $("bench-progress").value = told.total ? told.done : 0;
  }
  put($("bench-note"), show.benchNote(told), told?.error ? "bad" : "");
  if (demo === null || (told && !running && shown !== told.began)) await showResult(told);
}

async function showResult(told) {
  if (told) shown = told.began;
  try {
    const known = await bench();
    demo = known.demo;
    $("bench-of").hidden = demo;
    if (known.bench?.report) place(known.bench.report);
    else $("bench-result").hidden = true;
  } catch {
    shown = null; // the page says elsewhere that the connection is lost
  }
}

function showNames(status) {
  const names = status.workers.filter((row) => row.draft_model).map((row) => row.name);
  const select = $("bench-profile");
  if (names.join("\n") !== [...select.options].map((option) => option.value).join("\n")) {
    const had = select.value;
    select.replaceChildren(...names.map((name) => new Option(name, name)));
    select.value = names.includes(had) ? had : (names.find((name) => name === status.default_model) ?? names[0] ?? "");
  }
  $("bench").hidden = !names.length;
}

function place(report) {
  $("bench-verdict").replaceChildren(...report.verdict.map((sentence) => make("p", {}, sentence)));
  put($("bench-how"), show.benchHow(report));
  let before = "";
  const rows = report.cells.map((cell) => {
    const place = `${cell.kind}, ${cell.temperature}`;
    const first = place !== before;
    before = place;
    return row(cell, first);
  });
  $("bench-rows").replaceChildren(...rows);
  $("bench-result").hidden = false;
}

function row(cell, first) {
  const up = make("td", { class: "figure-column" }, cell.speed_up ? `${cell.speed_up.median.toFixed(2)} ×` : "–");
  if (cell.speed_up) up.dataset.tone = cell.speed_up.median > 1 ? "good" : "low";
  return make(
    "tr",
    { class: first ? "first" : "" },
    make("td", {}, first ? `${cell.kind}, ${cell.temperature}` : ""),
    make("td", {}, cell.variant),
    make("td", { class: "figure-column" }, show.speed(cell.speed.median)),
    make("td", { class: "figure-column seldom" }, `${show.speed(cell.speed.low)}–${show.speed(cell.speed.high)}`),
    up,
    make("td", { class: "figure-column" }, show.percent(cell.acceptance)),
    make("td", { class: "figure-column seldom" }, show.milliseconds(cell.first_token.median)),
  );
}

const WARNING = "A bench loads the models twice more, with a draft and without, and takes minutes. "
  + "Requests are slower meanwhile. Start it?";

$("bench-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!running && !confirm(WARNING)) return;
  $("bench-start").disabled = true;
  try {
    if (running) await stopBench();
    else await startBench({ ...(demo ? {} : { profile: $("bench-profile").value }), quick: $("bench-quick").checked });
    spoken(running ? "The bench was stopped" : "The bench was started");
  } catch (error) {
    put($("bench-note"), error.message || "refused", "bad");
  }
  $("bench-start").disabled = false;
});
