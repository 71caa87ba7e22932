// A longitudinal config: the scans of each patient in chronological order, side by side and at the same scale.

/** A line of days with one dot per scan. */
function timeline(items) {
  const days = items.map((item) => item.days_since_first ?? null);
  if (days.includes(null)) return element("p", { className: "quiet" }, "days unknown");
  const span = Math.max(1, ...days);
  const at = (day) => `${1 + (98 * day) / span}%`;
  const picture = svgElement("svg", { class: "timeline", role: "img", "aria-label": `scans on days ${days.join(", ")}` });
  picture.append(svgElement("line", { x1: at(0), x2: at(span), y1: 10, y2: 10 }));
  days.forEach((day, number) => {
    const text = svgElement("text", { x: at(day), y: 30, "text-anchor": number === 0 ? "start" : day === span ? "end" : "middle" });
    text.textContent = `day ${day.toLocaleString("en")}`;
    picture.append(svgElement("circle", { cx: at(day), cy: 10, r: 6 }), text);
  });
  return picture;
}

/** At which nodule the close-ups of some scans are. */
function placeText(items) {
  const scans = items.map((item) => page.scans[item.scan]).filter(Boolean);
  const followed = scans.filter((scan) => scan.followed !== null);
  if (!followed.length) return "each at its largest nodule";
  const { track } = followed[0].nodules[followed[0].followed];
  const others = scans.length - followed.length;
  return `each at the nodule of track ${track}${others ? `, ${others.toLocaleString("en")} without it at the largest nodule` : ""}`;
}

/** The scans of one patient and slice thickness. `list` is what the viewer steps through. */
function sequence(config, items, list) {
  const [first] = items;
  const scan = first.scan ? page.scans[first.scan] : null;
  const side = scan?.closeUp ? Math.round(scan.closeUp.view[2] * scan.spacing[0]) : null;
  const thickness = thicknessText(first);
  const facts = [
    counted(items.length, scan ? "scan" : "picture"),
    scan && placeText(items),
    side && `${side} × ${side} mm`,
    scan?.hounsfield && "lung window",
  ];
  return element(
    "section",
    { className: "sequence", "aria-label": [`Patient ${first.patient ?? "unknown"}`, thickness].filter(Boolean).join(", ") },
    thickness && element("h3", {}, thickness),
    element("p", { className: "quiet" }, facts.filter(Boolean).join(", ")),
    timeline(items),
    element("ol", { className: "side-by-side" }, items.map((item) => (
      element("li", {}, card(config, item, () => openViewer(list, list.findIndex(([, other]) => other === item), { nodule: item.scan ? page.scans[item.scan].followed : null })))
    ))),
  );
}

/** The scans by patient and slice thickness, in the order of time. */
const inOrderOfTime = (items) => [...items].sort((a, b) => order.compare(a.patient ?? "", b.patient ?? "")
  || (a.slice_thickness_mm ?? 0) - (b.slice_thickness_mm ?? 0) || (a.timepoint ?? 0) - (b.timepoint ?? 0));

function patientsPanel(config) {
  const holder = element("div", {});
  const { bar, apply } = filterBar(config, (items) => {
    const sorted = inOrderOfTime(items);
    const list = sorted.map((item) => [config, item]);
    const byPatient = Map.groupBy(sorted, (item) => item.patient);
    holder.replaceChildren(...[...byPatient].map(([patient, scans]) => element(
      "article",
      { className: "patient" },
      element("h2", {}, `Patient ${patient ?? "unknown"}`),
      tracksSection(scans, ({ item, number }) => openViewer(list, list.findIndex(([, other]) => other === item), { nodule: number })) ?? [],
      [...Map.groupBy(scans, (item) => item.slice_thickness_mm).values()].map((same) => sequence(config, same, list)),
    )));
  });
  apply();
  return [introOf(config), bar, holder];
}
