// Marks of nodules. Their coordinates are voxel edges: voxel i extends from i to i + 1, and a centre c is at c + 0.5.

const PLANES = {
  // displayed axes (0 x to the patient's left, 1 y to the back, 2 z to the head): normal to the plane, across it and down it; `from` is where its slices are counted from
  axial: { through: 2, across: 0, down: 1, upward: false, sides: ["R", "L", "A", "P"], from: "foot" },
  coronal: { through: 1, across: 0, down: 2, upward: true, sides: ["R", "L", "S", "I"], from: "front" },
  sagittal: { through: 0, across: 1, down: 2, upward: true, sides: ["A", "P", "S", "I"], from: "right" },
};

const steps = (scan) => scan.spacing ?? [1, 1, 1];

/** A position on the vertical axis of a plane as a position on its picture, where the head is at the top. */
const downwards = (scan, plane, edge) => (plane.upward ? scan.shape[plane.down] - edge : edge);

function rectangle(kind, x, y, width, height) {
  return svgElement("rect", { class: `mark ${kind}`, x, y, width, height });
}

/**
 * The marks of the nodules of a scan on one slice of a plane: the box if the slice cuts it, and the section of the sphere.
 * A slice counts as a slab: the section is the largest within half a slice, so that a nodule between two thick slices is visible.
 * `half` is half the thickness of a thicker slab, in voxels.
 */
function nodulesOn(scan, planeName, index, half = 0) {
  const plane = PLANES[planeName];
  const [across, down] = [plane.across, plane.down];
  return scan.nodules.flatMap((nodule, number) => {
    const marks = [];
    if (nodule.box && nodule.box[plane.through] <= index + half && index - half < nodule.box[plane.through + 3]) {
      const edges = [nodule.box[down], nodule.box[down + 3]].map((edge) => downwards(scan, plane, edge));
      const width = nodule.box[across + 3] - nodule.box[across];
      marks.push(rectangle("box", nodule.box[across], Math.min(...edges), width, Math.abs(edges[1] - edges[0])));
    }
    const x = nodule.center[across] + 0.5;
    const y = downwards(scan, plane, nodule.center[down] + 0.5);
    const distance = Math.max(0, Math.abs(index - nodule.center[plane.through]) - 0.5 - half) * steps(scan)[plane.through];
    const squared = (nodule.diameterMm / 2) ** 2 - distance ** 2;
    if (nodule.diameterMm > 0 && squared > 0) {
      const radius = Math.sqrt(squared);
      const [rx, ry] = [radius / steps(scan)[across], radius / steps(scan)[down]];
      marks.push(svgElement("ellipse", { class: "mark circle", cx: x, cy: y, rx, ry }));
    } else if (marks.length === 0 && !nodule.box && distance === 0) {
      marks.push(svgElement("path", { class: "mark point", d: `M${x - 4} ${y}h8M${x} ${y - 4}v8` }));
    }
    for (const mark of marks) mark.dataset.nodule = number;
    return marks;
  });
}

/** How the page names what a key slice was chosen by. */
const basisText = (nodule) => ({ evidence: "by evidence in the voxels", centre: "by the annotated centre" }[nodule.keySliceBasis] ?? "basis unknown");

/** The numbers of the nodules of which a slice of a plane is the key slice. Key slices are indices along the stored z. */
function keyNodules(scan, planeName, index) {
  const { through } = PLANES[planeName];
  if (scan.storedAxes[through] !== "z") return [];
  const stored = scan.flipped[through] ? scan.shape[through] - 1 - index : index;
  return scan.nodules.flatMap((nodule, number) => (nodule.keySlice === stored ? [number] : []));
}

/** Corners around the nodules of which a slice is the key slice: solid if the voxels showed it, otherwise dotted. */
function keyMarks(scan, planeName, index) {
  const plane = PLANES[planeName];
  return keyNodules(scan, planeName, index).map((number) => {
    const nodule = scan.nodules[number];
    const at = (axis) => {
      const middle = nodule.center[axis] + 0.5;
      const half = (nodule.diameterMm ?? 0) / 2 / steps(scan)[axis];
      const [low, high] = nodule.box ? [nodule.box[axis], nodule.box[axis + 3]] : [middle - half, middle + half];
      const gap = 2 / steps(scan)[axis];
      const edges = [Math.min(low, middle - half) - gap, Math.max(high, middle + half) + gap];
      return axis === plane.down ? edges.map((edge) => downwards(scan, plane, edge)).sort((a, b) => a - b) : edges;
    };
    const [[left, right], [top, bottom]] = [at(plane.across), at(plane.down)];
    const [dx, dy] = [(right - left) / 4, (bottom - top) / 4];
    const d = `M${left} ${top + dy}V${top}H${left + dx}M${right - dx} ${top}H${right}V${top + dy}`
      + `M${right} ${bottom - dy}V${bottom}H${right - dx}M${left + dx} ${bottom}H${left}V${bottom - dy}`;
    const mark = svgElement("path", { class: `mark key ${nodule.keySliceBasis === "evidence" ? "" : "by-centre"}`, d });
    mark.dataset.nodule = number;
    return mark;
  });
}

/** The rulers of a plane that were drawn on a slice. */
function rulerMarks(rulers, planeName, index) {
  return rulers.filter((ruler) => ruler.pane === planeName && ruler.index === index).map(({ from, to }) => (
    svgElement("line", { class: "mark ruler", x1: from[0], y1: from[1], x2: to[0], y2: to[1] })
  ));
}

/** A picture with marks over it. `view` is the visible part [x, y, width, height], in pixels or voxels of the original. */
function markedPicture(picture, view, marks, spacing = [1, 1, 1]) {
  const shape = view[2] * spacing[0] / (view[3] * spacing[1]);
  const box = element(
    "span",
    { className: "picture" },
    picture,
    svgElement("svg", { viewBox: view.join(" "), preserveAspectRatio: "none", "aria-hidden": "true" }, ...marks),
  );
  box.style.aspectRatio = String(shape);
  box.style[shape >= 1 ? "width" : "height"] = "100%";
  return box;
}

/** The thumbnail or the close-up of a scan with its nodules. On the thumbnail, a nodule with a box has no circle. */
function stillOf(scan, still, text) {
  const picture = element("img", { src: dataUrl(still.picture), alt: text, loading: "lazy", decoding: "async" });
  const all = nodulesOn(scan, "axial", still.z);
  const boxed = new Set(all.filter((mark) => mark.matches(".box")).map((mark) => mark.dataset.nodule));
  const marks = still === scan.closeUp ? all : all.filter((mark) => mark.matches(".box") || !boxed.has(mark.dataset.nodule));
  return markedPicture(picture, still.view, marks, steps(scan));
}

/** A published picture with its boxes. The published numbers are pixels; the last one is drawn as part of the box. */
function pictureOf(item, text) {
  const picture = element("img", { src: dataUrl(item.picture), alt: text, loading: "lazy", decoding: "async" });
  const boxes = (item.boxes ?? []).map(([x0, y0, x1, y1]) => rectangle("published", x0, y0, x1 - x0 + 1, y1 - y0 + 1));
  return markedPicture(picture, [0, 0, item.width, item.height], boxes);
}
