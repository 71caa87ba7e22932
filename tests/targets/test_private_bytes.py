"""No byte of what identifies a patient in the files of the source is in any file that leaves the builder."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from identifying import CORPUS, ENCODINGS, PLACES, check_files, searched
from PIL import Image

from lung_nodule_ct.testing.archives import BMP0, CLS, DET2D, voc_annotation
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

BLOB_BYTES = 700  # what the smallest place takes, the thumbnail of a JPEG
CONFIGS = ("cls_1.25mm", "det2d_1.25mm", "det3d_bmp_1.25mm")
BASE = {"JPEG": "JPEG colour", "PNG": "PNG palette with transparency", "BMP": "BMP header of 124"}
SUFFIX = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp"}


def blobs() -> list[bytes]:
    """Return the texts of the corpus, joined to as few pieces as fit."""
    joined = [b""]
    for text in CORPUS:
        if len(joined[-1]) + len(text) > BLOB_BYTES:
            joined.append(b"")
        joined[-1] += text + b"\0"
    return joined


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Archives in which every place of every format of pictures has every text of the corpus."""
    tiny = TinyArchives()
    number = 0
    for kind, places in PLACES.items():
        for insert in places.values():
            for blob in blobs():
                number += 1
                data = insert(ENCODINGS[BASE[kind]], blob)
                stem = f"{number + 100}_001"
                tiny[CLS][f"class_dataset/train/{number % 6 + 1}/{stem}_01{SUFFIX[kind]}"] = data
                tiny[DET2D][f"JPEGImages/{stem}{SUFFIX[kind]}"] = data
                tiny[DET2D][f"Annotations/{stem}.xml"] = voc_annotation((1, 2, 9, 10), filename="a.jpg")
    names = sorted(name for name in tiny[BMP0] if name.startswith("imgs/00001/"))
    for name, blob in zip(names, blobs(), strict=False):
        tiny[BMP0][name] += blob
    folder = tiny.write(tmp_path_factory.mktemp("source") / "in")
    raw = b"".join(data for members in tiny.values() for data in members.values())
    assert all(part in raw for text in CORPUS for part in searched(text))
    return folder


@pytest.fixture(scope="module")
def built(source, cli, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built") / "build"
    done = cli("build", *CONFIGS, "--source", source, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def check(folder: Path) -> int:
    """Fail if a text of the corpus is in a file of the folder; return the number of files."""
    needles = [part for text in CORPUS for part in searched(text)]
    return check_files(folder, [*needles, *(zlib.compress(blob) for blob in blobs())])


def test_the_search_finds_what_a_build_with_source_names_keeps(source, cli, tmp_path) -> None:
    out = tmp_path / "out"
    assert cli("build", *CONFIGS, "--source", source, "--out", out, "--keep-source-names").returncode == 0
    with pytest.raises(AssertionError, match="parquet"):
        check(out)


@pytest.mark.parametrize("format_", ["arrow", "tfrecord", "array_record"])
def test_no_format_of_a_build_contains_a_text(source, cli, tmp_path, format_) -> None:
    if format_ in ("tfrecord", "array_record"):
        pytest.importorskip("array_record")
    out = tmp_path / "out"
    done = cli("build", *CONFIGS, "--source", source, "--out", out, "--format", format_)
    assert done.returncode == 0, done.stderr
    assert check(out) >= 3


def test_neither_a_build_nor_what_is_made_from_it_contains_a_text(built, cli, tmp_path) -> None:
    for command in (
        ("preview", built),
        ("card", built),
        ("audit", built, "--json"),
        *(("export", built, "det2d_1.25mm", "--to", to, "--out", tmp_path / to) for to in ("coco", "yolo", "voc")),
        ("export", built, "det3d_bmp_1.25mm", "--to", "coco", "--out", tmp_path / "stacks"),
    ):
        done = cli(*command)
        assert done.returncode == 0, (command, done.stderr)
    assert check(built) > 6
    assert check(tmp_path) > 200


def test_the_pixels_of_all_pictures_are_as_published(built) -> None:
    expected = {kind: np.asarray(Image.open(io.BytesIO(ENCODINGS[name]))) for kind, name in BASE.items()}
    pictures = 0
    for path in [path for config in CONFIGS for path in (built / "data" / config).rglob("*.parquet")]:
        for row in pq.read_table(path).to_pylist():
            if "image" in row and row["image"]["bytes"]:
                image = Image.open(io.BytesIO(row["image"]["bytes"]))
                if image.size == (34, 21):
                    pictures += 1
                    assert np.array_equal(np.asarray(image), expected[image.format])
    assert pictures >= 2 * len(blobs()) * sum(map(len, PLACES.values()))
