"""Builds and error messages do not depend on the decompression library: libdeflate, ISA-L or the standard library."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib

import pytest
from built import Built

from lung_nodule_ct.testing.archives import CT0
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

WITHOUT = {
    "libdeflate": "import sys; sys.modules['imagecodecs'] = None",
    "libdeflate and ISA-L": "import sys; sys.modules['imagecodecs'] = sys.modules['isal'] = None",
}
BUILD = "import sys; sys.argv[1:] = {arguments!r}; from lung_nodule_ct.cli import main; main()"


@pytest.mark.parametrize("missing", WITHOUT)
@pytest.mark.slow
def test_a_build_is_the_same_without_a_library(missing, cli, python, dummy, tmp_path):
    arguments = ["build", "--all", "--source", str(dummy), "--out"]
    assert cli(*arguments, tmp_path / "with").returncode == 0
    code = f"{WITHOUT[missing]}\n{BUILD.format(arguments=[*arguments, str(tmp_path / 'without')])}"
    done = python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    hashes = [json.loads((tmp_path / name / "build.json").read_text())["configs"] for name in ("with", "without")]
    assert hashes[0] == hashes[1]


FAULTS = ("flipped", "cut", "longer", "trailing")
BUILDS = """
import sys
from lung_nodule_ct.cli import main
for fault in {faults!r}:
    sys.argv[1:] = ["build", "det3d_1.25mm", "--source", f"in/{{fault}}", "--out", f"{out}/{{fault}}"]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    print("exit status of", fault, code or 0, file=sys.stderr)
"""


@pytest.mark.slow
def test_damage_is_reported_the_same_by_every_library(python, tmp_path):
    for fault in FAULTS:
        source = TinyArchives().write(tmp_path / "in" / fault)
        _damage(next(source.rglob(CT0)), "9.raw", fault)
    outcomes: dict[str, set[tuple[int, tuple[str, ...], str]]] = {fault: set() for fault in FAULTS}
    for number, without in enumerate(("", *WITHOUT.values())):
        out = f"out{number}"
        done = python(f"{without}\n{BUILDS.format(faults=FAULTS, out=out)}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        errors = []
        for line in done.stderr.splitlines():
            if line.startswith("error: "):
                errors.append(line.partition("is damaged: ")[0])
            elif line.startswith("exit status of "):
                fault, code = line.split()[-2:]
                rows = None
                if code == "0":
                    rows = [row["scan_id"] for row in Built(tmp_path / out / fault).rows("det3d_1.25mm")]
                outcomes[fault].add((int(code), tuple(errors), str(rows)))
                errors = []
    for fault, outcome in outcomes.items():
        assert len(outcome) == 1, fault
        (code, errors, _) = outcome.pop()
        assert (code == 0) == (fault == "trailing")
        assert all("9.raw" in error for error in errors)


def _damage(archive, member, fault):
    """Damage the compressed data of one member; both headers state the new length."""
    with zipfile.ZipFile(archive) as file:
        contents = {info.filename: file.read(info) for info in file.infolist()}
        info = next(info for info in file.infolist() if info.filename.endswith(member))
    packed = {}
    for name, content in contents.items():
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed[name] = (packer.compress(content) + packer.flush(), zlib.crc32(content), len(content))
    data, crc, size = packed[info.filename]
    match fault:
        case "flipped":
            data = data[:-9] + bytes([data[-9] ^ 0x10]) + data[-8:]
        case "cut":
            data = data[: len(data) // 2]
        case "longer":
            packer = zlib.compressobj(6, zlib.DEFLATED, -15)
            data = packer.compress(contents[info.filename] + b"more") + packer.flush()
        case "trailing":
            data += b"data after the end of the stream"
    packed[info.filename] = (data, crc, size)
    archive.write_bytes(_zip(packed))


def _zip(members):
    """Return a zip archive of members that are given as deflated content, CRC-32 and size."""
    body, directory = b"", b""
    for name, (data, crc, size) in members.items():
        encoded = name.encode()
        common = struct.pack("<HHHHHIIIHH", 20, 0x800, 8, 0, 0x21, crc, len(data), size, len(encoded), 0)
        directory += (
            b"PK\x01\x02" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + encoded
        )
        body += b"PK\x03\x04" + common + encoded + data
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    return body + directory + b"PK\x05\x06" + end
