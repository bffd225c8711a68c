// What can be told of a page without eyes: a list of complaints about what is shown now.
() => {
  const complaints = [];
  const name = (e) => `${e.tagName.toLowerCase()}${e.id ? `#${e.id}` : ""}${e.className && e.className.baseVal === undefined ? `.${e.className}` : ""}`;
  const shown = (e) => e.checkVisibility({ visibilityProperty: true }) && !e.closest(".spoken") && e.getClientRects().length > 0;
  const all = [...document.body.querySelectorAll("*")].filter((e) => shown(e) && !e.closest("svg"));

  // Nothing reaches beyond the window, or out of sight in a box of its own.
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) complaints.push(`the page is ${root.scrollWidth - root.clientWidth} px too wide`);
  for (const e of all) {
    if (["textarea", "input", "select"].includes(e.tagName.toLowerCase()) || e.scrollWidth <= e.clientWidth + 1) continue;
    const style = getComputedStyle(e);
    if (style.overflowX !== "visible" && style.textOverflow !== "ellipsis") complaints.push(`${name(e)} is ${e.scrollWidth - e.clientWidth} px too wide`);
  }

  // Every text stands out from what is behind it: 4.5 : 1, and 3 : 1 where it is large (WCAG 1.4.3).
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const blended = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) {
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
    }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((value) => value / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const modal = document.querySelector("dialog[open]");
  for (const e of all) {
    const text = [...e.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE).map((node) => node.data).join("").trim();
    if (!text || e.closest(":disabled, [data-lost] button") || (modal && !modal.contains(e))) continue;
    const behind = [];
    for (let at = e; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
    const style = getComputedStyle(e);
    const [front, back] = [blended([...behind, style.color]), blended(behind)].map(luminance);
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) complaints.push(`"${text.slice(0, 30)}" in ${name(e)} has a contrast of ${ratio.toFixed(2)}`);
  }

  // Every control has a name and can be reached; what scrolls can be scrolled with the keyboard.
  for (const e of all) {
    if (!e.matches("button, a, input, select, textarea, summary")) continue;
    const named = e.getAttribute("aria-label") || e.textContent.trim() || (e.labels && e.labels.length);
    if (!named) complaints.push(`${name(e)} has no name`);
    if (e.tabIndex < 0) complaints.push(`${name(e)} cannot be reached with the keyboard`);
    const box = e.getBoundingClientRect();
    if (Math.min(box.width, box.height) < 13) complaints.push(`${name(e)} is only ${box.width.toFixed()} x ${box.height.toFixed()} px`);
  }
  for (const e of all) {
    const scrolls = e.scrollHeight > e.clientHeight + 1 && ["auto", "scroll"].includes(getComputedStyle(e).overflowY);
    if (scrolls && e !== document.body && e.tabIndex < 0) complaints.push(`${name(e)} scrolls, but not with the keyboard`);
  }
  return [...new Set(complaints)];
}
