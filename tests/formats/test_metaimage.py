"""MetaImage in zip archives, compared with SimpleITK, which reads the same files from the disk."""

from __future__ import annotations

import gzip
import itertools
import math
import re
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from lung_nodule_ct.declaration.findings import Code
from lung_nodule_ct.errors import MemberError
from lung_nodule_ct.formats.metaimage_header import HeaderError, parse_header
from lung_nodule_ct.formats.metaimage_volume import open_metaimage
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.sources.source import ArchivePool
from lung_nodule_ct.testing.archives import FRAME, SHAPE, noise_volume, zip_archive
from lung_nodule_ct.testing.archives import metaimage_header as header
from lung_nodule_ct.testing.strategies import metaimage_headers

sitk.ProcessObject.SetGlobalWarningDisplay(False)
VOLUME = noise_volume(7)
RAW = VOLUME.tobytes()


def read_zipped(folder: Path, members: dict[str, bytes], name: str = "a.mhd"):
    """Return the elements, the frame, and the codes of the issues that this package reads."""
    path = folder / "volumes.zip"
    path.write_bytes(zip_archive(members))
    with ArchivePool() as archives:
        archive = archives.directory(str(path))
        header_member = next(member for member in archive.members if member.name == name)
        siblings = [
            member for member in archive.members if member.stem == header_member.stem and member is not header_member
        ]
        image = open_metaimage(header_member, siblings, archives)
        slabs = np.concatenate([slab.copy() for slab in image.slabs()]).reshape(image.header.shape)
        second = open_metaimage(header_member, siblings, archives)
        buffer = np.empty(second.header.data_bytes + 3, np.uint8)
        in_buffer = np.concatenate([slab.copy() for slab in second.slabs(buffer)]).reshape(second.header.shape)
        third = open_metaimage(header_member, siblings, archives)
        complete = np.empty(third.header.shape, third.header.dtype)
        third.read_into(complete)
    assert (slabs == complete).all()
    assert (in_buffer == complete).all()
    return slabs, image.header.frame, {code for code, _, _ in image.issues}


def read_by_itk(folder: Path, members: dict[str, bytes], name: str = "a.mhd") -> sitk.Image:
    for member, data in members.items():
        path = folder / "on disk" / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return sitk.ReadImage(str(folder / "on disk" / name))


def assert_equal_to_itk(folder: Path, members: dict[str, bytes], name: str = "a.mhd") -> set[Code]:
    """Compare elements and geometry with ITK and return the codes of the issues."""
    elements, frame, codes = read_zipped(folder, members, name)
    image = read_by_itk(folder, members, name)
    assert (elements == sitk.GetArrayFromImage(image)).all()
    assert frame.spacing == image.GetSpacing()
    assert frame.origin == image.GetOrigin()
    assert frame.direction == image.GetDirection()
    return codes


@given(metaimage_headers())
@pytest.mark.slow
def test_any_header_is_read_as_itk_reads_it(tmp_path_factory, case) -> None:
    shape, dtype, frame = case.content
    members = {"scan.mhd": case.data, "scan.raw": np.arange(math.prod(shape)).astype(dtype).tobytes()}
    folder = tmp_path_factory.mktemp("mhd")
    assert assert_equal_to_itk(folder, members, "scan.mhd") == set()
    assert read_zipped(folder, members, "scan.mhd")[1] == frame


@pytest.mark.parametrize(
    "kind", ["CHAR", "UCHAR", "SHORT", "USHORT", "INT", "UINT", "LONG", "ULONG", "LONG_LONG", "FLOAT", "DOUBLE"]
)
@pytest.mark.parametrize("big_endian", [False, True])
def test_every_element_type_is_read_in_both_byte_orders(tmp_path, kind, big_endian) -> None:
    dtype = {
        "CHAR": "i1",
        "UCHAR": "u1",
        "SHORT": "i2",
        "USHORT": "u2",
        "LONG_LONG": "i8",
        "FLOAT": "f4",
        "DOUBLE": "f8",
    }.get(kind, "u4" if kind.startswith("U") else "i4")
    elements = (np.abs(VOLUME) % 100).astype(np.dtype(dtype).newbyteorder(">" if big_endian else "<"))
    text = header("a", ElementType=f"MET_{kind}", BinaryDataByteOrderMSB=str(big_endian))
    assert assert_equal_to_itk(tmp_path, {"a.mhd": text, "a.raw": elements.tobytes()}) == set()


PACKED = zlib.compress(RAW)
SLICES = {f"s{k}.raw": VOLUME[k].tobytes() for k in range(SHAPE[0])}
PACKED_SLICES = {f"s{k}.zraw": zlib.compress(VOLUME[k].tobytes()) for k in range(SHAPE[0])}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def lines(names: Iterable[str]) -> bytes:
    """Return one line per name."""
    return "".join(f"{name}\n" for name in names).encode()


@pytest.mark.parametrize(
    ("name", "members", "codes"),
    [
        ("zraw", {"a.mhd": header("a", CompressedData="True", ElementDataFile="a.zraw"), "a.zraw": PACKED}, set()),
        (
            "zraw with its size",
            {
                "a.mhd": header(
                    "a", CompressedData="True", CompressedDataSize=str(len(PACKED)), ElementDataFile="a.zraw"
                ),
                "a.zraw": PACKED,
            },
            set(),
        ),
        (
            "gzip",
            {"a.mhd": header("a", CompressedData="True", ElementDataFile="a.gz"), "a.gz": gzip.compress(RAW)},
            set(),
        ),
        ("crlf", {"a.mhd": header("a").replace(b"\n", b"\r\n"), "a.raw": RAW}, set()),
        ("bom", {"a.mhd": b"\xef\xbb\xbf" + header("a"), "a.raw": RAW}, set()),
        ("leading comment", {"a.mhd": b"# made by hand\n" + header("a"), "a.raw": RAW}, set()),
        ("comment key", {"a.mhd": b"Comment = a = b # c\n" + header("a"), "a.raw": RAW}, set()),
        ("no blanks", {"a.mhd": header("a").replace(b" = ", b"="), "a.raw": RAW}, set()),
        ("trailing blanks", {"a.mhd": header("a").replace(b"\n", b"  \n"), "a.raw": RAW}, set()),
        ("position", {"a.mhd": header("a", Offset=None, Position="1 2 3"), "a.raw": RAW}, set()),
        ("origin", {"a.mhd": header("a", Offset=None, Origin="1 2 3"), "a.raw": RAW}, set()),
        ("offset and position", {"a.mhd": header("a", Position="1 2 3"), "a.raw": RAW}, {Code.HEADER_CONFLICT}),
        ("offset and origin", {"a.mhd": header("a", Origin="1 2 3"), "a.raw": RAW}, {Code.HEADER_CONFLICT}),
        ("rotation", {"a.mhd": header("a", TransformMatrix=None, Rotation="0 1 0 -1 0 0 0 0 1"), "a.raw": RAW}, set()),
        (
            "orientation",
            {"a.mhd": header("a", TransformMatrix=None, Orientation="0 1 0 -1 0 0 0 0 1"), "a.raw": RAW},
            set(),
        ),
        (
            "matrix and rotation",
            {"a.mhd": header("a", Rotation="0 1 0 -1 0 0 0 0 1"), "a.raw": RAW},
            {Code.HEADER_CONFLICT},
        ),
        ("no matrix", {"a.mhd": header("a", TransformMatrix=None), "a.raw": RAW}, set()),
        (
            "other byte order key",
            {
                "a.mhd": header("a", BinaryDataByteOrderMSB=None, ElementByteOrderMSB="True"),
                "a.raw": VOLUME.astype(">i2").tobytes(),
            },
            set(),
        ),
        ("no spacing", {"a.mhd": header("a", ElementSpacing=None), "a.raw": RAW}, {Code.GEOMETRY_MISSING}),
        ("element size", {"a.mhd": header("a", ElementSpacing=None, ElementSize="1 2 3"), "a.raw": RAW}, set()),
        ("no offset", {"a.mhd": header("a", Offset=None), "a.raw": RAW}, {Code.GEOMETRY_MISSING}),
        (
            "negative spacing",
            {"a.mhd": header("a", ElementSpacing="-0.8 0.7 -1.25"), "a.raw": RAW},
            {Code.NEGATIVE_SPACING},
        ),
        (
            "negative spacing, rotated",
            {"a.mhd": header("a", ElementSpacing="0.8 -0.7 1.25", TransformMatrix="0 1 0 -1 0 0 0 0 1"), "a.raw": RAW},
            {Code.NEGATIVE_SPACING},
        ),
        (
            "sheared",
            {"a.mhd": header("a", TransformMatrix="1 0.5 0 0 1 0 0 0 1"), "a.raw": RAW},
            {Code.DIRECTION_NOT_ORTHONORMAL},
        ),
        (
            "keys after the data file",
            {"a.mhd": header("a") + b"ElementSpacing = 9 9 9\n", "a.raw": RAW},
            {Code.HEADER_KEY_IGNORED},
        ),
        (
            "a key twice",
            {"a.mhd": header("a").replace(b"DimSize", b"Offset = 9 9 9\nDimSize", 1), "a.raw": RAW},
            {Code.HEADER_CONFLICT},
        ),
        (
            "a key twice, equal",
            {"a.mhd": header("a").replace(b"DimSize", b"DimSize = 12 10 6.0\nDimSize", 1), "a.raw": RAW},
            set(),
        ),
        (
            "texts and unknown keys twice",
            {"a.mhd": b"Comment = a\nComment = b\nScanner = a\nScanner = b\n" + header("a"), "a.raw": RAW},
            set(),
        ),
        ("header size", {"a.mhd": header("a", HeaderSize="-1"), "a.raw": b"head" + RAW}, set()),
        ("list", {"a.mhd": header("a", ElementDataFile="LIST") + lines(SLICES), **SLICES}, set()),
        (
            "list, crlf",
            {"a.mhd": header("a", ElementDataFile="LIST") + "\r\n".join(SLICES).encode() + b"\r\n", **SLICES},
            set(),
        ),
        ("pattern", {"a.mhd": header("a", ElementDataFile="s%d.raw 0 5 1"), **SLICES}, set()),
        (
            "list, compressed",
            {
                "a.mhd": header("a", CompressedData="True", ElementDataFile="LIST") + lines(PACKED_SLICES),
                **PACKED_SLICES,
            },
            set(),
        ),
        (
            "pattern, compressed",
            {"a.mhd": header("a", CompressedData="True", ElementDataFile="s%d.zraw 0 5 1"), **PACKED_SLICES},
            set(),
        ),
        (
            "keys after the list",
            {"a.mhd": header("a", ElementDataFile="LIST") + lines(SLICES) + b"Comment = x\nOffset = 9 9 9\n", **SLICES},
            {Code.HEADER_KEY_IGNORED},
        ),
        (
            "an unknown key after the list",
            {"a.mhd": header("a", ElementDataFile="LIST 2D") + lines(SLICES) + b"Scanner = x\n", **SLICES},
            {Code.HEADER_KEY_IGNORED},
        ),
        (
            "a comment after LIST",
            {"a.mhd": header("a", ElementDataFile="LIST # slices") + lines(SLICES), **SLICES},
            {Code.HEADER_REPAIRED},
        ),
        ("a data file that is too long", {"a.mhd": header("a"), "a.raw": RAW + b"12"}, {Code.DATA_FILE_TOO_LONG}),
        (
            "a data file that is nearly twice as long",
            {"a.mhd": header("a"), "a.raw": RAW + RAW[:-1]},
            {Code.DATA_FILE_TOO_LONG},
        ),
        ("long name", {"a.mhd": header("a", ElementDataFile="b c.raw"), "b c.raw": RAW}, set()),
        ("chinese name", {"a.mhd": header("a", ElementDataFile="肺.raw"), "肺.raw": RAW}, set()),
        ("in a folder", {"a.mhd": header("a", ElementDataFile="raw/a.raw"), "raw/a.raw": RAW}, set()),
        (
            "center of rotation",
            {"a.mhd": header("a", CenterOfRotation="5 5 5", AnatomicalOrientation="RAI"), "a.raw": RAW},
            set(),
        ),
        *(
            (f"{key} = {value}", {"a.mhd": header("a", **{key: value}), "a.raw": RAW}, codes)
            for key, value, codes in (
                ("AnatomicalOrientation", "LPS", {Code.HEADER_CONFLICT}),
                ("AnatomicalOrientation", "ARI", {Code.HEADER_CONFLICT}),
                ("AnatomicalOrientation", "???", set()),
                ("DistanceUnits", "cm", {Code.HEADER_KEY_NOT_APPLIED}),
                ("DistanceUnits", "mm", set()),
                ("ElementSize", "1 1 5", {Code.HEADER_CONFLICT}),
                ("ElementSize", "0.80 0.70 1.25", set()),
                ("ElementToIntensityFunctionSlope", "2", {Code.HEADER_KEY_NOT_APPLIED}),
                ("ElementToIntensityFunctionSlope", "1.0", set()),
                ("ElementToIntensityFunctionOffset", "-1024", {Code.HEADER_KEY_NOT_APPLIED}),
                ("ElementToIntensityFunctionOffset", "0", set()),
                ("RescaleSlope", "2", {Code.HEADER_KEY_NOT_APPLIED}),
                ("RescaleIntercept", "-1024", {Code.HEADER_KEY_NOT_APPLIED}),
                ("rescale_intercept", "unknown", {Code.HEADER_KEY_NOT_APPLIED}),
                ("RescaleSlope", "1.0", set()),
                ("RescaleIntercept", "0", set()),
                ("HeaderSizePerSlice", "4", {Code.HEADER_KEY_NOT_APPLIED}),
                ("Modality", "MET_MOD_MR", {Code.HEADER_CONFLICT}),
                ("Modality", "MET_MOD_CT", set()),
            )
        ),
        (
            "the data file of another header",
            {
                "a.mhd": header("a", ElementDataFile="b.raw"),
                "b.mhd": header("b"),
                "b.raw": RAW,
            },
            {Code.DATA_FILE_OF_ANOTHER_NAME},
        ),
        (
            "not the data file of its own name",
            {"a.mhd": header("a", ElementDataFile="c.raw"), "a.raw": bytes(len(RAW)), "c.raw": RAW},
            {Code.DATA_FILE_OF_ANOTHER_NAME},
        ),
    ],
)
def test_variants_that_itk_reads_give_the_same_volume(tmp_path, name, members, codes) -> None:
    assert assert_equal_to_itk(tmp_path, members) == codes


@pytest.mark.parametrize(
    "data",
    [
        header("a", ElementDataFile="LOCAL") + RAW,
        header("a", ElementDataFile="LOCAL").replace(b"\n", b"\r\n") + RAW,
        header("a", CompressedData="True", CompressedDataSize=str(len(PACKED)), ElementDataFile="LOCAL") + PACKED,
        header("a", BinaryData="False", ElementDataFile="LOCAL") + " ".join(map(str, VOLUME.ravel())).encode() + b"\n",
        header("a", (2, 1, 12), ElementType="MET_UCHAR", ElementDataFile="LOCAL") + b"\nDimSize = 1 1 1 1 1 1 \n",
    ],
)
def test_data_after_the_header_is_read_as_itk_reads_it(tmp_path, data) -> None:
    assert assert_equal_to_itk(tmp_path, {"a.mha": data}, "a.mha") == set()


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"a.mhd": header("a", DimSize="12 10 6 # x y z"), "a.raw": RAW}, Code.HEADER_REPAIRED),
        ({"a.mhd": header("a").replace(b"ElementSpacing", b"elementspacing"), "a.raw": RAW}, Code.HEADER_REPAIRED),
        ({"a.mhd": header("a", ElementDataFile="renamed.raw"), "a.raw": RAW}, Code.DATA_FILE_RENAMED),
        ({"a.mhd": header("a", ElementDataFile="a.raw # the data"), "a.raw": RAW}, Code.HEADER_REPAIRED),
        ({"a.mhd": header("a", ElementDataFile="LOCAL # here") + RAW}, Code.HEADER_REPAIRED),
        ({"a.mhd": header("a", ElementDataFile="s%d.raw 0 5 1 # slices"), **SLICES}, Code.HEADER_REPAIRED),
    ],
)
def test_variants_that_itk_refuses_are_repaired_and_reported(tmp_path, members, code) -> None:
    elements, frame, codes = read_zipped(tmp_path, members)
    assert (elements == VOLUME).all()
    assert (frame.spacing, frame.origin) == (FRAME.spacing, FRAME.origin)
    assert codes == {code}


def test_data_after_the_header_may_be_too_long(tmp_path) -> None:
    data = header("a", ElementDataFile="LOCAL") + RAW + b"12"
    assert assert_equal_to_itk(tmp_path, {"a.mha": data}, "a.mha") == {Code.DATA_FILE_TOO_LONG}


def test_the_checksum_of_a_data_file_that_is_too_long_is_verified(tmp_path) -> None:
    path = tmp_path / "volumes.zip"
    data = zip_archive({"a.mhd": header("a"), "a.raw": RAW + b"12"}, method=zipfile.ZIP_STORED)
    path.write_bytes(data.replace(RAW + b"12", RAW + b"13"))
    with ArchivePool() as archives:
        head, raw = archives.directory(str(path)).members
        image = open_metaimage(head, [raw], archives)
        with pytest.raises(MemberError, match="checksum"):
            image.read_into(np.empty(SHAPE, "<i2"))


@pytest.mark.parametrize(
    ("members", "name"),
    [
        ({"a.mhd": POINTER, "a.raw": RAW}, "a.mhd"),
        ({"a.mhd": header("a"), "a.raw": POINTER}, "a.raw"),
        ({"a.mhd": header("a", (2, 3, 4)), "a.raw": POINTER}, "a.raw"),
        ({"a.mhd": header("a", (1, 1, len(POINTER)), ElementType="MET_UCHAR"), "a.raw": POINTER}, "a.raw"),
        ({"a.mhd": header("a", CompressedData="True"), "a.raw": POINTER}, "a.raw"),
        ({"a.mhd": header("a", ElementDataFile="LIST") + lines(SLICES), **SLICES, "s3.raw": POINTER}, "s3.raw"),
    ],
)
def test_git_lfs_pointers_are_errors_that_name_the_member(tmp_path, members, name) -> None:
    with pytest.raises(MemberError, match=r"is a Git LFS pointer .* 12,345 bytes.*git lfs pull") as caught:
        read_zipped(tmp_path, members)
    assert (caught.value.archive, caught.value.member) == ("volumes.zip", name)


def test_data_files_are_matched_in_any_case_and_with_any_slashes(tmp_path) -> None:
    members = {"set/a.mhd": header("a", ElementDataFile="A.RAW"), "set/a.raw": RAW}
    assert (read_zipped(tmp_path, members, "set/a.mhd")[0] == VOLUME).all()
    members = {"set/a.mhd": header("a", ElementDataFile=".\\data\\a.raw"), "set/data/a.raw": RAW}
    assert (read_zipped(tmp_path, members, "set/a.mhd")[0] == VOLUME).all()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.mhd": header("a", ElementDataFile="../../etc/passwd"), "a.raw": RAW}, "outside its archive"),
        ({"a.mhd": header("a", ElementDataFile="/etc/passwd"), "a.raw": RAW}, "outside its archive"),
        ({"a.mhd": header("a", ElementDataFile="D:\\ct\\a.raw"), "a.raw": RAW}, "outside its archive"),
        ({"a.mhd": header("a", ElementDataFile="LIST") + b"../a.raw", "a.raw": RAW}, "outside its archive"),
        ({"a.mhd": header("a", ElementDataFile="b.raw")}, "not in its archive"),
        ({"a.mhd": header("a"), "a.raw": RAW[:-2]}, r"a\.raw has the wrong length; expected 1,440 bytes .*got 1,438"),
        ({"a.mhd": header("a"), "a.raw": RAW + RAW}, "wrong length"),
        ({"a.mhd": header("a", HeaderSize="2"), "a.raw": b"hh" + RAW + b"12"}, "wrong length"),
        ({"a.mhd": header("a", ElementDataFile="LOCAL") + RAW + RAW}, "wrong length"),
        ({"a.mhd": header("a", ElementDataFile="LOCAL") + RAW[:-2]}, "wrong length"),
        (
            {
                "a.mhd": header("a", ElementDataFile="LIST") + lines(SLICES),
                **SLICES,
                "s2.raw": SLICES["s2.raw"] + b"12",
            },
            r"s2\.raw has the wrong length",
        ),
        (
            {
                "a.mhd": header("a", CompressedData="True", ElementDataFile="LIST") + lines(PACKED_SLICES),
                **PACKED_SLICES,
                "s2.zraw": zlib.compress(SLICES["s2.raw"][:-2]),
                "s3.zraw": zlib.compress(b"12" + SLICES["s3.raw"]),
            },
            r"wrong length.*s2\.zraw",
        ),
        (
            {
                "a.mhd": header("a", CompressedData="True", ElementDataFile="LIST") + lines(PACKED_SLICES),
                **PACKED_SLICES,
                "s2.zraw": zlib.compress(SLICES["s2.raw"] + b"12"),
                "s3.zraw": zlib.compress(SLICES["s3.raw"][2:]),
            },
            r"wrong length.*s2\.zraw",
        ),
        ({"a.mhd": header("a", ElementDataFile="LIST") + b"Comment = x\n" + lines(SLICES), **SLICES}, "list of data"),
        (
            {"a.mhd": header("a", ElementDataFile="LIST") + lines([*SLICES, "a.raw"]), **SLICES, "a.raw": b"0"},
            "list of",
        ),
        ({"a.mhd": header("a", ElementDataFile="LIST") + b"a.raw\nb.raw", "a.raw": RAW, "b.raw": RAW}, "wrong length"),
        ({"a.mhd": header("a", ElementDataFile="LIST") + b"a.raw\nb.raw\nc.raw\nd.raw"}, "list of data files"),
        ({"a.mhd": header("a", ElementDataFile="a%03d.raw 1 999999999 1"), "a1.raw": RAW}, "pattern of data files"),
        ({"a.mhd": header("a", ElementDataFile="a%999999999d.raw"), "a1.raw": RAW}, "not in its archive"),
        ({"a.mhd": header("a", CompressedData="True"), "a.raw": PACKED[:-9]}, "wrong length|damaged"),
        ({"a.mhd": header("a", CompressedData="True"), "a.raw": zlib.compress(RAW + b"12")}, "wrong length"),
        ({"a.mhd": header("a", CompressedData="True"), "a.raw": b"garbage" * 100}, "damaged"),
        ({"a.mhd": header("a", BinaryData="False"), "a.raw": b"1 2 3"}, "3 numbers"),
        ({"a.mhd": header("a", BinaryData="False"), "a.raw": b"1 " * 721}, "more than 720 numbers"),
        ({"a.mhd": header("a", BinaryData="False"), "a.raw": b"1" * 721}, "cannot be read as text"),
        ({"a.mhd": header("a", BinaryData="False"), "a.raw": b"1 " * 719 + b"x"}, "cannot be read as text"),
        ({"a.mhd": header("a", BinaryData="False"), "a.raw": b"1 " * 719 + b"1.5"}, "do not fit their type.*1.5"),
        ({"a.mhd": header("a", BinaryData="False"), "a.raw": b"1 " * 719 + b"32768"}, "do not fit their type.*32768"),
        ({"a.mhd": header("a", BinaryData="False"), "a.raw": b"1 " * 719 + b"nan"}, "do not fit their type.*nan"),
        ({"a.mhd": header("a", DimSize="12 10 6.5"), "a.raw": RAW}, "DimSize cannot be read.*3 integers"),
        ({"a.mhd": header("a", DimSize="12 10 0"), "a.raw": RAW}, "no extent"),
        (
            {"a.mhd": header("a", DimSize="1 1 900000", ElementType="MET_UCHAR", ElementDataFile="s%d.raw")},
            "too many slices",
        ),
        ({"a.mhd": header("a", ElementDataFile="a" * 5000)}, "ElementDataFile cannot be read"),
        ({"a.mhd": header("a", DimSize="12 10"), "a.raw": RAW}, "DimSize"),
        ({"a.mhd": header("a", DimSize="12 10 -6"), "a.raw": RAW}, "no extent"),
        ({"a.mhd": header("a", DimSize="99999 99999 99999"), "a.raw": RAW}, "too large"),
        ({"a.mhd": header("a", ElementSpacing="0.8 0 1.25"), "a.raw": RAW}, "spacing is zero"),
        ({"a.mhd": header("a", ElementSpacing="1e-300 1 1"), "a.raw": RAW}, "spacing is zero"),
        ({"a.mhd": header("a", ElementSpacing="nan 1 1"), "a.raw": RAW}, "ElementSpacing"),
        ({"a.mhd": header("a", Offset="1e300 1 1"), "a.raw": RAW}, "Offset cannot be read"),
        ({"a.mhd": header("a", TransformMatrix="0 0 0 0 1 0 0 0 1"), "a.raw": RAW}, "geometry is impossible"),
        ({"a.mhd": header("a", NDims="2", DimSize="12 60"), "a.raw": RAW}, "not a volume"),
        ({"a.mhd": header("a", ElementNumberOfChannels="3"), "a.raw": RAW}, "channel"),
        ({"a.mhd": header("a", ElementType="MET_STRING"), "a.raw": RAW}, "element type"),
        ({"a.mhd": header("a", ObjectType="Tube"), "a.raw": RAW}, "not describe an image"),
        ({"a.mhd": header("a", NDims=None), "a.raw": RAW}, "no NDims"),
        ({"a.mhd": b"\x89PNG garbage" * 20, "a.raw": RAW}, "no NDims"),
        ({"a.mhd": b"", "a.raw": RAW}, "no NDims"),
    ],
)
def test_invalid_volumes_are_errors_that_name_the_member(tmp_path, members, message) -> None:
    with pytest.raises(MemberError, match=message) as caught:
        read_zipped(tmp_path, members)
    assert caught.value.archive == "volumes.zip"
    assert caught.value.member == "a.mhd"


KEYS = [
    "ObjectType",
    "ObjectSubType",
    "NDims",
    "Name",
    "ID",
    "ParentID",
    "Comment",
    "Color",
    "AcquisitionDate",
    "TransformType",
    "BinaryData",
    "BinaryDataByteOrderMSB",
    "ElementByteOrderMSB",
    "CompressedData",
    "CompressedDataSize",
    "CompressionLevel",
    "TransformMatrix",
    "Rotation",
    "Orientation",
    "Offset",
    "Position",
    "Origin",
    "CenterOfRotation",
    "AnatomicalOrientation",
    "DistanceUnits",
    "ElementSpacing",
    "ElementSize",
    "DimSize",
    "ElementType",
    "ElementNumberOfChannels",
    "ElementMin",
    "ElementMax",
    "ElementDataFile",
    "HeaderSize",
    "HeaderSizePerSlice",
    "Modality",
    "SequenceID",
    "ElementToIntensityFunctionSlope",
    "ElementToIntensityFunctionOffset",
]


def unquoted(issues):
    """Issues without the marks of what is quoted from the header."""
    return [(code, *(text.translate(str.maketrans("", "", "“”'")) for text in texts)) for code, *texts in issues]


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_known_after_the_data_file_in_any_case(key) -> None:
    (issue,) = parse_header(header("a") + f"{key.lower()} = 1\n".encode()).issues
    assert issue == (Code.HEADER_KEY_IGNORED, f"“{key.lower()}”", "ignored, as ITK does")


@pytest.mark.parametrize("key", KEYS)
def test_a_key_in_another_case_is_repaired(key) -> None:
    given = dict(line.split(" = ") for line in header("a").decode().splitlines())
    # a synonym takes the place of the key that it means
    means = {
        **dict.fromkeys(("Position", "Origin"), "Offset"),
        **dict.fromkeys(("Rotation", "Orientation"), "TransformMatrix"),
        "ElementSize": "ElementSpacing",
        "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
    }.get(key, key)
    neutral = {"ElementNumberOfChannels": "1", "HeaderSize": "0", "BinaryDataByteOrderMSB": "False"}
    value = given.pop(means, neutral.get(means, "?"))
    named = given.pop("ElementDataFile", value)
    fields = {**given, key.swapcase(): value} if key != "ElementDataFile" else given
    last = key.swapcase() if key == "ElementDataFile" else "ElementDataFile"
    text = "".join(f"{name} = {content}\n" for name, content in {**fields, last: named}.items())
    parsed, usual = parse_header(text.encode()), parse_header(header("a", **({key: value} if means == key else {})))
    assert (parsed.frame, parsed.shape, parsed.dtype, parsed.data_files) == (
        usual.frame,
        usual.shape,
        usual.dtype,
        usual.data_files,
    )
    repaired = [issue for issue in parsed.issues if issue[0] is Code.HEADER_REPAIRED]
    assert repaired == [(Code.HEADER_REPAIRED, f"key “{key.swapcase()}”", f"read as {key}")]


@pytest.mark.parametrize(
    "key", ["Comment", "Name", "ID", "ParentID", "ObjectSubType", "AcquisitionDate", "Color", "SequenceID"]
)
def test_a_text_may_occur_twice(key) -> None:
    assert parse_header(f"{key} = a\n{key} = b\n".encode() + header("a")).issues == ()


@pytest.mark.parametrize(
    ("fields", "problem", "expected", "got"),
    [
        ({"NDims": None}, "the header has no NDims", "a line 'NDims = …'", "none"),
        ({"ObjectType": "Tube"}, "the header does not describe an image", "ObjectType = Image", "Tube"),
        ({"NDims": "4"}, "the image is not a volume", "NDims = 3", "4"),
        ({"NDims": "3 3"}, "NDims cannot be read", "1 finite number", "'3 3'"),
        ({"NDims": "3.5"}, "NDims cannot be read", "1 integer", "'3.5'"),
        ({"ElementNumberOfChannels": "2"}, "the volume has more than one channel", "ElementNumberOfChannels = 1", "2"),
        ({"DimSize": "12 10 0"}, "the volume has no extent", "three positive numbers in DimSize", "[12, 10, 0]"),
        ({"DimSize": "12 10 6.5"}, "DimSize cannot be read", "3 integers", "'12 10 6.5'"),
        (
            {"ElementSpacing": "0 1 1"},
            "the spacing is zero",
            "three numbers other than zero in ElementSpacing",
            "0 1 1",
        ),
        ({"Offset": "1 2"}, "Offset cannot be read", "3 finite numbers", "'1 2'"),
        ({"TransformMatrix": "1 0 0"}, "TransformMatrix cannot be read", "9 finite numbers", "'1 0 0'"),
        ({"ElementDataFile": ""}, "the header names no data file", "ElementDataFile = <name>", "nothing"),
        (
            {"ElementDataFile": "a" * 4097},
            "ElementDataFile cannot be read",
            "a name of at most 4,096 characters",
            "4,097",
        ),
        ({"ElementDataFile": "s%d.raw 1 5 1"}, "the pattern of data files does not fit", "6 files", "5"),
        ({"ElementDataFile": "s%d.raw 1 7 1"}, "the pattern of data files does not fit", "6 files", "7"),
        (
            {"ElementDataFile": "LIST"},
            "the list of data files does not fit",
            "a number of files that divides 6 slices",
            "0",
        ),
        ({"HeaderSize": "x"}, "HeaderSize cannot be read", "1 finite number", "'x'"),
    ],
)
def test_the_error_of_a_header_states_what_was_expected(fields, problem, expected, got) -> None:
    with pytest.raises(HeaderError) as caught:
        parse_header(header("a", **fields))
    assert (caught.value.problem, caught.value.expected, caught.value.got) == (problem, expected, got)


@pytest.mark.parametrize(
    ("named", "files"),
    [
        ("s%d.raw", [f"s{k}.raw" for k in range(1, 7)]),
        ("s%03d.raw 3 8", [f"s{k:03d}.raw" for k in range(3, 9)]),
        ("s%d.raw 0 10 2", [f"s{k}.raw" for k in range(0, 11, 2)]),
        ("s%d.raw 5 10 0", [f"s{k}.raw" for k in range(5, 11)]),
        ("100%.raw", ["100%.raw"]),
        ("a" * 4096, ["a" * 4096]),
    ],
)
def test_the_files_of_a_pattern_are_counted_from_its_numbers(named, files) -> None:
    assert list(parse_header(header("a", ElementDataFile=named)).data_files) == files


def test_a_header_without_optional_keys_has_the_defaults_of_the_format() -> None:
    data = b"NDims = 3\nDimSize = 1,2,3\nElementType = MET_UCHAR\nElementDataFile = a.raw\n"
    parsed = parse_header(data)
    assert (parsed.shape, parsed.dtype, parsed.data_files) == ((3, 2, 1), np.dtype("u1"), ("a.raw",))
    assert (parsed.compressed, parsed.text, parsed.skip, parsed.data_offset) == (False, False, 0, len(data))
    assert parsed.frame == Frame()
    assert parsed.issues == (
        (Code.GEOMETRY_MISSING, "no Offset and no ElementSpacing", "the format's default is used (0 and 1)"),
    )


@pytest.mark.parametrize("word", ["True", "true", "T", "1", "YES", " true "])
def test_what_is_true(word) -> None:
    parsed = parse_header(header("a", CompressedData=word, BinaryDataByteOrderMSB=word, BinaryData=word))
    assert (parsed.compressed, parsed.dtype.str, parsed.text) == (True, ">i2", False)
    other = parse_header(header("a", CompressedData="F", BinaryDataByteOrderMSB="0", BinaryData="no"))
    assert (other.compressed, other.dtype.str, other.text) == (False, "<i2", True)


@pytest.mark.parametrize(
    ("more", "issue"),
    [
        ("a line\n", (Code.HEADER_REPAIRED, "a line without a key: 'a line'", "left out")),
        ("a line\nb\nc\n", (Code.HEADER_REPAIRED, "a line without a key: 'a line', and 2 more", "left out")),
        (
            "Modality = MET_MOD_MR\n",
            (Code.HEADER_CONFLICT, "Modality = MET_MOD_MR", "taken as CT, as the archive says"),
        ),
        (
            "DistanceUnits = inch\n",
            (Code.HEADER_KEY_NOT_APPLIED, "DistanceUnits = inch", "the numbers are taken as millimetres, as ITK does"),
        ),
        (
            "HeaderSizePerSlice = 4\n",
            (Code.HEADER_KEY_NOT_APPLIED, "HeaderSizePerSlice = 4", "the stored values are used, as ITK does"),
        ),
        (
            "ElementSize = 1 1 5\n",
            (
                Code.HEADER_CONFLICT,
                "ElementSpacing = 0.8 0.7 1.25, ElementSize = 1 1 5",
                "ElementSpacing is used, as ITK does",
            ),
        ),
        (
            "AnatomicalOrientation = LPS\n",
            (
                Code.HEADER_CONFLICT,
                "AnatomicalOrientation = LPS, which is not that of the matrix",
                "the matrix is used, as ITK does",
            ),
        ),
        (
            "Offset = 9 9 9\n",
            (
                Code.HEADER_CONFLICT,
                "Offset = 9 9 9, and again Offset = -10 -20 30",
                "the last one is used, as ITK does",
            ),
        ),
        (
            "Origin = 1 2 3\n",
            (Code.HEADER_CONFLICT, "Origin = 1 2 3, Offset = -10 -20 30", "Origin is used, as ITK does"),
        ),
        ("Modality = MET_MOD_OTHER\nDistanceUnits = Millimetres\n", None),
        ("Modality = unknown\nDistanceUnits = ?\nAnatomicalOrientation = RA\n", None),
        ("Modality = ?\nDistanceUnits = unknown\nAnatomicalOrientation = RAIL\n", None),
        ("Modality = CT\nDistanceUnits = millimeters\nAnatomicalOrientation = RRI\n", None),
        ("Modality =\nDistanceUnits = millimeter\n", None),
        ("DistanceUnits =\n", None),
        ("DistanceUnits = millimetre\n", None),
        ("ElementToIntensityFunctionSlope =\nElementSize = x\n", None),
        ("Scanner = a\n", None),
        ("Origin = -10  -20 30\n", None),
    ],
)
def test_what_a_header_says_and_what_was_done_is_reported(more, issue) -> None:
    parsed = parse_header(more.encode() + header("a"))
    assert unquoted(parsed.issues) == unquoted((issue,) if issue else ())


@pytest.mark.parametrize(
    ("degrees", "letters", "contradicts"),
    [(59, "RAI", False), (61, "RAI", True), (31, "RIP", False), (29, "RIP", True)],
)
def test_letters_contradict_a_matrix_from_60_degrees(degrees, letters, contradicts) -> None:
    turn = np.radians(degrees)
    axes = np.array([[1, 0, 0], [0, np.cos(turn), np.sin(turn)], [0, -np.sin(turn), np.cos(turn)]]) * 3
    if letters == "RIP":
        axes = axes * [[1], [1], [1]]
    matrix = " ".join(f"{value:.9f}" for value in axes.ravel())
    codes = [
        code for code, _, _ in parse_header(header("a", TransformMatrix=matrix, AnatomicalOrientation=letters)).issues
    ]
    assert (Code.HEADER_CONFLICT in codes) is contradicts


@pytest.mark.parametrize(("shear", "codes"), [("0.00005", set()), ("0.0002", {Code.DIRECTION_NOT_ORTHONORMAL})])
def test_a_matrix_is_a_rotation_within_a_tolerance(shear, codes) -> None:
    parsed = parse_header(header("a", TransformMatrix=f"1 {shear} 0 0 1 0 0 0 1"))
    assert {code for code, _, _ in parsed.issues} == codes


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1.0, -1.0), repeat=3)))
def test_the_orientation_that_itk_writes_does_not_contradict_its_matrix(tmp_path, axes, signs) -> None:
    image = sitk.GetImageFromArray(VOLUME)
    image.SetDirection((np.eye(3)[list(axes)] * signs).ravel())
    sitk.WriteImage(image, str(tmp_path / "a.mhd"))
    written = (tmp_path / "a.mhd").read_bytes()
    assert parse_header(written).issues == ()
    letters = re.search(rb"AnatomicalOrientation = (...)", written)[1]
    turned = written.replace(letters, letters.translate(bytes.maketrans(b"RLAPIS", b"LRPASI")))
    assert [code for code, _, _ in parse_header(turned).issues] == [Code.HEADER_CONFLICT]


@pytest.mark.parametrize(
    "more",
    [
        b"x\n" * 300_000,
        b"dimSize = 1\n" * 50_000,
        b"a" + b" " * 900_000 + b"b\n",
        b"Offset = " + b" " * 900_000 + b"#\n",
        b"".join(b"Offset = %d 1 1\n" % number for number in range(50_000)),
    ],
)
def test_a_header_of_any_content_has_few_issues_and_takes_linear_time(more) -> None:
    started = time.process_time()
    parsed = parse_header(
        header("a").replace(b"ObjectType = Image\n", b"ObjectType = Image\n" + more[: 1 << 19] + b"\n")
    )
    assert len(parsed.issues) < 5
    assert sum(len(text) for _, *texts in parsed.issues for text in texts) < 2000
    assert time.process_time() - started < 5


@pytest.mark.parametrize("packed", [False, True])
def test_a_list_of_files_larger_than_a_slab_is_read(tmp_path, packed) -> None:
    volume = np.arange(5 * 501 * 499).astype("<i2").reshape(5, 501, 499)
    slices = {f"s{k}.raw": volume[k].tobytes() for k in range(5)}
    text = header("a", volume.shape, CompressedData=str(packed), ElementDataFile="LIST") + lines(slices)
    files = {name: zlib.compress(data) if packed else data for name, data in slices.items()}
    assert (read_zipped(tmp_path, {"a.mhd": text, **files})[0] == volume).all()


@pytest.mark.parametrize(
    ("members", "problem", "expected", "got"),
    [
        (
            {"a.mhd": header("a", ElementDataFile="../b.raw")},
            "the header points outside its archive",
            "ElementDataFile = a file in the folder of the header",
            "'../b.raw'",
        ),
        (
            {"a.mhd": header("a", ElementDataFile="b.raw")},
            "the header names a data file that is not in its archive",
            "b.raw",
            "no such member",
        ),
        (
            {"a.mhd": header("a"), "a.raw": RAW[:-2]},
            "its data file a.raw has the wrong length",
            "1,440 bytes (DimSize 12 x 10 x 6, 2 bytes per element)",
            "1,438",
        ),
        (
            {"a.mhd": header("a", HeaderSize="2"), "a.raw": b"hh" + RAW + b"12"},
            "its data file a.raw has the wrong length",
            "1,442 bytes (DimSize 12 x 10 x 6, 2 bytes per element)",
            "1,444",
        ),
        (
            {"a.mhd": header("a", CompressedData="True"), "a.raw": zlib.compress(RAW[:-2])},
            "the data have the wrong length (data file a.raw)",
            "1,440 bytes (DimSize 12 x 10 x 6, 2 bytes per element)",
            "1,438 bytes",
        ),
        (
            {"a.mhd": header("a", CompressedData="True"), "a.raw": zlib.compress(RAW + b"1")},
            "the data have the wrong length (data file a.raw)",
            "1,440 bytes (DimSize 12 x 10 x 6, 2 bytes per element)",
            "more",
        ),
        (
            {"a.mhd": header("a", BinaryData="False"), "a.raw": b"1 2 3"},
            "the data have the wrong length (data file a.raw)",
            "1,440 bytes (DimSize 12 x 10 x 6, 2 bytes per element)",
            "3 numbers",
        ),
        (
            {"a.mhd": header("a", BinaryData="False"), "a.raw": b"1" * 65},
            "its elements cannot be read as text (data file a.raw)",
            "numbers",
            None,
        ),
        (
            {"a.mhd": header("a", BinaryData="False"), "a.raw": b"1 " * 719 + b"40000"},
            "its elements do not fit their type (data file a.raw)",
            "integers of int16",
            "40000",
        ),
        (
            {"a.mhd": header("a", DimSize="99999 99999 99999"), "a.raw": RAW},
            "the volume is too large",
            None,
            "1,999,940,000,599,998 (DimSize (99999, 99999, 99999))",
        ),
        ({"a.mhd": header("a", NDims="2"), "a.raw": RAW}, "the image is not a volume", "NDims = 3", "2"),
    ],
)
def test_the_error_of_a_volume_states_what_was_expected(tmp_path, members, problem, expected, got) -> None:
    with pytest.raises(MemberError) as caught:
        read_zipped(tmp_path, members)
    message = str(caught.value)
    assert problem in message
    assert expected is None or f"expected {expected}, got" in message
    assert got is None or f"got {got}" in message
    assert ("report this scan" in message) == (problem not in OWN_ADVICE)


OWN_ADVICE = ("the header points outside its archive", "the volume is too large")


@pytest.mark.parametrize(
    ("members", "issues"),
    [
        (
            {"a.mhd": header("a", ElementDataFile="b.raw"), "a.raw": RAW},
            [(Code.DATA_FILE_RENAMED, "ElementDataFile = b.raw", "a.raw is used")],
        ),
        (
            {"a.mhd": header("a", ElementDataFile="b.raw"), "b.mha": b"", "b.raw": RAW},
            [(Code.DATA_FILE_OF_ANOTHER_NAME, "ElementDataFile = b.raw, as in b.mha", "b.raw is used, as ITK does")],
        ),
        (
            {"a.mhd": header("a", ElementDataFile="b.raw"), "a.img": b"1", "b.raw": RAW},
            [
                (
                    Code.DATA_FILE_OF_ANOTHER_NAME,
                    "ElementDataFile = b.raw",
                    "b.raw is used, as ITK does, and a.img is not",
                )
            ],
        ),
        (
            {"a.mhd": header("a", ElementDataFile="LIST") + lines(SLICES) + b"Offset = 9 9 9\nNDims = 3\n", **SLICES},
            [(Code.HEADER_KEY_IGNORED, "Offset, NDims", "ignored, as ITK does")],
        ),
        (
            {"a.mhd": header("a") + b"\nScanner = x\nOffset = 9 9 9\nOffset = 1 1 1\n", "a.raw": RAW},
            [(Code.HEADER_KEY_IGNORED, "Offset", "ignored, as ITK does")],
        ),
        (
            {"a.mhd": header("a", ElementDataFile="a.raw # data", DimSize="12 10 6 # x"), "a.raw": RAW},
            [
                (Code.HEADER_REPAIRED, "a comment after DimSize", "left out"),
                (Code.HEADER_REPAIRED, "a comment after ElementDataFile", "left out"),
            ],
        ),
        (
            {"a.mhd": header("a"), "a.raw": RAW + b"1"},
            [
                (
                    Code.DATA_FILE_TOO_LONG,
                    "a.raw: expected 1,440 bytes (DimSize 12 x 10 x 6, 2 bytes per element), got 1,441",
                    "its first 1,440 bytes are used, as ITK does",
                )
            ],
        ),
        ({"a.mhd": header("a", HeaderSize="2"), "a.raw": b"12" + RAW}, []),
        ({"a.mhd": header("a", HeaderSize="-1"), "a.raw": RAW}, []),
        ({"a.mhd": header("a", HeaderSize="-1"), "a.raw": b"x" * 5000 + RAW}, []),
        ({"a.mhd": header("a", ElementDataFile="A.RAW"), "a.raw": RAW}, []),
    ],
)
def test_the_issues_of_a_volume_say_what_was_done(tmp_path, members, issues) -> None:
    path = tmp_path / "volumes.zip"
    path.write_bytes(zip_archive(members))
    with ArchivePool() as archives:
        directory = archives.directory(str(path))
        image = open_metaimage(directory.find("a.mhd"), directory.members, archives)
        assert (np.concatenate([slab.copy() for slab in image.slabs()]) == VOLUME.ravel()).all()
    assert unquoted(image.issues) == unquoted(issues)


@pytest.mark.parametrize("packed", [False, True])
def test_a_text_is_read_no_further_than_its_volume(tmp_path, packed) -> None:
    text = b"0 " * 4_000_000
    members = {
        "a.mhd": header("a", (4, 4, 4), BinaryData="False", CompressedData=str(packed)),
        "a.raw": zlib.compress(text) if packed else text,
    }
    tracemalloc.start()
    with pytest.raises(MemberError, match="more than 64 numbers"):
        read_zipped(tmp_path, members)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20


@pytest.mark.parametrize("packed", [False, True])
def test_a_text_of_several_pieces_is_read(tmp_path, packed) -> None:
    volume = noise_volume(3, (20, 60, 70))
    text = "\n".join(map(str, volume.ravel())).encode()
    members = {
        "a.mhd": header("a", volume.shape, BinaryData="False", CompressedData=str(packed)),
        "a.raw": zlib.compress(text) if packed else text,
    }
    assert (read_zipped(tmp_path, members)[0] == volume).all()


@given(st.binary(max_size=400) | st.binary(max_size=60).map(lambda tail: header("a")[:200] + tail))
def test_arbitrary_bytes_are_a_header_or_a_header_error(data) -> None:
    try:
        parse_header(data)
    except HeaderError as error:
        assert error.expected
        assert str(error)
