// A chat with one of the models, as any client would have it.

import { $, copy, make, put } from "./dom.js";
import * as show from "./format.js";
import { chat, hasKey } from "./stream.js";

let talk = []; // messages so far
let leaving = null; // while an answer comes

export function showModels(status) {
  const select = $("chat-model");
  const names = status.workers.map((row) => row.name);
  if (names.join("\n") === [...select.options].map((option) => option.value).join("\n")) return;
  const had = select.value;
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  select.value = names.includes(had) ? had : (status.default_model ?? names[0] ?? "");
  showCurl();
}

function message(role) {
  const text = make("p", { class: "text" });
  const note = make("p", { class: "note short" });
  $("chat-talk").append(make("div", { class: `message ${role}` }, make("p", { class: "label" }, role === "user" ? "You" : $("chat-model").value), text, note));
  return { text, note };
}

function scroll() {
  $("chat-talk").scrollTop = $("chat-talk").scrollHeight;
}

async function send() {
  const said = $("chat-text").value.trim();
  if (!said || leaving) return;
  $("chat-text").value = "";
  message("user").text.textContent = said;
  talk.push({ role: "user", content: said });
  showCurl();
  const { text, note } = message("assistant");
  const begun = { at: performance.now(), first: null, pieces: 0 };
  leaving = new AbortController();
  $("chat-send").textContent = "Stop";
  let end = {};
  try {
    for await (const chunk of chat({ model: $("chat-model").value, messages: talk }, leaving.signal)) {
      end = { ...end, ...take(chunk, text, begun) };
      put(note, show.answerNote(end, begun, performance.now()));
    }
    put(note, show.answerNote(end, begun, performance.now()));
  } catch (error) {
    const why = leaving.signal.aborted ? "you ended the answer" : error.message || "the answer broke off";
    put(note, why, leaving.signal.aborted ? "off" : "bad");
  }
  talk.push({ role: "assistant", content: text.textContent });
  leaving = null;
  $("chat-send").textContent = "Send";
  scroll();
}

function take(chunk, text, begun) {
  if (chunk.error) throw new Error(chunk.error.message ?? `${chunk.error}`);
  const delta = chunk.choices?.[0]?.delta ?? {};
  const piece = delta.content || delta.reasoning_content || delta.reasoning || "";
  if (piece) {
    begun.first ??= performance.now();
    begun.pieces += 1;
    text.append(make("span", {}, piece));
    scroll();
  }
  const told = {};
  if (chunk.usage) told.usage = chunk.usage;
  if (chunk.timings) told.timings = chunk.timings;
  return told;
}

function anew() {
  leaving?.abort();
  talk = [];
  $("chat-talk").replaceChildren();
  showCurl();
  $("chat-text").focus();
}

function showCurl() {
  const said = talk.filter((one) => one.role === "user").at(-1)?.content ?? "What is a draft model?";
  put($("chat-curl"), show.curl(location.origin, $("chat-model").value, hasKey(), said));
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
