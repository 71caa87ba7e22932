// The slices of a scan, decoded one by one into a small volume of codes, from which all three planes are cut.

const scratch = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

/** The bytes of a base64 text. */
function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let place = 0; place < bytes.length; place += 1) bytes[place] = characters.charCodeAt(place);
  return bytes;
}

/** The values of a grey picture, written to `into` from `start` on. */
async function decodeInto(picture, width, height, into, start) {
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(new Blob([bytesOf(picture)], { type: "image/webp" }), options);
  if (scratch.canvas.width < width) scratch.canvas.width = width;
  if (scratch.canvas.height < height) scratch.canvas.height = height;
  scratch.drawImage(bitmap, 0, 0);
  bitmap.close();
  const pixels = new Uint32Array(scratch.getImageData(0, 0, width, height).data.buffer); // red, the lowest byte, is the grey
  for (let place = 0; place < pixels.length; place += 1) into[start + place] = pixels[place];
}

/** Codes back to Hounsfield units, 256 of them. */
const HOUNSFIELD = Float32Array.from({ length: 256 }, (_, code) => {
  const next = Math.max(1, page.knots.findIndex(([, own]) => own >= code));
  const [[lowHu, low], [highHu, high]] = [page.knots[next - 1], page.knots[next]];
  return lowHu + ((code - low) / (high - low)) * (highHu - lowHu);
});

/** A table from codes to opaque grey pixels (little-endian RGBA). Without a window the codes are the greys. */
function greysOf(preset) {
  return Uint32Array.from({ length: 256 }, (_, code) => {
    const share = preset ? (HOUNSFIELD[code] - preset.low) / (preset.high - preset.low) : code / 255;
    const grey = Math.round(255 * Math.min(1, Math.max(0, share)));
    return ((255 << 24) | (grey << 16) | (grey << 8) | grey) >>> 0;
  });
}

// Lung labels: 3 one lung, 4 the other, 7 both. Red, green and blue that are mixed into the grey.
const LUNGS = { 3: [86, 180, 233], 4: [0, 158, 115], 7: [204, 121, 167] };

const AHEAD = 6;
const STILL_MS = 120; // without a move for so long, the reader has stopped scrolling

class Volume {
  constructor(key, scan) {
    const { pictures, masks } = JSON.parse(document.getElementById(key).textContent);
    [this.width, this.height] = scan.size;
    this.scan = scan;
    this.pictures = pictures;
    this.slices = scan.slices;
    this.codes = new Uint8Array(pictures.length * this.width * this.height);
    this.state = new Array(pictures.length).fill(null);
    this.ready = 0;
    this.masks = masks;
    [this.maskWidth, this.maskHeight] = scan.maskSize ?? [0, 0];
    this.labels = null;
    this.closed = false;
    this.lastMove = -Infinity;
    // the carried slice that stands for each slice of the scan
    this.nearest = Uint16Array.from({ length: scan.shape[2] }, (_, z) => this.slotOf(z));
  }

  /** The place of the carried slice nearest to a z. */
  slotOf(z) {
    let best = 0;
    this.slices.forEach((own, slot) => {
      if (Math.abs(own - z) < Math.abs(this.slices[best] - z)) best = slot;
    });
    return best;
  }

  /** Resolves when a slice can be drawn. */
  decode(slot) {
    this.state[slot] ??= decodeInto(this.pictures[slot], this.width, this.height, this.codes, slot * this.width * this.height)
      .then(() => { this.ready += 1; });
    return this.state[slot];
  }

  /** Begin with the slices that a reader who scrolls this way sees next. */
  decodeAhead(slot, direction) {
    for (let ahead = direction; Math.abs(ahead) <= AHEAD && direction !== 0; ahead += direction) {
      if (this.pictures[slot + ahead]) this.decode(slot + ahead);
    }
  }

  /** Decode all slices from one outwards, but not while the reader scrolls; `told` is called now and then. */
  async decodeAll(from, told) {
    const order = this.slices.map((_, slot) => slot).sort((a, b) => Math.abs(a - from) - Math.abs(b - from));
    for (const [done, slot] of order.entries()) {
      while (performance.now() - this.lastMove < STILL_MS) await new Promise((resolve) => { setTimeout(resolve, STILL_MS); });
      if (this.closed) return;
      await this.decode(slot);
      if (done % 16 === 15 || done === order.length - 1) told();
    }
  }

  /** Decode the lung mask, once. */
  async decodeMask() {
    if (this.labels) return;
    const labels = new Uint8Array(this.masks.length * this.maskWidth * this.maskHeight);
    for (const [slot, mask] of this.masks.entries()) {
      await decodeInto(mask, this.maskWidth, this.maskHeight, labels, slot * this.maskWidth * this.maskHeight);
    }
    this.labels = labels;
  }

  /** The code at a voxel of the scan. */
  codeAt(x, y, z) {
    const [nx, ny] = this.scan.shape;
    const column = Math.floor(((x + 0.5) * this.width) / nx);
    const row = Math.floor(((y + 0.5) * this.height) / ny);
    return this.codes[(this.nearest[z] * this.height + row) * this.width + column];
  }

  /**
   * One plane as pixels: an ImageData whose size is the plane's in this small volume (for coronal and sagittal a row a slice
   * of the scan, the head up). `last` is the plane's last one, to be written anew.
   */
  cut(planeName, index, greys, withMask, last) {
    const { width, height, codes } = this;
    const [nx, ny, nz] = this.scan.shape;
    const column = Math.floor(((index + 0.5) * width) / nx);
    const row = Math.floor(((index + 0.5) * height) / ny);
    const [across, down] = planeName === "axial" ? [width, height] : [planeName === "coronal" ? width : height, nz];
    const image = last ?? new ImageData(across, down);
    const pixels = new Uint32Array(image.data.buffer);
    for (let j = 0; j < down; j += 1) {
      const slot = this.nearest[planeName === "axial" ? index : nz - 1 - j];
      const own = planeName === "axial" ? j : row;
      const start = planeName === "sagittal" ? slot * height * width + column : (slot * height + own) * width;
      const stride = planeName === "sagittal" ? width : 1;
      for (let i = 0, at = start; i < across; i += 1, at += stride) pixels[j * across + i] = greys[codes[at]];
      if (withMask && this.labels) this.tint(image, planeName, j, slot, column, row);
    }
    return image;
  }

  /** Mix the lungs' colours into one row of a plane. */
  tint(image, planeName, j, slot, column, row) {
    const base = slot * this.maskHeight * this.maskWidth;
    const toX = (x) => Math.min(this.maskWidth - 1, Math.floor((x * this.maskWidth) / this.width));
    const toY = (y) => Math.min(this.maskHeight - 1, Math.floor((y * this.maskHeight) / this.height));
    for (let i = 0; i < image.width; i += 1) {
      const x = planeName === "sagittal" ? column : i;
      const y = planeName === "axial" ? j : planeName === "coronal" ? row : i;
      const colour = LUNGS[this.labels[base + toY(y) * this.maskWidth + toX(x)]];
      if (!colour) continue;
      const at = 4 * (j * image.width + i);
      for (let channel = 0; channel < 3; channel += 1) {
        image.data[at + channel] = 0.68 * image.data[at + channel] + 0.32 * colour[channel];
      }
    }
  }
}
