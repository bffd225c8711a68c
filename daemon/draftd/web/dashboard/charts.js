// Small charts of the last requests, newest at the right, drawn as SVG in a box of 100 x 40 that is stretched.

import { percent } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 100;
const HEIGHT = 40;
const SLOTS = 50; // requests that the daemon sends figures of

function part(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function begin(svg, label) {
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-label", label);
  svg.replaceChildren(part("line", { x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT, class: "base" }));
}

// A bar for each request; those under `limit` in another colour, and the limit as a line.
export function drawRatios(svg, ratios, limit) {
  begin(svg, ratios.length ? `Accepted in the last ${ratios.length} requests` : "No drafting yet");
  const step = WIDTH / SLOTS;
  ratios.forEach((ratio, index) => {
    const height = Math.max(ratio * HEIGHT, 0.8); // nothing accepted is still a request
    const x = WIDTH - (ratios.length - index) * step;
    const kind = ratio >= limit ? "bar-good" : "bar-low";
    svg.append(part("rect", { x, y: HEIGHT - height, width: step * 0.75, height, class: kind }));
  });
  const y = HEIGHT * (1 - limit);
  svg.append(part("line", { x1: 0, x2: WIDTH, y1: y, y2: y, class: "limit" }));
}

// A line from 0 to twice the median. What is above is cut: tokens that came in one piece look arbitrarily fast.
export function drawSpeeds(svg, speeds) {
  begin(svg, speeds.length ? `Tokens per second in the last ${speeds.length} requests` : "No speed yet");
  if (!speeds.length) return;
  const median = speeds.toSorted((one, other) => one - other)[Math.floor(speeds.length / 2)];
  const step = WIDTH / (SLOTS - 1);
  const points = speeds.map((speed, index) => {
    const x = WIDTH - (speeds.length - 1 - index) * step;
    const y = HEIGHT * (1 - Math.min(speed / (2 * median), 1));
    return `${x.toFixed(2)} ${y.toFixed(2)}`;
  });
  const first = points[0].split(" ")[0];
  const line = points.length > 1 ? `M${points.join("L")}` : `M${points[0]}h0`;
  svg.append(part("path", { d: `M${first} ${HEIGHT}L${points.join("L")}V${HEIGHT}Z`, class: "area" }));
  svg.append(part("path", { d: line, class: "line" }));
}

// A bar for each position in the draft: of full height if every token that was proposed there was kept.
export function drawPositions(svg, proposed, accepted, limit) {
  const shares = proposed.map((offered, index) => percent(offered ? accepted[index] / offered : null));
  begin(svg, `Accepted at positions 1 to ${proposed.length} of the draft: ${shares.join(", ")}`);
  const step = WIDTH / Math.max(proposed.length, 8);
  proposed.forEach((offered, index) => {
    const ratio = offered ? accepted[index] / offered : 0;
    const height = Math.max(ratio * HEIGHT, 0.8);
    const kind = ratio >= limit ? "bar-good" : "bar-low";
    const bar = part("rect", { x: index * step, y: HEIGHT - height, width: step * 0.9, height, class: kind });
    const title = part("title", {});
    title.textContent = `position ${index + 1}: ${accepted[index]} of ${offered}`;
    bar.append(title);
    svg.append(bar);
  });
}
