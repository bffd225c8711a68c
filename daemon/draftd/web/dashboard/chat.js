// A chat with one of the models, as any client would have it.

import { $, copy, make, put } from "./dom.js";
import * as show from "./format.js";
import { chat, hasKey } from "./stream.js";

let talk = []; // messages so far
let drafting = new Set(); // names of models that say who drafted which token
let leaving = null; // while an answer comes

export function showModels(status) {
  const select = $("chat-model");
  const elsewhere = (status.peers ?? []).flatMap((peer) => peer.models);
  const names = [...new Set([...status.workers.map((row) => row.name), ...elsewhere])];
  drafting = new Set(status.workers.filter((row) => row.drafters.length).map((row) => row.name));
  if (names.join("\n") === [...select.options].map((option) => option.value).join("\n")) return;
  const had = select.value;
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  const ready = status.workers.filter((row) => row.state === "ready").map((row) => row.name);
  const first = ready.length && !ready.includes(status.default_model) ? ready[0] : status.default_model;
  select.value = names.includes(had) ? had : (first ?? names[0] ?? "");
  showCurl();
}

function message(role) {
  const [thoughts, said] = ["thoughts", "said"].map((name) => make("span", { class: name }));
  const text = make("p", { class: "text" }, thoughts, said);
  const note = make("p", { class: "note short" });
  $("chat-talk").append(make("div", { class: `message ${role}` }, make("p", { class: "label" }, role === "user" ? "You" : $("chat-model").value), text, note));
  return { thoughts, said, note };
}

function scroll() {
  $("chat-talk").scrollTop = $("chat-talk").scrollHeight;
}

async function send() {
  const said = $("chat-text").value.trim();
  if (!said || leaving) return;
  $("chat-text").value = "";
  message("user").said.textContent = said;
  talk.push({ role: "user", content: said });
  showCurl();
  const shown = message("assistant");
  const { note } = shown;
  const model = $("chat-model").value;
  const body = { model, messages: talk, ...(drafting.has(model) ? { return_drafters: true } : {}) };
  const begun = { at: performance.now(), first: null, pieces: 0, said: "" };
  leaving = new AbortController();
  $("chat-send").textContent = "Stop";
  let end = {};
  try {
    for await (const chunk of chat(body, leaving.signal)) {
      end = { ...end, ...take(chunk, shown, begun) };
      put(note, show.answerNote(end, begun, performance.now()));
    }
    put(note, show.answerNote(end, begun, performance.now()));
  } catch (error) {
    const why = leaving.signal.aborted ? "you ended the answer" : error.message || "the answer broke off";
    put(note, why, leaving.signal.aborted ? "off" : "bad");
  }
  talk.push({ role: "assistant", content: begun.said });
  leaving = null;
  $("chat-send").textContent = "Send";
  scroll();
}

function take(chunk, shown, begun) {
  if (chunk.error) throw new Error(chunk.error.message ?? `${chunk.error}`);
  const { delta = {}, drafters = {} } = chunk.choices?.[0] ?? {};
  const thought = pieces(delta.reasoning_content || delta.reasoning, drafters.reasoning);
  const said = pieces(delta.content, drafters.content);
  if (thought.length + said.length) {
    begun.first ??= performance.now();
    begun.pieces += 1;
    begun.said += delta.content ?? "";
    shown.thoughts.append(...thought);
    shown.said.append(...said);
    scroll();
  }
  const told = {};
  if (chunk.usage) told.usage = chunk.usage;
  if (chunk.timings) told.timings = chunk.timings;
  return told;
}

// An element for each piece of a text, marked with who drafted it where the daemon says so.
function pieces(text, told) {
  if (!text) return [];
  return (told ?? [{ text, drafter: null }]).map((one) => {
    const span = make("span", {}, one.text);
    if (one.drafter) {
      span.dataset.drafter = one.drafter;
      span.title = show.DRAFTERS[one.drafter] ?? one.drafter;
      $("chat-legend").hidden = false;
    }
    return span;
  });
}

function anew() {
  leaving?.abort();
  talk = [];
  $("chat-talk").replaceChildren();
  $("chat-legend").hidden = true;
  showCurl();
  $("chat-text").focus();
}

function showCurl() {
  const said = talk.filter((one) => one.role === "user").at(-1)?.content ?? "What is a draft model?";
  put($("chat-curl"), show.curl(location.origin, $("chat-model").value, hasKey(), said));
}

for (const [name, words] of Object.entries(show.DRAFTERS)) {
  const mark = make("span", {}, name);
  mark.dataset.drafter = name;
  $("chat-legend").append(make("li", { title: words }, mark));
}
$("chat-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (leaving) leaving.abort();
  else send();
});
$("chat-text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
$("chat-model").addEventListener("change", showCurl);
$("chat-new").addEventListener("click", anew);
$("chat-copy").addEventListener("click", (event) => copy($("chat-curl").textContent, event.currentTarget));
