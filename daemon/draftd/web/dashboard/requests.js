// The requests that are open and the last ones that have ended: figures, and their contents if they are captured.

import { $, complain, make, put, spoken } from "./dom.js";
import * as show from "./format.js";
import { cancel, capture, contents } from "./stream.js";

const KEPT = 100;
const known = new Map(); // id -> { record, row, details }

const COLUMNS = [
  ["time", (one) => show.clock(one.began)],
  ["model", (one) => (one.profile === null ? "–" : short(one.profile))],
  ["client", (one) => one.client || "–"],
  ["prompt", (one) => show.count(one.prompt_tokens)],
  ["cached", (one) => show.count(one.cached_tokens)],
  ["answer", (one) => show.count(one.tokens)],
  ["first", (one) => show.seconds(one.first_token)],
  ["speed", (one) => show.speed(one.tokens_per_second)],
  ["accepted", (one) => show.percent(one.acceptance)],
  ["duration", (one) => show.seconds(one.seconds)],
];

const SELDOM = ["answer", "speed"]; // are left out where there is little room

let short = (name) => name;
let captures = false;
let switching = false; // then a status from before the order must not turn the switch back

export function showCapture(status) {
  if (switching) return;
  captures = status.capture;
  $("capture").checked = captures;
  const on = "contents of new requests are kept in memory until this is switched off";
  put($("capture-note"), captures ? on : "the last 100: figures, no texts", captures ? "low" : "");
  for (const made of known.values()) showContents(made);
}

export function nameModels(status) {
  short = show.shortNames(status.workers.map((row) => row.name));
}

export function takeRequests(records, anew = false) {
  if (anew) {
    for (const { row, details } of known.values()) remove(row, details);
    known.clear();
  }
  for (const record of records) {
    if (!known.has(record.id)) known.set(record.id, makeRow(record));
    showRow(known.get(record.id), record);
  }
  for (const [id, { record, row, details }] of known) {
    if (known.size <= KEPT) break;
    if (record.phase !== "ended") continue;
    remove(row, details);
    known.delete(id);
  }
  $("no-requests").hidden = known.size > 0;
  $("request-table").hidden = !known.size;
}

const remove = (...elements) => elements.forEach((element) => element.remove());

function makeRow(record) {
  const cells = Object.fromEntries(COLUMNS.map(([name]) => [name, make("td", { class: SELDOM.includes(name) ? `${name} seldom` : name })]));
  const status = make("td", { class: "status" });
  const badge = make("span", { class: "badge" });
  const button = make("button", { class: "small", textContent: "Cancel", hidden: true, "data-needs-daemon": "" });
  button.setAttribute("aria-label", `Cancel the request to ${record.profile ?? "draftd"} of ${show.clock(record.began)}`);
  button.addEventListener("click", () => end(record.id, button));
  status.append(badge, " ", button);
  const opening = make("button", { class: "opening", textContent: show.clock(record.began) });
  opening.setAttribute("aria-expanded", "false");
  opening.setAttribute("aria-label", `Details of the request of ${show.clock(record.began)}`);
  cells.time.append(opening);
  const { time, ...others } = cells;
  const row = make("tr", {}, time, status, ...Object.values(others));
  const text = make("ul", { class: "facts" });
  const error = make("p");
  const place = make("div", { class: "contents", hidden: true });
  const cell = make("td", { colSpan: COLUMNS.length + 1 }, text, error, place);
  const details = make("tr", { class: "details", hidden: true }, cell);
  const made = { record, row, details, cells, badge, button, text, error, place, shown: "" };
  opening.addEventListener("click", () => {
    details.hidden = !details.hidden;
    opening.setAttribute("aria-expanded", `${!details.hidden}`);
    showContents(made);
  });
  $("request-rows").prepend(row, details);
  return made;
}

function showRow(made, record) {
  made.record = record;
  for (const [name, text] of COLUMNS.slice(1)) put(made.cells[name], text(record));
  made.cells.accepted.dataset.tone = show.ratioTone(record.acceptance);
  put(made.badge, record.phase === "ended" ? `${record.status}` : record.phase, show.requestTone(record));
  made.button.hidden = record.phase === "ended" || record.cancelled;
  made.text.replaceChildren(...show.requestDetails(record).map((fact) => make("li", {}, fact)));
  put(made.error, record.error);
  made.cells.model.title = record.profile ?? "";
  made.cells.client.title = record.client;
  showContents(made);
}

// Shows what was captured of a request whose details are open: once while it runs, and again at its end.
async function showContents(made) {
  const { record, details, place } = made;
  const has = record.captured && captures;
  if (!has) {
    place.replaceChildren();
    made.shown = "";
  }
  place.hidden = !has;
  if (!has || details.hidden || made.shown === record.phase) return;
  made.shown = record.phase;
  try {
    const { request, answer } = await contents(record.id);
    if (made.shown !== record.phase) return; // switched off meanwhile
    place.replaceChildren(...part("request", show.readable(request)), ...part("answer", answer ?? "none, or not yet"));
  } catch (error) {
    place.replaceChildren(make("p", {}, error.message));
  }
}

const part = (name, text) => [
  make("p", { class: "label" }, name),
  make("pre", { tabIndex: 0, "aria-label": `The ${name}` }, text),
];

$("capture").addEventListener("change", async (event) => {
  const on = event.target.checked;
  switching = true;
  try {
    await capture(on);
    captures = on;
    spoken(on ? "Contents are captured" : "Captured contents are gone");
  } catch (error) {
    event.target.checked = !on;
    complain(error.message || "refused");
  }
  switching = false;
  showCapture({ capture: captures });
});

async function end(id, button) {
  button.disabled = true;
  try {
    await cancel(id);
    spoken("The request was cancelled");
  } catch (error) {
    button.disabled = false;
    complain(error.message || "refused");
  }
}
