"""Our TFDS build of ``det3d_1.25mm`` against a plain TFDS builder, side by side on generated volumes of 512 x 512 x 160.

    python -m benchmarks.tfds [--volumes 3] [--rounds 3] [--formats array_record tfrecord] [--encodings zlib bytes]

The plain one does it the usual way: extract, SimpleITK, ``Tensor(encoding="zlib")``, a generator; and once more with
``encoding="bytes"``. ``none``, TFDS's default, stores a number a voxel; it takes minutes for a few volumes. Prints wall, CPU and peak memory of building, bytes written, and how fast each is read back.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.archives import SHAPE, write_source
from benchmarks.harness import OURS, folder_bytes, in_a_process_of_its_own, in_turn, medians, module_command

FORMATS = ("array_record", "tfrecord")
ENCODINGS = ("zlib", "bytes", "none")


def main() -> None:
    """Generate, build in turn, read in turn, print; or be one of the contenders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--encodings", nargs="+", choices=ENCODINGS, default=ENCODINGS[:2])
    parser.add_argument("--contender", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        {"plain": plain, "read": read}[options.contender[0]](*options.contender[1:])
        return
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        source = in_a_process_of_its_own(write_source, root / "source", options.volumes)
        raw = options.volumes * 2 * 160 * 512 * 512
        contenders: dict[str, list[Any]] = {}
        readers: dict[str, list[Any]] = {}
        for form in options.formats:
            ours, command = root / f"ours {form}", [OURS, "build", "det3d_1.25mm", "--source", source]
            contenders[f"ours, {form}"] = [*command, "--format", form, "--out", ours]
            readers[f"ours, {form}"] = module_command("tfds", "--contender", "read", ours, form, "lung_nodule_ct")
            for encoding in options.encodings:
                place = root / f"plain {encoding} {form}"
                contenders[f"plain {encoding}, {form}"] = module_command(
                    "tfds", "--contender", "plain", source, place, form, encoding
                )
                readers[f"plain {encoding}, {form}"] = module_command(
                    "tfds", "--contender", "read", place, form, "plain"
                )
        runs = in_turn(contenders, options.rounds)
        written = {path.name.replace(" ", ", ", 1): folder_bytes(path) for path in root.iterdir()}
        reads = in_turn(readers, options.rounds)
    print(f"{options.volumes} volumes, {raw / 1e6:,.0f} MB of voxels, and half as much of masks")
    print(f"{'':28}{'build s':>9}{'CPU s':>8}{'peak MB':>9}{'MB/s':>8}{'read s':>8}")
    for name, own in runs.items():
        m, r = medians(own), medians(reads[name])
        print(f"{name:28}{m.wall:9.2f}{m.cpu:8.2f}{m.peak_mb:9.0f}{raw / 1e6 / m.wall:8.0f}{r.wall:8.2f}")
    for form in options.formats:
        ours = medians(runs[f"ours, {form}"])
        for encoding in options.encodings:
            other = medians(runs[f"plain {encoding}, {form}"])
            print(
                f"{form}, plain {encoding} to ours: wall {other.wall / ours.wall:.1f} x, CPU {other.cpu / ours.cpu:.1f} x, "
                f"memory {other.peak_mb / ours.peak_mb:.1f} x"
            )
    print({name: f"{size / 1e6:,.0f} MB" for name, size in written.items()})


def plain(source: str, place: str, form: str, encoding: str) -> None:
    """How it is usually written."""
    import numpy as np
    import SimpleITK
    import tensorflow_datasets as tfds

    class Plain(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            shape = SHAPE if encoding == "none" else (None, None, None)  # the default takes one shape only
            volume = tfds.features.Tensor(shape=shape, dtype=np.int16, encoding=encoding)
            mask = tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding=encoding)
            features = {"name": tfds.features.Text(), "volume": volume, "mask": mask}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager: Any) -> Any:  # noqa: ARG002 -- TFDS's signature
            folders = []
            for number in (0, 2):
                archive = next(Path(source).rglob(f"*mhd_{number}.zip"))
                folders.append(Path(place) / "extracted" / str(number))
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

    Plain(data_dir=place, file_format=form).download_and_prepare()


def read(place: str, form: str, name: str) -> None:
    """Read everything once, by the way that the format is for."""
    import tensorflow_datasets as tfds

    folder = next(path for path in (Path(place) / name).rglob("dataset_info.json")).parent
    builder = tfds.builder_from_directory(folder)
    rows = builder.as_data_source("train") if form == "array_record" else tfds.as_numpy(builder.as_dataset("train"))
    start, total = time.perf_counter(), 0
    for row in rows:
        total += row["volume"].nbytes
    print(total / 1e6 / (time.perf_counter() - start), "MB/s")


if __name__ == "__main__":
    main()
