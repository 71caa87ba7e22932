"""Compare reads of random patches (96 x 96 x 96 voxels) and random slices with SimpleITK, nibabel, MONAI and Array3D.

    python -m benchmarks.read [--volumes 3] [--reads 200]

All files are in the page cache, and all readers run in turn in one process. Prints medians in CPU milliseconds, and
ratios to this package. MONAI is measured if it is installed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import datasets
import nibabel
import numpy as np
import SimpleITK

import lung_nodule_ct
from benchmarks.archives import write_source
from benchmarks.harness import argument_parser, cpu_seconds, measure_command, module_command
from benchmarks.patches import PATCH_SIZE, Patch, random_patch

FAST = ("ours, zero-copy view", "SimpleITK, region of .mhd")
"""Readers that are measured in every repetition. The others are measured in every 20th."""


class Reader(NamedTuple):
    """Functions that read a patch and a slice of the volume with a given index."""

    patch: Callable[[int, Patch], Any]
    slice: Callable[[int, int], Any]


def main() -> None:
    """Build synthetic scans, read them in turn, and print medians and ratios."""
    parser = argument_parser(__doc__)
    parser.add_argument("--volumes", type=int, default=3)
    parser.add_argument("--reads", type=int, default=200)
    options = parser.parse_args()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        source = write_source(root / "source", options.volumes)
        rows = lung_nodule_ct.load("det3d_1.25mm", source=source, split="train", cache_dir=root / "cache")
        measure_command(module_command("naive", source, root / "naive", "arrow"))
        volumes = lung_nodule_ct.volumes(rows)
        shape = volumes[0].shape
        headers = {path.stem.split("_")[0]: path for path in (root / "naive" / "scans").glob("*.mhd")}
        files = [headers[row["patient_id"]] for row in rows.select_columns(["patient_id"])]
        readers = {
            "ours, zero-copy view": Reader(
                lambda i, patch: volumes[i].array[patch].copy(), lambda i, z: volumes[i].slice(z).copy()
            ),
            **simpleitk_readers(files, shape),
            **nifti_readers(files, root),
            **array3d_reader(root / "naive"),
        }
        times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in readers}
        rng = np.random.default_rng(0)
        for number in range(options.reads):
            i = int(rng.integers(options.volumes))
            patch = random_patch(rng, shape)
            for name, reader in readers.items():
                if name in FAST or number % 20 == 0:
                    patch_times, slice_times = times[name]
                    patch_times.append(cpu_seconds(lambda r=reader: r.patch(i, patch)) * 1e3)  # noqa: B023
                    slice_times.append(cpu_seconds(lambda r=reader: r.slice(i, patch[0].start)) * 1e3)  # noqa: B023
    baseline = [median(values) for values in times["ours, zero-copy view"]]
    print(f"{'CPU ms per read':28}{'patch':>10}{'x':>8}{'slice':>10}{'x':>8}")
    for name, values in times.items():
        patch_ms, slice_ms = map(median, values)
        print(f"{name:28}{patch_ms:10.3f}{patch_ms / baseline[0]:8.1f}{slice_ms:10.3f}{slice_ms / baseline[1]:8.1f}")


def simpleitk_readers(files: list[Path], shape: tuple[int, ...]) -> dict[str, Reader]:
    """SimpleITK, reading only a region or the complete volume."""

    def read_region(path: Path, index: tuple[int, int, int], size: tuple[int, int, int]) -> Any:
        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(str(path))
        reader.SetExtractIndex(index)
        reader.SetExtractSize(size)
        return SimpleITK.GetArrayFromImage(reader.Execute())

    def read_volume(path: Path) -> Any:
        return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))

    return {
        "SimpleITK, region of .mhd": Reader(
            lambda i, patch: read_region(
                files[i], (patch[2].start, patch[1].start, patch[0].start), (PATCH_SIZE, PATCH_SIZE, PATCH_SIZE)
            ),
            lambda i, z: read_region(files[i], (0, 0, z), (shape[2], shape[1], 1)),
        ),
        "SimpleITK, whole .mhd": Reader(
            lambda i, patch: read_volume(files[i])[patch],
            lambda i, z: read_volume(files[i])[z],
        ),
    }


def nifti_readers(files: list[Path], folder: Path) -> dict[str, Reader]:
    """Readers of the same volumes as uncompressed NIfTI, with axes (x, y, z): nibabel, and MONAI with a filled cache."""
    paths = [folder / f"{path.stem}.nii" for path in files]
    for path, nifti in zip(files, paths, strict=True):
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(nifti))
    readers = {
        "nibabel, slicing a .nii": Reader(
            lambda i, patch: np.asarray(nibabel.load(paths[i]).dataobj[patch[::-1]]),
            lambda i, z: np.asarray(nibabel.load(paths[i]).dataobj[:, :, z]),
        )
    }
    if find_spec("monai") is not None:
        from monai.data import PersistentDataset
        from monai.transforms import LoadImage

        cached = PersistentDataset(list(map(str, paths)), LoadImage(image_only=True), cache_dir=folder / "monai")
        for index in range(len(paths)):
            cached[index]  # fills the cache
        readers["MONAI PersistentDataset"] = Reader(
            lambda i, patch: cached[i][patch[::-1]].contiguous(),
            lambda i, z: cached[i][:, :, z].contiguous(),
        )
    return readers


def array3d_reader(folder: Path) -> dict[str, Reader]:
    """The column of the naive build, whose cells are nested lists of numbers."""
    rows = datasets.Dataset.from_file(str(next((folder / "cache").rglob("*.arrow"))))

    def read_volume(i: int) -> Any:
        return np.asarray(rows.with_format("numpy")[i]["volume"])

    return {"Array3D column": Reader(lambda i, patch: read_volume(i)[patch], lambda i, z: read_volume(i)[z])}


if __name__ == "__main__":
    main()
