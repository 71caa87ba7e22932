// A config as a grid of thumbnails with filters.

const FILTERS = [
  ["split", "Split", (item) => [item.split]],
  ["fold", "Fold", (item) => (item.fold === undefined ? [] : [item.fold === null ? "unknown" : String(item.fold)])],
  ["class", "Pathology class", (item) => (item.classes.length ? item.classes : ["unknown"])],
  ["size", "Nodule size", (item) => (item.sizes.length ? item.sizes : ["unknown"])],
  ["patient", "Patient", (item) => (item.patient === undefined ? [] : [item.patient ?? "unknown"])],
];

const order = new Intl.Collator("en", { numeric: true });

/** The sorted values of a filter among the items of a config; empty if all values are unknown. */
function valuesOf(name, values, items) {
  const present = new Set(items.flatMap(values));
  if ([...present].every((value) => value === "unknown")) return [];
  const fixed = { class: page.classes.map((entry) => entry.name), size: page.sizeGroups }[name];
  const sorted = fixed ? fixed.filter((value) => present.has(value)) : [...present].filter((v) => v !== "unknown").sort(order.compare);
  return present.has("unknown") ? [...sorted, "unknown"] : sorted;
}

/** How many examples and slices are on the page, and how they were selected. */
function sampledText(config) {
  const total = Object.values(config.totals).reduce((sum, count) => sum + count, 0);
  if (!total) return "The build has no examples of this config.";
  const parts = Object.entries(config.totals).map(([split, count]) => {
    const shown = config.items.filter((item) => item.split === split).length;
    return `${split} ${shown.toLocaleString("en")} of ${count.toLocaleString("en")}`;
  });
  let how = "all examples";
  if (config.items.length < total && page.choice && page.choice !== "all scans") {
    how = `of ${page.choice}${config.hasVolumes ? "" : ", a sample if there are many"}`;
  } else if (config.items.length < total) {
    how = config.longitudinal ? "all scans of some patients, those with the most timepoints first" : "a random sample of each split, class and size";
    how += `, seed ${page.seed}`;
  }
  const scans = config.items.map((item) => page.scans[item.scan]).filter((scan) => scan?.slices);
  const onPage = scans.reduce((sum, scan) => sum + scan.slices.length, 0);
  const stored = scans.reduce((sum, scan) => sum + scan.shape[2], 0);
  const slices = scans.length ? ` Slices on this page: ${onPage.toLocaleString("en")} of ${stored.toLocaleString("en")}, ${page.isServed ? "from the server" : "compressed"}.` : "";
  return `Examples on this page: ${parts.join(", ")} (${how}).${slices}`;
}

/** Filters for the items of a config; `show` receives the items that match. */
function filterBar(config, show) {
  const state = {};
  const status = element("span", { className: "shown", role: "status" });
  const apply = () => {
    const matching = config.items.filter((item) => FILTERS.every(([name, , values]) => !state[name] || values(item).includes(state[name])));
    status.textContent = `${matching.length.toLocaleString("en")} of ${config.items.length.toLocaleString("en")} shown`;
    show(matching);
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

/** The size of the largest nodule of a scan, or of the one that its close-up follows. */
function nodulesText(scan, isFollowed) {
  if (isFollowed && scan.followed !== null) {
    const { diameterMm, track } = scan.nodules[scan.followed];
    return `${diameterMm === null ? "diameter unknown" : millimetres(diameterMm)}, track ${track}`;
  }
  if (scan.largest === null) return "no nodule annotated";
  const { diameterMm } = scan.nodules[scan.largest];
  const more = scan.nodules.length > 1 ? `, largest of ${scan.nodules.length}` : "";
  return diameterMm === null ? counted(scan.nodules.length, "nodule") : `${millimetres(diameterMm)}${more}`;
}

/** A thumbnail that opens the viewer. */
function card(config, item, open) {
  const scan = item.scan ? page.scans[item.scan] : null;
  const still = scan && ((config.longitudinal && scan.closeUp) || scan.thumbnail);
  const head = [
    config.longitudinal ? dayText(item) : item.patient === undefined ? item.id ?? `row ${item.row}` : `patient ${item.patient ?? "unknown"}`,
    scan && nodulesText(scan, config.longitudinal),
  ];
  const details = [item.split, item.fold === null || item.fold === undefined ? null : `fold ${item.fold}`];
  if (item.augmented) details.push("augmented");
  if (!config.longitudinal && item.num_timepoints > 1) details.push(dayText(item));
  if (item.boxes && item.boxes.length !== 1 && !item.classes.length) details.push(counted(item.boxes.length, "box", "boxes"));
  const hasClass = item.classes.length || (scan?.spacing && scan.nodules.length);
  const picture = scan ? stillOf(scan, still, "") : item.picture ? pictureOf(item, "") : "no picture";
  return element(
    "button",
    { type: "button", className: "card", onclick: open },
    element("span", { className: "still" }, picture),
    element(
      "span",
      { className: "caption" },
      element("strong", {}, head.filter(Boolean).join(" · ")),
      hasClass ? (item.classes.length ? item.classes.map(classLabel) : classLabel(null)) : null,
      element("span", { className: "quiet" }, details.filter(Boolean).join(" · ")),
    ),
  );
}

/** With the focus on a card, the arrow keys go to the next card in their direction. */
function walkCards(event) {
  const current = event.target.closest?.(".card");
  if (!current || event.ctrlKey || event.metaKey || event.altKey) return;
  const cards = [...current.closest("[role=tabpanel]").querySelectorAll(".card")];
  const index = cards.indexOf(current);
  const by = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: cards.length - 1 }[event.key];
  let next = cards[by];
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const sign = event.key === "ArrowDown" ? 1 : -1;
    const { left, top } = current.getBoundingClientRect();
    const beyond = cards.map((card) => [card, card.getBoundingClientRect()]).filter(([, bounds]) => sign * (bounds.top - top) > 1);
    const nearest = Math.min(...beyond.map(([, bounds]) => sign * bounds.top));
    [[next]] = [...beyond.filter(([, bounds]) => sign * bounds.top - nearest < 1)
      .sort(([, a], [, b]) => Math.abs(a.left - left) - Math.abs(b.left - left)), [current]];
  } else if (by === undefined) return;
  event.preventDefault();
  next?.focus();
}

/** The panel of a config that is not longitudinal. */
function galleryPanel(config) {
  const grid = element("ul", { className: "grid" });
  const { bar, apply } = filterBar(config, (items) => {
    const list = items.map((item) => [config, item]);
    grid.replaceChildren(...items.map((item, index) => element("li", {}, card(config, item, () => openViewer(list, index)))));
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
