"""Measure the operations on one scan of 512 x 512 x 160 voxels, next to what plain SimpleITK needs for the same.

    python -m benchmarks.imaging [--rounds 3] [--slices 160]
    python -m benchmarks.imaging --build FOLDER

Each operation runs in a process of its own on a phantom in a file. Prints CPU and wall seconds without the start of the process and the
reading of the file, the peak memory of the process, and for masks the Dice coefficient to the true mask.

With ``--build``, compares the lung masks of a build of ``det3d_1.25mm`` with ours, and prints the key slices of its nodules.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.archives import SPACING
from benchmarks.harness import argument_parser, measure_in_turn, medians, module_command, run_in_new_process
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.testing.phantoms import PhantomNodule, make_chest

NODULE = PhantomNodule((74.0, -4.0, 0.0), 18.0)
ENTRY = {"center_world": NODULE.center_world, "diameter_mm": NODULE.diameter_mm}


def read_scan(folder: Path) -> Any:
    """Return the phantom as a scan, with the nodule in the middle of its first slices."""
    from lung_nodule_ct.imaging import Scan

    volume = np.load(folder / "volume.npy")
    size = (*volume.shape[:0:-1], 20)
    origin = tuple(-(count - 1) / 2 * mm for count, mm in zip(size, SPACING, strict=True))
    return Scan(volume, Frame(origin, SPACING), nodules=(ENTRY,))


def segment(scan: Any) -> Any:
    """Lung mask."""
    from lung_nodule_ct import imaging

    return imaging.segment_lungs(scan.array, scan.frame)


def segment_simpleitk(scan: Any) -> Any:
    """A usual recipe: smoothing, Otsu's threshold, components that do not touch the border, closing, holes."""
    import SimpleITK

    itk: Any = SimpleITK
    image = itk.GetImageFromArray(scan.array)
    image.SetSpacing(scan.frame.spacing)
    air = itk.OtsuThreshold(itk.SmoothingRecursiveGaussian(image, 0.7), 1, 0)
    parts = itk.RelabelComponent(itk.ConnectedComponent(_without_border(itk, air)), 20_000)
    closed = itk.BinaryMorphologicalClosing(itk.Cast(parts > 0, itk.sitkUInt8), (4, 4, 0))
    slices = [itk.BinaryFillhole(closed[:, :, index]) for index in range(closed.GetSize()[2])]
    return itk.GetArrayFromImage(itk.JoinSeries(slices))


def _without_border(itk: Any, air: Any) -> Any:
    """The air that is not connected with the border of the slices."""
    width, height, _ = air.GetSize()
    parts = itk.ConnectedComponent(air)
    labels = itk.GetArrayViewFromImage(parts)
    outside = np.unique(
        np.concatenate(
            [labels[:, side].ravel() for side in (0, height - 1)]
            + [labels[:, :, side].ravel() for side in (0, width - 1)]
        )
    )
    return itk.ChangeLabel(parts, {int(label): 0 for label in outside if label}) > 0


def resample(scan: Any) -> None:
    """To 1 mm, linear."""
    from lung_nodule_ct import imaging

    imaging.resample(scan)


def resample_b_spline(scan: Any) -> None:
    """To 1 mm, by B-splines."""
    from lung_nodule_ct import imaging

    imaging.resample(scan, interpolation="b-spline")


def resample_simpleitk(scan: Any, interpolator: str = "sitkLinear") -> None:
    """The same by SimpleITK: from the array to an array."""
    import SimpleITK

    itk: Any = SimpleITK
    image = itk.GetImageFromArray(scan.array)
    image.SetOrigin(scan.frame.origin)
    image.SetSpacing(scan.frame.spacing)
    size = [round(count * mm) for count, mm in zip(scan.shape[::-1], SPACING, strict=True)]
    arguments = itk.Transform(), getattr(itk, interpolator), image.GetOrigin(), (1.0,) * 3, image.GetDirection(), -1024
    itk.GetArrayFromImage(itk.Resample(image, size, *arguments))


def resample_simpleitk_b_spline(scan: Any) -> None:
    """The same by SimpleITK."""
    resample_simpleitk(scan, "sitkBSpline")


def crop_to_lungs(scan: Any) -> None:
    """Mask and crop."""
    from lung_nodule_ct import imaging

    imaging.crop_to_lungs(scan)


def key_slice(scan: Any) -> None:
    """The key slice of one nodule."""
    from lung_nodule_ct import imaging

    imaging.key_slice(scan, ENTRY)


def nothing(_scan: Any) -> None:
    """Start of the process and reading of the scan."""


WORK: dict[str, Callable[[Any], Any]] = {
    "nothing": nothing,
    "segment_lungs": segment,
    "lungs by SimpleITK": segment_simpleitk,
    "resample": resample,
    "resample by SimpleITK": resample_simpleitk,
    "resample, B-spline": resample_b_spline,
    "B-spline by SimpleITK": resample_simpleitk_b_spline,
    "crop_to_lungs": crop_to_lungs,
    "key_slice": key_slice,
}


MARGINS = (20, 4, 0, -8, -20)
CLOSINGS = (0.0, 2.0, 3.0, 4.0, 6.0)
MASKS = ("segment_lungs", "lungs by SimpleITK")


def write_phantom(folder: Path, slices: int) -> None:
    """Write a phantom and its true mask. Twenty slices around the nodule are drawn and repeated, back and forth."""
    part = make_chest((20, 512, 512), SPACING, [NODULE])
    for name, array in (("volume", part.volume), ("mask", part.lung_mask)):
        repeated = [array, array[::-1]] * (slices // 40 + 1)
        np.save(folder / f"{name}.npy", np.concatenate(repeated)[:slices])


def dice(name: str, folder: Path) -> float:
    """Return the Dice coefficient of what an operation gives to the true mask."""
    mask, truth = WORK[name](read_scan(folder)) > 0, np.load(folder / "mask.npy") > 0
    return overlap(mask, truth)


def overlap(mask: Any, truth: Any) -> float:
    """Return the Dice coefficient of two masks."""
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


def compare_masks(build: Path) -> None:
    """Print Dice coefficients to the masks of a build: complete scans, and crops with margins in voxels around their lungs."""
    import lung_nodule_ct
    from lung_nodule_ct import imaging

    print(f"{'scan':4} {'both':>6} {'3':>6} {'4':>6}  " + "".join(f"crop {margin:+3}  " for margin in MARGINS))
    by_closing: dict[float, list[float]] = {closing: [] for closing in CLOSINGS}
    scans, masks = (lung_nodule_ct.volumes(build, name, config="det3d_1.25mm") for name in ("volume", "lung_mask"))
    for index, (scan, mask) in enumerate(zip(scans, masks, strict=True)):
        volume, truth = scan.numpy(), mask.numpy()
        for closing, values in by_closing.items():
            found = imaging.segment_lungs(volume, scan.frame, closing_mm=closing)
            values.append(overlap(found > 0, truth > 0))
        found = imaging.segment_lungs(volume, scan.frame)
        values = [overlap(found > 0, truth > 0), *(overlap(found == label, truth == label) for label in (3, 4))]
        used = [np.flatnonzero((truth > 0).any(axis=axes)) for axes in ((0, 2), (0, 1))]
        crops = []
        for margin in MARGINS:
            y, x = (slice(max(0, int(at[0]) - margin), int(at[-1]) + 1 + margin) for at in used)
            crops.append(overlap(imaging.segment_lungs(volume[:, y, x], scan.frame) > 0, truth[:, y, x] > 0))
        print(
            f"{index:4} "
            + "".join(f"{value:6.4f} " for value in values)
            + " "
            + "".join(f"{value:8.4f}  " for value in crops)
        )
    for closing, means in by_closing.items():
        print(f"closing {closing:4.1f} mm: mean Dice {np.mean(means):.4f}")


def list_key_slices(build: Path) -> None:
    """Print the key slice of every nodule of a build next to the slice of its annotated centre."""
    import lung_nodule_ct
    from lung_nodule_ct import imaging
    from lung_nodule_ct.read.build_folder import open_build

    rows = open_build(build).rows("det3d_1.25mm", "train", ["nodules"])
    for index, (scan, row) in enumerate(zip(lung_nodule_ct.volumes(build, config="det3d_1.25mm"), rows, strict=True)):
        for nodule in row["nodules"]:
            found = imaging.key_slice(scan, nodule)
            size, z = nodule["diameter_mm"], nodule["center_voxel"][2]
            print(
                f"scan {index}, {size:4.1f} mm: centre {z:5.1f}, key slice {found.index} by {found.basis}  {found.reason}"
            )


def main() -> None:
    """Make the phantom, run every operation in turn, and print the costs; or run one operation."""
    parser = argument_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slices", type=int, default=160)
    parser.add_argument("--build", type=Path, help="compare with the lung masks of a build")
    parser.add_argument("--work", choices=WORK, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        WORK[options.work](read_scan(options.folder))
        return
    if options.build:
        compare_masks(options.build)
        list_key_slices(options.build)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run_in_new_process(write_phantom, folder, options.slices)
        commands = {name: module_command("imaging", "--work", name, "--folder", folder) for name in WORK}
        costs = {name: medians(runs) for name, runs in measure_in_turn(commands, options.rounds).items()}
        agreement = {name: run_in_new_process(dice, name, folder) for name in MASKS}
    start = costs.pop("nothing")
    for name, cost in costs.items():
        fit = f"  Dice {agreement[name]:.4f}" if name in agreement else ""
        print(
            f"{name:24} {cost.cpu - start.cpu:6.2f} CPU s  {cost.wall - start.wall:6.2f} s  {cost.peak_mb:6.0f} MB{fit}"
        )


if __name__ == "__main__":
    main()
