// A scan in the dialog: three planes with a common position, windows, and a list of the nodules.

class ScanView {
  constructor(body, scan, item, nodule) {
    this.scan = scan;
    this.oriented = scan.spacing !== null;
    this.frame = 0;
    this.dirty = new Set();
    if (!scan.slices) {
      this.position = null;
      const text = "The slices of this scan do not fit the maximum size of the page. Write the page again with a larger --max-mb.";
      body.replaceChildren(element("p", {}, text), stillOf(scan, scan.thumbnail, "one slice"));
      return;
    }
    this.volume = new Volume(item.scan, scan);
    const start = nodule ?? scan.largest;
    this.position = this.within(start === null ? scan.shape.map((size) => size / 2 - 0.5) : scan.nodules[start].keyPosition);
    if (start !== null) this.follow(start);
    this.panes = Object.keys(PLANES).map((name) => new Pane(this, name));
    this.nodules = scan.nodules.map((nodule, number) => this.noduleButton(nodule, number));
    this.markers = scan.nodules.map((nodule, number) => this.marker(nodule, number));
    this.panes[0].slider.append(...this.markers.filter(Boolean));
    this.planes = element("div", { className: "planes" }, this.panes.map((pane) => pane.root));
    this.loading = element("span", { className: "quiet", role: "status" });
    body.replaceChildren(
      element("div", { className: "scan" }, this.toolbar(), this.planes, this.about(item)),
    );
    this.applyMarks();
    this.start();
  }

  get preset() {
    return this.scan.hounsfield ? PRESETS[chosen.preset] : PLAIN;
  }

  /** The stored index, as in the build, of an index in display order. */
  stored(axis, index) {
    return this.scan.flipped[axis] ? this.scan.shape[axis] - 1 - index : index;
  }

  /** The nearest voxel inside the scan. */
  within(point) {
    return point.map((value, axis) => Math.min(this.scan.shape[axis] - 1, Math.max(0, Math.round(value))));
  }

  async start() {
    const from = this.volume.nearest[this.position[2]];
    await this.volume.decode(from);
    this.redraw();
    await this.volume.decodeAll(from, () => {
      const { ready, pictures } = this.volume;
      this.loading.textContent = ready < pictures.length ? `${ready} of ${pictures.length} slices decoded` : "";
      this.redraw(["coronal", "sagittal"]);
    });
    if (chosen.mask) await this.showMask();
  }

  async showMask() {
    if (!this.volume.masks.length) return;
    await this.volume.decodeMask();
    this.redraw();
  }

  /** Go to a position: an array x, y, z, or an object with some of the axes 0, 1, 2. */
  async move(to) {
    const next = this.position.map((current, axis) => to[axis] ?? current);
    next[2] = this.scan.slices[this.volume.nearest[next[2]]];
    const changed = this.panes.filter((pane) => next[pane.plane.through] !== this.position[pane.plane.through]);
    if (!changed.length) return;
    const previous = this.position;
    this.position = next;
    this.volume.lastMove = performance.now();
    const slot = this.volume.nearest[next[2]];
    this.volume.decodeAhead(slot, Math.sign(next[2] - previous[2]));
    await this.volume.decode(slot);
    this.redraw(changed.map((pane) => pane.name));
  }

  /** Draw in the next frame: the pixels of the named planes, and the marks of all planes. */
  redraw(names = Object.keys(PLANES)) {
    names.forEach((name) => this.dirty.add(name));
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      if (this.volume.closed) return;
      for (const pane of this.panes) pane.draw(this.dirty.has(pane.name));
      this.dirty.clear();
      this.nodules.forEach((button, number) => {
        const nodule = this.scan.nodules[number];
        button.setAttribute("aria-current", String(this.within(nodule.keyPosition).every((value, axis) => (
          axis === 2 ? this.volume.nearest[value] === this.volume.nearest[this.position[2]] : value === this.position[axis]))));
      });
    });
  }

  toolbar() {
    const preset = (entry, number) => element("label", {}, element("input", {
      type: "radio", name: "preset", value: entry.name, checked: number === chosen.preset, disabled: !this.scan.hounsfield,
      onchange: () => { chosen.preset = number; this.redraw(); },
    }), `${entry.name} ${String(entry.center).replace("-", "−")}/${entry.width}`);
    const toggle = (name, text, line) => element("label", {}, element("input", {
      type: "checkbox", checked: chosen[name], name, disabled: name === "mask" && !this.volume.masks.length,
      onchange: (event) => { chosen[name] = event.target.checked; this.applyMarks(); if (name === "mask") this.showMask().then(() => this.redraw()); },
    }), line ? element("span", { className: `legend-line ${line}`, "aria-hidden": "true" }) : null, text);
    const presets = this.scan.hounsfield
      ? PRESETS.map(preset)
      : [element("span", {}, this.scan.stretchedFrom ? `labels 0 to ${this.scan.stretchedFrom}, stretched` : "8-bit greys as published, not in Hounsfield units")];
    return element(
      "div",
      { className: "toolbar" },
      element("fieldset", {}, element("legend", {}, "Window"), presets),
      element(
        "fieldset",
        {},
        element("legend", {}, "Show"),
        toggle("circles", "sphere", "circle"),
        toggle("boxes", "voxel box", "box"),
        toggle("crosshair", "crosshair", "crosshair"),
        toggle("mask", this.volume.masks.length ? "lung mask" : "lung mask (none)"),
      ),
      this.loading,
    );
  }

  applyMarks() {
    for (const name of ["circles", "boxes", "crosshair"]) this.planes.classList.toggle(`without-${name}`, !chosen[name]);
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
        ...(this.oriented ? [["to left, back, head", `stored axes ${stored}${scan.tilt > 1 ? `, tilted by ${scan.tilt}°` : ""}`]] : []),
        ...(days === null ? [] : [["time", `${days}, timepoint ${item.timepoint ?? "unknown"}${item.num_timepoints ? ` (${item.num_timepoints} in total)` : ""}`]]),
        ...listedFacts(item),
        ...(item.patient === undefined ? [] : [["patient", item.patient]]),
      ]),
      element(
        "p",
        { className: "quiet" },
        element("kbd", {}, "↑"), " ", element("kbd", {}, "↓"), " or wheel: one slice. ",
        element("kbd", {}, "PgUp"), " ", element("kbd", {}, "PgDn"), ": ten slices. ",
        element("kbd", {}, "N"), ": next nodule. ", element("kbd", {}, "1"), " ", element("kbd", {}, "2"), ": window. ",
        element("kbd", {}, "M"), ": marks. ", element("kbd", {}, "←"), " ", element("kbd", {}, "→"), ": previous and next example. ",
        element("kbd", {}, "Esc"), ": close. Click to move the crosshair; swipe to scroll.",
      ),
    );
  }

  inStoredOrder(values) {
    return ["x", "y", "z"].map((name) => values[this.scan.storedAxes.indexOf(name)]);
  }

  /** Handle a key; returns whether the key has a function. */
  press(key) {
    if (!this.position) return false;
    const axial = this.panes[0];
    const by = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[key];
    if (by) axial.go(axial.slot + by);
    else if (key === "Home") axial.go(0);
    else if (key === "End") axial.go(axial.positions.length - 1);
    else if ((key === "1" || key === "2") && this.scan.hounsfield) {
      dialog.querySelectorAll("input[name=preset]")[Number(key) - 1].click();
    } else if (key.toLowerCase() === "n" && this.nodules.length) {
      const current = this.nodules.findIndex((button) => button.getAttribute("aria-current") === "true");
      this.jump((current + 1) % this.nodules.length);
    } else if (key.toLowerCase() === "m") {
      const show = !(chosen.circles || chosen.boxes);
      for (const name of ["circles", "boxes"]) dialog.querySelector(`input[name=${name}]`).checked = chosen[name] = show;
      this.applyMarks();
    } else return false;
    return true;
  }

  close() {
    if (this.volume) this.volume.closed = true;
  }
}
