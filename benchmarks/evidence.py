"""Count the annotations of a build that the evidence in the voxels flags: as they are, moved, at random places in the lungs, and with other diameters.

    python -m benchmarks.evidence --build BUILD [--directions 20]

BUILD is a Parquet or Arrow build of sound scans, such as real CT. Nodules of at least 6 mm that are not cut by the end of their volume are
judged at their annotated place, moved by 8, 10 and 15 mm in directions that are even over the sphere, at random places in the lungs, and with
their diameter multiplied. Moves that leave the volume are left out. A flag is a verdict of the grade warning or error.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import argument_parser
from lung_nodule_ct.declaration.configs import Kind
from lung_nodule_ct.imaging import Scan, segment_lungs
from lung_nodule_ct.imaging.evidence import finder_of
from lung_nodule_ct.imaging.judgement import LEAST_MM, NoduleVerdict, judge_sphere
from lung_nodule_ct.imaging.lungs import find_lungs
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.read.rows import iterate_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

MOVES_MM = (8.0, 10.0, 15.0)
SCALES = (0.5, 0.7, 0.85, 1.15, 1.42, 2.0)


def directions(count: int) -> NDArray[np.float64]:
    """Unit vectors that are even over the sphere (a Fibonacci lattice), shape (count, 3)."""
    rank = np.arange(count) + 0.5
    z, angle = 1 - 2 * rank / count, math.pi * (1 + math.sqrt(5)) * rank
    across = np.sqrt(1 - z**2)
    return np.stack([across * np.cos(angle), across * np.sin(angle), z], axis=1)


def changes(
    scan: Scan, nodule: Mapping[str, Any], mask: NDArray[np.uint8], count: int, random: np.random.Generator
) -> Iterator[tuple[str, tuple[float, ...], float]]:
    """Each change of an annotation: its name, centre in LPS mm, and diameter in mm."""
    frame, (depth, height, width) = scan.grid
    center, diameter = np.array(nodule["center_world"], np.float64), float(nodule["diameter_mm"])
    yield "as annotated", tuple(center), diameter
    for distance in MOVES_MM:
        for direction in directions(count):
            moved = center + distance * direction
            x, y, z = frame.to_voxel(moved).tolist()
            if 0 <= x < width and 0 <= y < height and 0 <= z < depth:
                yield f"moved by {distance:g} mm", tuple(moved), diameter
    lung = np.flatnonzero(mask)
    for index in random.choice(lung, min(count, lung.size), replace=False):
        z, y, x = np.unravel_index(index, mask.shape)
        place = frame.to_world(np.array([x, y, z], np.float64))
        if np.linalg.norm(place - center) > diameter:
            yield "random place in the lungs", tuple(place), diameter
    for scale in SCALES:
        yield f"diameter x {scale:g}", tuple(center), diameter * scale


def main() -> None:
    """Measure, and print a table."""
    parser = argument_parser(__doc__)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--directions", type=int, default=20, help="moves and random places of each nodule")
    options = parser.parse_args()
    build = open_build(options.build)
    random = np.random.default_rng(0)
    configs = [name for name in build.configs if build.config(name).kind == Kind.SCAN]
    verdicts: dict[str, Counter[str]] = {}
    shifts: list[float] = []
    sizes: list[float] = []
    cut, seen = 0, set()
    for row in iterate_rows(build, configs):
        key = row.row["scan_id"], row.row["slice_thickness_mm"]
        if key in seen:
            continue
        seen.add(key)
        scan = Scan.from_row(row.row)
        frame, shape = scan.grid
        finder = finder_of(scan.array, find_lungs(scan.array, frame.spacing), frame.spacing)
        mask = segment_lungs(scan.array, frame)
        for nodule in scan.nodules:
            if (nodule["diameter_mm"] or 0.0) < LEAST_MM:
                continue
            true = judge_sphere(finder, frame, shape, nodule["center_world"], nodule["diameter_mm"])
            if true.verdict is NoduleVerdict.CUT:
                cut += 1
                continue
            if true.place is not None:
                shifts.append(true.place.shift)
                sizes.append(true.place.size_ratio or math.nan)
            for name, center, diameter in changes(scan, nodule, mask, options.directions, random):
                judged = judge_sphere(finder, frame, shape, center, diameter)
                kind = "flagged" if judged.grade else "cut" if judged.verdict is NoduleVerdict.CUT else "silent"
                verdicts.setdefault(name, Counter())[kind] += 1
    print(
        f"{len(seen):,} scans; {len(shifts):,} nodules of {LEAST_MM:g} mm and more, and {cut:,} cut ones, which are left out"
    )
    print(
        f"measured centres {min(shifts):.1f} to {max(shifts):.1f} mm off, measured diameters x {min(sizes):.2f} to {max(sizes):.2f}\n"
    )
    print(f"{'annotation':28}{'count':>7}{'flagged':>9}{'cut':>6}{'silent':>8}   flagged of those that are not cut")
    for name, found in verdicts.items():
        whole = found.total() - found["cut"]
        share = f"{100 * found['flagged'] / whole:.1f} %" if whole else "-"
        print(f"{name:28}{found.total():7}{found['flagged']:9}{found['cut']:6}{found['silent']:8}   {share}")


if __name__ == "__main__":
    main()
