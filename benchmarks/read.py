"""A random 96-cubed patch and a random slice: our zero-copy views against SimpleITK, nibabel, MONAI and an Array3D column.

    python -m benchmarks.read [--volumes 3] [--reads 200]

All from warm caches, in turn, in one process; CPU milliseconds a read, medians, and ratios to ours.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import nibabel
import numpy as np
import SimpleITK

import lung_nodule_ct
from benchmarks.archives import write_source
from benchmarks.harness import module_command, run_measured

EDGE = 96


def main() -> None:
    """Generate, load, read in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=3)
    parser.add_argument("--reads", type=int, default=200)
    options = parser.parse_args()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        source = write_source(root / "source", options.volumes)
        ours = lung_nodule_ct.load("det3d_1.25mm", source=source, split="train", cache_dir=root / "cache")
        run_measured(module_command("naive", source, root / "naive", "arrow"))
        array3d = datasets.Dataset.from_file(str(next((root / "naive" / "cache").rglob("*.arrow"))))
        headers = sorted((root / "naive" / "scans").glob("*.mhd"))
        views = lung_nodule_ct.volumes(ours)
        order = [row["patient_id"] for row in ours.select_columns(["patient_id"])]
        files = [next(path for path in headers if path.stem.split("_")[0] == patient) for patient in order]
        shape = views[0].shape
        nifti = [as_nifti(path, root / "nifti") for path in files]
        readers: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
            "ours, zero-copy view": (
                lambda i, z, y, x: views[i].array[z : z + EDGE, y : y + EDGE, x : x + EDGE].copy(),
                lambda i, z: views[i].slice(z).copy(),
            ),
            "SimpleITK, region of .mhd": (
                lambda i, z, y, x: region(files[i], (x, y, z), (EDGE, EDGE, EDGE)),
                lambda i, z: region(files[i], (0, 0, z), (shape[2], shape[1], 1)),
            ),
            "SimpleITK, whole .mhd": (
                lambda i, z, y, x: whole(files[i])[z : z + EDGE, y : y + EDGE, x : x + EDGE],
                lambda i, z: whole(files[i])[z],
            ),
            "nibabel, slicing a .nii": (
                lambda i, z, y, x: np.asarray(nibabel.load(nifti[i]).dataobj[x : x + EDGE, y : y + EDGE, z : z + EDGE]),
                lambda i, z: np.asarray(nibabel.load(nifti[i]).dataobj[:, :, z]),
            ),
            **monai_reader(nifti, root / "monai"),
            "Array3D column": (
                lambda i, z, y, x: np.asarray(array3d.with_format("numpy")[i]["volume"])[
                    z : z + EDGE, y : y + EDGE, x : x + EDGE
                ],
                lambda i, z: np.asarray(array3d.with_format("numpy")[i]["volume"])[z],
            ),
        }
        times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in readers}
        rng = np.random.default_rng(0)
        for number in range(options.reads):
            i = int(rng.integers(options.volumes))
            z, y, x = (int(rng.integers(limit - EDGE)) for limit in shape)
            for name, (patch, plane) in readers.items():
                if number % 20 and name not in ("ours, zero-copy view", "SimpleITK, region of .mhd"):
                    continue  # the slow ones often enough for a median
                times[name][0].append(timed(lambda p=patch: p(i, z, y, x)))  # noqa: B023 -- called at once
                times[name][1].append(timed(lambda p=plane: p(i, z)))  # noqa: B023
        base = [median(values) for values in times["ours, zero-copy view"]]
        print(f"{'CPU ms a read':28}{'patch':>10}{'x':>8}{'slice':>10}{'x':>8}")
        for name, pair in times.items():
            patch_ms, slice_ms = (median(values) for values in pair)
            print(f"{name:28}{patch_ms:10.3f}{patch_ms / base[0]:8.1f}{slice_ms:10.3f}{slice_ms / base[1]:8.1f}")


def as_nifti(header: Path, folder: Path) -> Path:
    """The same volume as NIfTI, uncompressed."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{header.stem}.nii"
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(header)), str(path))
    return path


def monai_reader(paths: list[Path], cache: Path) -> dict[str, tuple[Callable[..., Any], Callable[..., Any]]]:
    """MONAI's PersistentDataset, warm, where MONAI is installed."""
    if find_spec("monai") is None:
        return {}
    from monai.data import PersistentDataset
    from monai.transforms import LoadImage

    kept = PersistentDataset([str(path) for path in paths], LoadImage(image_only=True), cache_dir=cache)
    for index in range(len(paths)):
        kept[index]
    return {
        "MONAI PersistentDataset": (
            lambda i, z, y, x: kept[i][x : x + EDGE, y : y + EDGE, z : z + EDGE].contiguous(),
            lambda i, z: kept[i][:, :, z].contiguous(),
        )
    }


def region(header: Path, index: tuple[int, int, int], size: tuple[int, int, int]) -> Any:
    """A region by SimpleITK's own streaming read."""
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(header))
    reader.SetExtractIndex(index)
    reader.SetExtractSize(size)
    return SimpleITK.GetArrayFromImage(reader.Execute())


def whole(header: Path) -> Any:
    """The whole volume by SimpleITK."""
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(header)))


def timed(call: Callable[[], Any]) -> float:
    """CPU milliseconds of one call."""
    start = time.process_time()
    call()
    return (time.process_time() - start) * 1e3


if __name__ == "__main__":
    main()
