// Numbers and words for people. The same words as `draftd status`.

export const PAYS = 0.6; // acceptance from which drafting usually pays; below it rarely does

export const TONES = {
  ready: "good", waiting: "wait", starting: "wait", stopping: "wait", backoff: "bad", failed: "bad", asleep: "off",
  stopped: "off",
};

// Who drafts, in the order of the legend.
export const DRAFTERS = {
  model: "drafted by the draft model", lookup: "looked up in the prompt or an old answer", grammar: "forced by the grammar",
};

export const percent = (ratio) => (ratio === null ? "–" : `${Math.round(ratio * 100)} %`);
export const speed = (value) => (value === null ? "–" : value.toFixed(value < 100 ? 1 : 0));

// The memory of a worker that profiles share is shown in the row of the profile that it is named after.
export const memoryOf = (row) => (row.worker === row.name ? memory(row.memory_bytes) : "shared");

// How much of the last prompts was cached, and what the worker's cache takes.
export function cached({ ratio, bytes: size }) {
  return size >= 5e5 ? `${percent(ratio)}, ${bytes(size)}` : percent(ratio);
}

// What became of prompts that the worker has stored, or would have taken up.
export const storedOf = ({ stored_prompts: known }) =>
  `share of the last prompts, and what the cache takes; stored prompts: ${Object.entries(known).map(([outcome, number]) => `${number} ${outcome}`).join(", ")}`;

// What all workers have stored of prompts on the disk.
export const storedPrompts = (known) =>
  known?.files ? `${plural(known.files, "stored prompt")}, ${bytes(known.bytes)} of ${bytes(known.limit_bytes)}` : "";

const memory = (value) => (value === null ? "–" : bytes(value));

export function bytes(bytes) {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.round(bytes / 1e6)} MB`;
}

export const ago = (iso) => span((Date.now() - Date.parse(iso)) / 1000);

function span(exactly) {
  const seconds = Math.max(0, exactly);
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

const DUE = { backoff: "starts again", stopping: "at the latest" };

// How the time by which a state ends is told.
export const dueIn = (row) => (row.due && DUE[row.state] ? `, ${DUE[row.state]} ${until(row.due)}` : "");

function until(due) {
  const left = (Date.parse(due) - Date.now()) / 1000;
  return left < 0.5 ? "now" : `in ${span(left)}`;
}

// What a worker has to do: a request that has its place waits, too, until the worker is ready.
export function toDo({ state, active, queue }) {
  const works = ["ready", "stopping"].includes(state);
  return { atWork: works ? active : 0, waiting: works ? queue : active + queue };
}

export function now(row) {
  const { atWork, waiting } = toDo(row);
  return [atWork && `${atWork} at work`, waiting && `${waiting} waiting`].filter(Boolean).join(", ") || "–";
}

export const count = (value) => (value === null ? "–" : value.toLocaleString("en"));
export const seconds = (value) => (value === null ? "–" : `${value.toFixed(value < 100 ? 2 : 0)} s`);
export const ratioTone = (ratio) => (ratio === null ? "off" : ratio >= PAYS ? "good" : "low");

export function requestTone({ phase, status, cancelled }) {
  if (phase !== "ended") return "wait";
  return status < 400 ? "good" : status < 500 || cancelled ? "low" : "bad";
}

const FACTS = {
  id: (id) => `request id: ${id}`,
  profile: (name) => `model: ${name}`,
  client: (name) => `client: ${name}`,
  dialect: (name) => `dialect: ${name}`,
  peer: (name) => `answered by the peer: ${name}`,
  streamed: (streamed) => (streamed ? "streamed" : "in one piece"),
  waited: (time) => `waited for its turn: ${seconds(time)}`,
  first_token: (time) => `first token: ${seconds(time)}`,
  seconds: (time) => `took: ${seconds(time)}`,
  prompt_tokens: (number) => `prompt: ${count(number)} tokens`,
  cached_tokens: (number) => `${count(number)} of them cached`,
  tokens: (number) => `answer: ${count(number)} tokens`,
  tokens_per_second: (rate) => `${speed(rate)} tokens/s`,
};

// All that is known of a request but its error, fact by fact.
export function requestDetails(record) {
  const facts = Object.entries(FACTS)
    .filter(([name]) => record[name] !== null && record[name] !== "")
    .map(([name, words]) => words(record[name]));
  if (record.proposed) facts.push(`${count(record.accepted)} of ${count(record.proposed)} draft tokens accepted`);
  if (record.status === 499 && !record.error) facts.push("the client left");
  return facts;
}

// What is known of an answer in the chat: while it comes by the clock of this page, at its end by the daemon's word.
export function answerNote({ usage, timings }, begun, now) {
  if (begun.first === null) return "waiting for the first token";
  const tokens = usage?.completion_tokens ?? begun.pieces;
  const rate = timings?.predicted_per_second || tokens / ((now - begun.at) / 1000);
  const parts = [`${plural(tokens, "token")}`, `${speed(rate)} tokens/s`, `first after ${seconds((begun.first - begun.at) / 1000)}`];
  if (timings?.draft_n) parts.push(`${timings.draft_n_accepted} of ${timings.draft_n} draft tokens accepted`);
  return parts.join(", ");
}

// Settings as they stand in a profile file.
export function toml(settings) {
  const isTable = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const line = ([key, value]) => `${key} = ${Array.isArray(value) ? `[${value.map((one) => JSON.stringify(one)).join(", ")}]` : JSON.stringify(value)}`;
  const entries = Object.entries(settings);
  const tables = entries.filter(([, value]) => isTable(value) && Object.keys(value).length);
  const above = entries.filter(([, value]) => !isTable(value) && value !== null).map(line);
  const below = tables.map(([name, table]) => `\n[${name}]\n${Object.entries(table).filter(([, value]) => value !== null).map(line).join("\n")}`);
  return [...above, ...below].join("\n");
}

export const milliseconds = (value) => `${Math.round(value * 1000)} ms`;

// How far the bench has got, or how it ended.
export function benchNote(told) {
  if (!told) return "none since the daemon started";
  const whose = told.profile ? ` of ${told.profile}` : "";
  if (told.running) return `${told.doing}${told.total ? `: ${told.done} of ${told.total}` : ""}`;
  if (told.stopped) return `the bench${whose} was stopped`;
  if (told.error) return `the bench${whose} failed: ${told.error}`;
  return `${told.profile || "the demo's models"}, measured at ${clock(told.began)}`;
}

// What the bench measured on, and how.
export const benchHow = (report) =>
  `${shortModel(report.model)} with draft model ${shortModel(report.draft_model)} on ${report.machine}. Medians of ${plural(report.runs, "run")}`
  + ` of up to ${report.max_tokens} tokens; tokens/s over the whole answer, including the prefill.`
  + (report.busy > 25 ? ` Other programs used ${Math.round(report.busy)} % of the processors when it began: the figures are less certain than they look.` : "");

// JSON in lines; anything else, and JSON that was cut, as it is.
export function readable(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 1);
  } catch {
    return text;
  }
}

export const clock = (epoch) => new Date(epoch * 1000).toTimeString().slice(0, 8);

// The last part of a path or of a hub name.
export const shortModel = (model) => model.replace(/\/+$/, "").split("/").pop();

export const models = (row) => [row.model, row.draft_model].filter(Boolean).map(shortModel).join(" with draft model ");

// How a model that is split over several ranks lies on its machines.
export const ranks = ({ ranks }) =>
  ranks.length
    ? `${ranks.length} ranks: ${ranks.map((one) => `${one.host || "this machine"} ${bytes(one.memory_bytes)}`).join(", ")}`
    : "";

// The models of a profile, where they are, and whom it shares their worker with.
export function served(row) {
  const others = row.shares_with.length ? `one worker with ${row.shares_with.join(", ")}` : "";
  return [models(row), ranks(row), others].filter(Boolean).join("; ");
}

// Each name without the beginning that all share, as far as that ends with a hyphen. The same as in a terminal.
export function shortNames(names) {
  const sorted = [...new Set(names)].sort();
  let cut = 0;
  if (sorted.length > 1) {
    const [first, last] = [sorted[0], sorted.at(-1)];
    let same = 0;
    while (same < first.length && first[same] === last[same]) same += 1;
    cut = first.slice(0, same).lastIndexOf("-") + 1;
  }
  return (name) => (sorted.includes(name) && name.slice(cut)) || name;
}

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// What a first glance should say: { tone, headline, aside } for all workers together.
export function verdict(workers) {
  if (!workers.length) return { tone: "off", headline: "No profile of its own", aside: "All requests go to peers." };
  const failed = workers.filter((row) => row.state === "failed").map((row) => row.name);
  const { tone, headline, aside } = drafting(workers);
  if (!failed.length) return { tone, headline, aside };
  return { tone: "bad", headline: `${failed.join(", ")} failed`, aside: `${headline}. ${aside}` };
}

export const ENOUGH = 5; // requests that drafted, before a verdict is given

function drafting(workers) {
  const known = workers.filter((row) => row.recent.acceptance.length >= ENOUGH);
  if (!known.length) {
    const ready = workers.filter((row) => row.state === "ready");
    const headline = `${countWorkers(ready)} of ${plural(countWorkers(workers), "worker")} ready`;
    return { tone: "off", headline, aside: untilThen(workers) };
  }
  const paying = known.filter(pays);
  const sum = (key) => known.reduce((total, row) => total + row.acceptance[key], 0);
  const rate = percent(sum("accepted") / sum("proposed"));
  const aside = `${rate} of all draft tokens so far were accepted. ${rule(known)}`;
  if (paying.length === known.length) return { tone: "good", headline: "Drafting pays", aside };
  const some = `Drafting pays on ${paying.length} of ${plural(known.length, "profile")}`;
  return { tone: "low", headline: paying.length ? some : "Drafting hardly pays", aside };
}

function untilThen(workers) {
  if (!workers.some((row) => row.drafters.length && !row.draft_refusal) && !workers.some((row) => row.acceptance.proposed))
    return "No profile drafts.";
  const most = Math.max(...workers.map((row) => row.recent.acceptance.length));
  return `Whether drafting pays shows after ${ENOUGH} requests with drafts to one profile; so far there were ${most}.`;
}

// The rule behind the verdict, in words.
function rule(known) {
  const measured = known.filter((row) => factor(row) !== null).length;
  const byTimes = "It pays where the measured times promise more speed than there is without a draft.";
  const byRatio = `It usually pays from ${percent(PAYS)} on.`;
  if (measured === known.length) return byTimes;
  return measured ? `${byTimes} Where there are none yet: ${byRatio.toLowerCase()}` : byRatio;
}

const countWorkers = (rows) => new Set(rows.map((row) => row.worker)).size; // profiles may share one

// The speedup over no drafting, where the engine knows what its passes cost; else the rule of thumb decides.
const factor = (row) => row.speculation?.speedup_estimate ?? null;
const pays = (row) => (factor(row) === null ? row.acceptance.ratio >= PAYS : factor(row) > 1);

const ms = (seconds) => `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;

// The mean length of the drafts, and what passes cost by the engine's measurement.
export function draftsNote({ proposed_by_position: proposed, rounds_by_draft_length: rounds, costs }) {
  const total = (numbers) => numbers.reduce((sum, number) => sum + number, 0);
  const mean = `${(total(proposed) / total(rounds)).toFixed(1)} tokens per draft`;
  if (!costs) return mean;
  return `${mean}; ${ms(costs.draft)} for each, ${ms(costs.verify)} to verify; ${ms(costs.single)} a token without`;
}

// How much of what each drafter proposed was accepted: "lookup 32 of 41, model 120 of 180".
export const drafterShares = (byDrafter) =>
  Object.entries(byDrafter).map(([name, { accepted, proposed }]) => `${name} ${accepted} of ${proposed}`).join(", ");

// How long drafts are, or what else drafts.
export function draftLength(row) {
  if (!row.draft_model) return row.drafters.join(", ") || "–";
  return `${row.auto_draft ? "auto ≤ " : ""}${row.num_draft_tokens}`;
}

export function acceptanceNote(row) {
  if (row.draft_refusal && row.drafters.length) return "these models cannot draft";
  if (!row.drafters.length && !row.acceptance.proposed) return "no drafting";
  if (row.acceptance.ratio === null) return "no request yet";
  if (factor(row) !== null) return `about ${factor(row).toFixed(1)} × the speed without a draft`;
  if (row.acceptance.ratio >= PAYS) return "drafting usually pays";
  if (row.draft_model) return "rarely pays: try a shorter draft";
  return row.drafters.length ? "few of the looked-up tokens are accepted" : "drafting rarely pays";
}

export function speedNote(row) {
  const count = row.recent.tokens_per_second.length;
  return count ? `median of ${plural(count, "request")}` : "no request yet";
}

export function trouble(row) {
  const notes = [...row.notes];
  if (row.reason && row.state !== "ready") notes.unshift(row.reason);
  if (row.draft_refusal && row.drafters.length) notes.push(`Nothing is drafted: ${row.draft_refusal}`);
  if (["backoff", "failed"].includes(row.state) && row.last_exit) {
    notes.push(...row.last_exit.lines.slice(-3));
  }
  return notes.join("\n");
}

// Failed first, then busy, then on the way, then ready; of profiles that share a worker there is one list.
export function byUrgency(workers) {
  const shared = new Map();
  for (const row of workers) shared.set(row.worker, [...(shared.get(row.worker) ?? []), row]);
  const urgency = ([row]) => {
    if (["failed", "backoff"].includes(row.state)) return 0;
    if (row.active || row.queue) return 1;
    return ["waiting", "starting", "stopping"].includes(row.state) ? 2 : row.state === "ready" ? 3 : 4;
  };
  return [...shared.values()].sort((one, other) => urgency(one) - urgency(other));
}

// Peers that are left out first, then those that have not answered yet, then those that work for us.
export function peersByUrgency(peers) {
  const urgency = ({ state, active }) => (state === "out" ? 0 : state === "new" ? 1 : active ? 2 : 3);
  return [...peers].sort((one, other) => urgency(one) - urgency(other));
}

const PEER_STATES = { well: ["well", "good"], new: ["new", "wait"], out: ["left out", "bad"] };

export function peerState({ state, reason, due }) {
  const [label, tone] = PEER_STATES[state];
  const again = due ? `asked again ${until(due)}` : "";
  const why = state === "new" ? "has not answered yet" : [reason, again].filter(Boolean).join("; ");
  return { label, tone, why };
}

export function peerKind({ url, is_draftd: own, state, weight }) {
  const kind = state === "well" ? (own ? "draftd over " : "another server over ") : "";
  return `${kind}${url.split(":")[0]}${weight === 1 ? "" : `, weight ${weight}`}`;
}

const MOST_MODELS = 5; // of a peer, each in a line of its own

// A line for each model of a peer, and one for those that there is no room for.
function modelLines({ models }, text) {
  const lines = models.slice(0, MOST_MODELS).map(text);
  return [...lines, ...(models.length > MOST_MODELS ? [text(null)] : [])].join("\n");
}

export const peerModels = (peer) =>
  modelLines(peer, (name) => {
    if (name === null) return `and ${peer.models.length - MOST_MODELS} more`;
    const state = peer.load[name]?.state ?? "ready";
    return state === "ready" ? name : `${name} (${state})`;
  });

// How many requests a peer's model has, ours and those of others, and how many it works on at once.
export const peerOpen = (peer) =>
  modelLines(peer, (name) => (name === null ? "" : `${peer.load[name].open} of ${peer.load[name].slots}`));

export const peerSpeeds = (peer) =>
  modelLines(peer, (name) => (name === null ? "" : speed(peer.tokens_per_second[name] ?? null)));

export const peerOutcomes = ({ requests }) =>
  `our requests there: ${Object.entries(requests).map(([outcome, number]) => `${number} ${outcome}`).join(", ") || "none yet"}`;

// While a peer is left out, the reason stands beside its state.
export function peerFailure({ state, last_failure: failure }) {
  if (!failure) return "–";
  return state === "out" ? `${ago(failure.at)} ago` : `${ago(failure.at)} ago: ${failure.reason}`;
}

export function curl(origin, model, withKey, content) {
  const key = withKey ? ' \\\n  -H "Authorization: Bearer $DRAFTD_API_KEY"' : "";
  const body = JSON.stringify({ model, stream: true, messages: [{ role: "user", content }] }).replaceAll("'", "'\\''");
  return `curl -N ${origin}/v1/chat/completions \\\n  -H 'Content-Type: application/json'${key} \\\n  -d '${body}'`;
}
