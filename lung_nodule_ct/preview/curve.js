// The diameters of a patient's nodules over days, as published, with the scans of a track linked.

const CURVE_HEIGHT = 170;
const TRACK_COLOURS = 5;
const LEAST_LABEL_SHARE = 9; // of the width, between two days with a label

/** The annotations of a patient: [{ item, scan, nodule, number }], in the order of the scans. */
function annotationsOf(items) {
  return items.flatMap((item) => {
    const scan = item.scan ? page.scans[item.scan] : null;
    return (scan?.nodules ?? []).map((nodule, number) => ({ item, scan, nodule, number }));
  });
}

/** The annotations of each track, in the order of time, the thinnest slices of a day first. */
function tracksOf(annotations) {
  const followed = annotations.filter(({ nodule }) => nodule.track);
  const sorted = followed.toSorted((a, b) => (a.item.timepoint ?? 0) - (b.item.timepoint ?? 0)
    || (a.item.slice_thickness_mm ?? 0) - (b.item.slice_thickness_mm ?? 0));
  return [...Map.groupBy(sorted, ({ nodule }) => nodule.track)].toSorted(([a], [b]) => order.compare(a, b));
}

/** The upper end of an axis of diameters: a multiple of its step, and the step. */
function diameterAxis(largest) {
  const step = [1, 2, 5, 10, 20, 50].find((size) => largest / size <= 4) ?? 100;
  return { step, top: Math.max(1, Math.ceil(largest / step)) * step };
}

/** A point that opens its scan: a disc for the thinnest slices of the patient, a square around it for others. */
function curvePoint({ item, nodule }, place, isThin, colour, open) {
  const [x, y] = place;
  const name = [nodule.track ? `track ${nodule.track}` : "no track", dayText(item), thicknessText(item), millimetres(nodule.diameterMm)];
  const text = name.filter(Boolean).join(", ");
  const shape = isThin
    ? svgElement("circle", { cx: x, cy: y, r: 5 })
    : svgElement("rect", { x, y: y - 8, width: 16, height: 16, transform: "translate(-8 0)" });
  const title = svgElement("title");
  title.textContent = text;
  const point = svgElement("g", {
    class: `point ${colour} ${isThin ? "thin" : "thick"}`, role: "button", tabindex: 0, "aria-label": `Open ${text}`,
  }, shape, title);
  point.addEventListener("click", open);
  point.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    open();
  });
  return point;
}

/** The curve: days to the right, diameters upwards from 0. `open` receives an annotation. */
function diameterCurve(annotations, tracks, open) {
  const measured = annotations.filter(({ item, nodule }) => nodule.diameterMm > 0 && typeof item.days_since_first === "number");
  if (!measured.length) return element("p", { className: "quiet" }, "no diameters with days");
  const days = [...new Set(measured.map(({ item }) => item.days_since_first))].sort((a, b) => a - b);
  const span = Math.max(1, days.at(-1));
  const { step, top } = diameterAxis(Math.max(...measured.map(({ nodule }) => nodule.diameterMm)));
  const at = (day) => 2 + (96 * day) / span;
  const height = (mm) => 10 + (CURVE_HEIGHT - 34) * (1 - mm / top);
  const placeOf = ({ item, nodule }) => [`${at(item.days_since_first)}%`, height(nodule.diameterMm)];
  const thinnest = Math.min(...measured.map(({ item }) => item.slice_thickness_mm ?? 0));
  const isThin = ({ item }) => (item.slice_thickness_mm ?? 0) === thinnest;
  const picture = svgElement("svg", { class: "curve", height: CURVE_HEIGHT, role: "group", "aria-label": "published diameters in mm over days" });
  const label = (attributes, text) => {
    const made = svgElement("text", attributes);
    made.textContent = text;
    picture.append(made);
  };
  for (let mm = 0; mm <= top; mm += step) {
    picture.append(svgElement("line", { class: "grid-line", x1: 0, x2: "100%", y1: height(mm), y2: height(mm) }));
    label({ x: -6, y: height(mm) + 4, "text-anchor": "end" }, `${mm} mm`);
  }
  let last = -Infinity;
  for (const day of days) {
    if (at(day) - last < LEAST_LABEL_SHARE) continue;
    last = at(day);
    label({ x: `${last}%`, y: CURVE_HEIGHT - 4, "text-anchor": day === span ? "end" : last < 4 ? "start" : "middle" }, `day ${day.toLocaleString("en")}`);
  }
  const colours = new Map(tracks.map(([track], number) => [track, `track-${number % TRACK_COLOURS}`]));
  for (const [track, own] of tracks) {
    for (const same of Map.groupBy(own.filter((each) => measured.includes(each)), ({ item }) => item.slice_thickness_mm).values()) {
      same.slice(1).forEach((each, number) => {
        const [[x1, y1], [x2, y2]] = [placeOf(same[number]), placeOf(each)];
        picture.append(svgElement("line", { class: `link ${colours.get(track)} ${isThin(each) ? "thin" : "thick"}`, x1, y1, x2, y2 }));
      });
    }
  }
  const drawn = measured.toSorted((a, b) => isThin(a) - isThin(b)); // discs over squares
  picture.append(...drawn.map((each) => curvePoint(each, placeOf(each), isThin(each), colours.get(each.nodule.track) ?? "alone", () => open(each))));
  return picture;
}

/** One line about a track: how its published diameter changed, its class, and what happened to it. */
function trackLine([track, own], number, open) {
  const sizes = own.filter(({ item, nodule }) => nodule.diameterMm > 0 && item.slice_thickness_mm === own[0].item.slice_thickness_mm);
  const [first, last] = [sizes[0], sizes.at(-1)];
  const change = sizes.length > 1 ? last.nodule.diameterMm / first.nodule.diameterMm - 1 : null;
  const links = own.map(({ nodule }) => nodule.trackConfidence).filter((value) => typeof value === "number");
  const facts = [
    sizes.length > 1 ? `${millimetres(first.nodule.diameterMm)} → ${millimetres(last.nodule.diameterMm)}` : null,
    change === null ? null : `${change < 0 ? "−" : "+"}${Math.abs(100 * change).toFixed(0)} %`,
    counted(new Set(own.map(({ item }) => item.timepoint)).size, "date"),
    links.length ? `confidence of the links at least ${Math.min(...links).toFixed(2)}` : null,
    own.at(-1).nodule.trackEnded ? "a later scan shows its place, without an annotation" : null,
  ];
  const pathology = own.map(({ nodule }) => nodule.trackPathology).find(Boolean);
  return element(
    "li",
    {},
    element("button", { type: "button", className: "plain", onclick: () => open(own[0]) },
      element("span", { className: `swatch track-${number % TRACK_COLOURS}`, "aria-hidden": "true" }), `Track ${track}`),
    " ", pathology ? [classLabel(pathology), " "] : null,
    element("span", { className: "quiet" }, facts.filter(Boolean).join(", ")),
  );
}

/** The tracks of a patient as a curve and a list; null if the build has no tracks of this patient. */
function tracksSection(items, open) {
  const annotations = annotationsOf(items);
  const tracks = tracksOf(annotations);
  const reasons = annotations.map(({ nodule }) => nodule.trackReason).filter(Boolean);
  if (!tracks.length && !reasons.length) return null;
  const counts = [...Map.groupBy(reasons, (reason) => reason)].map(([reason, same]) => `${same.length.toLocaleString("en")}: ${reason}`);
  return element(
    "section",
    { className: "tracks", "aria-label": `Patient ${items[0].patient ?? "unknown"}, diameters over time` },
    element("h3", {}, "Diameters over time"),
    element("p", { className: "quiet" }, "Diameters as published. Lines join the scans of a track at one slice thickness: a disc is the thinnest, a square a thicker one. A point opens its scan at the nodule."),
    diameterCurve(annotations, tracks, open),
    element("ul", { className: "track-list" }, tracks.map((track, number) => trackLine(track, number, open))),
    counts.length ? element("p", { className: "quiet" }, `Without a track, ${counts.join("; ")}`) : null,
  );
}
