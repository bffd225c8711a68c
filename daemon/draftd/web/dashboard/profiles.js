// The profiles in force and the prompts, for reading, and what is wrong with the files.

import { $, make, put } from "./dom.js";
import * as show from "./format.js";
import { profiles } from "./stream.js";

let texts = new Map(); // what can be chosen -> its text
let read = null; // when the daemon had read the files that the texts are from

export async function showProfiles(status) {
  put($("profiles-problem"), status.reload_problem ?? "", "bad");
  $("profiles-problem").hidden = !status.reload_problem;
  if (status.profiles_read === read) return;
  read = status.profiles_read;
  try {
    place(await profiles());
  } catch {
    read = null; // the page says elsewhere that the connection is lost
  }
}

function place({ problems, profiles: found, prompts }) {
  texts = new Map();
  for (const { name, settings } of found) texts.set(`profile ${name}`, show.toml(settings));
  for (const { name, file, text, used_by: users } of prompts) {
    const used = users.length ? `used by ${users.join(", ")}` : "used by no profile";
    texts.set(`prompt ${name}`, `# ${file}\n# ${used}\n\n${text || "(empty)"}`);
  }
  put($("profiles-problem"), problems.join("\n"), "bad");
  $("profiles-problem").hidden = !problems.length;
  $("profiles").hidden = !texts.size && !problems.length; // a daemon of peers alone has none
  const group = (label, kind, names) => {
    const made = make("optgroup", { label });
    made.append(...names.map(({ name }) => new Option(name, `${kind} ${name}`)));
    return made;
  };
  const had = $("profiles-of").value;
  $("profiles-of").replaceChildren(group("profiles", "profile", found), group("prompts", "prompt", prompts));
  if (texts.has(had)) $("profiles-of").value = had;
  showText();
}

const showText = () => put($("profiles-text"), texts.get($("profiles-of").value) ?? "");

$("profiles-of").addEventListener("change", showText);
