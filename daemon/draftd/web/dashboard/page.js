// The page: keeps what the stream brings, and hands it to the parts of the page.

import { showBench } from "./bench.js";
import { showModels } from "./chat.js";
import { $, complain, copy, put } from "./dom.js";
import * as show from "./format.js";
import { showHour } from "./hour.js";
import { addLines, redraw, replaceLogs, showLogNames } from "./log.js";
import { showPeers, showPeerTimes } from "./peers.js";
import { showProfiles } from "./profiles.js";
import { nameModels, showCapture, takeRequests } from "./requests.js";
import { follow, hasKey, keepKey, keptKey } from "./stream.js";
import { showTimes as showWorkerTimes, showWorkers } from "./workers.js";

let status = { workers: [] };
let lost = null; // { since, why, next } while there is no connection
const NEEDS_DAEMON = "[data-order], [data-needs-daemon], #capture";

function showTimes() {
  if (lost) showLost();
  else {
    showWorkerTimes();
    showPeerTimes();
  }
  if (status.started && !lost) put($("about"), about());
}

const about = () =>
  [status.version, `up ${show.ago(status.started)}`, show.storedPrompts(status.stored_prompts)].filter(Boolean).join(", ");

function showVerdict() {
  const { tone, headline, aside } = show.verdict(status.workers);
  put($("headline"), headline, tone);
  put($("aside"), aside);
  const ready = status.workers.filter((row) => row.state === "ready");
  const quiet = status.workers.every((row) => row.requests + row.active === 0);
  $("hint").hidden = !quiet || !ready.length;
  const model = ready.find((row) => row.name === status.default_model) ?? ready[0];
  if (model) put($("curl"), show.curl(location.origin, model.name, hasKey(), "What is a draft model?"));
  put($("problem"), status.reload_problem ? `The files on disk are not in force.\n${status.reload_problem}` : "", "bad");
  $("problem").hidden = !status.reload_problem;
}

function showAddress() {
  put($("address"), `${location.origin}/v1`);
  put($("key-shown"), hasKey() ? "yours, kept in this tab" : "any text will do");
}

// --- the connection ----------------------------------------------------------------------------------------

function connection(why, pause) {
  if (why === "live") {
    lost = null;
    put($("connection"), "live", "good");
  } else {
    lost = { since: lost?.since ?? Date.now(), why, next: Date.now() + pause };
  }
  document.body.toggleAttribute("data-lost", lost !== null);
  $("lost").hidden = lost === null;
  for (const part of document.querySelectorAll("main section")) part.setAttribute("aria-busy", `${lost !== null}`);
  if (lost) showLost();
}

function showLost() {
  const since = show.clock(lost.since / 1000);
  const next = Math.max(0, Math.ceil((lost.next - Date.now()) / 1000));
  put($("connection"), "connection lost", "bad");
  put($("lost"), `No connection to the daemon since ${since}: ${lost.why}. Below is how things were then.`);
  put($("retry"), next ? `trying again in ${next} s` : "trying again now");
}

// --- what comes ------------------------------------------------------------------------------------------

function take(body) {
  status = body;
  showWorkers(status);
  showPeers(status);
  showVerdict();
  showTimes();
  showLogNames(status);
  showModels(status);
  nameModels(status);
  showCapture(status);
  showProfiles(status);
  showBench(status);
}

function askKey(again) {
  put($("key-why"), again ? "That key was refused." : "This daemon asks for its API key. It is kept in this tab only.");
  put($("connection"), "the API key is needed", "wait");
  put($("key-shown"), "the one that it was started with");
  $("ask-key").showModal();
  $("key").focus();
  return new Promise((given) => {
    $("key-form").onsubmit = (event) => {
      event.preventDefault();
      keepKey($("key").value);
      $("key").value = "";
      $("ask-key").close();
      showAddress();
      given();
    };
  });
}

// What needs the daemon says so while there is none, in place of an error a little later.
for (const kind of ["click", "submit"]) {
  document.querySelector("main").addEventListener(
    kind,
    (event) => {
      if (!lost || (kind === "click" && !event.target.closest(NEEDS_DAEMON))) return;
      event.preventDefault();
      event.stopPropagation();
      complain("There is no connection to the daemon: nothing was done.");
    },
    true,
  );
}

const closeNotice = () => ($("notice").hidden = true);
$("notice-close").addEventListener("click", closeNotice);
document.addEventListener("keydown", (event) => event.key === "Escape" && closeNotice());
$("ask-key").addEventListener("cancel", (event) => event.preventDefault()); // without the key there is nothing to see
$("copy-address").addEventListener("click", (event) => copy($("address").textContent, event.currentTarget));
$("copy-key").addEventListener("click", (event) => copy(keptKey() ?? "local", event.currentTarget));
showAddress();
setInterval(showTimes, 1000);
follow({
  snapshot: (body) => {
    replaceLogs(body.logs);
    nameModels(body.status);
    takeRequests(body.requests, true);
    take(body.status);
    redraw();
    showHour();
  },
  status: take,
  log: (lines) => Object.entries(lines).forEach(([name, some]) => addLines(name, some)),
  requests: (records) => takeRequests(records),
  connection,
  key: () => askKey(hasKey()),
});
