"""Pictures leave the builder without metadata and with the same pixels; what they decode to is exact, or reported."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from identifying import (
    COLOUR,
    CORPUS,
    ENCODINGS,
    GREY,
    PIXELS,
    PLACES,
    Insert,
    bitmap,
    chunk,
    insert_after_start,
    runs,
    saved,
    segment,
)
from PIL import Image, PngImagePlugin

import lung_nodule_ct
from lung_nodule_ct.declaration.archives import Role
from lung_nodule_ct.errors import MemberError
from lung_nodule_ct.formats import pictures
from lung_nodule_ct.formats.jpeg_scans import find_scan_tails
from lung_nodule_ct.formats.picture_parts import Part
from lung_nodule_ct.formats.pictures import (
    PublishedPicture,
    decode_picture,
    find_metadata,
    read_published,
    without_metadata,
    without_orientation,
)
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.sources.source import ArchivePool
from lung_nodule_ct.testing.archives import BMP0, CLS, DET2D, encode_picture, write_archives
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

DAY = b"2019:03:14 10:00:00"
EXIF = b"Exif\0\0" + DAY


def turned(orientation: int) -> bytes:
    """Return EXIF with an orientation, as Pillow writes it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x0132] = DAY.decode()
    return exif.tobytes()


CASES = [
    pytest.param(data, insert, id=f"{encoding}, {place}")
    for encoding, data in ENCODINGS.items()
    for place, insert in PLACES[encoding.split()[0]].items()
    if insert(data, CORPUS[0]) != data  # not every encoding has every place
]


def clean(data: bytes) -> bytes:
    return without_metadata(data, decode_picture(data))[0]


def kinds(data: bytes) -> str:
    return without_metadata(data, decode_picture(data))[1]


def contains(data: bytes, text: bytes) -> bool:
    """Whether a text occurs in data, as it is or compressed as these tests compress it."""
    return text in data or zlib.compress(text) in data


def test_the_corpus_has_sixty_spellings() -> None:
    assert len(CORPUS) >= 60
    assert min(map(len, CORPUS)) >= 8


@pytest.mark.parametrize("is_grey", [True, False])
def test_the_end_of_a_grey_jpeg_is_checked_without_its_colours(monkeypatch, is_grey: bool) -> None:
    channels = np.random.default_rng(0).integers(
        0, 255, (48, 48, 3), np.uint8
    )  # whole blocks: the last code has an effect
    data = encode_picture(channels[..., [0, 0, 0]] if is_grey else channels, "JPEG")
    picture = decode_picture(data)
    assert picture.pixels.ndim == (2 if is_grey else 3)
    decoded: list[bytes] = []
    monkeypatch.setattr(pictures, "decode_picture", lambda data: (decoded.append(data), decode_picture(data))[1])
    assert without_metadata(data, picture) == (data, "")
    assert len(decoded) == (0 if is_grey else 1)
    text = data[:-2] + DAY + data[-2:]  # behind the last code of the scan
    assert without_metadata(text, picture)[0] == data


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_picture_of_nothing_but_pixels_is_returned_without_a_copy(encoding: str) -> None:
    data = ENCODINGS[encoding]
    assert find_metadata(data) == []
    assert without_metadata(data, decode_picture(data)) == (data, "")
    assert clean(data) is data


def check_that_texts_are_removed(data: bytes, insert: Insert, texts: tuple[bytes, ...]) -> None:
    with Image.open(io.BytesIO(data)) as picture:
        pixels = np.asarray(picture)
    results = set()
    for text in texts:
        published = clean(insert(data, text))
        assert not contains(published, text[:8])
        assert not contains(published, text[-8:])
        results.add(published)
    for published in results:  # mostly one, the picture without any text
        with Image.open(io.BytesIO(published)) as picture:
            assert np.array_equal(np.asarray(picture), pixels)
            assert not picture.getexif()
        assert clean(published) is published


@pytest.mark.parametrize(("data", "insert"), CASES)
def test_texts_in_every_place_of_every_encoding_are_removed(data: bytes, insert: Insert) -> None:
    check_that_texts_are_removed(data, insert, CORPUS[::21])


@pytest.mark.parametrize(("data", "insert"), CASES)
def test_no_four_bytes_of_a_text_are_left(data: bytes, insert: Insert) -> None:
    text = b"PATIENT-NAME:DOE^JANE*19540312"
    published = clean(insert(data, text))
    assert not [text[at : at + 4] for at in range(len(text) - 3) if text[at : at + 4] in published]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "place",
    ["padding", "before the pixels", "reserved fields", "behind the picture", "behind the picture, in its size"],
)
def test_the_fields_of_a_bmp_are_those_of_the_picture_without_the_text(encoding: str, place: str) -> None:
    kind, data = encoding.split(maxsplit=1)[0], ENCODINGS[encoding]
    if place in PLACES[kind]:
        assert clean(PLACES[kind][place](data, b"PATIENT-NAME")) == data


@pytest.mark.parametrize("encoding", ["JPEG colour", "JPEG grey", "JPEG restarting"])
def test_data_behind_a_jpeg_without_an_end_are_removed(encoding: str) -> None:
    data = ENCODINGS[encoding]
    assert clean(data[:-2] + b"PATIENT NAME") == data


def test_a_jpeg_of_too_many_scans_is_refused() -> None:
    scan = segment(0xDA, b"\1\1\0\0\x3f\0") + b"data"
    with pytest.raises(ValueError, match="at most 64 scans, got 65"):
        find_scan_tails(b"\xff\xd8" + scan * 65, lambda _: True)


@pytest.mark.parametrize(
    ("data", "part", "message"),
    [
        (saved("BMP"), Part("", 1100, 1101, b"", bytes([saved("BMP")[1100] ^ 1])), "other pixels"),
        (saved("PNG"), Part("", 33, 33, b"", chunk(b"eXIf", turned(6)[6:])), "orientation 6"),
    ],
)
def test_a_result_with_other_pixels_or_an_orientation_is_refused(monkeypatch, data, part, message) -> None:
    monkeypatch.setattr(pictures, "find_metadata", lambda _: [part])
    with pytest.raises(ValueError, match=message):
        without_metadata(data, decode_picture(data))


@pytest.mark.parametrize(("data", "insert"), CASES)
@pytest.mark.slow
def test_all_texts_in_every_place_of_every_encoding_are_removed(data: bytes, insert: Insert) -> None:
    check_that_texts_are_removed(data, insert, CORPUS)


@given(st.sampled_from(CASES), st.binary(min_size=8, max_size=300))
def test_arbitrary_bytes_in_any_place_are_removed(case, content: bytes) -> None:
    data, insert = case.values
    altered = insert(data, content)
    try:
        picture = decode_picture(altered)
    except ValueError:
        assume(False)  # the content is a marker of its own
    published, _ = without_metadata(altered, picture)
    assert decode_picture(published).equals(picture)
    assert len(set(content)) < 3 or content not in published


@given(st.sampled_from([*ENCODINGS.values()]), st.integers(0, 3000), st.binary(max_size=60))
def test_damaged_pictures_are_cleaned_or_refused(data: bytes, at: int, inserted: bytes) -> None:
    altered = data[:at] + inserted + data[at + len(inserted) // 2 :]
    find_metadata(altered)
    try:
        picture = decode_picture(altered)
        published, _ = without_metadata(altered, picture)
    except ValueError:
        return
    assert decode_picture(published).equals(picture)


def usual_jpeg(subsampling: int = 2, **options: object) -> bytes:
    """Return a grey slice as most programs store it: three equal colours, dark in the corners."""
    grey = np.random.default_rng(3).integers(0, 256, (64, 80), np.uint8)
    grey[-16:] = 0
    return saved("JPEG", Image.fromarray(grey).convert("RGB"), subsampling=subsampling, **options)


def published(tmp_path: Path, data: bytes, *, keep_metadata: bool = False) -> PublishedPicture:
    """Return what the reader of published pictures makes of a file in an archive."""
    (archive,) = open_folder(write_archives(tmp_path, {DET2D: {"JPEGImages/1_001.jpg": data}})).archives(
        Role.DETECTION_2D
    )
    with ArchivePool() as archives:
        return read_published(archive.members[0], archives, keep_metadata=keep_metadata)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_jpeg_of_nothing_but_pixels_is_decoded_once_for_all_of_its_kind(tmp_path, monkeypatch, subsampling) -> None:
    data = usual_jpeg(subsampling)
    decoded: list[bytes] = []
    monkeypatch.setattr(pictures, "decode_picture", lambda data: (decoded.append(data), decode_picture(data))[1])
    picture = published(tmp_path, data)
    assert (picture.data, picture.height, picture.width, picture.findings) == (data, 64, 80, ())
    assert all(len(each) < len(data) // 4 for each in decoded)  # its head


@pytest.mark.parametrize("text", CORPUS)
@pytest.mark.parametrize("ending", [b"", b"\0", b"\0\0", b"\n"])
def test_a_text_behind_the_last_code_of_a_usual_jpeg_is_removed(tmp_path, text, ending) -> None:
    data = usual_jpeg()
    picture = published(tmp_path, data[:-2] + text + ending + data[-2:])
    assert picture.data == data
    assert [finding.detail for finding in picture.findings] == ["data behind a scan"]


@given(st.integers(0, 2), st.integers(0, 6000), st.binary(max_size=40), st.integers(0, 40))
def test_what_is_not_decoded_would_decode_to_its_size(subsampling, at, inserted, removed) -> None:
    data = usual_jpeg(subsampling)
    altered = data[:at] + inserted + data[at + removed :]
    size = pictures._size_of_plain(altered)
    if size is not None:
        assert decode_picture(altered).pixels.shape[:2] == size
        assert find_metadata(altered) == []


@pytest.mark.parametrize("end", [100, 700, -4000, -400, -3])
def test_a_usual_jpeg_that_is_cut_short_is_damaged(tmp_path, end) -> None:
    with pytest.raises(MemberError, match="is damaged"):
        published(tmp_path, usual_jpeg()[:end])


def test_the_head_of_a_usual_jpeg_is_short() -> None:
    """The segments of a file are not walked without a limit: millions of them took seconds."""
    data = usual_jpeg()
    needed = segment(0xDD, b"\0\0") * 2000  # no restarts
    altered = insert_after_start(data, needed)
    assert decode_picture(altered).pixels.shape == (64, 80)
    assert pictures._size_of_plain(data) == (64, 80)
    assert pictures._size_of_plain(altered) is None


@pytest.mark.parametrize("keep_metadata", [False, True])
def test_a_jpeg_has_the_key_of_its_copy_with_metadata(tmp_path, keep_metadata) -> None:
    data = usual_jpeg()
    copy = insert_after_start(data, segment(0xE1, EXIF))
    picture = published(tmp_path / "copy", copy, keep_metadata=keep_metadata)
    assert picture.key == published(tmp_path / "data", data, keep_metadata=keep_metadata).key
    assert picture.data == (copy if keep_metadata else data)


def test_the_removed_parts_are_named_without_their_content() -> None:
    exif = Image.Exif()
    exif[306] = DAY.decode()
    notes = PngImagePlugin.PngInfo()
    notes.add_text("day", "2019-03-14", zip=True)
    secret = chunk(b"Doex", b"secret")
    assert kinds(saved("JPEG", exif=exif, comment=b"seen 14.03.2019")) == "APP1 (EXIF), COM"
    assert kinds(saved("PNG", pnginfo=notes, exif=exif)) == "zTXt, eXIf"
    assert kinds(insert_after_start(saved("PNG"), secret * 3)) == "an unknown chunk (3 times)"
    assert "MPO" not in kinds(saved("MPO", save_all=True, append_images=[GREY], exif=exif))
    comments = insert_after_start(saved("JPEG"), segment(0xFE, b"one") * 9)
    assert kinds(comments + b"end") == "COM (9 times), data behind the picture"


@pytest.mark.parametrize(
    ("inserted", "kind"),
    [
        (segment(0xE1, b"Exif\0\0x"), "APP1 (EXIF)"),
        (segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0x"), "APP1 (XMP)"),
        (segment(0xE2, b"ICC_PROFILE\0x"), "APP2 (ICC)"),
        (segment(0xED, b"Photoshop 3.0\0x"), "APP13 (Photoshop)"),
        (segment(0xEF, b"x"), "APP15"),
        (segment(0xE0, b"JFXX\0"), "APP0"),
        (segment(0xFE, b"x"), "COM"),
        (segment(0xF0, b"x"), "segment FFF0"),
        (segment(0xF9, b"x"), "segment FFF9"),
    ],
)
def test_the_segments_of_a_jpeg_are_named(inserted: bytes, kind: str) -> None:
    (part,) = find_metadata(insert_after_start(saved("JPEG"), inserted))
    assert (part.kind, part.start, part.end, part.replacement) == (kind, 2, 2 + len(inserted), b"")


@pytest.mark.parametrize(
    "kind",
    ["tEXt", "zTXt", "iTXt", "eXIf", "tIME", "iCCP", "gAMA", "cHRM", "sRGB", "pHYs", "bKGD", "sBIT", "hIST", "sPLT"],
)
def test_the_chunks_of_a_png_are_named(kind: str) -> None:
    (part,) = find_metadata(insert_after_start(saved("PNG"), chunk(kind.encode(), b"x\0\0x")))
    assert (part.kind, part.start, part.end, part.replacement) == (kind, 33, 49, b"")


@pytest.mark.parametrize(
    ("kind", "content", "text"),
    [
        (b"tIME", struct.pack(">HBBBBB", 2019, 3, 14, 10, 0, 0), b"2019-03-14"),
        (b"zTXt", b"day\0\0" + zlib.compress(b"tiff:Orientation"), b"tiff:Orientation"),
        (b"iCCP", b"name\0\0" + zlib.compress(b"made 2019"), b"made 2019"),
        (b"iTXt", b"XML\0\1\0en\0word\0" + zlib.compress(b"made 2019"), b"made 2019"),
        (b"iTXt", b"XML\0\0\0en\0word\0plain", b"plain"),
        (b"tEXt", b"day\x002019", b"2019"),
        (b"zTXt", b"day\0\0damaged", b"damaged"),
        (b"tIME", b"short", b"short"),
    ],
)
def test_what_a_chunk_holds_is_readable(kind: bytes, content: bytes, text: bytes) -> None:
    (part,) = find_metadata(insert_after_start(saved("PNG"), chunk(kind, content)))
    assert text in part.content


@pytest.mark.parametrize(("bits", "compression"), [(8, 1), (4, 2)])
@pytest.mark.parametrize("ending", [b"", b"\0\1", b"\0\0\0\1"])
@pytest.mark.parametrize("behind", [b"PATIENT", b"\x05\x21\x03\x04" * 9])
def test_runs_end_where_the_last_pixel_is(bits: int, compression: int, ending: bytes, behind: bytes) -> None:
    body = runs(bits).removesuffix(b"\0\0\0\1") + ending
    data = bitmap(bits, compression=compression, body=body)
    assert clean(data) is data
    assert clean(data + behind) == data


def test_lines_of_one_run_and_a_move_to_the_end_are_counted() -> None:
    height, width = PIXELS.shape
    for body in ((bytes((width, 7)) + b"\0\0") * height, b"\0\2" + bytes((width - 1, height - 1)) + b"\1\7"):
        data = bitmap(8, compression=1, body=body.removesuffix(b"\0\0"))
        assert clean(data) is data
        assert clean(data + b"PATIENT") == data


def test_a_picture_has_a_limit_of_pixels(monkeypatch) -> None:
    monkeypatch.setattr(pictures, "_MAX_PIXELS", PIXELS.size)
    assert decode_picture(saved("BMP")).pixels.shape == PIXELS.shape
    monkeypatch.setattr(pictures, "_MAX_PIXELS", PIXELS.size - 1)
    with pytest.raises(ValueError, match="expected at most 713 pixels, got 34 x 21"):
        decode_picture(saved("BMP"))


def test_at_most_five_kinds_of_parts_are_listed() -> None:
    parts = [segment(0xE0 + number, b"x") for number in range(1, 8)]
    assert kinds(insert_after_start(saved("JPEG"), b"".join(parts[:5]))) == "APP1, APP2, APP3, APP4, APP5"
    assert kinds(insert_after_start(saved("JPEG"), b"".join(parts))) == "APP1, APP2, APP3, APP4, APP5, …"


def test_a_file_of_another_format_is_described() -> None:
    with pytest.raises(ValueError, match=r"a file of another format, which starts with b'GIF87a"):
        decode_picture(saved("GIF"))
    assert find_metadata(b"GIF89a") == []


@pytest.mark.parametrize("data", [saved("JPEG") + bytes(16), saved("BMP") + bytes(2), saved("PNG") + bytes(9)])
def test_zeros_behind_a_picture_are_padding(data: bytes) -> None:
    assert clean(data) is data


def test_the_resolution_that_encoders_write_is_kept() -> None:
    for data in (saved("JPEG", dpi=(96, 96)), saved("BMP", dpi=(96, 96)), bitmap(24, header=124)):
        assert clean(data) is data


def test_the_pixels_of_a_jpeg_end_where_its_codes_end() -> None:
    """In smooth, black and medium grey pictures the last bytes of a scan affect no pixel, but they are its pixels."""
    random = np.random.default_rng(5)
    for contrast, level, below in [(0, 0, 0), (0, 128, 128), (0, 255, 128), (5, -300, 0), (0.1, 128, 128), (1, 128, 0)]:
        pixels = np.clip(random.normal(0, 40, (45, 61)) * contrast + level, 0, 255).astype(np.uint8)
        pixels[20:] = below
        for options in ({}, {"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 2}, {"quality": 5}):
            for image in (Image.fromarray(pixels), Image.fromarray(pixels).convert("RGB")):
                data = saved("JPEG", image, **options)
                assert clean(data) is data
                assert clean(data[:-2] + b"PATIENT NAME" + data[-2:]) == data


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "MPO"])
def test_an_orientation_is_removed_even_if_metadata_are_kept(kind: str, orientation: int) -> None:
    data = (
        saved(kind, exif=turned(orientation), comment=b"kept")
        if kind != "PNG"
        else saved(kind, exif=turned(orientation))
    )
    picture = decode_picture(data)
    assert picture.orientation == orientation
    assert np.array_equal(decode_picture(data).pixels, picture.pixels)
    kept, removed = without_orientation(data, picture)
    assert ("EXIF" if kind != "PNG" else "eXIf") in removed
    assert decode_picture(kept).orientation == 1
    assert decode_picture(kept).equals(picture)
    assert b"kept" in kept or kind != "JPEG"
    assert decode_picture(clean(data)).orientation == 1


@pytest.mark.parametrize("orientation", [0, 1, 9])
def test_metadata_without_an_orientation_are_kept_if_requested(orientation: int) -> None:
    data = saved("JPEG", exif=turned(orientation))
    assert without_orientation(data, decode_picture(data)) == (data, "")


def test_an_orientation_in_xmp_or_in_a_text_is_removed() -> None:
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    profile = b"Raw profile type exif\0\0" + zlib.compress(
        b"\nexif\n%8d\n%s\n" % (len(turned(6)), turned(6).hex().encode())
    )
    other = segment(0xFE, b"kept")
    for data in (
        insert_after_start(saved("JPEG"), segment(0xE1, xmp) + other),
        insert_after_start(saved("PNG"), chunk(b"zTXt", profile)),
    ):
        picture = decode_picture(data)
        assert picture.orientation == 6
        kept, removed = without_orientation(data, picture)
        assert removed in ("APP1 (XMP)", "zTXt")
        assert decode_picture(kept).orientation == 1
        assert (other in kept) == (other in data)


def png16(colours: int) -> bytes:
    """Return a PNG of 16 bits per channel: 1 grey, 2 grey and opacity, 3 RGB, 4 RGBA."""
    values = np.random.default_rng(2).integers(0, 1 << 16, (5, 4, colours)).astype(">u2")
    lines = b"".join(b"\0" + line.tobytes() for line in values)
    header = struct.pack(">IIBBBBB", 4, 5, 16, {1: 0, 2: 4, 3: 2, 4: 6}[colours], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("colours", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("archive", "member", "config"),
    [
        (CLS, "class_dataset/train/5/9_001_02.bmp", "cls_1.25mm"),
        (DET2D, "JPEGImages/9_004.jpg", "det2d_1.25mm"),
        (BMP0, "imgs/00001/3.bmp", "det3d_bmp_1.25mm"),
    ],
)
def test_16_bits_are_refused_by_every_family(tmp_path, cli, colours, archive, member, config) -> None:
    tiny = TinyArchives()
    tiny[archive][member] = png16(colours)
    out = tmp_path / "out"
    done = cli("build", config, "--source", tiny.write(tmp_path / "in"), "--out", out, "--keep-source-names")
    assert done.returncode == 1
    expected = "cannot be used; expected a JPEG, BMP or PNG picture of 8 bits per channel, got 16 bits per channel"
    assert f"{archive} > {member}: {expected}" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("image", "options", "mode"),
    [
        (GREY, {}, "L"),
        (GREY.convert("1"), {}, "1"),
        (COLOUR, {}, "RGB"),
        (COLOUR.quantize(9), {}, "P"),
        (Image.merge("LA", (GREY, Image.new("L", GREY.size, 255))), {}, "LA"),
        (Image.merge("RGBA", (*COLOUR.split(), Image.new("L", GREY.size, 255))), {}, "RGBA"),
    ],
)
def test_pictures_without_transparency_are_exact(image: Image.Image, options, mode: str) -> None:
    picture = decode_picture(saved("PNG", image, **options))
    assert (picture.mode, picture.is_exact) == (mode, True)
    shown = np.asarray(image.convert("RGB"))
    assert np.array_equal(picture.pixels if picture.pixels.ndim == 3 else picture.pixels[..., None].repeat(3, 2), shown)
    assert picture.key == decode_picture(saved("BMP", image.convert("RGB"))).key


def test_pictures_that_differ_in_transparency_only_are_not_equal() -> None:
    opacity = [np.full_like(PIXELS, 255) for _ in range(3)]
    opacity[1][3, 4], opacity[2][3, 4] = 254, 0
    data = [saved("PNG", Image.merge("LA", (GREY, Image.fromarray(plane)))) for plane in opacity]
    data.append(saved("PNG", transparency=int(PIXELS[0, 0])))
    data.append(saved("PNG", COLOUR.quantize(9), transparency=b"\0"))
    pictures = [decode_picture(each) for each in data]
    assert [picture.is_exact for picture in pictures] == [True, False, False, False, False]
    assert len({picture.key for picture in pictures}) == 5
    assert pictures[0].key == decode_picture(saved("PNG")).key


def test_cmyk_is_compared_as_stored() -> None:
    inks = np.random.default_rng(3).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    inks[..., 3] = 255  # black hides the other inks
    other = inks[:, ::-1].copy()
    data = [saved("JPEG", Image.fromarray(each, "CMYK"), quality=100) for each in (inks, other)]
    first, second = map(decode_picture, data)
    assert first.channels.shape == (16, 16, 4)
    assert not first.is_exact
    assert first.key != second.key


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_pixel_of_another_colour_makes_a_colour_picture(channel: int) -> None:
    colours = np.repeat(PIXELS[..., None], 3, axis=2)
    assert decode_picture(encode_picture(colours, "BMP")).pixels.shape == PIXELS.shape
    colours[7, 5, channel] ^= 1
    assert decode_picture(encode_picture(colours, "BMP")).pixels.shape == colours.shape


def dated(tiny: TinyArchives) -> dict[str, tuple[bytes, bytes]]:
    """Add metadata to two pictures, and return each picture with and without them, by source name."""
    slice_, crop = "JPEGImages/9_004.jpg", "class_dataset/train/5/9_001_02.bmp"
    pictures = {}
    for archive, member, name, add in (
        (DET2D, slice_, "9_004", lambda data: insert_after_start(data, segment(0xE1, EXIF))),
        (CLS, crop, "train/5/9_001_02", lambda data: data + b"PATIENT"),
    ):
        plain = tiny[archive][member]
        tiny[archive][member] = add(plain)
        pictures[name] = (tiny[archive][member], plain)
    return pictures


def test_a_build_removes_metadata_from_pictures(tmp_path, build) -> None:
    tiny = TinyArchives()
    pictures = dated(tiny)
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm", "cls_1.25mm", keep_source_names=False)
    images = [row["image"]["bytes"] for config in ("det2d_1.25mm", "cls_1.25mm") for row in built.rows(config)]
    assert all(plain in images and published not in images for published, plain in pictures.values())
    in_slice, in_crop = sorted(built.findings("picture-metadata-removed"), key=lambda finding: finding["archive"])
    assert (in_slice["grade"], in_slice["archive"], in_slice["detail"]) == ("warning", DET2D, "APP1 (EXIF)")
    assert (in_slice["member"], in_slice["action"]) == (
        "JPEGImages/9_004.jpg",
        "removed; the pixels are as published, and were not encoded again",
    )
    assert (in_crop["archive"], in_crop["detail"]) == (CLS, "data behind the picture")
    assert "2019" not in str((in_slice, in_crop))


def test_a_build_with_source_names_keeps_the_metadata(tmp_path, build) -> None:
    tiny = TinyArchives()
    pictures = dated(tiny)
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm", "cls_1.25mm", keep_source_names=True)
    for config in ("det2d_1.25mm", "cls_1.25mm"):
        for row in built.rows(config):
            published, _ = pictures.get(row["source_name"], (row["image"]["bytes"], b""))
            assert row["image"]["bytes"] == published
    assert not built.findings("picture-metadata-removed")


def test_load_removes_metadata_from_pictures(tmp_path) -> None:
    tiny = TinyArchives()
    pictures = dated(tiny)
    rows = lung_nodule_ct.load(
        "det2d_1.25mm", source=tiny.write(tmp_path / "in"), split="train", cache_dir=tmp_path / "cache"
    )
    images = [row["image"]["bytes"] for row in rows.cast_column("image", datasets.Image(decode=False))]
    published, plain = pictures["9_004"]
    assert plain in images
    assert published not in images


@pytest.mark.parametrize("keep_source_names", [False, True])
def test_datasets_decodes_the_size_of_the_row_whatever_the_orientation(tmp_path, build, keep_source_names) -> None:
    tiny = TinyArchives()
    member = "JPEGImages/9_004.jpg"
    tiny[DET2D][member] = encode_picture(PIXELS, "JPEG", exif=turned(6))
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm", keep_source_names=keep_source_names)
    rows = [row for split in datasets.load_dataset(str(built.folder), "det2d_1.25mm").values() for row in split]
    assert all(row["image"].size == (row["width"], row["height"]) for row in rows)
    assert (34, 21) in [row["image"].size for row in rows]
    (finding,) = built.findings("picture-orientation")
    assert (finding["grade"], finding["archive"], finding["member"]) == ("warning", DET2D, member)
    assert finding["detail"] == "expected orientation 1, got 6"


def test_slices_with_an_orientation_or_transparency_are_reported(tmp_path, build) -> None:
    tiny = TinyArchives()
    size = decode_picture(tiny[BMP0]["imgs/00001/3.bmp"]).pixels.shape
    grey = np.random.default_rng(8).integers(0, 256, size, dtype=np.uint8)
    image = Image.fromarray(grey)
    tiny[BMP0]["imgs/00001/3.bmp"] = saved("PNG", Image.merge("LA", (image, image)), exif=turned(3))
    built = build(tiny.write(tmp_path / "in"), "det3d_bmp_1.25mm")
    (converted,) = built.findings("picture-converted")
    assert converted["detail"] == "expected grey or RGB, got LA with transparency"
    (orientation,) = built.findings("picture-orientation")
    assert converted["member"] == orientation["member"] == "imgs/00001/3.bmp"
    volume = built.by_name("det3d_bmp_1.25mm")["00001"]["volume"]
    stack = np.frombuffer(volume["bytes"], np.uint8).reshape(volume["shape"])
    assert any(np.array_equal(plane, grey) for plane in stack)


@pytest.mark.parametrize("shape", [(80, 1), (1, 60), (60, 80), (80, 61)])
def test_a_slice_of_another_size_is_refused(tmp_path, cli, shape) -> None:
    tiny = TinyArchives()
    names = sorted((name for name in tiny[BMP0] if name.startswith("imgs/00001/")), key=lambda name: int(name[11:-4]))
    for name in names:
        tiny[BMP0][name] = encode_picture(np.zeros((80, 60), np.uint8), "BMP")
    tiny[BMP0][names[1]] = encode_picture(np.zeros(shape, np.uint8), "BMP")
    done = cli("build", "det3d_bmp_1.25mm", "--source", tiny.write(tmp_path / "in"), "--out", tmp_path / "out")
    assert done.returncode == 1
    size = f"expected 60 x 80 pixels, got {shape[1]} x {shape[0]}"
    assert f"{names[1]}: has another size than the first slice of its case; {size}" in done.stderr


def test_a_copy_with_other_metadata_is_found_to_be_equal(tmp_path, build) -> None:
    tiny = TinyArchives()
    data = tiny[CLS]["class_dataset/train/5/9_001_02.bmp"]
    tiny[CLS]["class_dataset/validate/5/9_001_02.bmp"] = data + b"PATIENT"
    built = build(tiny.write(tmp_path / "in"), "cls_1.25mm", keep_source_names=False)
    assert len(built.findings("same-pixels-in-two-splits")) == 1
