// Windows: which values are black and white. Presets, numbers, and their conversion to greys.

/** The Hounsfield units of the 256 codes. */
const HOUNSFIELD = Float32Array.from({ length: 256 }, (_, code) => {
  const next = Math.max(1, page.knots.findIndex(([, knot]) => knot >= code));
  const [[lowHu, low], [highHu, high]] = [page.knots[next - 1], page.knots[next]];
  return lowHu + ((code - low) / (high - low)) * (highHu - lowHu);
});
const FULL_OFFSET = 32768;
const FULL = Float32Array.from({ length: 65536 }, (_, code) => code - FULL_OFFSET);
const CODES = Float32Array.from({ length: 256 }, (_, code) => code);

const PRESETS = page.windows.map(({ name, center, width }) => ({ name, center, width }));
const ALL_GREYS = { name: "all greys", center: 127.5, width: 255 };
const WINDOW_LIMITS = { hounsfield: { center: [-1350, 1300], width: [1, 2650] }, greys: { center: [0, 255], width: [1, 255] } };

/** The choices of the reader, kept from scan to scan. */
const chosen = {
  window: PRESETS[0], greyWindow: ALL_GREYS, tool: "crosshair", slab: 0, plane: "axial",
  circles: true, boxes: true, crosshair: true, mask: false,
};

const signed = (value) => String(value).replace("-", "−");
const windowText = ({ center, width }) => `${signed(Math.round(center))}/${Math.round(width)}`;

/** The window of a scan: in Hounsfield units, or of 8-bit greys. */
const windowOf = (scan) => (scan.hounsfield ? chosen.window : chosen.greyWindow);

/** Set the window by centre and width, within what the codes can show. A preset keeps its name. */
function setWindow(scan, center, width) {
  const limits = scan.hounsfield ? WINDOW_LIMITS.hounsfield : WINDOW_LIMITS.greys;
  const inside = (name, value) => Math.min(limits[name][1], Math.max(limits[name][0], value));
  const next = { center: inside("center", center), width: inside("width", width) };
  const presets = scan.hounsfield ? PRESETS : [ALL_GREYS];
  const preset = presets.find((one) => one.center === next.center && one.width === next.width);
  chosen[scan.hounsfield ? "window" : "greyWindow"] = preset ?? { name: "own", ...next };
}

const greysByWindow = new Map();

/** A table from codes to opaque grey pixels (little-endian RGBA) in the window of a scan. */
function greysOf(scan) {
  const { center, width } = windowOf(scan);
  const key = `${isFull(scan)} ${scan.hounsfield} ${center} ${width}`;
  if (!greysByWindow.has(key)) {
    if (greysByWindow.size > 64) greysByWindow.clear();
    const values = isFull(scan) ? FULL : scan.hounsfield ? HOUNSFIELD : CODES;
    greysByWindow.set(key, Uint32Array.from({ length: values.length }, (_, code) => {
      const grey = Math.round(255 * Math.min(1, Math.max(0, (values[code] - center + width / 2) / width)));
      return ((255 << 24) | (grey << 16) | (grey << 8) | grey) >>> 0;
    }));
  }
  return greysByWindow.get(key);
}

/** The value of a code in words, with the distance to the next value that the page can show. */
function valueText(scan, code) {
  if (scan.stretchedFrom) return `label ${Math.round((code * scan.stretchedFrom) / 255)}`;
  if (!scan.hounsfield) return `grey ${code}`;
  if (isFull(scan)) return `${signed(FULL[code])} HU`;
  const step = code < 255 ? HOUNSFIELD[code + 1] - HOUNSFIELD[code] : HOUNSFIELD[255] - HOUNSFIELD[254];
  const bound = { 0: " or less", 255: " or more" }[code] ?? "";
  return `about ${signed(Math.round(HOUNSFIELD[code]))} HU${bound}, in steps of ${Math.round(step)}`;
}

/** How the values of a scan are stored on the page. */
function quantisationText(scan) {
  if (scan.stretchedFrom) return `labels 0 to ${scan.stretchedFrom}, stretched`;
  if (scan.served) return "as in the build, from the server";
  if (!scan.hounsfield) return "8-bit greys, compressed with loss";
  const steps = page.knots.slice(1).map(([hu, code], number) => {
    const [lastHu, lastCode] = page.knots[number];
    return `${Number(((hu - lastHu) / (code - lastCode)).toFixed(1))} HU up to ${signed(hu)} HU`;
  });
  return `quantised to 8 bits, compressed with loss; steps of ${steps.join(", ")}`;
}
