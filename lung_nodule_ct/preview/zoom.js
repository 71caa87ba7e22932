// A picture that fills its stage at its aspect ratio, and can be enlarged and moved.

const MOST_ZOOM = 16;

class Zoom {
  constructor(stage, picture, shape) {
    this.stage = stage;
    this.picture = picture;
    this.shape = shape;
    this.all = null;
    this.partner = null; // another picture that is enlarged and moved together with this one
    [this.factor, this.x, this.y] = [1, 0, 0];
    new ResizeObserver(() => this.apply()).observe(stage);
  }

  /** Width and height without enlargement. */
  get size() {
    const { clientWidth, clientHeight } = this.stage;
    if (this.all) {
      const scale = Math.min(...this.all.map(([width, height]) => Math.min(clientWidth / width, clientHeight / height)));
      return this.extent.map((side) => side * scale);
    }
    const width = Math.min(clientWidth, clientHeight * this.shape);
    return [width, width / this.shape];
  }

  /** Show this extent (width and height in mm) at the same scale as other extents that fill stages of the same size. */
  scaleWith(extent, all) {
    this.extent = extent;
    this.all = all;
  }

  reset() {
    this.factor = 1;
    [this.x, this.y] = [0, 0]; // from the centre of the stage to the centre of the picture, in pixels
    this.changed();
  }

  changed() {
    this.apply();
    if (!this.partner) return;
    [this.partner.factor, this.partner.x, this.partner.y] = [this.factor, this.x, this.y];
    this.partner.apply();
  }

  apply() {
    const sides = this.size.map((side) => side * this.factor);
    // some of the picture always remains on the stage
    this.x = Math.min(sides[0] / 2, Math.max(-sides[0] / 2, this.x));
    this.y = Math.min(sides[1] / 2, Math.max(-sides[1] / 2, this.y));
    [this.picture.style.width, this.picture.style.height] = sides.map((side) => `${side}px`);
    this.picture.style.transform = `translate(${this.x}px, ${this.y}px)`;
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.changed();
  }

  /** Enlarge by a ratio. The point at these coordinates of the window keeps its place. */
  by(ratio, clientX, clientY) {
    const bounds = this.stage.getBoundingClientRect();
    const px = clientX - bounds.left - bounds.width / 2;
    const py = clientY - bounds.top - bounds.height / 2;
    const next = Math.min(MOST_ZOOM, Math.max(1, this.factor * ratio));
    const change = next / this.factor;
    this.factor = next;
    [this.x, this.y] = next === 1 ? [0, 0] : [px - (px - this.x) * change, py - (py - this.y) * change];
    this.changed();
  }
}
