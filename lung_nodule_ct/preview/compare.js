// Two scans of a patient side by side, with linked slices and crosshairs.

const dayAndThickness = (item) => [dayText(item), thicknessText(item)].filter(Boolean).join(" · ") || (item.id ?? `row ${item.row}`);

/** The indices of the other scans of a list that are of the same patient and have slices on the page. */
function comparable(list, index) {
  const [config, item] = list[index];
  if (!item.scan || item.patient === undefined || item.patient === null || !page.scans[item.scan].slices) return [];
  return list.flatMap(([otherConfig, other], number) => (
    number !== index && otherConfig === config && other.patient === item.patient && other.scan && page.scans[other.scan].slices ? [number] : []
  ));
}

/** Show the scan of the viewer next to another one of its list, or alone if `other` is null. The arrow keys then change the slice. */
function showComparison(other, at) {
  openViewer(shown.list, shown.index, { at, other });
  document.getElementById("viewer-body").focus();
}

class CompareView {
  /** `items` are two examples, and `place` is where the first one opens. */
  constructor(body, items, place) {
    const scans = items.map((item) => page.scans[item.scan]);
    this.isLinked = true;
    this.moving = null; // the side that the reader moves, while the other one follows
    this.place = null;
    this.sides = items.map((item, number) => new Side(item.scan, scans[number], [chosen.plane], this, dayAndThickness(item)));
    const extents = this.sides.map(({ panes: [pane] }) => pane.extent);
    this.sides.forEach(({ panes: [pane] }, number) => pane.zoom.scaleWith(extents[number], extents));
    this.sides.forEach(({ panes: [pane] }, number) => { pane.zoom.partner = this.sides[1 - number].panes[0].zoom; });
    this.status = element("span", { className: "quiet", role: "status" });
    this.how = element("p", { className: "quiet how" });
    const linked = element("label", {}, element("input", {
      type: "checkbox", checked: true, onchange: (event) => { this.isLinked = event.target.checked; this.moved(this.sides[0]); },
    }), "linked");
    const plane = element("label", {}, "Plane", element(
      "select",
      { name: "plane", onchange: (event) => { chosen.plane = event.target.value; showComparison(shown.other, this.at); } },
      Object.keys(PLANES).map((name) => element("option", { value: name, selected: name === chosen.plane }, name)),
    ));
    const columns = this.sides.map((side) => element(
      "div",
      { className: "compared" },
      element("h3", {}, side.label),
      side.panes[0].root,
    ));
    this.planes = element("div", { className: "two" }, columns);
    const bar = toolbarOf(this);
    bar.prepend(plane, linked);
    body.replaceChildren(element("div", { className: "comparison" }, bar, this.how, this.planes, helpOf()));
    this.applyMarks();
    const [first] = this.sides;
    const nodule = scans[0].nodules[place.nodule ?? scans[0].largest];
    if (place.at) first.position = first.within(first.shownAt(place.at));
    else if (nodule) first.position = first.within(nodule.keyPosition);
    this.moved(first);
    for (const side of this.sides) side.start(() => { this.status.textContent = this.sides.map(({ volume }) => decodedText(volume)).filter(Boolean).join(", "); });
  }

  /** The position of the first scan, as in the build. */
  get at() {
    return this.sides[0].at;
  }

  /** The other scan follows. */
  moved(side) {
    if (this.moving) return;
    this.moving = side;
    const other = this.sides[1 - this.sides.indexOf(side)];
    const { point, text } = placeIn(side.scan, other.scan, side.position);
    const isOutside = point.some((value, axis) => value < -0.5 || value > other.scan.shape[axis] - 0.5);
    if (this.isLinked) other.move(other.within(point));
    const outside = isOutside ? ". The place is outside the other scan" : "";
    this.how.textContent = this.isLinked ? `Linked ${text}${outside}.` : "Not linked.";
    this.moving = null;
    linkChanged();
  }

  redraw(names) {
    for (const side of this.sides) side.redraw(names);
  }

  showMasks() {
    for (const side of this.sides) side.showMask();
  }

  applyMarks() {
    applyMarksTo(this.planes);
  }

  /** Handle a key: slices and nodules of the first scan, or tools. */
  press(key) {
    const [first] = this.sides;
    if (first.pressSlice(key) || this.pressTool(key.toLowerCase())) return true;
    const { nodules } = first.scan;
    if (key.toLowerCase() !== "n" || !nodules.length) return false;
    this.nodule = ((this.nodule ?? -1) + 1) % nodules.length;
    first.move(first.within(nodules[this.nodule].keyPosition));
    return true;
  }

  close() {
    for (const side of this.sides) side.close();
  }
}
