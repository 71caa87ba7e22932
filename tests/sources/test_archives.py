"""Zip archives: names are repaired if no information is lost, and every other defect is an error that names the member."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import inflate64
import numpy as np
import pytest
from hypothesis import given

from lung_nodule_ct.declaration.archives import ARCHIVES, Role
from lung_nodule_ct.declaration.findings import Code
from lung_nodule_ct.errors import ArchiveError, ArchiveNotFoundError, MemberError, SourceError
from lung_nodule_ct.sources.byte_sources import ByteSource
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.sources.source import ArchivePool
from lung_nodule_ct.sources.zip_directory import Archive, read_directory
from lung_nodule_ct.sources.zip_member import read_member
from lung_nodule_ct.system import inflate
from lung_nodule_ct.testing.archives import overwrite_zip_field, zip_archive
from lung_nodule_ct.testing.strategies import zip_archives


def open_zip(folder: Path, data: bytes, name: str = "some.zip") -> tuple[ArchivePool, Archive]:
    path = folder / name
    path.write_bytes(data)
    archives = ArchivePool()
    return archives, archives.directory(str(path))


def contents(folder: Path, data: bytes) -> dict[str, bytes]:
    archives, archive = open_zip(folder, data)
    with archives:
        return {member.name: read_member(member, archives) for member in archive.members}


def rewritten(data: bytes, old: bytes, new: bytes) -> bytes:
    """Replace a name of a member in the local header and in the directory."""
    assert old in data
    assert len(old) == len(new)
    return data.replace(old, new)


@given(zip_archives())
def test_every_member_is_read(tmp_path_factory, case) -> None:
    assert contents(tmp_path_factory.mktemp("zip"), case.data) == case.content


def test_fast_and_standard_inflate_are_equal(tmp_path, monkeypatch) -> None:
    members = {
        "a": np.random.default_rng(0).integers(0, 9, 500_000).astype("u1").tobytes(),
        "b": b"",
        "c": bytes(1 << 18),
    }
    data = zip_archive(members)
    fast = contents(tmp_path, data)
    monkeypatch.setattr(inflate, "_zlib", zlib)
    assert contents(tmp_path, data) == fast == members


def deflate64(members: dict[str, bytes]) -> bytes:
    """Return a zip archive with method 9, which Windows uses for large files."""
    stored = zip_archive(members, method=zipfile.ZIP_STORED)
    buffer, directory = io.BytesIO(), b""
    for info in zipfile.ZipFile(io.BytesIO(stored)).infolist():
        deflater = inflate64.Deflater()
        data = deflater.deflate(members[info.filename]) + deflater.flush()
        name = info.filename.encode()
        fields = (20, 0, 9, 0, 33, info.CRC, len(data), info.file_size, len(name), 0)
        offset = buffer.tell()
        buffer.write(struct.pack("<4s5H3I2H", b"PK\3\4", *fields) + name + data)
        directory += struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, *fields, 0, 0, 0, 0, offset) + name
    start = buffer.tell()
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(members), len(members), len(directory), start, 0)
    return buffer.getvalue() + directory + end


def test_deflate64_is_read(tmp_path) -> None:
    members = {"a.raw": bytes(range(256)) * 3000, "b.txt": b"x"}
    assert contents(tmp_path, deflate64(members)) == members


def test_zip64_is_read(tmp_path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("a.raw", "w", force_zip64=True) as member:
        member.write(b"abc" * 1000)
    assert contents(tmp_path, buffer.getvalue()) == {"a.raw": b"abc" * 1000}


def test_names_are_repaired(tmp_path) -> None:
    chinese = "肺结节/扫描.mhd"
    gbk = rewritten(
        zip_archive({"X" * len(chinese.encode("gbk")): b"1"}), b"X" * len(chinese.encode("gbk")), chinese.encode("gbk")
    )
    assert contents(tmp_path, gbk) == {chinese: b"1"}
    assert contents(tmp_path, zip_archive({chinese: b"1"})) == {chinese: b"1"}
    assert contents(tmp_path, rewritten(zip_archive({"train/1/a": b"1"}), b"train/1/a", b"train\\1\\a")) == {
        "train/1/a": b"1"
    }
    system_files = {"__MACOSX/._a": b"", "x/.DS_Store": b"", "x/._b": b"", "x/Thumbs.db": b"", "x/": b"", "x/a": b"1"}
    assert contents(tmp_path, zip_archive(system_files)) == {"x/a": b"1"}


@pytest.mark.parametrize("name", ["/etc/x", "../x.raw", "a/../../x", "C:/x.raw", "c:x.raw"])
def test_names_outside_the_archive_are_errors(tmp_path, name) -> None:
    placeholder = "_" * len(name)
    data = rewritten(zip_archive({placeholder: b"1"}), placeholder.encode(), name.encode())
    with pytest.raises(MemberError, match=r"some\.zip > .*leads out of the archive") as caught:
        open_zip(tmp_path, data)
    assert caught.value.member == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: overwrite_zip_field(data, "flags", 1), "encrypted"),
        (lambda data: overwrite_zip_field(data, "method", 12), "method 12"),
        (lambda data: overwrite_zip_field(data, "size", 0x7FFFFFFF), "cut short"),
        (lambda data: overwrite_zip_field(data, "size", 1), "longer than the directory states"),
        (lambda data: overwrite_zip_field(data, "crc", 0), "checksum"),
        (lambda data: overwrite_zip_field(data, "packed_size", 0xFFFF), "overlaps"),
        (lambda data: data.replace(b"PK\3\4", b"XX\3\4", 1), "does not begin"),
        (lambda data: data[:40] + b"\xff" * 9 + data[49:], "damaged"),
    ],
)
def test_errors_name_archive_and_member(tmp_path, change, message) -> None:
    data = zip_archive({"a.raw": np.random.default_rng(0).bytes(3000), "b.raw": b"22"})
    with pytest.raises(MemberError, match=message) as caught:
        contents(tmp_path, change(data))
    assert (caught.value.archive, caught.value.member) == ("some.zip", "a.raw")
    assert ("download the archive again" in str(caught.value).lower()) == (message not in ("encrypted", "method 12"))


def test_a_member_is_never_inflated_beyond_its_stated_size(tmp_path) -> None:
    bomb = overwrite_zip_field(zip_archive({"a.raw": bytes(50_000_000)}), "size", 1000)
    archives, archive = open_zip(tmp_path, bomb)
    total = 0
    with archives, pytest.raises(MemberError, match="longer than"):
        from lung_nodule_ct.sources.zip_member import iterate_member

        for piece in iterate_member(archive.members[0], archives):
            total += len(piece)
    assert total <= 1000


def test_a_member_above_the_limit_is_an_error(tmp_path) -> None:
    archives, archive = open_zip(tmp_path, zip_archive({"a.csv": bytes(100)}))
    with archives, pytest.raises(MemberError, match="at most 99") as caught:
        read_member(archive.members[0], archives, limit=99)
    assert caught.value.remedy == "if the file is as published, report it"


def split_in_two(data: bytes, parts: int = 2) -> bytes:
    """Return the last part of an archive that was split: its directory, without the members."""
    end = data.rindex(b"PK\5\6")
    start = struct.unpack_from("<I", data, end + 16)[0]
    numbers = struct.pack("<HH", parts - 1, parts - 1)
    return data[start : end + 4] + numbers + data[end + 8 : end + 16] + struct.pack("<IH", 0, 0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 481470967\n",
            r"Git LFS pointer to a file of 481,470,967 bytes",
        ),
        (b"<!DOCTYPE html><html><body>403", "HTML"),
        (b"\n<html>", "HTML"),
        (b"Rar!\x1a\x07", "RAR"),
        (bytes(257) + b"ustar\x00", "a tar archive"),
        (split_in_two(zip_archive({"a": bytes(5000), "b": b"2"})), r"part 2 of 2, which needs some\.z01.*zip -s 0"),
        (split_in_two(zip_archive({}), parts=3), r"part 3 of 3, which needs some\.z01 to some\.z02"),
        (zip_archive({"a": bytes(5000), "b": b"2"})[:-30], "broke off"),
        (b"not a zip at all", "broke off"),
    ],
)
def test_files_that_are_not_zip_archives_are_identified(tmp_path, data, message) -> None:
    with pytest.raises(ArchiveError, match=message) as caught:
        open_zip(tmp_path, data)
    assert caught.value.archive == "some.zip"
    assert caught.value.remedy


def test_a_duplicate_name_is_a_finding_and_the_first_is_used(tmp_path) -> None:
    data = rewritten(zip_archive({"a.raw": b"first", "b.raw": b"second"}), b"b.raw", b"a.raw")
    archives, archive = open_zip(tmp_path, data)
    with archives:
        assert [read_member(member, archives) for member in archive.members] == [b"first"]
    assert [str(finding.code) for finding in archive.findings] == ["duplicate-id"]


@pytest.mark.parametrize("ignored", [False, True])
def test_an_entry_before_the_start_of_the_file_is_an_error(tmp_path, ignored) -> None:
    """Also if nothing else is read from it; found by fuzzing, as an uncaught error."""
    data = bytearray(zip_archive({"__MACOSX/._a" if ignored else "a.raw": b"first", "b.raw": b"second"}))
    at = data.rindex(b"PK\5\6") + 16
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "little") + 4).to_bytes(4, "little")
    with pytest.raises(ArchiveError, match=r"at byte -4"):
        open_zip(tmp_path, bytes(data))


def gap_details(folder: Path, data: bytes) -> list[str | None]:
    """What is reported of bytes that the directory does not list; all members must be read as before."""
    archives, archive = open_zip(folder, data)
    with archives:
        assert {member.name: read_member(member, archives) for member in archive.members} == MEMBERS
    return [finding.detail for finding in archive.findings if finding.code is Code.ARCHIVE_BYTES_UNLISTED]


MEMBERS = {"a.raw": bytes(range(256)), "b/c.txt": b"22", "d.txt": b""}
PLAIN = zip_archive(MEMBERS)


def without_entry(data: bytes, index: int) -> bytes:
    """Remove an entry from the directory of an archive, and leave its content."""
    end = data.rindex(b"PK\5\6")
    start = struct.unpack_from("<I", data, end + 16)[0]
    entries = [b"PK\1\2" + entry for entry in data[start:end].split(b"PK\1\2")[1:]]
    del entries[index]
    directory = b"".join(entries)
    counts = struct.pack("<2H2I", len(entries), len(entries), len(directory), start)
    return data[:start] + directory + data[end : end + 8] + counts + data[end + 20 :]


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (zip_archive({"extra.txt": b"1"}) + PLAIN, "byte 0"),
        (b"1" + PLAIN, "1 bytes at byte 0"),
        (PLAIN + b"x" * 200, f"200 bytes at byte {len(PLAIN):,}"),
        (b"1" + PLAIN + b"x", "2 bytes in 2 places, the first at byte 0"),
        (without_entry(zip_archive({"hidden.txt": b"7", **MEMBERS}), 0), "43 bytes at byte 0"),
        (without_entry(zip_archive({**MEMBERS, "x.txt": b"88"}), 3), "39 bytes at byte "),
        (without_entry(zip_archive({"a.raw": MEMBERS["a.raw"], "x": b"8", **MEMBERS}), 1), "34 bytes at byte "),
    ],
)
def test_bytes_that_the_directory_does_not_list_are_a_finding(tmp_path, data, detail) -> None:
    (reported,) = gap_details(tmp_path, data)
    assert "expected nothing besides the entries of the directory, got " in reported
    assert detail in reported


def streamed(**fields: object) -> bytes:
    """Return an archive as it is written to a pipe: with data descriptors, an extra field and a comment."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    buffer = Pipe()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in MEMBERS.items():
            entry = zipfile.ZipInfo(name)
            for field, value in fields.items():
                setattr(entry, field, value)
            with archive.open(entry, "w", force_zip64=name == "b/c.txt") as member:
                member.write(content)
        archive.writestr("empty folder/", b"")
        archive.comment = b"made by a pipe"
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        streamed(),
        streamed(extra=b"UT\5\0\3\0\0\0\0", comment=b"one"),
        bytes(512) + PLAIN,
        zip_archive({**MEMBERS, "__MACOSX/._a": b"1", ".DS_Store": b"2", "e/": b""}),
    ],
    ids=["plain", "streamed", "with extra fields", "padded", "with litter"],
)
def test_fields_comments_and_padding_of_an_archive_are_not_reported(tmp_path, data) -> None:
    assert gap_details(tmp_path, data) == []


class Server(ByteSource):
    """An archive that counts the requests for its bytes."""

    def __init__(self, content: bytes) -> None:
        self.content, self.size, self.requests = content, len(content), 0

    def read_at(self, offset: int, length: int) -> bytes:
        self.requests += 1
        return self.content[offset : offset + length]


def test_the_largest_gaps_of_an_archive_on_a_server_are_found_with_few_requests() -> None:
    data = streamed(extra=b"\xfe\xca\x60\0" + bytes(0x60))
    assert read_directory(Server(data), "x", "x.zip").findings == ()
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        for number in range(1000):
            archive.writestr(str(number), b"1")
            many.write(b"x" * (100 if number != 500 else 101))
            archive.start_dir = many.tell()
    server = Server(many.getvalue())
    (finding,) = read_directory(server, "x", "x.zip").findings
    assert "10,001 bytes in 100 places" in str(finding.detail)
    assert server.requests < 300


def test_files_of_the_folder_of_macos_that_it_does_not_add_are_reported(tmp_path) -> None:
    names = ["__MACOSX/class_dataset/train/1/5_003_01.bmp", "__MACOSX/class_dataset/train/1/._5_003_01.bmp", "a.bmp"]
    archives, archive = open_zip(tmp_path, zip_archive(dict.fromkeys(names, b"1")))
    with archives:
        assert [member.name for member in archive.members] == ["a.bmp"]
    (finding,) = archive.findings
    assert (str(finding.code), finding.place.member, finding.resolution) == ("member-unused", names[0], "left out")
    assert archive.ignored == (names[1],)
    assert archive.left_out == (names[0],)


@pytest.mark.parametrize(
    "style", ["published", "preprint", "flat underscores", "browser copy", "upper case", "preprint 5mm"]
)
def test_archives_match_by_pattern_at_any_depth(tmp_path, style) -> None:
    renamed = {
        "published": lambda name: name,
        "preprint": lambda name: name.replace("mhd_", "mhd"),
        "flat underscores": lambda name: name.replace("mhd", "mhd_").replace("__", "_").replace("imgs", "imgs_"),
        "browser copy": lambda name: name.replace(".zip", " (1).zip"),
        "upper case": str.upper,
        "preprint 5mm": lambda name: name if "mhd" in name else name.replace("1.25mm", "5mm"),
    }[style]
    for index, spec in enumerate(ARCHIVES):
        folder = tmp_path / "deep" / f"part_{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / renamed(spec.name)).write_bytes(zip_archive({"x": spec.name.encode()}))
    source = open_folder(tmp_path)
    for spec in ARCHIVES:
        with ArchivePool() as archives:
            assert read_member(source.archive(spec).members[0], archives) == spec.name.encode()


def test_missing_and_ambiguous_archives_are_named(tmp_path) -> None:
    (tmp_path / "class_dataset.zip").write_bytes(zip_archive({}))
    (tmp_path / "class_dataset (1).zip").write_bytes(zip_archive({}))
    source = open_folder(tmp_path)
    with pytest.raises(ArchiveNotFoundError, match="more than one file"):
        source.archives(Role.CLASSIFICATION)
    with pytest.raises(ArchiveNotFoundError, match=r"mhd_0\.zip, 1\.25mm_3D_detection_mhd_1\.zip"):
        source.archives(Role.CT_1_25MM)


def test_a_folder_that_does_not_exist_is_an_error(tmp_path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        open_folder(tmp_path / "nowhere")
    assert open_folder(tmp_path).missing(*Role) == ARCHIVES


def test_errors_can_be_pickled() -> None:
    import pickle

    error = MemberError("is damaged", archive="a.zip", member="b.raw", expected="1", got="2", remedy="try again")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "a.zip > b.raw: is damaged; expected 1, got 2. Try again"
    assert again.member == "b.raw"
