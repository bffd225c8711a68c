// The last hour, as the daemon kept it: four figures on one time axis, and their values at one moment.

import { $, make, put } from "./dom.js";
import * as show from "./format.js";
import { history } from "./stream.js";

const EVERY = 10_000; // ms between two looks
const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 60;
const MIN_STEPS = 60; // of the axis: ten minutes, if the daemon is younger than that
const COLOURS = 6;
const MAX_SERIES = 12; // profiles in the charts: of more, the busiest
const MAX_VALUES = 6; // of a figure that are named below its chart
const FIGURES = {
  speed: { title: "Speed", text: (value) => `${show.speed(value)} tokens/s` },
  acceptance: { title: "Accepted draft tokens", top: 1, text: show.percent },
  queue: { title: "Requests at work and waiting", text: (value) => `${value}`, summed: true },
  memory: { title: "Memory", text: show.bytes, summed: true },
};
let body = null;
let shown = []; // names of the profiles in the charts
let short = (name) => name;

export async function showHour() {
  if (document.visibilityState !== "visible") return;
  try {
    body = await history();
  } catch {
    return; // the page says elsewhere that the connection is lost
  }
  const names = Object.keys(body.profiles).filter((name) => hasValues(body.profiles[name]));
  shown = busiest(names);
  short = show.shortNames(shown);
  const any = names.some((name) => body.profiles[name].queue.length > 1);
  $("hour").hidden = !any;
  if (!any) return;
  for (const figure of Object.keys(FIGURES)) draw(figure, shown);
  const legend = shown.map((name, index) => make("li", { class: seriesOf(index) }, short(name)));
  const rest = names.length - shown.length;
  if (rest) legend.push(make("li", { class: "rest" }, `and ${rest} that did less`));
  $("hour-legend").replaceChildren(...legend);
  $("hour-at").max = steps() - 1;
  if (!$("hour-at").dataset.held) $("hour-at").value = steps() - 1;
  put($("hour-begin"), clockAt(steps() - axis()));
  put($("hour-end"), clockAt(steps() - 1));
  showMoment();
}

// Whether there is anything to show for a profile: one that slept through the hour would only use up a colour.
const hasValues = ({ speed, queue, memory }) =>
  queue.some((value) => value) || [...speed, ...memory].some((value) => value !== null);

function busiest(names) {
  if (names.length <= MAX_SERIES) return names;
  const work = ({ speed, queue }) => speed.filter((value) => value !== null).length + queue.reduce((sum, value) => sum + (value ?? 0), 0);
  const wanted = [...names].sort((one, other) => work(body.profiles[other]) - work(body.profiles[one])).slice(0, MAX_SERIES);
  return names.filter((name) => wanted.includes(name));
}

// A colour for each, and from the seventh on another kind of line as well.
const seriesOf = (index) => `c${index % COLOURS} d${Math.floor(index / COLOURS) % 3}`;

const axis = () => Math.max(steps(), MIN_STEPS);
const steps = () => Object.values(body.profiles)[0]?.queue.length ?? 0;

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function draw(figure, names) {
  const { title, top, text } = FIGURES[figure];
  const values = names.flatMap((name) => body.profiles[name][figure]).filter((value) => value !== null);
  const highest = top ?? Math.max(...values, 0);
  const svg = $(`hour-${figure}`);
  svg.setAttribute("viewBox", `0 0 ${axis()} ${HEIGHT}`);
  svg.setAttribute("aria-label", `${title} in the last hour`);
  const base = element("line", { x1: 0, x2: axis(), y1: HEIGHT, y2: HEIGHT, class: "base" });
  const lines = names.map((name, index) => {
    const d = path(body.profiles[name][figure], highest || 1);
    return element("path", { d, class: `series ${seriesOf(index)}` });
  });
  svg.replaceChildren(base, ...lines, element("line", { y1: 0, y2: HEIGHT, class: "moment" }));
  const each = names.length > 1 && !top ? " each" : "";
  put($(`hour-${figure}-top`), values.length ? `${title}, up to ${text(highest)}${each}` : `${title}: no value yet`);
}

// A line through the values, broken where there is none; a value that stands alone is a dot.
function path(values, highest) {
  const first = axis() - values.length;
  let d = "";
  values.forEach((value, index) => {
    if (value === null) return;
    const begins = index === 0 || values[index - 1] === null;
    const at = `${first + index + 0.5} ${(HEIGHT * (1 - value / highest)).toFixed(1)}`;
    d += begins ? `M${at}h0` : `L${at}`;
  });
  return d;
}

function showMoment() {
  const index = Number($("hour-at").value);
  const x = axis() - steps() + index + 0.5;
  put($("hour-moment"), clockAt(index));
  const told = Object.keys(FIGURES).map((figure) => {
    const line = $(`hour-${figure}`).querySelector(".moment");
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    const values = valuesAt(figure, index);
    put($(`hour-${figure}-now`), values);
    return `${FIGURES[figure].title}: ${values}`;
  });
  $("hour-at").setAttribute("aria-valuetext", `${clockAt(index)}. ${told.join(". ")}`);
}

// A figure of each profile at one moment, or of all together where a sum means something.
function valuesAt(figure, index) {
  const { text, summed } = FIGURES[figure];
  const known = Object.entries(body.profiles)
    .map(([name, figures]) => [name, figures[figure][index] ?? null])
    .filter(([, value]) => value !== null);
  if (!known.length) return "–";
  if (summed) return `${text(known.reduce((sum, [, value]) => sum + value, 0))}${known.length > 1 ? " in all" : ""}`;
  const named = known.filter(([name]) => shown.includes(name)).slice(0, MAX_VALUES).map(([name, value]) => `${short(name)} ${text(value)}`);
  const rest = known.length - named.length;
  return [...named, ...(rest ? [`${rest} more`] : [])].join(", ");
}

const clockAt = (index) => show.clock(body.ended_at - (steps() - 1 - index) * body.step_seconds);

$("hour-at").addEventListener("input", (event) => {
  event.target.dataset.held = Number(event.target.value) < steps() - 1 ? "yes" : "";
  showMoment();
});
$("hour-charts").addEventListener("mousemove", (event) => {
  const chart = event.target.closest("svg");
  if (!chart || !body) return;
  const box = chart.getBoundingClientRect();
  const index = Math.round(((event.clientX - box.left) / box.width) * axis() - 0.5) - (axis() - steps());
  $("hour-at").value = Math.max(0, Math.min(steps() - 1, index));
  $("hour-at").dataset.held = "yes";
  showMoment();
});
$("hour-charts").addEventListener("mouseleave", () => {
  $("hour-at").dataset.held = "";
  $("hour-at").value = steps() - 1;
  showMoment();
});
document.addEventListener("visibilitychange", showHour);
setInterval(showHour, EVERY);
