"""Builds as a good engineer writes them in an hour for one dataset: no checks, no identity, no splits, no findings, no report.

python -m benchmarks.peer_programs isal-arrow|isal-parquet|generator-arrow|generator-pictures SOURCE OUT
"""

from __future__ import annotations

import csv
import io
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lung_nodule_ct.testing.archives import CT0, DET2D, MASKS, NODULES

_VOXELS = pa.struct([("bytes", pa.large_binary()), ("shape", pa.list_(pa.int32()))])
_SCHEMA = pa.schema(
    [
        ("scan", pa.string()),
        ("volume", _VOXELS),
        ("mask", _VOXELS),
        ("spacing", pa.list_(pa.float64())),
        ("origin", pa.list_(pa.float64())),
        ("nodules", pa.list_(pa.list_(pa.float64()))),
    ]
)


def nodules(source: Path) -> dict[str, list[list[float]]]:
    """The nodules of every scan."""
    found: dict[str, list[list[float]]] = {}
    with zipfile.ZipFile(source / NODULES) as archive:
        for row in csv.reader(io.StringIO(archive.read("annotations.csv").decode())):
            if row[1][-1:].isdigit():
                found.setdefault(row[0], []).append([float(cell) for cell in row[1:5]])
    return found


def header(archive: zipfile.ZipFile, name: str) -> dict[str, list[float]]:
    """Size, spacing and origin of a MetaImage."""
    lines = dict(line.split(" = ") for line in archive.read(f"{name}.mhd").decode().splitlines())
    return {key: [float(word) for word in lines[key].split()] for key in ("DimSize", "ElementSpacing", "Offset")}


def inflate_with_isal(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member, inflated by ISA-L at once, without its checksum."""
    from isal import isal_zlib

    info = archive.getinfo(name)
    file = archive.fp
    assert file is not None
    file.seek(info.header_offset)
    fixed = file.read(30)
    file.seek(int.from_bytes(fixed[26:28], "little") + int.from_bytes(fixed[28:30], "little"), 1)
    return isal_zlib.decompress(file.read(info.compress_size), wbits=-15, bufsize=info.file_size)


def rows(source: str, inflate: Any = zipfile.ZipFile.read) -> Iterator[dict[str, Any]]:
    """One example per scan."""
    found = nodules(Path(source))
    with zipfile.ZipFile(Path(source, CT0)) as scans, zipfile.ZipFile(Path(source, MASKS)) as masks:
        for member in scans.namelist():
            name, _, suffix = member.rpartition(".")
            if suffix == "mhd":
                meta = header(scans, name)
                shape = [int(size) for size in meta["DimSize"]][::-1]
                mask = np.frombuffer(inflate(masks, f"{name}.raw"), "<i2").astype(np.uint8)
                yield {
                    "scan": name,
                    "volume": {"bytes": inflate(scans, f"{name}.raw"), "shape": shape},
                    "mask": {"bytes": mask.tobytes(), "shape": shape},
                    "spacing": meta["ElementSpacing"],
                    "origin": meta["Offset"],
                    "nodules": found.get(name, []),
                }


def stream(source: Path, out: Path, file_format: str) -> None:
    """One record batch or row group per scan, with pyarrow and ISA-L."""
    path = str(out / f"train.{file_format}")
    writer: Any
    if file_format == "arrow":
        writer = pa.ipc.new_stream(path, _SCHEMA)
    else:
        writer = pq.ParquetWriter(path, _SCHEMA, compression="zstd", compression_level=1, use_dictionary=False)
    with writer:
        for row in rows(str(source), inflate_with_isal):
            writer.write_table(pa.Table.from_pylist([row], _SCHEMA))


def generator(source: Path, out: Path) -> None:
    """``Dataset.from_generator`` with bytes in place of ``Array3D``, read with zipfile."""
    import datasets

    voxels = {"bytes": datasets.Value("large_binary"), "shape": datasets.List(datasets.Value("int32"))}
    numbers = datasets.List(datasets.Value("float64"))
    features = datasets.Features(
        {
            "scan": datasets.Value("string"),
            "volume": voxels,
            "mask": voxels,
            "spacing": numbers,
            "origin": numbers,
            "nodules": datasets.List(numbers),
        }
    )
    arguments = {"source": str(source)}
    datasets.Dataset.from_generator(
        rows, features=features, gen_kwargs=arguments, cache_dir=str(out), writer_batch_size=1
    )


def pictures(source: str) -> Iterator[dict[str, Any]]:
    """One example per slice, its boxes from the XML file."""
    with zipfile.ZipFile(Path(source, DET2D)) as archive:
        for name in archive.namelist():
            if name.endswith(".jpg"):
                xml = archive.read(name.replace("JPEGImages", "Annotations").replace(".jpg", ".xml")).decode()
                box = [float(re.search(f"<{key}>(.*?)</{key}>", xml)[1]) for key in ("xmin", "ymin", "xmax", "ymax")]  # type: ignore[index]
                yield {"image": {"bytes": archive.read(name), "path": None}, "boxes": [box], "name": name}


def generator_of_pictures(source: Path, out: Path) -> None:
    """``Dataset.from_generator``, and Parquet of it. Pictures are neither decoded nor checked."""
    import datasets

    boxes = datasets.List(datasets.List(datasets.Value("float32")))
    features = datasets.Features({"image": datasets.Image(), "boxes": boxes, "name": datasets.Value("string")})
    arguments = {"source": str(source)}
    made = datasets.Dataset.from_generator(pictures, features=features, gen_kwargs=arguments, cache_dir=str(out))
    made.to_parquet(str(out / "train.parquet"))


def main() -> None:
    """Run one of the programs."""
    name, source, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    match name:
        case "isal-arrow":
            stream(source, out, "arrow")
        case "isal-parquet":
            stream(source, out, "parquet")
        case "generator-arrow":
            generator(source, out)
        case "generator-pictures":
            generator_of_pictures(source, out)
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
