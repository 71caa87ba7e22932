// Elements from JavaScript. Texts are only ever set as text: nothing that the data say becomes markup.
"use strict";

const page = JSON.parse(document.getElementById("document").textContent);

/** An element with properties (or attributes, where the name has a dash or is "role") and children; null is left out. */
function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (key.includes("-") || key === "role" || key === "for") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** An SVG element with attributes and children. */
function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** A list of [term, text]; what is not known is said to be. */
function factList(facts) {
  return element(
    "dl",
    { className: "facts" },
    facts.flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, text ?? "unknown")]),
  );
}

const counted = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
const millimetres = (value) => `${Number(value.toFixed(1))} mm`;
const dataUrl = (picture) => `data:image/webp;base64,${picture}`;

/** The days since the first scan in words. */
function dayText(item) {
  if (item.days_since_first === undefined) return null;
  return item.days_since_first === null ? "day unknown" : `day ${item.days_since_first.toLocaleString("en")}`;
}

/** A class with a sign beside its colour: a triangle is malignant, a dot benign. */
function classLabel(name) {
  const entry = page.classes.find((one) => one.name === name);
  if (!entry) return element("span", { className: "quiet" }, "class unknown");
  const kind = entry.malignant ? "malignant" : "benign";
  return element(
    "span",
    {},
    element("span", { className: kind, "aria-hidden": "true" }, entry.malignant ? "▲ " : "● "),
    name,
  );
}

/** What an example is called. */
function titleOf(config, item) {
  const parts = [config.name];
  if (item.patient !== null && item.patient !== undefined) parts.push(`patient ${item.patient}`);
  if (item.timepoint !== undefined && item.num_timepoints > 1) parts.push(dayText(item));
  if (item.slice_thickness_mm) parts.push(`${item.slice_thickness_mm} mm slices`);
  if (parts.length === 1) parts.push(item.id ?? `row ${item.row}`);
  return parts.join(" · ");
}
