// One plane of a scan: a canvas with marks, a slider, and the effects of the pointer.

class Pane {
  constructor(view, name) {
    this.view = view;
    this.name = name;
    this.plane = PLANES[name];
    const { scan } = view;
    const [across, down] = [scan.shape[this.plane.across], scan.shape[this.plane.down]];
    this.positions = name === "axial" ? scan.slices : Array.from({ length: scan.shape[this.plane.through] }, (_, i) => i);
    this.canvas = element("canvas", { role: "img" });
    this.image = null;
    this.marks = svgElement("svg", { viewBox: `0 0 ${across} ${down}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.picture = element("div", { className: "picture" }, this.canvas, this.marks);
    this.under = element("span", { className: "under" });
    this.keys = element("span", { className: "keys" });
    this.output = element("output", {});
    this.input = element("input", {
      type: "range", min: 0, max: this.positions.length - 1, step: 1,
      "aria-label": `${name} slice`, disabled: this.positions.length === 1,
    });
    const sides = view.oriented
      ? ["left", "right", "up", "down"].map((side, n) => element("span", { className: `side ${side}`, "aria-hidden": "true" }, this.plane.sides[n]))
      : [];
    this.stage = element("div", { className: "stage" }, this.picture, sides, this.keys, this.under);
    this.slider = element("div", { className: "slider" }, this.input);
    this.root = element(
      "section",
      { className: `pane ${name}`, "aria-label": `${name} plane` },
      element("div", { className: "pane-head" }, element("span", {}, view.oriented ? name : `normal to ${"xyz"[this.plane.through]}`), this.output),
      this.stage,
      this.slider,
    );
    fitPicture(this.stage, this.picture, (across * steps(scan)[this.plane.across]) / (down * steps(scan)[this.plane.down]));
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
      const delta = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY : 100 * event.deltaY;
      rolled += delta;
      // one notch of a wheel is one slice; the small steps of a touchpad are summed
      if (Math.abs(delta) < 50 && Math.abs(rolled) < 30) return;
      this.go(this.slot - Math.sign(rolled));
      rolled = 0;
    }, { passive: false });
    let start = null;
    this.stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.stage.setPointerCapture(event.pointerId);
      start = { y: event.clientY, slot: this.slot, moved: false };
      if (event.pointerType !== "touch") this.pointTo(event);
    });
    this.stage.addEventListener("pointermove", (event) => {
      this.describe(event);
      if (!start) return;
      if (event.pointerType !== "touch") { this.pointTo(event); return; }
      const by = Math.round((start.y - event.clientY) / 8); // a finger scrolls, 8 pixels per slice
      start.moved ||= by !== 0;
      if (start.moved) this.go(start.slot + by);
    });
    this.stage.addEventListener("pointerup", (event) => {
      if (start && event.pointerType === "touch" && !start.moved) this.pointTo(event);
      start = null;
    });
    this.stage.addEventListener("pointercancel", () => { start = null; });
    this.stage.addEventListener("pointerleave", () => { this.under.textContent = ""; });
  }

  /** The voxel under the pointer in display order; null outside the volume. */
  voxelAt(event) {
    const bounds = this.canvas.getBoundingClientRect();
    const { shape } = this.view.scan;
    const [across, down] = [shape[this.plane.across], shape[this.plane.down]];
    const x = Math.floor(((event.clientX - bounds.left) / bounds.width) * across);
    const y = Math.floor(((event.clientY - bounds.top) / bounds.height) * down);
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

  /** Show the stored index and the value of the voxel under the pointer. */
  describe(event) {
    const voxel = this.voxelAt(event);
    const { scan, volume } = this.view;
    if (!voxel) { this.under.textContent = ""; return; }
    const names = scan.storedAxes.map((name, axis) => [name, this.view.stored(axis, voxel[axis])]).sort();
    const code = volume.codeAt(...voxel);
    const grey = scan.stretchedFrom ? `label ${Math.round((code * scan.stretchedFrom) / 255)}` : `grey ${code}`;
    const value = scan.hounsfield ? `about ${Math.round(HOUNSFIELD[code])} HU` : grey;
    this.under.textContent = `${names.map(([name, index]) => `${name} ${index}`).join("  ")}: ${value}`;
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
    if (pixels) {
      const image = view.volume.cut(this.name, this.index, view.preset.greys, chosen.mask, this.image);
      if (!this.image) [this.canvas.width, this.canvas.height] = [image.width, image.height];
      this.image = image;
      this.canvas.getContext("2d").putImageData(image, 0, 0);
    }
    const [across, down] = [scan.shape[this.plane.across], scan.shape[this.plane.down]];
    const x = view.position[this.plane.across] + 0.5;
    const y = downwards(scan, this.plane, view.position[this.plane.down] + 0.5);
    this.marks.replaceChildren(
      svgElement("path", { class: "mark crosshair", d: this.crosshair(x, y, across, down) }),
      ...nodulesOn(scan, this.name, this.index),
      ...keyMarks(scan, this.name, this.index),
    );
    const keys = keyNodules(scan, this.name, this.index)
      .map((number) => `key slice of nodule ${number + 1}, ${basisText(scan.nodules[number])}`);
    this.keys.textContent = keys.join(" · ");
    const axis = this.plane.through;
    const text = `${scan.storedAxes[axis]} = ${view.stored(axis, this.index)} of ${scan.shape[axis]}`;
    this.output.textContent = text;
    this.input.value = this.slot;
    this.input.setAttribute("aria-valuetext", text);
    this.canvas.setAttribute("aria-label", `${[`${this.name} slice`, text, ...keys].join(", ")}, ${view.preset.name} window`);
  }
}
