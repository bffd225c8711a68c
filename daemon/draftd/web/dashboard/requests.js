// The requests that are open and the last ones that have ended: figures, no texts.

import { $, make, put, spoken } from "./dom.js";
import * as show from "./format.js";
import { cancel } from "./stream.js";

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

let short = (name) => name;

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
  const cells = Object.fromEntries(COLUMNS.map(([name]) => [name, make("td", { class: name === "answer" ? "answer seldom" : name })]));
  const status = make("td", { class: "status" });
  const badge = make("span", { class: "badge" });
  const button = make("button", { class: "small", textContent: "Cancel", hidden: true });
  button.setAttribute("aria-label", `Cancel the request to ${record.profile ?? "draftd"} of ${show.clock(record.began)}`);
  button.addEventListener("click", () => end(record.id, button));
  status.append(badge, " ", button);
  const opening = make("button", { class: "opening", textContent: show.clock(record.began) });
  opening.setAttribute("aria-expanded", "false");
  opening.setAttribute("aria-label", `Details of the request of ${show.clock(record.began)}`);
  cells.time.append(opening);
  const { time, ...others } = cells;
  const row = make("tr", {}, time, status, ...Object.values(others));
  const text = make("td", { colSpan: COLUMNS.length + 1 });
  const details = make("tr", { class: "details", hidden: true }, text);
  opening.addEventListener("click", () => {
    details.hidden = !details.hidden;
    opening.setAttribute("aria-expanded", `${!details.hidden}`);
  });
  $("request-rows").prepend(row, details);
  return { record, row, details, cells, badge, button, text };
}

function showRow(made, record) {
  made.record = record;
  for (const [name, text] of COLUMNS.slice(1)) put(made.cells[name], text(record));
  made.cells.accepted.dataset.tone = show.ratioTone(record.acceptance);
  put(made.badge, record.phase === "ended" ? `${record.status}` : record.phase, show.requestTone(record));
  made.button.hidden = record.phase === "ended" || record.cancelled;
  put(made.text, show.requestDetails(record));
}

async function end(id, button) {
  button.disabled = true;
  try {
    await cancel(id);
    spoken("The request was cancelled");
  } catch (error) {
    button.disabled = false;
    put($("connection"), error.message || "refused", "bad");
  }
}
