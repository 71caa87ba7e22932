// One plane of a scan: a canvas with marks, a slider, and the effects of the pointer.

class Pane {
  constructor(view, name) {
    this.view = view;
    this.name = name;
    this.plane = PLANES[name];
    const { scan } = view;
    const [across, down] = [scan.shape[this.plane.across], scan.shape[this.plane.down]];
    this.positions = name === "axial" ? scan.slices : Array.from({ length: scan.shape[this.plane.through] }, (_, i) => i);
    this.canvas = element("canvas", { role: "img", "aria-label": `${name} slice, being read` });
    this.image = null;
    this.pointed = null; // the voxel under the pointer
    this.marks = svgElement("svg", { viewBox: `0 0 ${across} ${down}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.lengths = element("div", { className: "lengths" });
    this.picture = element("div", { className: "picture" }, this.canvas, this.marks, this.lengths);
    this.under = element("span", { className: "under" });
    this.keys = element("span", { className: "keys" });
    this.output = element("output", {});
    this.input = element("input", {
      type: "range", min: 0, max: this.positions.length - 1, step: 1,
      "aria-label": [`${name} slice`, view.label].filter(Boolean).join(", "), disabled: this.positions.length === 1,
    });
    const sides = view.oriented
      ? ["left", "right", "up", "down"].map((side, n) => element("span", { className: `side ${side}`, "aria-hidden": "true" }, this.plane.sides[n]))
      : [];
    this.stage = element("div", { className: "stage" }, this.picture, sides, this.keys, this.under);
    this.slider = element("div", { className: "slider" }, this.input);
    this.root = element(
      "section",
      { className: `pane ${name}`, "aria-label": [`${name} plane`, view.label].filter(Boolean).join(", ") },
      element("div", { className: "pane-head" }, element("span", {}, view.oriented ? name : `normal to ${"xyz"[this.plane.through]}`), this.output),
      this.stage,
      this.slider,
    );
    this.extent = [across * steps(scan)[this.plane.across], down * steps(scan)[this.plane.down]]; // in mm
    this.zoom = new Zoom(this.stage, this.picture, this.extent[0] / this.extent[1]);
    this.input.addEventListener("input", () => this.go(Number(this.input.value)));
    this.listen();
  }

  get index() {
    return this.view.position[this.plane.through];
  }

  /** The index of the shown slice among those that can be shown. */
  get slot() {
    return this.name === "axial" ? this.view.volume.nearest[this.index] : this.index;
  }

  go(slot) {
    const inside = Math.min(this.positions.length - 1, Math.max(0, slot));
    this.view.move({ [this.plane.through]: this.positions[inside] });
  }

  listen() {
    let rolled = 0;
    this.stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (event.ctrlKey || event.metaKey) { // also what two fingers on a touchpad send
        this.zoom.by(Math.exp(-event.deltaY / (event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? 200 : 4)), event.clientX, event.clientY);
        return;
      }
      const delta = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY : 100 * event.deltaY;
      rolled += delta;
      // one notch of a wheel is one slice; the small steps of a touchpad are summed
      if (Math.abs(delta) < 50 && Math.abs(rolled) < 30) return;
      this.go(this.slot - Math.sign(rolled));
      rolled = 0;
    }, { passive: false });
    listenToPointers(this);
  }

  /** Where the pointer is on the plane, in voxel edges across and down; it may be outside. */
  edgeAt(event) {
    const bounds = this.canvas.getBoundingClientRect();
    const { shape } = this.view.scan;
    return [
      ((event.clientX - bounds.left) / bounds.width) * shape[this.plane.across],
      ((event.clientY - bounds.top) / bounds.height) * shape[this.plane.down],
    ];
  }

  /** Where the crosshair is, in coordinates of the window. */
  crosshairAt() {
    const bounds = this.canvas.getBoundingClientRect();
    const { scan, position } = this.view;
    const x = (position[this.plane.across] + 0.5) / scan.shape[this.plane.across];
    const y = downwards(scan, this.plane, position[this.plane.down] + 0.5) / scan.shape[this.plane.down];
    return [bounds.left + x * bounds.width, bounds.top + y * bounds.height];
  }

  /** The voxel under the pointer in display order; null outside the volume. */
  voxelAt(event) {
    const { shape } = this.view.scan;
    const [across, down] = [shape[this.plane.across], shape[this.plane.down]];
    const [x, y] = this.edgeAt(event).map(Math.floor);
    if (x < 0 || y < 0 || x >= across || y >= down) return null;
    const voxel = [...this.view.position];
    voxel[this.plane.across] = x;
    voxel[this.plane.down] = this.plane.upward ? down - 1 - y : y;
    return voxel;
  }

  pointTo(event) {
    const voxel = this.voxelAt(event);
    if (voxel) this.view.move(voxel);
  }

  /** Show the stored index and the value of the voxel under the pointer; null: of the voxel at the crosshair. */
  describe(event) {
    this.pointed = event && this.voxelAt(event);
    const voxel = this.pointed ?? this.view.position;
    const { scan, volume } = this.view;
    const names = scan.storedAxes.map((name, axis) => [name, this.view.stored(axis, voxel[axis])]).sort();
    this.under.textContent = `${names.map(([name, index]) => `${name} ${index}`).join("  ")}: ${valueText(scan, volume.codeAt(...voxel))}`;
  }

  /** The lengths of the rulers of this slice, next to their ends. */
  drawLengths() {
    const { scan, rulers } = this.view;
    const own = rulers.filter((ruler) => ruler.pane === this.name && ruler.index === this.index);
    this.lengths.replaceChildren(...own.map((ruler) => {
      const label = element("span", { className: "length" }, rulerText(scan, ruler));
      label.style.left = `${(100 * ruler.to[0]) / scan.shape[this.plane.across]}%`;
      label.style.top = `${(100 * ruler.to[1]) / scan.shape[this.plane.down]}%`;
      return label;
    }));
  }

  /** Crosshair lines with a gap around the position, so that they do not cover it. */
  crosshair(x, y, across, down) {
    const gap = [this.plane.across, this.plane.down].map((axis) => 18 / steps(this.view.scan)[axis]);
    return `M0 ${y}H${x - gap[0]}M${x + gap[0]} ${y}H${across}M${x} 0V${y - gap[1]}M${x} ${y + gap[1]}V${down}`;
  }

  /** Draw the marks, and the pixels if they changed. */
  draw(pixels) {
    const { view } = this;
    const { scan } = view;
    const half = view.halfSlab(this.plane.through);
    if (pixels) {
      const image = view.volume.cut(this.name, this.index, greysOf(scan), chosen.mask, this.image, half);
      if (!this.image) [this.canvas.width, this.canvas.height] = [image.width, image.height];
      this.image = image;
      this.canvas.getContext("2d").putImageData(image, 0, 0);
    }
    const [across, down] = [scan.shape[this.plane.across], scan.shape[this.plane.down]];
    const x = view.position[this.plane.across] + 0.5;
    const y = downwards(scan, this.plane, view.position[this.plane.down] + 0.5);
    this.marks.replaceChildren(
      svgElement("path", { class: "mark crosshair", d: this.crosshair(x, y, across, down) }),
      ...nodulesOn(scan, this.name, this.index, half),
      ...keyMarks(scan, this.name, this.index),
      ...rulerMarks(view.rulers, this.name, this.index),
    );
    this.drawLengths();
    if (!this.pointed) this.describe(null);
    const keys = keyNodules(scan, this.name, this.index)
      .map((number) => `key slice of nodule ${number + 1}, ${basisText(scan.nodules[number])}`);
    const slab = chosen.slab ? [`MIP ${chosen.slab} ${scan.spacing ? "mm" : "voxels"}`] : [];
    this.keys.textContent = [...slab, ...keys].join(" · ");
    const axis = this.plane.through;
    const from = view.oriented ? ` from the ${this.plane.from}` : "";
    const text = `${this.index + 1} of ${scan.shape[axis]}${from}, ${scan.storedAxes[axis]} = ${view.stored(axis, this.index)}`;
    this.output.textContent = text;
    this.input.value = this.slot;
    this.input.setAttribute("aria-valuetext", text);
    this.canvas.setAttribute("aria-label", `${[`${this.name} slice`, text, ...keys].join(", ")}, ${windowOf(scan).name} window`);
  }
}
