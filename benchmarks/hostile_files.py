"""The hostile files of :mod:`benchmarks.hostile`: zips, headers, annotations, pictures and tables. Each is one archive or member."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from lung_nodule_ct.testing.archives import (
    BMP_TABLES,
    CLS,
    CT0,
    DET2D,
    NODULES,
    metaimage_header,
    noise_picture,
    overwrite_zip_field,
    workbook,
    zip_archive,
)
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

_ZEROS = 300 << 20


@dataclass(frozen=True)
class HostileFile:
    """One hostile file.

    Attributes:
        kind: What is hostile.
        name: Which of them it is.
        archive: The archive in which it is.
        members: Members that replace or are added to those of the archive.
        content: The bytes of the archive instead.
    """

    kind: str
    name: str
    archive: str
    members: dict[str, bytes] | None = None
    content: bytes | None = None


def hostile_files(seed: int) -> Iterator[HostileFile]:
    """All hostile files."""
    yield from _zips(random.Random(seed))
    yield from _headers()
    yield from _annotations()
    yield from _pictures(random.Random(seed))
    yield from _tables()


def _zips(random: random.Random) -> Iterator[HostileFile]:
    sound = zip_archive(TinyArchives()[CLS])
    outside = (
        "../x",
        "..\\x",
        "/etc/passwd",
        "C:\\x",
        "C:x",
        "a/../../x",
        "a/..\\../x",
        "..",
        ".",
        "//host/share/x",
        "file:///etc/passwd",
        "~/.ssh/x",
    )
    odd = (
        "a\0b",
        "a\nb",
        "\u202egnp",
        "%2e%2e/x",
        "a" * 60_000,
        "a/" * 5000 + "x",
        "CON",
        "a:b",
        "",
        " ",
        "-rf",
        "$(id)",
        "\udc80",
    )
    for number, name in enumerate((*outside, *odd)):
        yield HostileFile("zip", f"name {number} {name[:20]!r}", CLS, content=_named(sound, name))
    for target in ("../canary.txt", "/etc/passwd", "."):
        yield HostileFile("zip", f"link to {target}", CLS, content=_link(target))
    for field in ("flags", "method", "crc", "packed_size", "size"):
        for value in (0, 1, 8, 99, 0x7FFF) if field in ("flags", "method") else (0, 1, 100, 0x7FFFFFFF, 0xFFFFFFFF):
            yield HostileFile("zip", f"{field} {value}", CLS, content=overwrite_zip_field(sound, field, value))
    for part in range(1, 12):
        yield HostileFile("zip", f"first {part}/12", CLS, content=sound[: len(sound) * part // 12])
    for number in range(20):
        damaged = bytearray(sound)
        for _ in range(10):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        yield HostileFile("zip", f"damaged {number}", CLS, content=bytes(damaged))
    yield HostileFile("zip", "prefix", CLS, content=b"x" * 1000 + sound)
    yield HostileFile("zip", "tail", CLS, content=sound + b"x" * 1000)
    yield HostileFile("zip", "empty", CLS, content=b"")
    yield HostileFile("zip", "text", CLS, content=b"<html>not found</html>")
    yield HostileFile("zip", "itself", CLS, content=zip_archive({CLS: sound}))
    yield HostileFile("zip", "comment", CLS, content=sound[:-2] + b"\xff\xff" + b"PK\5\6" * 16_000)
    yield HostileFile(
        "zip",
        "many",
        CLS,
        content=zip_archive({f"a/{number}": b"" for number in range(50_000)}, method=zipfile.ZIP_STORED),
    )
    directory = sound.index(b"PK\1\2")
    again = sound[:directory] + sound[directory : sound.rindex(b"PK\5\6")] * 50 + _end(sound, 50)
    yield HostileFile("zip", "overlapping", CLS, content=again)
    zeros = b"\0" * _ZEROS
    for archive, member in ((CLS, "class_dataset/train/1/7_20180102_003_01.bmp"), (CLS, "class_dataset/READ_ME.txt"), (DET2D, "Annotations/9_004.xml"),
                            (DET2D, "VOC_CT.xlsx"), (CT0, "9.mhd"), (CT0, "9.raw"), (NODULES, "annotations.csv"), (BMP_TABLES, "train.txt")):  # fmt: skip
        yield HostileFile("zip", f"bomb {member}", archive, {member: zeros})


def _named(sound: bytes, name: str) -> bytes:
    buffer = io.BytesIO(sound)
    with zipfile.ZipFile(buffer, "a") as archive:
        entry = zipfile.ZipInfo("x" * 3)
        entry.filename = name + ".bmp" if name not in ("..", ".", "") else name
        with suppress(ValueError, struct.error):
            archive.writestr(entry, noise_picture())
    return buffer.getvalue()


def _link(target: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("class_dataset/train/1/7_001.bmp")
        entry.create_system, entry.external_attr = 3, 0o120777 << 16
        archive.writestr(entry, target)
    return buffer.getvalue()


def _end(sound: bytes, times: int) -> bytes:
    """The end of a directory that lists every member several times."""
    end = bytearray(sound[sound.rindex(b"PK\5\6") :])
    count, size = struct.unpack_from("<HI", end, 10)
    struct.pack_into("<HHI", end, 8, count * times % 65_536, count * times % 65_536, size * times % (1 << 32))
    return bytes(end)


def _headers() -> Iterator[HostileFile]:
    values: dict[str, tuple[str, ...]] = {
        "DimSize": ("0 0 0", "-1 5 5", "1e9 1e9 1e9", "99999 99999 99999", "nan 1 1", "1 1", "1 1 1 1", "9" * 5000, "", "2147483648 2 2"),
        "ElementSpacing": ("0 0 0", "nan nan nan", "inf 1 1", "-1 -1 -1", "1e-300 1 1", "1e308 1e308 1e308", ""),
        "TransformMatrix": ("0 0 0 0 0 0 0 0 0", "nan " * 9, "1 0", "1e300 " * 9),
        "Offset": ("nan nan nan", "1e308 1e308 1e308", "x y z"),
        "ElementType": ("MET_NOTHING", "MET_DOUBLE_ARRAY", "MET_LONG_LONG", ""),
        "NDims": ("0", "-3", "4", "99999999999", "x"),
        "ElementNumberOfChannels": ("0", "3", "99999999"),
        "CompressedDataSize": ("-1", "99999999999999"),
        "HeaderSize": ("-1", "-2", "99999999999"),
        "ElementDataFile": (
            *("../canary.txt", "..\\canary.txt", "/etc/passwd", "C:\\x.raw", "file:///etc/passwd", "LOCAL", "LIST", "LIST 2D 99999999"),
            *("%s%s%s%n", "%999999999d.raw 1 9 1", "x%d.raw 1 900000000 1", "9.mhd", "", "a" * 100_000, "\0", "http://127.0.0.1:9/x.raw"),
        ),
    }  # fmt: skip
    for key, given in values.items():
        for value in given:
            yield HostileFile(
                "header", f"{key} = {value[:24]!r}", CT0, {"9.mhd": metaimage_header("9", **{key: value})}
            )
    yield HostileFile("header", "binary", CT0, {"9.mhd": bytes(range(256)) * 1000})
    yield HostileFile("header", "one long line", CT0, {"9.mhd": b"x" * (4 << 20)})
    yield HostileFile("header", "many lines", CT0, {"9.mhd": b"a = b\n" * 700_000})
    text = metaimage_header("9", BinaryData="False", ElementDataFile="9.raw")
    yield HostileFile("header", "text of many numbers", CT0, {"9.mhd": text, "9.raw": b"1 " * (32 << 20)})
    packed = metaimage_header("9", CompressedData="True", ElementDataFile="9.raw")
    yield HostileFile("header", "compressed bomb", CT0, {"9.mhd": packed, "9.raw": zlib.compress(b"\0" * _ZEROS)})


def _annotations() -> Iterator[HostileFile]:
    lol = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    texts = {
        "billion laughs": f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l0 "lol">{lol}]><annotation>&l9;</annotation>',
        "external entity": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><filename>&x;</filename></annotation>',
        "canary entity": '<!DOCTYPE a [<!ENTITY x SYSTEM "../canary.txt">]><annotation><filename>&x;</filename></annotation>',
        "external DTD": '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd"><annotation/>',
        "parameter entity": '<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/passwd">%x;]><annotation/>',
        "deep": "<annotation>" + "<a>" * 100_000 + "</a>" * 100_000 + "</annotation>",
        "wide": "<annotation>" + "<a/>" * 400_000 + "</annotation>",
        "long attribute": f'<annotation a="{"x" * 3_000_000}"/>',
        "many attributes": "<annotation " + " ".join(f'a{n}=""' for n in range(100_000)) + "/>",
        "inclusion": '<annotation xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="../canary.txt" parse="text"/></annotation>',
        "large": "<annotation>" + "x" * (8 << 20) + "</annotation>",
        "huge numbers": f"<annotation><object><name>nodule</name><bndbox><xmin>{'9' * 9999}</xmin></bndbox></object></annotation>",
        "no XML": "\0" * 1000,
        "empty": "",
    }
    for name, text in texts.items():
        yield HostileFile("annotation", name, DET2D, {"Annotations/9_004.xml": text.encode()})
    for encoding in ("utf-16", "utf-32", "utf-7", "cp037"):
        data = f'<?xml version="1.0" encoding="{encoding}"?>{texts["external entity"]}'.encode(encoding)
        yield HostileFile("annotation", encoding, DET2D, {"Annotations/9_004.xml": data})


def _pictures(random: random.Random) -> Iterator[HostileFile]:
    member = "class_dataset/train/1/7_20180102_003_01"
    for kind in ("BMP", "PNG", "JPEG"):
        sound = noise_picture(1, (60, 40), kind)
        for part in range(1, 6):
            yield HostileFile(
                "picture", f"{kind} first {part}/6", CLS, {f"{member}.bmp": sound[: len(sound) * part // 6]}
            )
        for number in range(6):
            damaged = bytearray(sound)
            for _ in range(4):
                damaged[random.randrange(len(damaged))] = random.randrange(256)
            yield HostileFile("picture", f"{kind} damaged {number}", CLS, {f"{member}.bmp": bytes(damaged)})
    png = noise_picture(1, (60, 40), "PNG")
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    text = struct.pack(">I", 0) + b"tEXt" + struct.pack(">I", zlib.crc32(b"tEXt"))
    pixels = zlib.compress(b"\0" * _ZEROS)
    data = struct.pack(">I", len(pixels)) + b"IDAT" + pixels + struct.pack(">I", zlib.crc32(b"IDAT" + pixels))
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    jpeg = noise_picture(1, (60, 40), "JPEG")
    bitmap = noise_picture(1, (60, 40))
    yield HostileFile("picture", "PNG of 60000 x 60000", CLS, {f"{member}.bmp": png[:8] + chunk + data + end})
    yield HostileFile("picture", "PNG with a bomb", CLS, {f"{member}.bmp": png[:33] + data + end})
    yield HostileFile("picture", "PNG of many chunks", CLS, {f"{member}.bmp": png[:33] + text * 2_000_000 + png[33:]})
    yield HostileFile(
        "picture", "JPEG of many segments", CLS, {f"{member}.bmp": jpeg[:2] + b"\xff\xfe\0\2" * 5_000_000 + jpeg[2:]}
    )
    yield HostileFile("picture", "JPEG of fill", CLS, {f"{member}.bmp": jpeg[:2] + b"\xff" * 30_000_000 + jpeg[2:]})
    for width, height in ((2**31 - 1, 2**31 - 1), (-5, 5), (5, -(2**31)), (0, 0)):
        changed = bitmap[:18] + struct.pack("<ii", width, height) + bitmap[26:]
        yield HostileFile("picture", f"BMP of {width} x {height}", CLS, {f"{member}.bmp": changed})
    for magic in (
        b"GIF89a",
        b"II*\0",
        b"%PDF-1.4",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"RIFF\0\0\0\0WEBP",
        b"BM",
        b"version https://git-lfs",
    ):
        yield HostileFile("picture", f"{magic[:8]!r} and noise", CLS, {f"{member}.bmp": magic + random.randbytes(500)})


def _tables() -> Iterator[HostileFile]:
    tables = {
        "one long line": b"x" * (8 << 20),
        "one long row": b"7_20180102" + b",1" * (2 << 20),
        "zeros": b"\0" * (4 << 20),
        "open quote": b'seriesuid,coordX,coordY,coordZ,diameter_mm\n"' + b"7,1,2,3,4\n" * 400_000,
        "titles": b"title\n" * 1_000_000 + b"seriesuid,coordX,coordY,coordZ,diameter_mm\n7_20180102,1,2,3,4\n",
        "bad rows": b"seriesuid,coordX,coordY,coordZ,diameter_mm\n"
        + b"".join(b"%d,x,1,2,3\n" % n for n in range(1_000_000)),
        "duplicates": b"seriesuid,coordX,coordY,coordZ,diameter_mm\n" + b"7_20180102,1,2,3,4\n" * 1_000_000,
        "huge numbers": b"7_20180102,1e308,-1e308,1e-308,1e400\n" + b"7_20180102," + b"9" * 10_000 + b",1,1,1\n",
        "formulas": b'=cmd|"/c calc"!A1,1,2,3,4\n@SUM(1),1,2,3,4\n',
        "blank": b"\n" * 4_000_000,
        "UTF-16": "seriesuid,coordX\n".encode("utf-16"),
        "invalid bytes": bytes(range(128, 256)) * 1000,
    }
    for name, data in tables.items():
        yield HostileFile("table", name, NODULES, {"annotations.csv": data})
        yield HostileFile("table", f"boxes: {name}", BMP_TABLES, {"image_annotation_augment_diameter.csv": data})
    for name, data in {
        "long": b"x" * (8 << 20),
        "many": b"00001\n" * 1_000_000,
        "paths": b"../" * 1_000_000,
        "zeros": b"\0" * 1_000_000,
    }.items():
        yield HostileFile("table", f"list: {name}", BMP_TABLES, {"train.txt": data})
    book = workbook([["image", "xmin", "ymin", "xmax", "ymax"], ["9_004.jpg", 1, 2, 3, 4]])
    with zipfile.ZipFile(io.BytesIO(book)) as parts:
        members = {name: parts.read(name) for name in parts.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    entity = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    books = {
        "sheet bomb": {**members, sheet: b" " * _ZEROS},
        "shared strings bomb": {**members, "xl/sharedStrings.xml": b"<sst>" + b"<si><t>x</t></si>" * 3_000_000 + b"</sst>"},
        "entities": {**members, sheet: members[sheet].replace(b"<worksheet", entity + b"<worksheet", 1)},
        "external link": {**members, "xl/externalLinks/externalLink1.xml": entity + b"<externalLink/>"},
        "macros": {**members, "xl/vbaProject.bin": b"\0" * 1000},
        "no sheets": {name: data for name, data in members.items() if name != sheet},
        "outside": {**members, "../../canary.txt": b"x"},
        "rows": {**members, sheet: members[sheet].replace(b"</sheetData>", b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData>')},
    }  # fmt: skip
    for name, content in books.items():
        yield HostileFile("table", f"workbook: {name}", DET2D, {"VOC_CT.xlsx": zip_archive(content)})
    yield HostileFile("table", "workbook: noise", DET2D, {"VOC_CT.xlsx": b"PK\3\4" + b"\xff" * 1000})
