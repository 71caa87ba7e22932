// The slices of a scan, decoded one by one into a small volume of codes. All three planes are cut from it.

const scratch = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

/** The bytes of a base64 text. */
function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let index = 0; index < bytes.length; index += 1) bytes[index] = characters.charCodeAt(index);
  return bytes;
}

/** Decode a grey picture and write its values to `into`, beginning at `start`. */
async function decodeInto(picture, width, height, into, start) {
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(new Blob([bytesOf(picture)], { type: "image/webp" }), options);
  if (scratch.canvas.width < width) scratch.canvas.width = width;
  if (scratch.canvas.height < height) scratch.canvas.height = height;
  scratch.drawImage(bitmap, 0, 0);
  bitmap.close();
  const pixels = new Uint32Array(scratch.getImageData(0, 0, width, height).data.buffer); // the lowest byte, red, is the grey
  for (let index = 0; index < pixels.length; index += 1) into[start + index] = pixels[index];
}

/** Whether the values of a scan are full Hounsfield units from the server of the page. */
const isFull = (scan) => Boolean(scan.served && scan.hounsfield);

/** The addresses of the slices of a scan on the server of the page. */
function servedSlices(key, scan) {
  return {
    pictures: scan.slices.map((z) => `volume/${key}/${z}`),
    masks: scan.maskSize ? scan.slices.map((z) => `mask/${key}/${z}`) : [],
  };
}

/** Read a slice from the server of the page. Full Hounsfield units are stored with an offset, so that they are not negative. */
async function fetchInto(address, width, height, into, start) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`the server has no ${address}`);
  const content = await response.arrayBuffer();
  const isSigned = into instanceof Uint16Array;
  const values = isSigned ? new Int16Array(content) : new Uint8Array(content);
  if (values.length !== width * height) throw new Error(`expected ${width * height} voxels in ${address}, got ${values.length}`);
  if (!isSigned) into.set(values, start);
  else for (let index = 0; index < values.length; index += 1) into[start + index] = values[index] + FULL_OFFSET;
}

// Colours (red, green, blue) that are mixed into the grey, by lung label: 3 one lung, 4 the other lung, 7 both.
const LUNGS = { 3: [86, 180, 233], 4: [0, 158, 115], 7: [204, 121, 167] };

const AHEAD = 6;
const STILL_MS = 120; // the reader has stopped scrolling if there was no move for this time

class Volume {
  constructor(key, scan) {
    const { pictures, masks } = scan.served ? servedSlices(key, scan) : JSON.parse(document.getElementById(key).textContent);
    [this.width, this.height] = scan.size;
    this.scan = scan;
    this.pictures = pictures;
    this.slices = scan.slices;
    this.codes = new (isFull(scan) ? Uint16Array : Uint8Array)(pictures.length * this.width * this.height);
    this.state = new Array(pictures.length).fill(null);
    this.ready = 0;
    this.masks = masks;
    [this.maskWidth, this.maskHeight] = scan.maskSize ?? [0, 0];
    this.labels = null;
    this.closed = false;
    this.lastMove = -Infinity;
    // for each slice of the scan, the index of the stored slice that is displayed for it
    this.nearest = Uint16Array.from({ length: scan.shape[2] }, (_, z) => this.slotOf(z));
  }

  /** The index of the stored slice nearest to a z. */
  slotOf(z) {
    let best = 0;
    this.slices.forEach((slice, slot) => {
      if (Math.abs(slice - z) < Math.abs(this.slices[best] - z)) best = slot;
    });
    return best;
  }

  /** Decode a slice; resolves when it can be drawn. */
  decode(slot) {
    this.state[slot] ??= (this.scan.served ? fetchInto : decodeInto)(this.pictures[slot], this.width, this.height, this.codes, slot * this.width * this.height)
      .then(() => { this.ready += 1; });
    return this.state[slot];
  }

  /** Start to decode the next slices in the direction in which the reader scrolls. */
  decodeAhead(slot, direction) {
    for (let ahead = direction; Math.abs(ahead) <= AHEAD && direction !== 0; ahead += direction) {
      if (this.pictures[slot + ahead]) this.decode(slot + ahead).catch(() => {});
    }
  }

  /** Decode all slices, those near `from` first, but not while the reader scrolls. `onProgress` is called every 16 slices. */
  async decodeAll(from, onProgress) {
    const order = this.slices.map((_, slot) => slot).sort((a, b) => Math.abs(a - from) - Math.abs(b - from));
    for (const [done, slot] of order.entries()) {
      while (performance.now() - this.lastMove < STILL_MS) await new Promise((resolve) => { setTimeout(resolve, STILL_MS); });
      if (this.closed) return;
      await this.decode(slot);
      if (done % 16 === 15 || done === order.length - 1) onProgress();
    }
  }

  /** Decode the lung mask, unless it is decoded already. */
  async decodeMask() {
    if (this.labels) return;
    const labels = new Uint8Array(this.masks.length * this.maskWidth * this.maskHeight);
    for (const [slot, mask] of this.masks.entries()) {
      await (this.scan.served ? fetchInto : decodeInto)(mask, this.maskWidth, this.maskHeight, labels, slot * this.maskWidth * this.maskHeight);
    }
    this.labels = labels;
  }

  /** The code at a voxel of the scan. */
  codeAt(x, y, z) {
    return this.codes[(this.nearest[z] * this.height + this.rowOf(y)) * this.width + this.columnOf(x)];
  }

  /**
   * One plane as an ImageData of its size in this small volume. Coronal and sagittal planes have one row per slice of the scan,
   * the head at the top. `half` is half the thickness of a slab in voxels: each pixel is the maximum through it. `last` is the
   * previous ImageData of the plane, which is overwritten.
   */
  cut(planeName, index, greys, withMask, last, half = 0) {
    const { width, height, codes } = this;
    const nz = this.scan.shape[2];
    const column = this.columnOf(index);
    const row = this.rowOf(index);
    const [across, down] = planeName === "axial" ? [width, height] : [planeName === "coronal" ? width : height, nz];
    const image = last ?? new ImageData(across, down);
    const pixels = new Uint32Array(image.data.buffer);
    const layers = this.layers(planeName, index, half); // distances in `codes` from the plane to the other planes of the slab
    for (let j = 0; j < down; j += 1) {
      const slot = this.nearest[planeName === "axial" ? index : nz - 1 - j];
      const y = planeName === "axial" ? j : row;
      const start = planeName === "sagittal" ? slot * height * width + column : (slot * height + y) * width;
      const stride = planeName === "sagittal" ? width : 1;
      const line = j * across;
      if (!layers.length) {
        for (let i = 0, at = start; i < across; i += 1, at += stride) pixels[line + i] = greys[codes[at]];
      } else {
        for (let i = 0, at = start; i < across; i += 1, at += stride) {
          let code = codes[at];
          for (let layer = 0; layer < layers.length; layer += 1) {
            const other = codes[at + layers[layer]];
            if (other > code) code = other;
          }
          pixels[line + i] = greys[code];
        }
      }
      if (withMask && this.labels) this.tint(image, planeName, j, slot, column, row);
    }
    return image;
  }

  columnOf(x) {
    return Math.floor(((x + 0.5) * this.width) / this.scan.shape[0]);
  }

  rowOf(y) {
    return Math.floor(((y + 0.5) * this.height) / this.scan.shape[1]);
  }

  layers(planeName, index, half) {
    const size = this.scan.shape[PLANES[planeName].through];
    const placeOf = {
      axial: (z) => this.nearest[z] * this.width * this.height,
      coronal: (y) => this.rowOf(y) * this.width,
      sagittal: (x) => this.columnOf(x),
    }[planeName];
    const places = new Set();
    for (let at = Math.max(0, Math.ceil(index - half)); at <= Math.min(size - 1, index + half); at += 1) places.add(placeOf(at));
    places.delete(placeOf(index));
    return Int32Array.from(places, (place) => place - placeOf(index));
  }

  /** Mix the colours of the lungs into one row of a plane. */
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
