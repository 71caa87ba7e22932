"""Fuzz every parser of untrusted input with atheris.

    python tests/fuzz/parsers.py                       # all targets, 60 seconds together
    python tests/fuzz/parsers.py --seconds 3600 voc    # one target, an hour
    python tests/fuzz/parsers.py voc FILE              # one input again, for example one that libFuzzer saved as crash-...

A target passes if the parser returns or raises the error that it documents. Everything else is a fault: another exception, more than 512 MiB,
more than 5 seconds for one input, or pixels that change when metadata are removed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

MEMORY_MIB = 512
SECONDS_PER_INPUT = 5
_MAX_INPUT = 1 << 16
_MAX_READ = 1 << 22


def _archive_of(data: bytes) -> dict[str, bytes]:
    """A header and its elements, separated by the first zero byte."""
    head, _, rest = data.partition(b"\0")
    return {"a/7.mhd": head, "a/7.raw": rest}


def fuzz_header(data: bytes) -> None:
    from lung_nodule_ct.formats.metaimage_header import HeaderError, parse_header

    with suppress(HeaderError):
        parse_header(data)


def fuzz_volume(data: bytes) -> None:
    from lung_nodule_ct.errors import LungNoduleCTError
    from lung_nodule_ct.formats.metaimage_volume import open_metaimage
    from lung_nodule_ct.sources.byte_sources import MemoryFile
    from lung_nodule_ct.sources.source import ArchivePool
    from lung_nodule_ct.testing.archives import zip_archive

    with ArchivePool({"a.zip": MemoryFile(zip_archive(_archive_of(data)))}) as archives:
        members = {member.suffix: member for member in archives.directory("a.zip").members}
        with suppress(LungNoduleCTError):
            image = open_metaimage(members[".mhd"], [members[".raw"]], archives)
            read = 0
            for slab in image.slabs():
                read += slab.nbytes
                if read > _MAX_READ:
                    break


def fuzz_zip(data: bytes) -> None:
    from lung_nodule_ct.errors import ArchiveError, LungNoduleCTError, MemberError
    from lung_nodule_ct.sources.byte_sources import MemoryFile
    from lung_nodule_ct.sources.source import ArchivePool
    from lung_nodule_ct.sources.zip_member import read_member

    with ArchivePool({"a.zip": MemoryFile(data)}) as archives:
        try:
            directory = archives.directory("a.zip")
        except (ArchiveError, MemberError):
            return
        for member in directory.members:
            assert not member.name.startswith("/")
            assert ".." not in member.name.split("/")
            with suppress(LungNoduleCTError):
                assert len(read_member(member, archives, limit=_MAX_READ)) == member.size


def fuzz_voc(data: bytes) -> None:
    from lung_nodule_ct.formats.voc import parse_voc

    with suppress(ValueError):
        parse_voc(data)


def fuzz_nodules(data: bytes) -> None:
    from lung_nodule_ct.formats.tables import parse_nodules

    with suppress(ValueError):
        parse_nodules(data)


def fuzz_boxes(data: bytes) -> None:
    from lung_nodule_ct.formats.tables import parse_boxes

    with suppress(ValueError):
        parse_boxes(data)


def fuzz_list(data: bytes) -> None:
    from lung_nodule_ct.formats.split_lists import parse_split_list

    with suppress(ValueError):
        list(parse_split_list(data))


def fuzz_workbook(data: bytes) -> None:
    from lung_nodule_ct.formats.workbook import parse_workbook

    with suppress(ValueError):
        parse_workbook(data, "VOC_CT.xlsx")


def fuzz_picture(data: bytes) -> None:
    from lung_nodule_ct.formats.pictures import decode_picture, find_metadata, without_metadata

    find_metadata(data)
    with suppress(ValueError):
        picture = decode_picture(data)
        published, _ = without_metadata(data, picture)
        assert decode_picture(published).equals(picture)


def fuzz_record(data: bytes) -> None:
    from lung_nodule_ct.errors import DownloadError
    from lung_nodule_ct.sources.records import parse_record

    with suppress(DownloadError):
        parse_record(data, "https://zenodo.org", 7)


def fuzz_names(data: bytes) -> None:
    from lung_nodule_ct.declaration.dates import count_dates
    from lung_nodule_ct.declaration.identity import (
        ScanNumbers,
        parse_image_name,
        parse_volume_name,
        redact_name,
        redact_row,
    )

    text = data.decode("utf-8", "surrogateescape")
    names = [parse_volume_name(text), parse_image_name(text)]
    numbers = ScanNumbers(names)
    ids = [numbers.scan_id(name) or "" for name in names] + numbers.image_ids([(text, name) for name in names])
    assert not any(count_dates(own, within_words=True) for own in ids)
    assert not count_dates(redact_name(text), within_words=True)
    assert not count_dates(redact_row(f"line 3: {text}"), within_words=True)


TARGETS: dict[str, Callable[[bytes], None]] = {
    name.removeprefix("fuzz_"): function for name, function in list(globals().items()) if name.startswith("fuzz_")
}


def seeds(target: str) -> list[bytes]:
    """Valid inputs of a target, from which the fuzzer starts."""
    from lung_nodule_ct.testing import archives as made

    volume = made.metaimage("7", made.noise_volume())
    header, raw = (next(data for name, data in volume.items() if name.endswith(end)) for end in (".mhd", ".raw"))
    boxes = made.stack_tables({"00001": (1, 1, 1, 3, 3, 3)}, {"00001": 5.0}, [])
    own: dict[str, list[bytes]] = {
        "header": [header],
        "volume": [header + b"\0" + raw],
        "zip": [made.zip_archive(volume), made.zip_archive(volume, method=0)],
        "voc": [made.voc_annotation((1, 2, 5, 6), filename="7_20180102_001.jpg")],
        "nodules": [made.table("seriesuid,coordX,coordY,coordZ,diameter_mm", "7_20180102,-5,-16,32,6")],
        "boxes": [data for name, data in boxes.items() if name.endswith(".csv")],
        "list": [b"7_20180102_001\n7_20180102_002.jpg 1,2,3,4,0\n"],
        "workbook": [made.workbook([("7_20180102_001.jpg", 1, 2, 5, 6)])],
        "picture": [made.noise_picture(1, (8, 6), kind) for kind in ("BMP", "PNG", "JPEG")],
        "record": [
            b'{"id": 7, "metadata": {"title": "a"}, "files": [{"key": "a.zip", "size": 1, "checksum": "md5:00"}]}'
        ],
        "names": [b"80_20190314_008_02", b"78_03Feb2017", "张三".encode()],
    }
    return own[target]


def run(target: str, seconds: int, folder: Path) -> int:
    """Fuzz one target in a process of its own, and return its exit code."""
    corpus = folder / target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(data)
    limits = [
        f"-max_total_time={seconds}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-timeout={SECONDS_PER_INPUT}",
        f"-max_len={_MAX_INPUT}",
    ]
    command = [
        sys.executable,
        __file__,
        "--inside",
        target,
        *limits,
        f"-artifact_prefix={folder}/{target}-",
        str(corpus),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = [line for line in done.stderr.splitlines() if "stat::" in line or "DONE" in line or "Done" in line][-1:]
    print(f"{target}: {'passed' if done.returncode == 0 else 'FAILED'} {' '.join(last)}", flush=True)
    if done.returncode:
        print(done.stderr[-6000:])
    return done.returncode


def main() -> int:
    """Run the command line."""
    if sys.argv[1:2] == ["--inside"]:
        import atheris

        target, *arguments = sys.argv[2:]
        with atheris.instrument_imports(include=["lung_nodule_ct"]):
            seeds(target)
            import lung_nodule_ct.formats.metaimage_volume
            import lung_nodule_ct.formats.pictures
            import lung_nodule_ct.formats.voc
            import lung_nodule_ct.formats.workbook
            import lung_nodule_ct.sources.records  # noqa: F401 -- imported here, so that atheris sees the branches
        atheris.Setup([sys.argv[0], *arguments], TARGETS[target])
        atheris.Fuzz()
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?", choices=TARGETS, help="one target; all by default")
    parser.add_argument("file", nargs="?", type=Path, help="one input, which is given to the target once")
    parser.add_argument("--seconds", type=int, default=60, help="time for all targets together")
    arguments = parser.parse_args()
    if arguments.file:
        TARGETS[arguments.target](arguments.file.read_bytes())
        return 0
    names = [arguments.target] if arguments.target else list(TARGETS)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    return max(run(name, max(1, arguments.seconds // len(names)), folder) for name in names)


if __name__ == "__main__":
    sys.exit(main())
