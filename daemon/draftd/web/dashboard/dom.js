// Small helpers for the document. All text goes in as text.

export const $ = (id) => document.getElementById(id);

export function put(element, text, tone) {
  if (element.textContent !== text) element.textContent = text;
  if (tone) element.dataset.tone = tone;
  else delete element.dataset.tone;
}

// An element with these properties ("class" too) and children, which are elements or texts.
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") element.className = value;
    else if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

// Something went wrong that somebody had asked for: it stands at the bottom of the window until it is closed.
export function complain(text) {
  put($("notice-text"), text);
  $("notice").hidden = false;
}

export const spoken = (text) => ($("spoken").textContent = text);

// Put a text into the clipboard, and say so on the button. Pages from another machine have no clipboard unless they
// come over HTTPS: there an older way has to do.
export async function copy(text, button) {
  const label = button.textContent;
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    done = copyBySelection(text);
  }
  button.textContent = done ? "Copied" : "Cannot copy";
  spoken(done ? "Copied" : "The browser does not let this page copy");
  setTimeout(() => (button.textContent = label), 1500);
}

function copyBySelection(text) {
  const area = make("textarea", { value: text, class: "spoken" });
  const had = document.activeElement;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  had?.focus();
  return done;
}
