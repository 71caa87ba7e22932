// The dialog: a scan in three planes, or one picture. Opened on one example of a list, it walks through the list.

const dialog = document.getElementById("viewer");
const PRESETS = page.windows.map((preset) => ({ ...preset, greys: greysOf(preset) }));
const PLAIN = { name: "grey", greys: greysOf(null) };

/** What the reader has chosen; it stays from scan to scan. */
const chosen = { preset: 0, circles: true, boxes: true, crosshair: true, mask: false };

let shown = null; // { config, list, place, view }

/** Show one example of a list of [config, item]. */
function openViewer(list, place) {
  shown?.view?.close();
  const [config, item] = list[place];
  shown = { list, place, view: null };
  document.getElementById("viewer-title").textContent = titleOf(config, item);
  const where = [`${item.split} ${item.row}`, item.fold === null || item.fold === undefined ? null : `fold ${item.fold}`];
  if (item.augmented !== undefined) where.push({ true: "augmented copy", false: "original" }[item.augmented] ?? "augmented: unknown");
  document.getElementById("viewer-facts").textContent =
    `${where.filter(Boolean).join(" · ")} · example ${place + 1} of the ${list.length} listed`;
  document.getElementById("previous").disabled = place === 0;
  document.getElementById("next").disabled = place === list.length - 1;
  if (!dialog.open) dialog.showModal();
  const body = document.getElementById("viewer-body");
  shown.view = item.scan ? new ScanView(body, page.scans[item.scan], item) : new PictureView(body, item);
}

function walk(by) {
  const place = shown.place + by;
  if (shown.list[place]) openViewer(shown.list, place);
}

document.getElementById("previous").addEventListener("click", () => walk(-1));
document.getElementById("next").addEventListener("click", () => walk(1));
document.getElementById("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  shown?.view?.close();
  shown = null;
  document.getElementById("viewer-body").replaceChildren();
});
dialog.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
  if (event.key === "ArrowLeft") walk(-1);
  else if (event.key === "ArrowRight") walk(1);
  else if (!shown?.view?.press(event.key)) return;
  event.preventDefault();
});

/** A crop or a slice with its boxes. */
class PictureView {
  constructor(body, item) {
    const boxes = item.boxes.map((box, number) => [`box ${number + 1}`, `${box.join(", ")} (xmin, ymin, xmax, ymax in pixels)`]);
    body.replaceChildren(
      element(
        "div",
        { className: "single" },
        element("div", { className: "stage" }, pictureOf(item, "the example")),
        element(
          "div",
          { className: "about" },
          item.classes.length ? element("p", {}, classLabel(item.classes[0])) : null,
          factList([
            ["image", item.id],
            ["size", `${item.width} × ${item.height} pixels`],
            ...boxes,
            ["patient", item.patient],
          ]),
        ),
      ),
    );
    fitPicture(body.querySelector(".stage"), body.querySelector(".picture"), item.width / item.height);
  }

  press() {
    return false;
  }

  close() {}
}

/** Make a picture as large as its stage allows, at its shape. */
function fitPicture(stage, picture, shape) {
  new ResizeObserver(() => {
    const width = Math.min(stage.clientWidth, stage.clientHeight * shape);
    picture.style.width = `${width}px`;
    picture.style.height = `${width / shape}px`;
  }).observe(stage);
}

/** One plane: a canvas, marks over it, a slider. */
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
    this.marks = drawn("svg", { viewBox: `0 0 ${across} ${down}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.picture = element("div", { className: "picture" }, this.canvas, this.marks);
    this.under = element("span", { className: "under" });
    this.output = element("output", {});
    this.input = element("input", {
      type: "range", min: 0, max: this.positions.length - 1, step: 1,
      "aria-label": `${name} slice`, disabled: this.positions.length === 1,
    });
    const sides = view.oriented
      ? ["left", "right", "up", "down"].map((side, n) => element("span", { className: `side ${side}`, "aria-hidden": "true" }, this.plane.sides[n]))
      : [];
    this.stage = element("div", { className: "stage" }, this.picture, sides, this.under);
    this.slider = element("div", { className: "slider" }, this.input);
    this.root = element(
      "section",
      { className: `pane ${name}`, "aria-label": `${name} plane` },
      element("div", { className: "pane-head" }, element("span", {}, view.oriented ? name : `across ${"xyz"[this.plane.through]}`), this.output),
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

  /** The place of the shown slice among those that can be shown. */
  get slot() {
    return this.name === "axial" ? this.view.volume.nearest[this.index] : this.index;
  }

  go(slot) {
    const place = Math.min(this.positions.length - 1, Math.max(0, slot));
    this.view.move({ [this.plane.through]: this.positions[place] });
  }

  listen() {
    let rolled = 0;
    this.stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      const delta = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY : 100 * event.deltaY;
      rolled += delta;
      // a notch of a wheel is one slice; small steps of a touchpad add up
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
      this.tell(event);
      if (!start) return;
      if (event.pointerType !== "touch") { this.pointTo(event); return; }
      const by = Math.round((start.y - event.clientY) / 8); // a finger scrolls
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

  /** The voxel under the pointer, in shown order; null outside. */
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

  /** Say what is under the pointer, in the build's own voxel numbers. */
  tell(event) {
    const voxel = this.voxelAt(event);
    const { scan, volume } = this.view;
    if (!voxel) { this.under.textContent = ""; return; }
    const names = scan.storedAxes.map((name, axis) => [name, this.view.stored(axis, voxel[axis])]).sort();
    const code = volume.codeAt(...voxel);
    const value = scan.hounsfield ? `about ${Math.round(HOUNSFIELD[code])} HU` : `grey ${code}`;
    this.under.textContent = `${names.map(([name, index]) => `${name} ${index}`).join("  ")}: ${value}`;
  }

  /** Lines that leave the place they point to free to be looked at. */
  crosshair(x, y, across, down) {
    const gap = [this.plane.across, this.plane.down].map((axis) => 18 / steps(this.view.scan)[axis]);
    return `M0 ${y}H${x - gap[0]}M${x + gap[0]} ${y}H${across}M${x} 0V${y - gap[1]}M${x} ${y + gap[1]}V${down}`;
  }

  /** Draw; the pixels only where they changed. */
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
      drawn("path", { class: "mark crosshair", d: this.crosshair(x, y, across, down) }),
      ...nodulesOn(scan, this.name, this.index),
    );
    const axis = this.plane.through;
    const text = `${scan.storedAxes[axis]} = ${view.stored(axis, this.index)} of ${scan.shape[axis]}`;
    this.output.textContent = text;
    this.input.value = this.slot;
    this.input.setAttribute("aria-valuetext", text);
    this.canvas.setAttribute("aria-label", `${this.name} slice, ${text}, ${view.preset.name} window`);
  }
}

/** A scan: three planes with a common position, windows, nodules. */
class ScanView {
  constructor(body, scan, item) {
    this.scan = scan;
    this.oriented = scan.spacing !== null;
    this.frame = 0;
    this.dirty = new Set();
    if (!scan.slices) {
      this.position = null;
      const text = "The slices of this scan did not fit the page's size. Write it again with a larger --max-mb.";
      body.replaceChildren(element("p", {}, text), stillOf(scan, scan.thumbnail, "one slice"));
      return;
    }
    this.volume = new Volume(item.scan, scan);
    const first = scan.largest === null ? scan.shape.map((size) => size / 2 - 0.5) : scan.nodules[scan.largest].center;
    this.position = this.within(first);
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

  /** The stored index of a shown one: the number that stands in the build. */
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
      this.loading.textContent = ready < pictures.length ? `${ready} of ${pictures.length} slices are ready` : "";
      this.redraw(["coronal", "sagittal"]);
    });
    if (chosen.mask) await this.showMask();
  }

  async showMask() {
    if (!this.volume.masks.length) return;
    await this.volume.decodeMask();
    this.redraw();
  }

  /** Go to a position: some of x, y, z by number, or all of them. */
  async move(to) {
    const next = this.position.map((own, axis) => to[axis] ?? own);
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

  /** Draw in the next frame: pixels of the named planes, marks of all. */
  redraw(names = Object.keys(PLANES)) {
    names.forEach((name) => this.dirty.add(name));
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      if (this.volume.closed) return;
      for (const pane of this.panes) pane.draw(this.dirty.has(pane.name));
      this.dirty.clear();
      this.nodules.forEach((button, number) => {
        const nodule = this.scan.nodules[number];
        button.setAttribute("aria-current", String(this.within(nodule.center).every((value, axis) => (
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
      : [element("span", {}, "8-bit greys as published, without Hounsfield units")];
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

  jump(number) {
    this.move(this.within(this.scan.nodules[number].center));
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
    );
  }

  /** A triangle over the axial slider; the list of nodules does the same for the keyboard. */
  marker(nodule, number) {
    if (!this.isInside(nodule) || this.scan.slices.length < 2) return null;
    const slot = this.volume.nearest[this.within(nodule.center)[2]];
    const share = slot / (this.scan.slices.length - 1);
    const text = `Nodule ${number + 1}, ${this.scan.storedAxes[2]} = ${this.stored(2, this.within(nodule.center)[2])}`;
    const made = element("button", { type: "button", className: "marker", title: text, "aria-label": text, tabIndex: -1, onclick: () => this.jump(number) });
    made.style.left = `calc(8px + ${share} * (100% - 16px))`; // the middle of the thumb runs from 8 px to 8 px before the end
    return made;
  }

  about(item) {
    const { scan } = this;
    const step = scan.slices.length === scan.shape[2]
      ? `all ${scan.shape[2]}`
      : `${scan.slices.length} of ${scan.shape[2]}, all of them through the nodules`;
    const days = dayText(item);
    const stored = scan.storedAxes.map((name, axis) => `${scan.flipped[axis] ? "−" : "+"}${name}`).join(" ");
    return element(
      "div",
      { className: "about" },
      element("h3", {}, counted(scan.nodules.length, "annotated nodule")),
      element("ul", { className: "nodules" }, this.nodules.map((button) => element("li", {}, button))),
      factList([
        ["scan", item.id],
        ["voxels", `${this.inStoredOrder(scan.shape).join(" × ")} (x, y, z)`],
        ["spacing", scan.spacing ? `${this.inStoredOrder(scan.spacing).map((value) => Number(value.toFixed(3))).join(" × ")} mm` : "unknown: drawn with equal steps"],
        ["slices here", `${step}, at ${scan.size[0]} × ${scan.size[1]} pixels`],
        ...(this.oriented ? [["left, back, head", `stored ${stored}${scan.tilt > 1 ? `, tilted by ${scan.tilt}°` : ""}`]] : []),
        ...(days === null ? [] : [["time", `${days}, timepoint ${item.timepoint ?? "unknown"} (of ${item.num_timepoints ?? "unknown"})`]]),
        ...(item.patient === undefined ? [] : [["patient", item.patient]]),
      ]),
      element(
        "p",
        { className: "quiet" },
        element("kbd", {}, "↑"), " ", element("kbd", {}, "↓"), " or the wheel scroll, ",
        element("kbd", {}, "PgUp"), " ", element("kbd", {}, "PgDn"), " by ten, ",
        element("kbd", {}, "N"), " next nodule, ", element("kbd", {}, "1"), " ", element("kbd", {}, "2"), " window, ",
        element("kbd", {}, "M"), " marks, ", element("kbd", {}, "←"), " ", element("kbd", {}, "→"), " examples, ",
        element("kbd", {}, "Esc"), " closes. A click moves the crosshair; a finger scrolls.",
      ),
    );
  }

  inStoredOrder(values) {
    return ["x", "y", "z"].map((name) => values[this.scan.storedAxes.indexOf(name)]);
  }

  /** A key; whether it meant something. */
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
