// A scan in the dialog: three planes with a common position, windows, and a list of the nodules.

class ScanView extends Side {
  constructor(body, item, { nodule = null, at = null }) {
    const scan = page.scans[item.scan];
    super(item.scan, scan, Object.keys(PLANES));
    this.sides = [this];
    const start = scan.nodules[nodule] ? nodule : scan.largest;
    if (start !== null) {
      this.position = this.within(scan.nodules[start].keyPosition);
      this.follow(start);
    }
    if (at) this.position = this.within(this.shownAt(at));
    this.nodules = scan.nodules.map((each, number) => this.noduleButton(each, number));
    this.markers = scan.nodules.map((each, number) => this.marker(each, number));
    this.panes[0].slider.append(...this.markers.filter(Boolean));
    this.planes = element("div", { className: "planes" }, this.panes.map((pane) => pane.root));
    this.status = element("span", { className: "quiet", role: "status" });
    body.replaceChildren(
      element("div", { className: "scan" }, toolbarOf(this), this.planes, this.about(item)),
    );
    this.applyMarks();
    this.start((volume) => { this.status.textContent = decodedText(volume); });
  }

  /** Called after the planes were drawn. */
  drawn() {
    this.nodules.forEach((button, number) => button.setAttribute("aria-current", String(this.isAt(number))));
    linkChanged();
  }

  /** Whether the crosshair is at a nodule. */
  isAt(number) {
    return this.within(this.scan.nodules[number].keyPosition).every((value, axis) => (
      axis === 2 ? this.volume.nearest[value] === this.volume.nearest[this.position[2]] : value === this.position[axis]));
  }

  /** The number of the nodule at the crosshair; -1 if there is none. */
  get currentNodule() {
    return this.nodules.findIndex((_, number) => this.isAt(number));
  }

  showMasks() {
    this.showMask();
  }

  applyMarks() {
    applyMarksTo(this.planes);
  }

  isInside(nodule) {
    return nodule.center.every((value, axis) => value >= -0.5 && value < this.scan.shape[axis] - 0.5);
  }

  /** Remember the track of a nodule, so that the next scan opens at the same track. A scan without that track keeps it. */
  follow(number) {
    const { track } = this.scan.nodules[number];
    if (track) shown.track = track;
  }

  jump(number) {
    this.follow(number);
    this.move(this.within(this.scan.nodules[number].keyPosition));
  }

  noduleButton(nodule, number) {
    const size = nodule.diameterMm !== null ? millimetres(nodule.diameterMm) : null;
    const published = nodule.diameterAsPublished ? `diameter ${nodule.diameterAsPublished} as published` : "diameter unknown";
    const z = nodule.storedCenter.map((value) => value.toFixed(1)).join(", ");
    return element(
      "button",
      { type: "button", className: "plain", onclick: () => this.jump(number) },
      element("strong", {}, `Nodule ${number + 1}: ${size ?? published}`),
      this.oriented ? element("span", {}, classLabel(nodule.pathology)) : null,
      element("span", { className: "quiet" }, `voxel ${z}${this.isInside(nodule) ? "" : ", outside the volume"}`),
      typeof nodule.keySlice === "number" ? element("span", { className: "quiet" }, `key slice z = ${nodule.keySlice}, ${basisText(nodule)}`) : null,
      this.trackText(nodule) ? element("span", { className: "quiet" }, this.trackText(nodule)) : null,
    );
  }

  /** The track of a nodule in words; null if the build has no tracks. */
  trackText({ track, trackEvent, trackConfidence, trackReason }) {
    if (!track) return trackReason ? `no track: ${trackReason}` : null;
    const parts = [`track ${track}`, trackEvent, typeof trackConfidence === "number" ? `confidence ${trackConfidence.toFixed(2)}` : null];
    return parts.filter(Boolean).join(", ");
  }

  /** A triangle above the axial slider. With the keyboard, the list of nodules does the same. */
  marker(nodule, number) {
    if (!this.isInside(nodule) || this.scan.slices.length < 2) return null;
    const slot = this.volume.nearest[this.within(nodule.keyPosition)[2]];
    const share = slot / (this.scan.slices.length - 1);
    const text = `Nodule ${number + 1}, ${this.scan.storedAxes[2]} = ${this.stored(2, this.within(nodule.keyPosition)[2])}`;
    const made = element("button", { type: "button", className: "marker", title: text, "aria-label": text, tabIndex: -1, onclick: () => this.jump(number) });
    made.style.left = `calc(8px + ${share} * (100% - 16px))`; // the centre of the thumb moves between 8 px from each end
    return made;
  }

  about(item) {
    const { scan } = this;
    const step = scan.slices.length === scan.shape[2]
      ? `all ${scan.shape[2]}`
      : `${scan.slices.length} of ${scan.shape[2]}, with all slices through nodules`;
    const days = dayText(item);
    const stored = scan.storedAxes.map((name, axis) => `${scan.flipped[axis] ? "−" : "+"}${name}`).join(" ");
    return element(
      "div",
      { className: "about" },
      element("h3", {}, counted(scan.nodules.length, "annotated nodule")),
      element("ul", { className: "nodules" }, this.nodules.map((button) => element("li", {}, button))),
      factList([
        ["id", item.id],
        ["voxels", `${this.inStoredOrder(scan.shape).join(" × ")} (x, y, z)`],
        ["spacing", scan.spacing ? `${this.inStoredOrder(scan.spacing).map((value) => Number(value.toFixed(3))).join(" × ")} mm` : "unknown, drawn as equal in x, y, z"],
        ["slices on this page", `${step}, at ${scan.size[0]} × ${scan.size[1]} pixels`],
        ["values on this page", quantisationText(scan)],
        ...(this.oriented ? [["to left, back, head", `stored axes ${stored}${scan.tilt > 1 ? `, tilted by ${scan.tilt}°` : ""}`]] : []),
        ...(days === null ? [] : [["time", `${days}, timepoint ${item.timepoint ?? "unknown"}${item.num_timepoints ? ` (${item.num_timepoints} in total)` : ""}`]]),
        ...listedFacts(item),
        ...(item.patient === undefined ? [] : [["patient", item.patient]]),
      ]),
      helpOf(),
    );
  }

  inStoredOrder(values) {
    return ["x", "y", "z"].map((name) => values[this.scan.storedAxes.indexOf(name)]);
  }

  /** Handle a key; returns whether the key has a function. */
  press(key) {
    if (this.pressSlice(key) || this.pressTool(key.toLowerCase())) return true;
    if (key.toLowerCase() !== "n" || !this.nodules.length) return false;
    this.jump((this.currentNodule + 1) % this.nodules.length);
    return true;
  }
}

/** A scan of which the page has no slices. */
class StillView {
  constructor(body, item) {
    const scan = page.scans[item.scan];
    const text = "The slices of this scan do not fit the maximum size of the page. Write the page again with fewer scans (--scan) or a larger --max-mb.";
    body.replaceChildren(element("p", {}, text), stillOf(scan, scan.thumbnail, "one slice"));
  }

  press() {
    return false;
  }

  close() {}
}
