"""Count the false alarms of the voxel checks: sound scans of a build, as they are and with changes that a scanner may make.

    python -m benchmarks.false_alarms --build BUILD

BUILD is a Parquet or Arrow build of sound scans, such as real CT. Each distinct scan is measured as it is, with noise of 30 and 80 HU,
smoother, sharper, with denser and less dense lungs, with contrast, and clipped to 1000 HU. Prints, for each change, how many scans and
nodules the checks flag.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from benchmarks.harness import argument_parser
from lung_nodule_ct.audit.agreement_checks import mask_faults
from lung_nodule_ct.audit.measures import measure_scan
from lung_nodule_ct.audit.reading import histogram
from lung_nodule_ct.audit.scan_checks import size_fault, turned
from lung_nodule_ct.declaration.configs import Kind
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.read.rows import iterate_rows

RANDOM = np.random.default_rng(0)


def _unsharp(volume: Any, amount: float) -> Any:
    return volume + amount * (volume - ndimage.gaussian_filter(volume.astype(np.float32), (0, 1.5, 1.5)))


def _contrast(volume: Any) -> Any:
    inner = ndimage.gaussian_filter((volume > 0).astype(np.float32), 3) > 0.9
    return np.where(inner & (volume < 200), volume + 120, volume)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda volume: volume,
    "noise of 30 HU": lambda volume: volume + RANDOM.normal(0, 30, volume.shape),
    "noise of 80 HU": lambda volume: volume + RANDOM.normal(0, 80, volume.shape),
    "smooth kernel": lambda volume: _unsharp(volume, -1.0),
    "sharp kernel": lambda volume: _unsharp(volume, 1.5),
    "lungs 60 HU less dense": lambda volume: np.where((volume > -950) & (volume < -600), volume - 60, volume),
    "contrast of 120 HU": _contrast,
    "clipped to 1000 HU": lambda volume: np.clip(volume, -1000, 1000),
}


def main() -> None:
    """Measure, and print a table."""
    parser = argument_parser(__doc__)
    parser.add_argument("--build", type=Path, required=True)
    build = open_build(parser.parse_args().build)
    configs = [name for name in build.configs if build.config(name).kind == Kind.SCAN]
    names = ("hu-calibration", "orientation", "lung-size", "slice-order", "mask-fit", "nodule-evidence")
    counts = {change: dict.fromkeys(names, 0) for change in CHANGES}
    scans, nodules = set(), 0
    for row in iterate_rows(build, configs):
        key = row.row["scan_id"], row.row["slice_thickness_mm"]
        if key in scans:
            continue
        scans.add(key)
        nodules += len(row.row["nodules"])
        for change, apply in CHANGES.items():
            volume = np.clip(np.rint(apply(row.row["volume"].astype(np.int32))), -32768, 32767).astype(np.int16)
            mask = row.row.get("lung_mask")
            found = measure_scan(volume, mask, row.frame, histogram(volume), row.row["nodules"])
            counted = counts[change]
            counted["hu-calibration"] += bool(found.calibration.faults)
            counted["orientation"] += found.anatomy is not None and turned(found.anatomy) is not None
            counted["lung-size"] += found.anatomy is None or size_fault(found.anatomy) is not None
            counted["slice-order"] += found.order is not None and bool(found.order.events)
            counted["mask-fit"] += found.mask is not None and bool(mask_faults(found.mask, None))
            counted["nodule-evidence"] += sum(nodule.evidence.grade is not None for nodule in found.nodules)
    print(f"{len(scans):,} scans, {nodules:,} nodules\n")
    print(f"{'change':24}" + "".join(f"{name:>17}" for name in names))
    for change, counted in counts.items():
        print(f"{change:24}" + "".join(f"{counted[name]:17}" for name in names))


if __name__ == "__main__":
    main()
