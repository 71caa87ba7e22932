// A scan in the dialog: its slices, its planes, and the position that they have in common.

class Side {
  /** `host` is the view that holds the scan: it gets `moved` and `drawn`. Of two scans, `label` names this one. */
  constructor(key, scan, planeNames, host, label = null) {
    this.host = host ?? this;
    this.label = label;
    this.scan = scan;
    this.oriented = scan.spacing !== null;
    this.frame = 0;
    this.dirty = new Set();
    this.rulers = [];
    this.volume = new Volume(key, scan);
    this.position = this.within(scan.shape.map((size) => size / 2 - 0.5));
    this.panes = planeNames.map((name) => new Pane(this, name));
  }

  /** The stored index, as in the build, of an index in display order. */
  stored(axis, index) {
    return this.scan.flipped[axis] ? this.scan.shape[axis] - 1 - index : index;
  }

  /** The position as in the build: x, y, z. */
  get at() {
    const at = [];
    this.position.forEach((index, axis) => { at["xyz".indexOf(this.scan.storedAxes[axis])] = this.stored(axis, index); });
    return at;
  }

  /** A position as in the build, in display order. */
  shownAt(at) {
    return this.scan.storedAxes.map((name, axis) => this.stored(axis, at["xyz".indexOf(name)]));
  }

  /** The nearest voxel inside the scan. */
  within(point) {
    return point.map((value, axis) => Math.min(this.scan.shape[axis] - 1, Math.max(0, Math.round(value))));
  }

  /** Half the thickness of the slab along an axis, in voxels. */
  halfSlab(axis) {
    return chosen.slab / 2 / steps(this.scan)[axis];
  }

  /** Decode all slices, those near the position first. `onProgress` receives the number of decoded slices. */
  async start(onProgress) {
    try {
      await this.decodeAll(onProgress);
    } catch (error) {
      if (!this.volume.closed) this.host.status.textContent = `A slice cannot be read (${error.message}). Is the server of the page still running?`;
    }
  }

  async decodeAll(onProgress) {
    const from = this.volume.nearest[this.position[2]];
    await this.volume.decode(from);
    this.redraw();
    await this.volume.decodeAll(from, () => {
      onProgress(this.volume);
      this.redraw(chosen.slab ? undefined : ["coronal", "sagittal"]);
    });
    if (chosen.mask) await this.showMask();
  }

  async showMask() {
    if (this.volume.masks.length) await this.volume.decodeMask();
    this.redraw();
  }

  /** Go to a position: an array x, y, z, or an object with some of the axes 0, 1, 2. Returns whether it changed. */
  move(to) {
    const next = this.position.map((current, axis) => to[axis] ?? current);
    next[2] = this.scan.slices[this.volume.nearest[next[2]]];
    const changed = this.panes.filter((pane) => next[pane.plane.through] !== this.position[pane.plane.through]);
    if (next.every((value, axis) => value === this.position[axis])) return false;
    const previous = this.position;
    this.position = next;
    this.volume.lastMove = performance.now();
    const slot = this.volume.nearest[next[2]];
    this.volume.decodeAhead(slot, Math.sign(next[2] - previous[2]));
    this.volume.decode(slot).then(() => this.redraw(changed.map((pane) => pane.name)), () => {}); // `start` reports a failure
    this.host.moved?.(this);
    return true;
  }

  /** Draw in the next frame: the pixels of the named planes, and the marks of all planes. */
  redraw(names = Object.keys(PLANES)) {
    names.forEach((name) => this.dirty.add(name));
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      if (this.volume.closed) return;
      for (const pane of this.panes) pane.draw(this.dirty.has(pane.name));
      this.dirty.clear();
      this.host.drawn?.(this);
    });
  }

  /** Go to another slice by a key; returns whether the key has a function. */
  pressSlice(key) {
    const [first] = this.panes;
    const by = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[key];
    if (by) first.go(first.slot + by);
    else if (key === "Home") first.go(0);
    else if (key === "End") first.go(first.positions.length - 1);
    else return false;
    return true;
  }

  close() {
    this.volume.closed = true;
  }
}

/** How much of a scan is decoded; empty if all of it is. */
const decodedText = ({ ready, pictures }) => (ready < pictures.length ? `${ready} of ${pictures.length} slices decoded` : "");
