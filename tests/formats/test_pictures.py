"""Metadata of pictures: dates stay behind, every other byte stays as it is."""

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
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, code, len(content) + 2) + content


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def after_the_start(data: bytes, more: bytes) -> bytes:
    """Behind the first marker of a JPEG, or the header of a PNG."""
    at = 2 if data.startswith(b"\xff\xd8") else 33
    return data[:at] + more + data[at:]


def before_the_last_scan(data: bytes, more: bytes) -> bytes:
    """Between two scans of a progressive JPEG."""
    at = data.rindex(b"\xff\xda")
    return data[:at] + more + data[at:]


JPEG, COLOUR, BMP, PNG = saved("JPEG"), saved("JPEG", GREY.convert("RGB")), saved("BMP"), saved("PNG")
PROGRESSIVE, RESTARTING = saved("JPEG", progressive=True), saved("JPEG", restart_marker_rows=1)
EXIF = b"Exif\0\0" + DAY
ICC = segment(0xE2, b"ICC_PROFILE\0\1\1" + DAY)
ADOBE = segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")
XMP = b"http://ns.adobe.com/xap/1.0/\0<x>2019-03-14T10:00:00</x>"


@pytest.mark.parametrize(
    ("clean", "add", "kinds"),
    [
        (JPEG, lambda data: after_the_start(data, segment(0xFE, b"scan of " + DAY)), ("COM",)),
        (COLOUR, lambda data: after_the_start(data, segment(0xE1, EXIF)), ("APP1 (EXIF)",)),
        (JPEG, lambda data: after_the_start(data, segment(0xE1, XMP)), ("APP1 (XMP)",)),
        (JPEG, lambda data: after_the_start(data, segment(0xED, b"Photoshop 3.0\0" + DAY)), ("APP13 (Photoshop)",)),
        (JPEG, lambda data: after_the_start(data, segment(0xEB, DAY)), ("APP11",)),
        (JPEG, lambda data: after_the_start(data, segment(0xFE, DAY) + segment(0xE1, EXIF)), ("COM", "APP1 (EXIF)")),
        (PROGRESSIVE, lambda data: before_the_last_scan(data, segment(0xFE, DAY)), ("COM",)),
        (RESTARTING, lambda data: after_the_start(data, segment(0xE1, EXIF + JPEG)), ("APP1 (EXIF)",)),
        (JPEG, lambda data: data + b"14.03.2019", ("data behind the picture",)),
        (JPEG, lambda data: data + after_the_start(JPEG, segment(0xE1, EXIF)), ("data behind the picture",)),
        (after_the_start(JPEG, ICC), lambda data: after_the_start(data, segment(0xFE, DAY)), ("COM",)),
        (
            after_the_start(JPEG, segment(0xFE, b"no day")),
            lambda data: after_the_start(data, segment(0xFE, DAY)),
            ("COM",),
        ),
        (after_the_start(COLOUR, ADOBE), lambda data: after_the_start(data, segment(0xE1, EXIF)), ("APP1 (EXIF)",)),
        (PNG, lambda data: after_the_start(data, chunk(b"tEXt", b"Comment\0" + DAY)), ("tEXt",)),
        (PNG, lambda data: after_the_start(data, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(DAY))), ("zTXt",)),
        (PNG, lambda data: after_the_start(data, chunk(b"iTXt", b"Comment\0\0\0\0\0" + DAY)), ("iTXt",)),
        (PNG, lambda data: after_the_start(data, chunk(b"iTXt", b"C\0\1\0en\0C\0" + zlib.compress(DAY))), ("iTXt",)),
        (PNG, lambda data: after_the_start(data, chunk(b"eXIf", b"MM\0\x2a" + DAY)), ("eXIf",)),
        (
            PNG,
            lambda data: after_the_start(data, chunk(b"tIME", struct.pack(">HBBBBB", 2019, 3, 14, 1, 2, 3))),
            ("tIME",),
        ),
        (PNG, lambda data: data + DAY, ("data behind the picture",)),
        (BMP, lambda data: data + DAY, ("data behind the picture",)),
    ],
)
def test_what_spells_a_date_is_cut_out_and_nothing_else(
    clean: bytes, add: Callable[[bytes], bytes], kinds: tuple[str, ...]
) -> None:
    dated = add(clean)
    assert dated != clean
    assert (pixels(dated) == pixels(clean)).all()
    assert without_dated_metadata(dated) == (clean, kinds)


def test_metadata_as_other_programs_write_them() -> None:
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
        after_the_start(JPEG, ICC),
        after_the_start(JPEG, segment(0xFE, b"made by a scanner, version 2019.1")),
        JPEG + b"\0" * 16,
        BMP + b"\0\0",
    ],
)
def test_a_picture_without_dates_is_the_very_same_object(data: bytes) -> None:
    assert without_dated_metadata(data) == (data, ())
    assert without_dated_metadata(data)[0] is data


@given(st.sampled_from([JPEG, PROGRESSIVE, BMP, PNG]), st.integers(0, 4000), st.binary(max_size=60))
def test_no_bytes_do_harm(data: bytes, at: int, more: bytes) -> None:
    bent = data[:at] + more + DAY
    clean, kinds = without_dated_metadata(bent)
    assert len(clean) < len(bent) if kinds else clean is bent


def dated(tiny: TinyArchives) -> dict[str, tuple[bytes, bytes]]:
    """Bend two pictures; returns for each source name the picture as published and as it may leave the builder."""
    slice_, crop = "JPEGImages/9_004.jpg", "class_dataset/train/5/9_001_02.bmp"
    told = {}
    for archive, member, name, add in (
        (DET2D, slice_, "9_004", lambda data: after_the_start(data, segment(0xE1, EXIF))),
        (CLS, crop, "train/5/9_001_02", lambda data: data + DAY),
    ):
        clean = tiny[archive][member]
        tiny[archive][member] = add(clean)
        told[name] = (tiny[archive][member], clean)
    return told


def test_dates_in_pictures_stay_in_the_archives(tmp_path, build) -> None:
    tiny = TinyArchives()
    told = dated(tiny)
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm", "cls_1.25mm", keep_source_names=False)
    images = [row["image"]["bytes"] for config in ("det2d_1.25mm", "cls_1.25mm") for row in built.rows(config)]
    assert all(clean in images and published not in images for published, clean in told.values())
    one, other = sorted(built.findings("picture-metadata-removed"), key=lambda finding: finding["archive"])
    assert (one["grade"], one["archive"], one["detail"]) == ("warning", DET2D, "APP1 (EXIF)")
    assert (one["member"], one["action"]) == (
        "JPEGImages/9_004.jpg",
        "removed; the pixels and all other bytes are as published",
    )
    assert (other["archive"], other["detail"]) == (CLS, "data behind the picture")
    assert "2019" not in str((one, other))


def test_who_keeps_the_names_keeps_the_metadata(tmp_path, build) -> None:
    tiny = TinyArchives()
    told = dated(tiny)
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm", "cls_1.25mm", keep_source_names=True)
    for config in ("det2d_1.25mm", "cls_1.25mm"):
        for row in built.rows(config):
            published, _ = told.get(row["source_name"], (row["image"]["bytes"], b""))
            assert row["image"]["bytes"] == published
    assert not built.findings("picture-metadata-removed")


def test_what_is_loaded_without_a_build_has_none_either(tmp_path) -> None:
    import lung_nodule_ct

    tiny = TinyArchives()
    told = dated(tiny)
    rows = lung_nodule_ct.load(
        "det2d_1.25mm", source=tiny.write(tmp_path / "in"), split="train", cache_dir=tmp_path / "cache"
    )
    import datasets

    images = [row["image"]["bytes"] for row in rows.cast_column("image", datasets.Image(decode=False))]
    published, clean = told["9_004"]
    assert clean in images
    assert published not in images
