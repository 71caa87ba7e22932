"""Compare TFDS builds of ``det3d_1.25mm`` with a plain TFDS builder, on synthetic volumes of 512 x 512 x 160.

    python -m benchmarks.tfds [--volumes 3] [--rounds 3] [--formats array_record tfrecord] [--encodings zlib bytes]

The plain builder extracts the archives, reads volumes with SimpleITK and generates ``Tensor`` features, once per
encoding. The default encoding of TFDS, ``none``, stores one number per voxel and takes minutes for a few volumes. Prints
wall and CPU seconds, peak memory and throughput of each build, seconds to read it, and bytes written.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.archives import SHAPE, write_source
from benchmarks.harness import (
    Command,
    argument_parser,
    build_command,
    folder_bytes,
    measure_in_turn,
    medians,
    module_command,
    run_in_new_process,
)

FORMATS = ("array_record", "tfrecord")
ENCODINGS = ("zlib", "bytes", "none")


def main() -> None:
    """Measure all builds in turn, then all readers in turn, and print the results and ratios."""
    parser = argument_parser(__doc__)
    parser.add_argument("--volumes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--encodings", nargs="+", choices=ENCODINGS, default=ENCODINGS[:2])
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)  # the process that is measured
    options = parser.parse_args()
    if options.run:
        {"plain": build_plain, "read": read}[options.run[0]](*options.run[1:])
        return
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        source = run_in_new_process(write_source, root / "source", options.volumes)
        builds: dict[str, Command] = {}
        readers: dict[str, Command] = {}
        folders: dict[str, Path] = {}
        for file_format in options.formats:
            name = f"ours, {file_format}"
            folders[name] = folder = root / f"ours {file_format}"
            builds[name] = build_command(source, "--format", file_format, "--out", folder)
            readers[name] = module_command("tfds", "--run", "read", folder, file_format, "lung_nodule_ct")
            for encoding in options.encodings:
                name = f"plain {encoding}, {file_format}"
                folders[name] = folder = root / f"plain {encoding} {file_format}"
                builds[name] = module_command("tfds", "--run", "plain", source, folder, file_format, encoding)
                readers[name] = module_command("tfds", "--run", "read", folder, file_format, "plain")
        runs = measure_in_turn(builds, options.rounds, folders)
        written = {path.name.replace(" ", ", ", 1): folder_bytes(path) for path in root.iterdir()}
        reads = measure_in_turn(readers, options.rounds)
    megabytes = options.volumes * 2 * math.prod(SHAPE) / 1e6
    print(f"{options.volumes} volumes, {megabytes:,.0f} MB of voxels, and half as much of masks")
    print(f"{'':28}{'build s':>9}{'CPU s':>8}{'peak MB':>9}{'MB/s':>8}{'read s':>8}")
    results = {name: medians(measured) for name, measured in runs.items()}
    for name, result in results.items():
        read_s = medians(reads[name]).wall
        print(
            f"{name:28}{result.wall:9.2f}{result.cpu:8.2f}{result.peak_mb:9.0f}{megabytes / result.wall:8.0f}{read_s:8.2f}"
        )
    for file_format in options.formats:
        ours = results[f"ours, {file_format}"]
        for encoding in options.encodings:
            plain = results[f"plain {encoding}, {file_format}"]
            print(
                f"{file_format}, plain {encoding} to ours: wall {plain.wall / ours.wall:.1f} x, "
                f"CPU {plain.cpu / ours.cpu:.1f} x, memory {plain.peak_mb / ours.peak_mb:.1f} x"
            )
    print({name: f"{size / 1e6:,.0f} MB" for name, size in written.items()})


def build_plain(source: str, folder: str, file_format: str, encoding: str) -> None:
    """Build with a TFDS builder as users write it."""
    import numpy as np
    import SimpleITK
    import tensorflow_datasets as tfds

    class Plain(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            shape = SHAPE if encoding == "none" else (None, None, None)  # "none" requires a fixed shape
            volume = tfds.features.Tensor(shape=shape, dtype=np.int16, encoding=encoding)
            mask = tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding=encoding)
            features = {"name": tfds.features.Text(), "volume": volume, "mask": mask}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager: Any) -> Any:  # noqa: ARG002 -- TFDS's signature
            folders = []
            for number in (0, 2):
                archive = next(Path(source).rglob(f"*mhd_{number}.zip"))
                folders.append(Path(folder) / "extracted" / str(number))
                with zipfile.ZipFile(archive) as packed:
                    packed.extractall(folders[-1])
            return {"train": self._generate_examples(folders)}

        def _generate_examples(self, folders: list[Path]) -> Iterator[Any]:
            masks = {path.stem: path for path in folders[1].rglob("*.mhd")}
            for header in sorted(folders[0].rglob("*.mhd")):
                volume, mask = (
                    SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(os.fspath(path)))
                    for path in (header, masks[header.stem])
                )
                yield header.stem, {"name": header.stem, "volume": volume, "mask": mask.astype("uint8")}

    Plain(data_dir=folder, file_format=file_format).download_and_prepare()


def read(folder: str, file_format: str, name: str) -> None:
    """Read all examples of a build once: ArrayRecord as a data source, TFRecord as a ``tf.data`` dataset."""
    import tensorflow_datasets as tfds

    builder_folder = next((Path(folder) / name).rglob("dataset_info.json")).parent
    builder = tfds.builder_from_directory(builder_folder)
    is_array_record = file_format == "array_record"
    rows = builder.as_data_source("train") if is_array_record else tfds.as_numpy(builder.as_dataset("train"))
    start, total = time.perf_counter(), 0
    for row in rows:
        total += row["volume"].nbytes
    print(total / 1e6 / (time.perf_counter() - start), "MB/s")


if __name__ == "__main__":
    main()
