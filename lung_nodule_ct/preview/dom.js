// Creation of elements. Texts of the data are only set as text, so they can never become markup.
"use strict";

const page = JSON.parse(document.getElementById("document").textContent);

/** An element with properties and children; names with a dash, "role" and "for" are set as attributes, null is left out. */
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
function svgElement(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** A list of [term, text]; null is shown as "unknown". */
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

/** The number of days since the first scan, null if the config has no such column. */
function dayText(item) {
  if (item.days_since_first === undefined) return null;
  return item.days_since_first === null ? "day unknown" : `day ${item.days_since_first.toLocaleString("en")}`;
}

/** The slice thickness, null if it is unknown. */
function thicknessText(item) {
  return item.slice_thickness_mm ? `${item.slice_thickness_mm} mm slices` : null;
}

/** A class with a symbol, so that it does not depend on colour: a triangle is malignant, a dot benign. */
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

/** The title of an example. */
function titleOf(config, item) {
  const parts = [config.name];
  if (item.patient !== null && item.patient !== undefined) parts.push(`patient ${item.patient}`);
  if (item.timepoint !== undefined && item.num_timepoints > 1) parts.push(dayText(item));
  parts.push(thicknessText(item));
  const known = parts.filter(Boolean);
  if (known.length === 1) known.push(item.id ?? `row ${item.row}`);
  return known.join(" · ");
}
