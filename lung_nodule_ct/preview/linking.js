// Which place of one scan is which place of another: by a track that both have, by their lungs, or by the scanner.

/** A point x, y, z through an affine of three rows of four. */
const transformed = (affine, point) => affine.map((row) => row[0] * point[0] + row[1] * point[1] + row[2] * point[2] + row[3]);

/** The inverse of an affine of three rows of four. */
function inverseOf(affine) {
  const [[a, b, c, x], [d, e, f, y], [g, h, i, z]] = affine;
  const determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
  const rows = [
    [e * i - f * h, c * h - b * i, b * f - c * e],
    [f * g - d * i, a * i - c * g, c * d - a * f],
    [d * h - e * g, b * g - a * h, a * e - b * d],
  ].map((row) => row.map((value) => value / determinant));
  return rows.map((row) => [...row, -(row[0] * x + row[1] * y + row[2] * z)]);
}

/** The nodules of a track that is in both scans, whose place in the first one is nearest to a point in mm; null if there is none. */
function nearestTrack(from, to, world) {
  const both = from.nodules.flatMap((one) => {
    const other = one.track && one.world && to.nodules.find((nodule) => nodule.track === one.track && nodule.world);
    return other ? [{ one, other, distance: Math.hypot(...one.world.map((value, axis) => value - world[axis])) }] : [];
  });
  both.sort((a, b) => a.distance - b.distance);
  return both.length ? { ...both[0], count: both.length } : null;
}

/** The centre of the lungs across, and their extent from foot to head, in voxels of a scan in display order. */
function lungFrame(scan) {
  const [x0, y0, z0, x1, y1, z1] = scan.lungs;
  return { x: (x0 + x1 - 1) / 2, y: (y0 + y1 - 1) / 2, low: z0 - 0.5, high: z1 - 0.5 };
}

/** The place in the scan `to` of a position in the scan `from`, in voxels in display order, and how it was found. */
function placeIn(from, to, position) {
  if (!from.toWorld || !to.toWorld) {
    const point = position.map((value, axis) => ((value + 0.5) / from.shape[axis]) * to.shape[axis] - 0.5);
    return { point, text: "by the share of the scan, because the spacing is unknown" };
  }
  const world = transformed(from.toWorld, position);
  const track = nearestTrack(from, to, world);
  if (track) {
    const moved = world.map((value, axis) => value + track.other.world[axis] - track.one.world[axis]);
    const among = track.count > 1 ? `, the nearest of ${track.count} tracks` : "";
    return { point: transformed(inverseOf(to.toWorld), moved), text: `at the nodule of track ${track.one.track}${among}; shifted, not deformed` };
  }
  if (from.lungs && to.lungs) {
    const [a, b] = [lungFrame(from), lungFrame(to)];
    const scale = (axis) => from.spacing[axis] / to.spacing[axis];
    const point = [
      b.x + (position[0] - a.x) * scale(0),
      b.y + (position[1] - a.y) * scale(1),
      b.low + ((position[2] - a.low) / (a.high - a.low)) * (b.high - b.low),
    ];
    return { point, text: "by the extent of the lungs from foot to head, not registered" };
  }
  return { point: transformed(inverseOf(to.toWorld), world), text: "by the position in the scanner, not registered" };
}
