// The longitudinal config: each patient's scans in the order of time, side by side at one scale.

/** Days on a line, a dot a scan. */
function timeline(items) {
  const days = items.map((item) => item.days_since_first);
  if (days.some((day) => day === null)) return element("p", { className: "quiet" }, "days unknown");
  const span = Math.max(1, ...days);
  const at = (day) => `${1 + (98 * day) / span}%`;
  const picture = drawn("svg", { class: "timeline", role: "img", "aria-label": `scans on days ${days.join(", ")}` });
  picture.append(drawn("line", { x1: at(0), x2: at(span), y1: 10, y2: 10 }));
  days.forEach((day, place) => {
    const text = drawn("text", { x: at(day), y: 30, "text-anchor": place === 0 ? "start" : day === span ? "end" : "middle" });
    text.textContent = `day ${day.toLocaleString("en")}`;
    picture.append(drawn("circle", { cx: at(day), cy: 10, r: 6 }), text);
  });
  return picture;
}

/** One patient and thickness. */
function sequence(config, items, list) {
  const [first] = items;
  const scans = items.map((item) => page.scans[item.scan]);
  const side = scans[0].closeUp ? Math.round(scans[0].closeUp.view[2] * scans[0].spacing[0]) : null;
  return element(
    "section",
    { className: "sequence", "aria-label": `${first.slice_thickness_mm} mm slices` },
    element("h3", {}, `${first.slice_thickness_mm} mm slices`),
    element("p", { className: "quiet" }, `${counted(items.length, "scan")}, each at its largest nodule${side ? `, ${side} × ${side} mm` : ""}, lung window`),
    timeline(items),
    element("ol", { className: "side-by-side" }, items.map((item) => (
      element("li", {}, card(config, item, () => openViewer(list, list.findIndex(([, own]) => own === item))))
    ))),
  );
}

function patientsPanel(config) {
  const holder = element("div", {});
  const { bar, apply } = filterBar(config, (items) => {
    const sorted = [...items].sort((a, b) => order.compare(a.patient, b.patient)
      || a.slice_thickness_mm - b.slice_thickness_mm || (a.timepoint ?? 0) - (b.timepoint ?? 0));
    const list = sorted.map((item) => [config, item]);
    const byPatient = Map.groupBy(sorted, (item) => item.patient);
    holder.replaceChildren(...[...byPatient].map(([patient, own]) => element(
      "article",
      { className: "patient" },
      element("h2", {}, `Patient ${patient ?? "unknown"}`),
      [...Map.groupBy(own, (item) => item.slice_thickness_mm).values()].map((scans) => sequence(config, scans, list)),
    )));
  });
  apply();
  return [introOf(config), bar, holder];
}
