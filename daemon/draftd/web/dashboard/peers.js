// The peers: other machines that requests are sent to, those that are left out first.

import { $, make, put, spoken } from "./dom.js";
import * as show from "./format.js";

const COLUMNS = ["name", "state", "peer-models", "open", "speed", "answered", "failure"];
const BY_MODEL = ["peer-models", "open", "speed"]; // cells with a line for each model
const LABELS = { "peer-models": "models", open: "open", speed: "tokens/s", answered: "answered", failure: "last failure" };
const FIGURES = ["open", "speed", "answered"];
const rows = new Map(); // peer's name -> its row: its cells, and its state when it was shown last
let peers = [];

export function showPeers(status) {
  peers = show.peersByUrgency(status.peers ?? []);
  $("peers").hidden = !peers.length;
  const names = peers.map((peer) => peer.name);
  for (const [name, { element }] of rows) {
    if (names.includes(name)) continue;
    element.remove();
    rows.delete(name);
  }
  for (const name of names) if (!rows.has(name)) rows.set(name, makeRow(name));
  const wanted = names.map((name) => rows.get(name).element);
  if (wanted.some((element, index) => $("peer-rows").children[index] !== element)) $("peer-rows").append(...wanted);
  for (const peer of peers) showRow(rows.get(peer.name), peer);
}

// What changes with the time alone.
export function showPeerTimes() {
  for (const peer of peers) showRow(rows.get(peer.name), peer);
}

function makeRow(name) {
  const cells = Object.fromEntries(COLUMNS.map((column) => [column, make("td", { class: column })]));
  for (const [column, label] of Object.entries(LABELS)) cells[column].dataset.label = label;
  for (const column of FIGURES) cells[column].classList.add("figure-column");
  for (const column of BY_MODEL) cells[column].classList.add("lines-of");
  cells.name = make("th", { scope: "row" });
  const address = make("span", { class: "models" });
  cells.name.append(make("span", {}, name), address);
  const badge = make("span", { class: "badge" });
  const reason = make("span", { class: "models" });
  cells.state.classList.add("state-cell");
  cells.state.append(badge, reason);
  const element = make("tr", {}, ...COLUMNS.map((column) => cells[column]));
  return { element, cells, address, badge, reason, state: null };
}

function showRow(made, peer) {
  const { cells, address, badge, reason } = made;
  const { label, tone, why } = show.peerState(peer);
  put(address, show.peerKind(peer));
  put(badge, label, tone);
  put(reason, why);
  put(cells["peer-models"], show.peerModels(peer) || "–");
  put(cells.open, show.peerOpen(peer));
  put(cells.speed, show.peerSpeeds(peer));
  put(cells.answered, `${peer.requests.answered ?? 0}`);
  cells.answered.title = show.peerOutcomes(peer);
  put(cells.failure, show.peerFailure(peer));
  for (const cell of Object.values(cells)) cell.toggleAttribute("data-none", !/[^–0\s]/.test(cell.textContent));
  if (made.state !== null && made.state !== peer.state) spoken(`the peer ${peer.name} is ${label}`);
  made.state = peer.state;
}
