// The way to the daemon: the event stream, orders to workers, and the API key if it asks for one.
// EventSource can send no Authorization header, so the stream is read with fetch.

const KEY = "draftd-api-key"; // in sessionStorage: of this tab, and gone with it
const SILENCE = 25_000; // ms; the daemon sends a comment every 10 s, so the connection is dead
const LONGEST_PAUSE = 8_000; // ms between attempts

export class KeyNeeded extends Error {}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const keepKey = (key) => sessionStorage.setItem(KEY, key);
export const keptKey = () => sessionStorage.getItem(KEY);

async function ask(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key === null ? {} : { Authorization: `Bearer ${key}` }) };
  const response = await fetch(path, { ...options, headers, cache: "no-store" });
  if (response.status === 401) throw new KeyNeeded();
  if (!response.ok) throw new Error(await reason(response));
  return response;
}

async function reason(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the daemon answered with status ${response.status}`;
  }
}

export const order = (name, word) =>
  ask(`/api/workers/${encodeURIComponent(name)}/${word}`, { method: "POST" });

export const cancel = (id) => ask(`/api/requests/${encodeURIComponent(id)}/cancel`, { method: "POST" });
export const capture = (on) => ask(`/api/capture/${on ? "on" : "off"}`, { method: "POST" });
export const contents = async (id) => (await ask(`/api/requests/${encodeURIComponent(id)}/contents`)).json();
export const profiles = async () => (await ask("/api/profiles")).json();
export const bench = async () => (await ask("/api/bench")).json();
export const stopBench = () => ask("/api/bench/stop", { method: "POST" });
export const startBench = (wanted) =>
  ask("/api/bench", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(wanted) });
export const history = async () => (await ask("/api/history")).json();

// The chunks of the answer to a chat, as they come, with the usage at their end.
export async function* chat(body, signal) {
  const asked = JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } });
  const headers = { "Content-Type": "application/json" };
  const response = await ask("/v1/chat/completions", { method: "POST", headers, body: asked, signal });
  for await (const text of events(response)) {
    const data = /^data: (.*)$/m.exec(text)?.[1];
    if (data && data !== "[DONE]") yield JSON.parse(data);
  }
}

// Calls on.snapshot, on.status, on.log and on.requests with what comes; on.connection with "live", or with the reason
// why there is none and the milliseconds until the next attempt; and on.key() when a key is needed, whose promise it
// awaits before it goes on. Never returns: a stream that ends is asked for again.
export async function follow(on) {
  for (let pause = 500; ; pause = Math.min(pause * 2, LONGEST_PAUSE)) {
    let why = "the daemon has ended the connection";
    try {
      await read(on, () => (pause = 500));
    } catch (error) {
      if (error instanceof KeyNeeded) {
        await on.key();
        continue;
      }
      why = error instanceof TypeError ? "it does not answer" : error.message; // TypeError: no connection
    }
    on.connection(why, pause);
    await new Promise((done) => setTimeout(done, pause));
  }
}

async function read(on, begun) {
  const leaving = new AbortController();
  let timer;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => leaving.abort(new Error("nothing was heard from the daemon")), SILENCE);
  };
  heard();
  try {
    const response = await ask("/api/events", { signal: leaving.signal });
    on.connection("live");
    begun();
    for await (const text of events(response, heard)) deliver(text, on);
  } finally {
    clearTimeout(timer);
  }
}

// The events of a stream, as text.
async function* events(response, heard = () => {}) {
  const decoder = new TextDecoder();
  let rest = "";
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return;
    heard();
    const whole = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = whole.pop();
    yield* whole;
  }
}

function deliver(text, on) {
  const [, kind, data] = /^event: (\w+)\ndata: (.*)$/.exec(text) ?? [];
  if (kind) on[kind](JSON.parse(data)); // what does not match is a comment
}
