// A config as a grid of thumbnails with filters.

const FILTERS = [
  ["split", "Split", (item) => [item.split]],
  ["fold", "Fold", (item) => (item.fold === undefined ? [] : [item.fold === null ? "unknown" : String(item.fold)])],
  ["class", "Pathology class", (item) => (item.classes.length ? item.classes : ["unknown"])],
  ["size", "Nodule size", (item) => (item.sizes.length ? item.sizes : ["unknown"])],
  ["patient", "Patient", (item) => (item.patient === undefined ? [] : [item.patient ?? "unknown"])],
];

const order = new Intl.Collator("en", { numeric: true });

/** The values of a filter that a config's items have, in a sensible order; none where nothing is known of any. */
function valuesOf(name, values, items) {
  const found = new Set(items.flatMap(values));
  if ([...found].every((value) => value === "unknown")) return [];
  const fixed = { class: page.classes.map((entry) => entry.name), size: page.sizeGroups }[name];
  const sorted = fixed ? fixed.filter((value) => found.has(value)) : [...found].filter((v) => v !== "unknown").sort(order.compare);
  return found.has("unknown") ? [...sorted, "unknown"] : sorted;
}

/** What was drawn of how many. */
function sampledText(config) {
  const parts = Object.entries(config.totals).map(([split, total]) => {
    const own = config.items.filter((item) => item.split === split).length;
    return `${split} ${own.toLocaleString("en")} of ${total.toLocaleString("en")}`;
  });
  const total = Object.values(config.totals).reduce((sum, count) => sum + count, 0);
  if (!total) return "The build has no examples of this config.";
  const all = config.items.length === total;
  const how = config.kind === "patients" ? "whole patients, those with most timepoints first" : "drawn by split, class and size";
  const scans = config.items.map((item) => page.scans[item.scan]).filter((scan) => scan?.slices);
  const carried = scans.reduce((sum, scan) => sum + scan.slices.length, 0);
  const stored = scans.reduce((sum, scan) => sum + scan.shape[2], 0);
  const slices = scans.length ? ` Slices: ${carried.toLocaleString("en")} of ${stored.toLocaleString("en")}, compressed.` : "";
  return `Here: ${parts.join(", ")}${all ? ", which is all" : ` (${how}, seed ${page.seed})`}.${slices}`;
}

/** Filters over a config's items; `show` gets those that pass. */
function filterBar(config, show) {
  const state = {};
  const status = element("span", { className: "shown", role: "status" });
  const apply = () => {
    const passing = config.items.filter((item) => FILTERS.every(([name, , values]) => !state[name] || values(item).includes(state[name])));
    status.textContent = `${passing.length.toLocaleString("en")} of ${config.items.length.toLocaleString("en")} shown`;
    show(passing);
  };
  const selects = FILTERS.flatMap(([name, title, values]) => {
    const known = valuesOf(name, values, config.items);
    if (!known.length) return [];
    const select = element(
      "select",
      { name, onchange: () => { state[name] = select.value; apply(); } },
      element("option", { value: "" }, "all"),
      known.map((value) => element("option", { value }, value)),
    );
    return [element("label", {}, title, select)];
  });
  const reset = element("button", {
    type: "button", className: "plain",
    onclick: () => {
      for (const label of selects) label.querySelector("select").value = "";
      for (const name of Object.keys(state)) delete state[name];
      apply();
    },
  }, "Reset");
  return { bar: element("div", { className: "filters" }, selects, selects.length ? reset : null, status), apply };
}

/** The largest nodule in words. */
function largestText(item) {
  const scan = page.scans[item.scan];
  if (scan.largest === null) return "no nodule annotated";
  const { diameterMm } = scan.nodules[scan.largest];
  const more = scan.nodules.length > 1 ? `, largest of ${scan.nodules.length}` : "";
  return diameterMm === null ? counted(scan.nodules.length, "nodule") : `${millimetres(diameterMm)}${more}`;
}

/** A thumbnail that opens the viewer. */
function card(config, item, open) {
  const scan = item.scan ? page.scans[item.scan] : null;
  const still = scan && config.kind === "patients" ? scan.closeUp ?? scan.thumbnail : scan?.thumbnail;
  const head = config.kind === "patients"
    ? [dayText(item), largestText(item)]
    : [item.patient === undefined ? item.id : `patient ${item.patient ?? "unknown"}`, scan ? largestText(item) : null];
  const where = [item.split, item.fold === null || item.fold === undefined ? null : `fold ${item.fold}`];
  if (item.augmented) where.push("augmented");
  if (config.kind === "scans" && item.num_timepoints > 1) where.push(dayText(item));
  if (config.kind === "pictures" && item.boxes.length !== 1 && !item.classes.length) where.push(counted(item.boxes.length, "box", "boxes"));
  const hasClass = item.classes.length || config.kind !== "pictures" && scan.spacing && scan.nodules.length;
  return element(
    "button",
    { type: "button", className: "card", onclick: open },
    element("span", { className: "still" }, scan ? stillOf(scan, still, "") : pictureOf(item, "")),
    element(
      "span",
      { className: "caption" },
      element("strong", {}, head.filter(Boolean).join(" · ")),
      hasClass ? (item.classes.length ? item.classes.map(classLabel) : classLabel(null)) : null,
      element("span", { className: "quiet" }, where.filter(Boolean).join(" · ")),
    ),
  );
}

/** The panel of a config of pictures or scans. */
function galleryPanel(config) {
  const grid = element("ul", { className: "grid" });
  const { bar, apply } = filterBar(config, (items) => {
    const list = items.map((item) => [config, item]);
    grid.replaceChildren(...items.map((item, place) => element("li", {}, card(config, item, () => openViewer(list, place)))));
  });
  apply();
  return [introOf(config), bar, grid];
}

function introOf(config) {
  return element(
    "div",
    { className: "intro" },
    element("p", {}, config.summary),
    element("p", { className: "quiet" }, sampledText(config)),
  );
}
