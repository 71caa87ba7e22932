"""Metadata of pictures: parts that contain a date are removed, and all other bytes are unchanged."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from lung_nodule_ct.declaration.dates import count_dates
from lung_nodule_ct.formats.pictures import without_dated_metadata
from lung_nodule_ct.testing.archives import CLS, DET2D
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

GREY = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8))
DAY = b"2019:03:14 10:00:00"


def saved(kind: str, image: Image.Image = GREY, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)


def segment(code: int, content: bytes) -> bytes:
    """Return a segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, code, len(content) + 2) + content


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def insert_after_start(data: bytes, inserted: bytes) -> bytes:
    """Insert bytes after the first marker of a JPEG, or after the header of a PNG."""
    at = 2 if data.startswith(b"\xff\xd8") else 33
    return data[:at] + inserted + data[at:]


def insert_before_last_scan(data: bytes, inserted: bytes) -> bytes:
    """Insert bytes before the last scan of a progressive JPEG."""
    at = data.rindex(b"\xff\xda")
    return data[:at] + inserted + data[at:]


JPEG, COLOUR, BMP, PNG = saved("JPEG"), saved("JPEG", GREY.convert("RGB")), saved("BMP"), saved("PNG")
PROGRESSIVE, RESTARTING = saved("JPEG", progressive=True), saved("JPEG", restart_marker_rows=1)
EXIF = b"Exif\0\0" + DAY
ICC = segment(0xE2, b"ICC_PROFILE\0\1\1" + DAY)
ADOBE = segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")
XMP = b"http://ns.adobe.com/xap/1.0/\0<x>2019-03-14T10:00:00</x>"


@pytest.mark.parametrize(
    ("clean", "add", "kinds"),
    [
        (JPEG, lambda data: insert_after_start(data, segment(0xFE, b"scan of " + DAY)), ("COM",)),
        (COLOUR, lambda data: insert_after_start(data, segment(0xE1, EXIF)), ("APP1 (EXIF)",)),
        (JPEG, lambda data: insert_after_start(data, segment(0xE1, XMP)), ("APP1 (XMP)",)),
        (JPEG, lambda data: insert_after_start(data, segment(0xED, b"Photoshop 3.0\0" + DAY)), ("APP13 (Photoshop)",)),
        (JPEG, lambda data: insert_after_start(data, segment(0xEB, DAY)), ("APP11",)),
        (JPEG, lambda data: insert_after_start(data, segment(0xFE, DAY) + segment(0xE1, EXIF)), ("COM", "APP1 (EXIF)")),
        (PROGRESSIVE, lambda data: insert_before_last_scan(data, segment(0xFE, DAY)), ("COM",)),
        (RESTARTING, lambda data: insert_after_start(data, segment(0xE1, EXIF + JPEG)), ("APP1 (EXIF)",)),
        (JPEG, lambda data: data + b"14.03.2019", ("data behind the picture",)),
        (JPEG, lambda data: data + insert_after_start(JPEG, segment(0xE1, EXIF)), ("data behind the picture",)),
        (insert_after_start(JPEG, ICC), lambda data: insert_after_start(data, segment(0xFE, DAY)), ("COM",)),
        (
            insert_after_start(JPEG, segment(0xFE, b"no day")),
            lambda data: insert_after_start(data, segment(0xFE, DAY)),
            ("COM",),
        ),
        (
            insert_after_start(COLOUR, ADOBE),
            lambda data: insert_after_start(data, segment(0xE1, EXIF)),
            ("APP1 (EXIF)",),
        ),
        (PNG, lambda data: insert_after_start(data, chunk(b"tEXt", b"Comment\0" + DAY)), ("tEXt",)),
        (PNG, lambda data: insert_after_start(data, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(DAY))), ("zTXt",)),
        (PNG, lambda data: insert_after_start(data, chunk(b"iTXt", b"Comment\0\0\0\0\0" + DAY)), ("iTXt",)),
        (PNG, lambda data: insert_after_start(data, chunk(b"iTXt", b"C\0\1\0en\0C\0" + zlib.compress(DAY))), ("iTXt",)),
        (PNG, lambda data: insert_after_start(data, chunk(b"eXIf", b"MM\0\x2a" + DAY)), ("eXIf",)),
        (
            PNG,
            lambda data: insert_after_start(data, chunk(b"tIME", struct.pack(">HBBBBB", 2019, 3, 14, 1, 2, 3))),
            ("tIME",),
        ),
        (PNG, lambda data: data + DAY, ("data behind the picture",)),
        (BMP, lambda data: data + DAY, ("data behind the picture",)),
    ],
)
def test_only_metadata_with_a_date_is_removed(
    clean: bytes, add: Callable[[bytes], bytes], kinds: tuple[str, ...]
) -> None:
    dated = add(clean)
    assert dated != clean
    assert (pixels(dated) == pixels(clean)).all()
    assert without_dated_metadata(dated) == (clean, kinds)


def test_metadata_that_pillow_writes_is_removed_if_it_has_a_date() -> None:
    exif = Image.Exif()
    exif[306] = DAY.decode()
    notes = PngImagePlugin.PngInfo()
    notes.add_text("day", "2019-03-14", zip=True)
    for data in (
        saved("JPEG", exif=exif, comment=b"seen 14.03.2019", quality=95),
        saved("PNG", pnginfo=notes, exif=exif),
        saved("MPO", save_all=True, append_images=[GREY], exif=exif),
    ):
        clean, kinds = without_dated_metadata(data)
        assert kinds
        assert (pixels(clean) == pixels(data)).all()
        assert not count_dates(clean.decode("latin-1"))


@pytest.mark.parametrize(
    "data",
    [
        JPEG,
        COLOUR,
        BMP,
        PNG,
        PROGRESSIVE,
        RESTARTING,
        insert_after_start(JPEG, ICC),
        insert_after_start(JPEG, segment(0xFE, b"made by a scanner, version 2019.1")),
        JPEG + b"\0" * 16,
        BMP + b"\0\0",
    ],
)
def test_a_picture_without_dates_is_returned_without_a_copy(data: bytes) -> None:
    assert without_dated_metadata(data) == (data, ())
    assert without_dated_metadata(data)[0] is data


@given(st.sampled_from([JPEG, PROGRESSIVE, BMP, PNG]), st.integers(0, 4000), st.binary(max_size=60))
def test_arbitrary_bytes_cause_no_error(data: bytes, at: int, inserted: bytes) -> None:
    altered = data[:at] + inserted + DAY
    clean, kinds = without_dated_metadata(altered)
    assert len(clean) < len(altered) if kinds else clean is altered


def add_dates(tiny: TinyArchives) -> dict[str, tuple[bytes, bytes]]:
    """Add dates to two pictures, and return each picture with and without its date, by source name."""
    slice_, crop = "JPEGImages/9_004.jpg", "class_dataset/train/5/9_001_02.bmp"
    pictures = {}
    for archive, member, name, add in (
        (DET2D, slice_, "9_004", lambda data: insert_after_start(data, segment(0xE1, EXIF))),
        (CLS, crop, "train/5/9_001_02", lambda data: data + DAY),
    ):
        clean = tiny[archive][member]
        tiny[archive][member] = add(clean)
        pictures[name] = (tiny[archive][member], clean)
    return pictures


def test_a_build_removes_dates_from_pictures(tmp_path, build) -> None:
    tiny = TinyArchives()
    pictures = add_dates(tiny)
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm", "cls_1.25mm", keep_source_names=False)
    images = [row["image"]["bytes"] for config in ("det2d_1.25mm", "cls_1.25mm") for row in built.rows(config)]
    assert all(clean in images and published not in images for published, clean in pictures.values())
    in_slice, in_crop = sorted(built.findings("picture-metadata-removed"), key=lambda finding: finding["archive"])
    assert (in_slice["grade"], in_slice["archive"], in_slice["detail"]) == ("warning", DET2D, "APP1 (EXIF)")
    assert (in_slice["member"], in_slice["action"]) == (
        "JPEGImages/9_004.jpg",
        "removed; the pixels and all other bytes are as published",
    )
    assert (in_crop["archive"], in_crop["detail"]) == (CLS, "data behind the picture")
    assert "2019" not in str((in_slice, in_crop))


def test_a_build_with_source_names_keeps_the_metadata(tmp_path, build) -> None:
    tiny = TinyArchives()
    pictures = add_dates(tiny)
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm", "cls_1.25mm", keep_source_names=True)
    for config in ("det2d_1.25mm", "cls_1.25mm"):
        for row in built.rows(config):
            published, _ = pictures.get(row["source_name"], (row["image"]["bytes"], b""))
            assert row["image"]["bytes"] == published
    assert not built.findings("picture-metadata-removed")


def test_load_removes_dates_from_pictures(tmp_path) -> None:
    import lung_nodule_ct

    tiny = TinyArchives()
    pictures = add_dates(tiny)
    rows = lung_nodule_ct.load(
        "det2d_1.25mm", source=tiny.write(tmp_path / "in"), split="train", cache_dir=tmp_path / "cache"
    )
    import datasets

    images = [row["image"]["bytes"] for row in rows.cast_column("image", datasets.Image(decode=False))]
    published, clean = pictures["9_004"]
    assert clean in images
    assert published not in images
