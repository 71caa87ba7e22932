"""Build ``det3d_1.25mm`` as users do without this package: unzip, read with SimpleITK, generate Array3D columns.

python -m benchmarks.naive SOURCE WORK arrow|parquet
"""

from __future__ import annotations

import csv
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import SimpleITK

FOLDERS = {
    "1.25mm_3D_detection_mhd_0.zip": "scans",
    "1.25mm_3D_detection_mhd_2.zip": "masks",
    "1.25mm_3D_detection_mhd_3.zip": "tables",
}


def examples(folder: str) -> Iterator[dict[str, Any]]:
    """Yield one example per scan."""
    with Path(folder, "tables", "annotations.csv").open() as file:
        rows = list(csv.DictReader(file))
    for header in sorted(Path(folder, "scans").glob("*.mhd")):
        image = SimpleITK.ReadImage(str(header))
        mask = SimpleITK.ReadImage(str(Path(folder, "masks", header.name)))
        nodules = [row for row in rows if row["seriesuid"] == header.stem]
        yield {
            "scan": header.stem,
            "volume": SimpleITK.GetArrayFromImage(image),
            "mask": SimpleITK.GetArrayFromImage(mask).astype("uint8"),
            "spacing": image.GetSpacing(),
            "origin": image.GetOrigin(),
            "direction": image.GetDirection(),
            "nodules": [
                [float(row[name]) for name in ("coordX", "coordY", "coordZ", "diameter_mm")] for row in nodules
            ],
        }


def main() -> None:
    """Extract the archives, and build a dataset in Arrow and, if requested, a Parquet file."""
    source, work, file_format = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    for name, folder in FOLDERS.items():
        with zipfile.ZipFile(source / name) as archive:
            archive.extractall(work / folder)
    header = next((work / "scans").glob("*.mhd"))
    shape = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(header))).shape
    features = datasets.Features(
        {
            "scan": datasets.Value("string"),
            "volume": datasets.Array3D(shape, "int16"),
            "mask": datasets.Array3D(shape, "uint8"),
            "spacing": datasets.List(datasets.Value("float64")),
            "origin": datasets.List(datasets.Value("float64")),
            "direction": datasets.List(datasets.Value("float64")),
            "nodules": datasets.List(datasets.List(datasets.Value("float64"))),
        }
    )
    dataset = datasets.Dataset.from_generator(
        examples,
        features=features,
        gen_kwargs={"folder": str(work)},
        cache_dir=str(work / "cache"),
        writer_batch_size=8,
    )
    if file_format == "parquet":
        dataset.to_parquet(str(work / "out.parquet"), batch_size=1)


if __name__ == "__main__":
    main()
