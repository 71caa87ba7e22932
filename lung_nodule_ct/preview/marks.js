// Where nodules are drawn. Marks live on the scale of voxel edges: voxel i spans i to i + 1, a centre c lies at c + 0.5.

const PLANES = {
  // which of x (0, to the patient's left), y (1, to the back), z (2, to the head) runs through the plane, across and down it
  axial: { through: 2, across: 0, down: 1, upward: false, sides: ["R", "L", "A", "P"] },
  coronal: { through: 1, across: 0, down: 2, upward: true, sides: ["R", "L", "S", "I"] },
  sagittal: { through: 0, across: 1, down: 2, upward: true, sides: ["A", "P", "S", "I"] },
};

const steps = (scan) => scan.spacing ?? [1, 1, 1];

/** A position along the plane's vertical axis on the picture, where the head is up. */
const downwards = (scan, plane, edge) => (plane.upward ? scan.shape[plane.down] - edge : edge);

function rectangle(kind, x, y, width, height) {
  return drawn("rect", { class: `mark ${kind}`, x, y, width, height });
}

/**
 * The marks of a scan's nodules on one slice of one plane: the box where the slice is in it, and the sphere's section.
 * A slice is a slab: the section is the widest within half a slice, so that a nodule between two thick slices is seen.
 */
function nodulesOn(scan, planeName, index) {
  const plane = PLANES[planeName];
  const [across, down] = [plane.across, plane.down];
  return scan.nodules.flatMap((nodule, number) => {
    const made = [];
    if (nodule.box && nodule.box[plane.through] <= index && index < nodule.box[plane.through + 3]) {
      const edges = [nodule.box[down], nodule.box[down + 3]].map((edge) => downwards(scan, plane, edge));
      const width = nodule.box[across + 3] - nodule.box[across];
      made.push(rectangle("box", nodule.box[across], Math.min(...edges), width, Math.abs(edges[1] - edges[0])));
    }
    const x = nodule.center[across] + 0.5;
    const y = downwards(scan, plane, nodule.center[down] + 0.5);
    const away = Math.max(0, Math.abs(index - nodule.center[plane.through]) - 0.5) * steps(scan)[plane.through];
    const squared = (nodule.diameterMm / 2) ** 2 - away ** 2;
    if (nodule.diameterMm > 0 && squared > 0) {
      const radius = Math.sqrt(squared);
      const [rx, ry] = [radius / steps(scan)[across], radius / steps(scan)[down]];
      made.push(drawn("ellipse", { class: "mark circle", cx: x, cy: y, rx, ry }));
    } else if (made.length === 0 && !nodule.box && away === 0) {
      made.push(drawn("path", { class: "mark point", d: `M${x - 4} ${y}h8M${x} ${y - 4}v8` }));
    }
    for (const mark of made) mark.dataset.nodule = number;
    return made;
  });
}

/** A picture with marks over it. `view` is [x, y, width, height] of what it shows, in pixels or voxels of the original. */
function markedPicture(picture, view, marks, spacing = [1, 1, 1]) {
  const shape = view[2] * spacing[0] / (view[3] * spacing[1]);
  const box = element(
    "span",
    { className: "picture" },
    picture,
    drawn("svg", { viewBox: view.join(" "), preserveAspectRatio: "none", "aria-hidden": "true" }, ...marks),
  );
  box.style.aspectRatio = String(shape);
  box.style[shape >= 1 ? "width" : "height"] = "100%";
  return box;
}

/** The still of a scan, its whole slice or the close-up, with its nodules; the small whole slice has the boxes only. */
function stillOf(scan, still, text) {
  const picture = element("img", { src: dataUrl(still.picture), alt: text, loading: "lazy", decoding: "async" });
  const every = nodulesOn(scan, "axial", still.z);
  const boxed = new Set(every.filter((mark) => mark.matches(".box")).map((mark) => mark.dataset.nodule));
  const marks = still === scan.closeUp ? every : every.filter((mark) => mark.matches(".box") || !boxed.has(mark.dataset.nodule));
  return markedPicture(picture, still.view, marks, steps(scan));
}

/** A published picture with its boxes. The published numbers are pixels, the last one within the box. */
function pictureOf(item, text) {
  const picture = element("img", { src: dataUrl(item.picture), alt: text, loading: "lazy", decoding: "async" });
  const boxes = item.boxes.map(([x0, y0, x1, y1]) => rectangle("published", x0, y0, x1 - x0 + 1, y1 - y0 + 1));
  return markedPicture(picture, [0, 0, item.width, item.height], boxes);
}
