// The page: keeps what the stream tells, and puts it into the document. All text goes in as text.

import { drawPositions, drawRatios, drawSpeeds } from "./charts.js";
import * as show from "./format.js";
import { follow, hasKey, keepKey, order } from "./stream.js";

const KEPT_LINES = 500; // of each worker's log
const cards = new Map(); // worker's name -> its card
const logs = new Map(); // worker's name -> its lines; profiles may share a worker
let status = { workers: [] };
let shownLog = "";

const $ = (id) => document.getElementById(id);
const workerOf = (name) => status.workers.find((row) => row.name === name)?.worker ?? name;
const spoken = (text) => ($("spoken").textContent = text);

function put(element, text, tone) {
  if (element.textContent !== text) element.textContent = text;
  if (tone) element.dataset.tone = tone;
  else delete element.dataset.tone;
}

// --- workers ---------------------------------------------------------------------------------------------

function makeCard(name) {
  const card = $("worker").content.firstElementChild.cloneNode(true);
  const fields = Object.fromEntries([...card.querySelectorAll("[data-field]")].map((e) => [e.dataset.field, e]));
  const charts = Object.fromEntries([...card.querySelectorAll("[data-chart]")].map((e) => [e.dataset.chart, e]));
  const orders = [...card.querySelectorAll("[data-order]")];
  card.dataset.worker = name;
  card.setAttribute("aria-label", `Worker ${name}`);
  for (const button of orders) {
    button.setAttribute("aria-label", `${button.textContent} ${name}`);
    button.addEventListener("click", () => give(name, button.dataset.order));
  }
  const log = card.querySelector("[data-show=log]");
  log.setAttribute("aria-label", `Show the log of ${name}`);
  log.addEventListener("click", () => {
    showLog(name);
    $("lines").focus();
  });
  return { card, fields, charts, orders, drafts: card.querySelector("[data-part=drafts]"), state: null };
}

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
    put($("connection"), `${word} ${name}: ${error.message || "refused"}`, "bad");
  }
}

function showWorkers() {
  const names = status.workers.map((row) => row.name);
  for (const [name, { card }] of cards) {
    if (names.includes(name)) continue;
    card.remove();
    cards.delete(name);
  }
  const workers = new Set(status.workers.map((row) => row.worker));
  for (const name of logs.keys()) if (!workers.has(name)) logs.delete(name);
  for (const row of status.workers) {
    if (!cards.has(row.name)) {
      cards.set(row.name, makeCard(row.name));
      const next = names.slice(names.indexOf(row.name) + 1).find((name) => cards.has(name));
      $("workers").insertBefore(cards.get(row.name).card, next ? cards.get(next).card : null);
    }
    showWorker(cards.get(row.name), row);
  }
}

function showWorker(made, row) {
  const { fields, charts, orders } = made;
  const ratio = row.acceptance.ratio;
  const tone = ratio === null ? "off" : ratio >= show.PAYS ? "good" : "low";
  put(fields.name, row.name);
  put(fields.state, row.state, show.TONES[row.state]);
  put(fields.acceptance, show.percent(ratio), tone);
  put(fields["acceptance-note"], show.acceptanceNote(row));
  put(fields.speed, show.speed(row.tokens_per_second), row.tokens_per_second === null ? "off" : "");
  put(fields["speed-note"], show.speedNote(row));
  put(fields.requests, row.active ? `${row.requests} + ${row.active} now` : `${row.requests}`);
  put(fields.queue, `${row.queue}`, row.queue ? "low" : "");
  put(fields.memory, show.memoryOf(row));
  put(fields.port, `${row.port ?? "–"}`);
  put(fields.length, show.draftLength(row));
  put(fields.restarts, `${row.restarts}`);
  put(fields.models, show.served(row));
  fields.models.title = [row.model, row.draft_model].filter(Boolean).join("\n");
  put(fields.trouble, show.trouble(row), row.state === "failed" || row.state === "backoff" ? "bad" : "low");
  fields.trouble.hidden = !fields.trouble.textContent;
  drawRatios(charts.acceptance, row.recent.acceptance, show.PAYS);
  drawSpeeds(charts.speed, row.recent.tokens_per_second);
  showDrafts(made, row.speculation);
  showOrders(orders, row.state);
  if (made.state !== null && made.state !== row.state) spoken(`${row.name} is ${row.state}`);
  made.state = row.state;
}

function showDrafts({ fields, charts, drafts }, known) {
  drafts.hidden = !known.proposed_by_position.length;
  if (drafts.hidden) return;
  drawPositions(charts.positions, known.proposed_by_position, known.accepted_by_position, show.PAYS);
  put(fields["drafts-note"], show.draftsNote(known));
  put(fields.drafters, show.drafterShares(known.by_drafter));
}

function showOrders(orders, state) {
  const running = !["stopped", "failed"].includes(state);
  const offered = { restart: state !== "stopped", stop: running, start: !running };
  const had = orders.find((button) => button === document.activeElement);
  for (const button of orders) button.hidden = !offered[button.dataset.order];
  // The keyboard keeps its place: on a button that takes the place of the one that is gone.
  if (had?.hidden) orders.find((button) => !button.hidden).focus();
}

function showTimes() {
  for (const row of status.workers) {
    const field = cards.get(row.name)?.fields.for;
    if (field) put(field, `for ${show.ago(row.since)}`);
  }
  if (status.started) put($("about"), `${status.version}, up ${show.ago(status.started)}`);
}

function showVerdict() {
  const { tone, headline, aside } = show.verdict(status.workers);
  put($("headline"), headline, tone);
  put($("aside"), aside);
  const ready = status.workers.filter((row) => row.state === "ready");
  const quiet = status.workers.every((row) => row.requests + row.active === 0);
  $("hint").hidden = !quiet || !ready.length;
  const model = ready.find((row) => row.name === status.default_model) ?? ready[0];
  if (model) put($("curl"), show.curl(location.origin, model.name, hasKey()));
}

// --- log -------------------------------------------------------------------------------------------------

function showLog(name) {
  shownLog = name;
  $("log-of").value = name;
  $("lines").replaceChildren(...(logs.get(workerOf(name)) ?? []).map(lineElement));
  scrollLog();
}

function lineElement({ time, text }) {
  const line = document.createElement("p");
  const at = document.createElement("time");
  at.textContent = show.clock(time);
  line.append(at, text);
  if (text.includes("Draft tokens accepted:")) line.className = "acceptance";
  if (text.startsWith("draftd-engine ")) line.className = "for-machines";
  return line;
}

function addLines(name, lines) {
  const kept = logs.get(name) ?? [];
  logs.set(name, [...kept, ...lines].slice(-KEPT_LINES));
  if (name !== workerOf(shownLog)) return;
  const list = $("lines");
  list.append(...lines.map(lineElement));
  while (list.childElementCount > KEPT_LINES) list.firstElementChild.remove();
  scrollLog();
}

function scrollLog() {
  if ($("log-follow").checked) $("lines").scrollTop = $("lines").scrollHeight;
}

function showLogNames() {
  const names = status.workers.map((row) => row.name);
  const select = $("log-of");
  if (names.join("\n") !== [...select.options].map((option) => option.value).join("\n")) {
    select.replaceChildren(...names.map((name) => new Option(name, name)));
    showLog(names.includes(shownLog) ? shownLog : (names.find((n) => n === status.default_model) ?? names[0] ?? ""));
  }
}

// --- what comes ------------------------------------------------------------------------------------------

function take(body) {
  status = body;
  showWorkers();
  showVerdict();
  showTimes();
  showLogNames();
}

function askKey(again) {
  put($("key-why"), again ? "That key was refused." : "This daemon asks for its API key. It is kept in this tab only.");
  put($("connection"), "the API key is needed", "wait");
  $("ask-key").showModal();
  $("key").focus();
  return new Promise((given) => {
    $("key-form").onsubmit = (event) => {
      event.preventDefault();
      keepKey($("key").value);
      $("key").value = "";
      $("ask-key").close();
      given();
    };
  });
}

$("ask-key").addEventListener("cancel", (event) => event.preventDefault()); // without the key there is nothing to see
$("log-of").addEventListener("change", (event) => showLog(event.target.value));
$("log-follow").addEventListener("change", scrollLog);
setInterval(showTimes, 1000);
follow({
  snapshot: (body) => {
    logs.clear();
    for (const [name, lines] of Object.entries(body.logs)) logs.set(name, lines);
    take(body.status);
    showLog(shownLog);
  },
  status: take,
  log: (lines) => Object.entries(lines).forEach(([name, some]) => addLines(name, some)),
  connection: (how) => put($("connection"), how === "live" ? "live" : `not connected: ${how}`, how === "live" ? "good" : "bad"),
  key: () => askKey(hasKey()),
});
