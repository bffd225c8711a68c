// Numbers and words for people. The same words as `draftd status`.

export const PAYS = 0.6; // acceptance from which drafting usually pays; below it rarely does

export const TONES = {
  ready: "good", starting: "wait", stopping: "wait", backoff: "bad", failed: "bad", stopped: "off",
};

export const percent = (ratio) => (ratio === null ? "–" : `${Math.round(ratio * 100)} %`);
export const speed = (value) => (value === null ? "–" : value.toFixed(value < 100 ? 1 : 0));

// A worker that profiles share stands for its memory in the row that has its name.
export const memoryOf = (row) => (row.worker === row.name ? memory(row.memory_bytes) : "shared");

function memory(bytes) {
  if (bytes === null) return "–";
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.round(bytes / 1e6)} MB`;
}

export function ago(iso) {
  const seconds = Math.max(0, (Date.now() - Date.parse(iso)) / 1000);
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export const clock = (epoch) => new Date(epoch * 1000).toTimeString().slice(0, 8);

// The last part of a path or of a hub name.
const shortModel = (model) => model.replace(/\/+$/, "").split("/").pop();

// The models of a profile, and whom it shares their worker with.
export function served(row) {
  const models = [row.model, row.draft_model].filter(Boolean).map(shortModel).join(" drafted by ");
  return row.shares_with.length ? `${models}; one worker with ${row.shares_with.join(", ")}` : models;
}

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// What a first glance should say: { tone, headline, aside } for all workers together.
export function verdict(workers) {
  const failed = workers.filter((row) => row.state === "failed").map((row) => row.name);
  const { tone, headline, aside } = drafting(workers);
  if (!failed.length) return { tone, headline, aside };
  return { tone: "bad", headline: `${failed.join(", ")} failed`, aside: `${headline}. ${aside}` };
}

function drafting(workers) {
  const known = workers.filter((row) => row.acceptance.ratio !== null);
  if (!known.length) {
    const ready = workers.filter((row) => row.state === "ready");
    const headline = `${countWorkers(ready)} of ${plural(countWorkers(workers), "worker")} ready`;
    const aside = workers.some((row) => row.drafters.length && !row.draft_refusal)
      ? "Whether drafting pays shows after the first request."
      : "No profile drafts.";
    return { tone: "off", headline, aside };
  }
  const paying = known.filter(pays);
  const sum = (key) => known.reduce((total, row) => total + row.acceptance[key], 0);
  const rate = percent(sum("accepted") / sum("proposed"));
  const aside = `${rate} of all draft tokens so far were accepted. From about 60 % on drafting usually pays.`;
  if (paying.length === known.length) return { tone: "good", headline: "Drafting pays", aside };
  const some = `Drafting pays on ${paying.length} of ${plural(known.length, "worker")}`;
  return { tone: "low", headline: paying.length ? some : "Drafting hardly pays", aside };
}

const countWorkers = (rows) => new Set(rows.map((row) => row.worker)).size; // profiles may share one

// The speed against no drafting, where the engine knows what its passes cost; else the rule of thumb decides.
const factor = (row) => row.speculation?.speedup_estimate ?? null;
const pays = (row) => (factor(row) === null ? row.acceptance.ratio >= PAYS : factor(row) > 1);

const ms = (seconds) => `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;

// The drafts' mean length, and what the engine measured that its passes cost.
export function draftsNote({ proposed_by_position: proposed, rounds_by_draft_length: rounds, costs }) {
  const total = (numbers) => numbers.reduce((sum, number) => sum + number, 0);
  const mean = `${(total(proposed) / total(rounds)).toFixed(1)} tokens per draft`;
  if (!costs) return mean;
  return `${mean}; ${ms(costs.draft)} for each, ${ms(costs.verify)} to verify; ${ms(costs.single)} a token without`;
}

// What each drafter had accepted of what it proposed: "lookup 32 of 41, model 120 of 180".
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
  return row.draft_model ? "rarely pays: try a shorter draft" : "little is accepted of what is looked up";
}

export function speedNote(row) {
  const count = row.recent.tokens_per_second.length;
  return count ? `median of ${plural(count, "request")}` : "no request yet";
}

export function trouble(row) {
  const notes = [...row.notes];
  if (row.draft_refusal && row.drafters.length) notes.push(`Nothing is drafted: ${row.draft_refusal}`);
  if (["backoff", "failed"].includes(row.state) && row.last_exit) {
    notes.push(`${row.last_exit.reason} (${row.last_exit.meaning})`, ...row.last_exit.lines.slice(-3));
  }
  return notes.join("\n");
}

export function curl(origin, model, withKey) {
  const key = withKey ? ' \\\n  -H "Authorization: Bearer $DRAFTD_API_KEY"' : "";
  const body = JSON.stringify({ model, stream: true, messages: [{ role: "user", content: "What is a draft model?" }] });
  return `curl -N ${origin}/v1/chat/completions \\\n  -H 'Content-Type: application/json'${key} \\\n  -d '${body}'`;
}
