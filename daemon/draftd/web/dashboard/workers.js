// The workers: a card for each of a few, a row of a table for each of many.

import { drawPositions, drawRatios, drawSpeeds } from "./charts.js";
import { $, complain, put, spoken } from "./dom.js";
import * as show from "./format.js";
import { showLog } from "./log.js";
import { order } from "./stream.js";

const MAX_CARDS = 4; // more profiles are shown in a table
const cards = new Map(); // profile's name -> its card
const rows = new Map(); // worker's name -> its row of the table
let status = { workers: [] };

async function give(name, word) {
  const row = status.workers.find((one) => one.name === name);
  const open = row.active + row.queue;
  const whose = [name, ...row.shares_with].join(", ");
  const warning = `${show.plural(open, "request")} to ${whose} would end with an error. ${word} it all the same?`;
  if (word !== "start" && row.active && !confirm(warning)) return;
  try {
    await order(name, word);
    spoken(`${word} ${name}: ordered`);
  } catch (error) {
    complain(`${word} ${name}: ${error.message || "refused"}`);
  }
}

function wire(element, name) {
  const orders = [...element.querySelectorAll("[data-order]")];
  for (const button of orders) {
    button.setAttribute("aria-label", `${button.textContent} ${name}`);
    button.addEventListener("click", () => give(name, button.dataset.order));
  }
  const log = element.querySelector("[data-show=log]");
  log.setAttribute("aria-label", `Show the log of ${name}`);
  log.addEventListener("click", () => {
    showLog(name);
    $("lines").focus();
  });
  return orders;
}

function fieldsOf(element) {
  return Object.fromEntries([...element.querySelectorAll("[data-field]")].map((e) => [e.dataset.field, e]));
}

function makeCard(name) {
  const card = $("worker").content.firstElementChild.cloneNode(true);
  const charts = Object.fromEntries([...card.querySelectorAll("[data-chart]")].map((e) => [e.dataset.chart, e]));
  card.dataset.worker = name;
  card.setAttribute("aria-label", `Worker ${name}`);
  const [figures, drafts] = ["figures", "drafts"].map((part) => card.querySelector(`[data-part=${part}]`));
  return { element: card, fields: fieldsOf(card), charts, orders: wire(card, name), figures, drafts, state: null };
}

function makeRow(name) {
  const element = $("worker-row").content.firstElementChild.cloneNode(true);
  element.dataset.worker = name;
  element.setAttribute("aria-label", `Worker ${name}`);
  const trouble = element.querySelector("[data-part=trouble]");
  return { element, fields: fieldsOf(element), orders: wire(element, name), trouble, state: null };
}

export function showWorkers(body) {
  status = body;
  const compact = status.workers.length > MAX_CARDS;
  $("workers").hidden = compact;
  $("worker-table").hidden = !compact;
  if (compact) showTable();
  else showCards();
}

function showCards() {
  place(rows, []);
  place(cards, status.workers.map((row) => row.name), $("workers"), makeCard);
  for (const row of status.workers) showCard(cards.get(row.name), row);
}

function showTable() {
  place(cards, []);
  const workers = show.byUrgency(status.workers);
  place(rows, workers.map(([row]) => row.worker), $("worker-rows"), makeRow);
  for (const presets of workers) showRow(rows.get(presets[0].worker), presets);
}

// Have just these elements in this order; the one with the keyboard's focus keeps it.
function place(known, names, parent, making) {
  for (const [name, { element }] of known) {
    if (names.includes(name)) continue;
    element.remove();
    known.delete(name);
  }
  for (const name of names) if (!known.has(name)) known.set(name, making(name));
  const wanted = names.map((name) => known.get(name).element);
  const placed = [...(parent?.children ?? [])].filter((child) => child.tagName !== "THEAD");
  if (wanted.every((element, index) => placed[index] === element)) return;
  const had = document.activeElement;
  parent.append(...wanted);
  if (parent.contains(had)) had.focus();
}

function told(made, row) {
  if (made.state !== null && made.state !== row.state) spoken(`${row.name} is ${row.state}`);
  made.state = row.state;
}

function showTrouble(field, row) {
  const bad = row.state === "failed" || row.state === "backoff";
  const notes = row.notes.length || (row.draft_refusal && row.drafters.length);
  put(field, show.trouble(row), bad ? "bad" : notes ? "low" : "off");
  field.hidden = !field.textContent;
}

function showCard(made, row) {
  const { fields, charts, orders } = made;
  const ratio = row.acceptance.ratio;
  put(fields.name, row.name);
  put(fields.state, row.state, show.TONES[row.state]);
  put(fields.acceptance, show.percent(ratio), show.ratioTone(ratio));
  put(fields["acceptance-note"], show.acceptanceNote(row));
  put(fields.speed, show.speed(row.tokens_per_second), row.tokens_per_second === null ? "off" : "");
  put(fields["speed-note"], show.speedNote(row));
  const { atWork, waiting } = show.toDo(row);
  put(fields.requests, show.count(row.requests));
  put(fields.active, `${atWork}`);
  put(fields.queue, `${waiting}`, waiting ? "low" : "");
  put(fields.memory, show.memoryOf(row));
  put(fields.cached, show.cached(row.prompt_cache));
  fields.cached.title = show.storedOf(row.prompt_cache);
  put(fields.port, `${row.port ?? "–"}`);
  put(fields.length, show.draftLength(row));
  put(fields.restarts, `${row.restarts}`);
  put(fields.models, show.served(row));
  fields.models.title = [row.model, row.draft_model].filter(Boolean).join("\n");
  showTrouble(fields.trouble, row);
  made.figures.hidden = row.state !== "ready" && !row.requests; // there is nothing in it, and something to read below
  drawRatios(charts.acceptance, row.recent.acceptance, show.PAYS);
  drawSpeeds(charts.speed, row.recent.tokens_per_second);
  showDrafts(made, row.speculation);
  showOrders(orders, row.state);
  told(made, row);
}

// One worker and its presets, a line for each.
function showRow(made, presets) {
  const { element, fields, orders } = made;
  const [row] = presets;
  const lines = (text) => presets.map(text).join("\n");
  put(fields.name, lines((one) => one.name));
  put(fields.models, show.models(row));
  fields.models.title = [row.model, row.draft_model, show.ranks(row)].filter(Boolean).join("\n");
  put(fields.state, row.state, show.TONES[row.state]);
  showTrouble(fields.trouble, row);
  const isCalm = fields.trouble.dataset.tone === "off"; // then it is short, and fits beside the state
  put(fields.reason, isCalm ? fields.trouble.textContent : "");
  made.trouble.hidden = fields.trouble.hidden || isCalm;
  put(fields.now, show.now(row), show.toDo(row).waiting ? "low" : "");
  put(fields.requests, lines((one) => `${one.requests}`));
  put(fields.speed, lines((one) => show.speed(one.tokens_per_second)));
  put(fields.acceptance, lines((one) => show.percent(one.acceptance.ratio)), show.ratioTone(row.acceptance.ratio));
  put(fields.memory, show.memoryOf(presets.find((one) => one.name === one.worker) ?? row));
  put(fields.cached, lines((one) => show.cached(one.prompt_cache)));
  put(fields.port, `${row.port ?? "–"}`);
  put(fields.restarts, `${row.restarts}`);
  for (const field of element.querySelectorAll("[data-label]")) field.toggleAttribute("data-none", !/[^–0\s]/.test(field.textContent));
  showOrders(orders, row.state);
  told(made, row);
}

function showDrafts({ fields, charts, drafts }, known) {
  drafts.hidden = !known.proposed_by_position.length;
  if (drafts.hidden) return;
  drawPositions(charts.positions, known.proposed_by_position, known.accepted_by_position, show.PAYS);
  put(fields["drafts-note"], show.draftsNote(known));
  put(fields.drafters, show.drafterShares(known.by_drafter));
}

function showOrders(orders, state) {
  const still = state === "stopped" || state === "asleep";
  const offered = { restart: !still, stop: !still && state !== "failed", start: still };
  const had = orders.find((button) => button === document.activeElement);
  for (const button of orders) button.hidden = !offered[button.dataset.order];
  // The keyboard's focus stays where it was, on a button in the place of the one that is gone.
  if (had?.hidden) orders.find((button) => !button.hidden).focus();
}

export function showTimes() {
  for (const row of status.workers) {
    const made = cards.get(row.name) ?? rows.get(row.name);
    if (made) put(made.fields.for, `for ${show.ago(row.since)}${show.dueIn(row)}`);
  }
}
