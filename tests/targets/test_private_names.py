"""No name, date or number of the source that identifies a patient is in any file that leaves the builder, and no id reveals a date."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from datetime import date, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from identifying import TEXTS, check_files, contents, searched

from lung_nodule_ct import CONFIGS
from lung_nodule_ct.testing.archives import (
    BMP0,
    BMP_TABLES,
    CLS,
    CT0,
    DET2D,
    MASKS,
    NODULES,
    THICK0,
    metaimage,
    noise_picture,
    noise_volume,
    voc_annotation,
    workbook,
)
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

IN_NAMES = tuple(text.translate(str.maketrans("/\\:", "--.")) for text in TEXTS)
"""The texts as they can occur in the name of a file."""


def private_archives() -> TinyArchives:
    """Archives in which every text of the corpus is in every place where a file of the source has words."""
    tiny = TinyArchives()
    rows, workbook_rows, boxes, lists = [], [["image", "xmin", "ymin", "xmax", "ymax"]], [], []
    for number, (text, name) in enumerate(zip(TEXTS, IN_NAMES, strict=True)):
        keys = {"Comment": text, "PatientName": text, name.replace("=", ""): "1", "AnatomicalOrientation": text}
        for stem in (name, f"78_{name}", f"{number + 100}_20180102_{name}"):
            tiny[CT0] |= metaimage(stem, noise_volume(number), **(keys if stem == name else {}))
            tiny[MASKS] |= metaimage(stem, noise_volume(number))
            tiny[THICK0] |= metaimage(stem, noise_volume(number))
        rows += [
            f'"{name}",-6,-17,33,3',
            f'"absent {name}",1,2,3,4',
            f"{text},1,2",
            f'7_20180102,1,2,3,"{text}"',
            f"# {text}",
        ]
        for stem in (f"{name}_001", f"78_{name}_001"):
            picture = noise_picture(number, kind="JPEG")
            tiny[DET2D][f"JPEGImages/{stem}.jpg"] = picture
            tiny[DET2D][f"Annotations/{stem}.xml"] = voc_annotation(
                (2, 3, 9, 11), filename=f"{name}.jpg", name=_xml(text)
            )
            tiny[CLS][f"class_dataset/train/1/{stem}.bmp"] = tiny[CLS][f"class_dataset/validate/2/{stem}.bmp"] = (
                noise_picture(number)
            )
            lists.append(f"{stem}\n{stem} absent")
        tiny[DET2D][f"Annotations/absent {name}.xml"] = voc_annotation((2, 3, 9, 11))
        tiny[DET2D][f"Annotations/7_20180102_002 {name}.xml"] = b"<broken>" + text.encode()
        workbook_rows += [[f"{name}_001.jpg", 1, 2, 5, 6], [text, 1, 2, text, 6]]
        tiny[CLS][f"class_dataset/train/{name}/1.bmp"] = noise_picture(number)
        tiny[BMP0] |= {f"imgs/{name}/{k}.bmp": noise_picture(number + k) for k in (1, 2, 4)}
        boxes += [
            f'"{name}",1,2,3,4,5,6,7',
            f'"absent {text}",1,2,3,4,5,6,7',
            f'00001,1,2,3,4,5,6,"{text}"',
            f'00001,"{text}",2',
        ]
        for archive in (CT0, CLS, DET2D, BMP0, BMP_TABLES, NODULES, MASKS):
            tiny[archive] |= {f"{name}.doc": b"1", f"{name}/notes.txt": b"1"}
    tiny[NODULES]["annotations.csv"] += "\n".join(rows).encode()
    tiny[BMP_TABLES]["image_annotation_augment_diameter.csv"] += "\n".join(boxes).encode()
    tiny[BMP_TABLES]["train.txt"] += "\n".join(f"{name}\nabsent {name}" for name in IN_NAMES).encode()
    tiny[DET2D]["ImageSets/Main/train.txt"] += "\n".join(lists).encode()
    tiny[DET2D]["VOC_CT.xlsx"] = workbook(workbook_rows)
    tiny[CLS]["class_dataset/READ_ME.txt"] = "\n".join(
        ["train", *(f"1: 7 {text}\n{text}\n{text}: 3" for text in TEXTS)]
    ).encode()
    return tiny


def _xml(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = private_archives().write(tmp_path_factory.mktemp("source") / "in")
    for name in IN_NAMES:
        (folder / f"{name}.mhd").write_bytes(b"1")
        (folder / f"{name}.zip").write_bytes(b"1")
    return folder


NEEDLES = tuple(dict.fromkeys(part for text in (*TEXTS, *IN_NAMES) for part in searched(text.encode())))


@pytest.mark.parametrize("format_", ["parquet", "arrow", "tfrecord", "array_record"])
def test_no_text_of_the_corpus_is_in_a_build_or_in_what_is_made_from_it(source, cli, tmp_path, format_) -> None:
    if format_ in ("tfrecord", "array_record"):
        pytest.importorskip("array_record")
    assert len(set(TEXTS)) >= 44
    out = tmp_path / "out" / "build"
    done = cli("build", "--all", "--source", source, "--out", out, "--format", format_)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "findings.json").read_text())
    assert len({finding["code"] for finding in report["findings"]}) > 20
    assert any("<name>" in str(finding["member"]) for finding in report["findings"])
    if format_ == "parquet":
        for command in (("preview", out), ("card", out), ("audit", out), ("publish", out, "a/b", "--dry-run")):
            cli(*command)
        for config, formats in {
            "det2d_1.25mm": ("coco", "yolo", "voc"),
            "det3d_1.25mm": ("nifti", "nndetection", "luna16", "nnunet", "slicer", "hub-nifti"),
        }.items():
            for to in formats:
                done = cli("export", out, config, "--to", to, "--out", tmp_path / "out" / to)
                assert done.returncode == 0, done.stderr
    assert check_files(tmp_path / "out", NEEDLES) > 5
    for path in (tmp_path / "out").rglob("*"):
        assert not any(
            needle.decode("utf-8", "ignore") in path.name
            for needle in NEEDLES
            if len(needle.decode("utf-8", "ignore")) > 5
        )


def test_the_search_finds_what_a_build_with_source_names_keeps(source, cli, tmp_path) -> None:
    out = tmp_path / "out"
    assert cli("build", "det3d_1.25mm", "--source", source, "--out", out, "--keep-source-names").returncode == 0
    with pytest.raises(AssertionError):
        check_files(out, NEEDLES)


def guesses(patients: list[str], days: list[date]) -> set[str]:
    """What hashes of a patient and a date look like, for an attacker who knows the code of all versions."""
    found = set()
    for patient in patients:
        for day in days:
            for written in (f"{day:%Y%m%d}", f"{day:%Y-%m-%d}"):
                texts = [
                    f"lung_nodule_ct/1\x1fscan\x1f{patient}\x1f{written}",  # the ids of version 1
                    f"{patient}_{written}",
                    f"{patient}-{written}",
                    f"{patient}{written}",
                    f"{patient}_{written}.mhd",
                    written,
                ]
                for text in texts:
                    data = text.encode()
                    found.add(base64.b32encode(hashlib.sha256(data).digest()[:10]).decode().lower())
                    found |= {hashlib.new(name, data).hexdigest()[:16] for name in ("sha256", "sha1", "md5", "blake2b")}
                    found |= {f"{zlib.crc32(data):08x}", str(zlib.crc32(data)), str(zlib.adler32(data))}
                found |= {written, str(day.toordinal()), f"{day:%y%m%d}"}
    return found


DAYS = [date(2000, 1, 1) + timedelta(number) for number in range(365 * 27)]


@pytest.fixture(scope="module")
def tried() -> set[str]:
    """What an attacker tries for some patients of the embedded archives."""
    return guesses(["3", "12", "27", "41"], DAYS)


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_an_attacker_gets_no_date_back(dummy_build, tried, format_) -> None:
    """All dates from 2000 to 2026, all hashes that the package has, and every word of every file of the build."""
    folder = dummy_build(format_)
    words: set[str] = set()
    for path in folder.rglob("*"):
        if path.is_file():
            for content in contents(path):
                if len(content) < 1 << 22:
                    words |= {word.decode() for word in re.findall(rb"[0-9A-Za-z]{6,64}", content)}
    words |= {word[start : start + 16] for word in words for start in range(0, max(1, len(word) - 15), 16)}
    assert len(tried) > 500_000
    allowed = {str(day.toordinal()) for day in DAYS}
    assert words.isdisjoint({guess for guess in tried - allowed if len(guess) > 6})


@pytest.mark.parametrize("format_", ["parquet", "arrow", "tfrecord", "array_record"])
def test_archives_of_other_dates_in_the_same_order_give_the_same_build(cli, tmp_path, format_) -> None:
    """No byte of a build depends on a date: neither an id nor a hash of a header, a table or a directory."""
    if format_ in ("tfrecord", "array_record"):
        pytest.importorskip("array_record")
    builds = []
    for number, (first, second) in enumerate([("20180102", "20190304"), ("20210609", "20220809")]):  # 426 days each
        tiny = TinyArchives()
        moved = {
            name: {
                member.replace("20180102", first).replace("20190304", second): data
                if member.endswith((".xlsx", ".raw", ".jpg", ".bmp"))
                else data.replace(b"20180102", first.encode()).replace(b"20190304", second.encode())
                for member, data in members.items()
            }
            for name, members in tiny.items()
        }
        del moved[DET2D]["VOC_CT.xlsx"]
        tiny.clear()
        tiny.update(moved)
        out = tmp_path / str(number) / "build"
        done = cli(
            "build", "--all", "--source", tiny.write(tmp_path / f"in{number}"), "--out", out, "--format", format_
        )
        assert done.returncode == 0, done.stderr
        if format_ == "parquet":
            for command in ("card", "audit", "preview"):
                assert cli(command, out).returncode == 0
        builds.append(
            {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        )
    different = [name for name in builds[0].keys() | builds[1].keys() if builds[0].get(name) != builds[1].get(name)]
    assert different == []


def test_ids_of_all_configs_are_numbers_and_join(dummy_build) -> None:
    folder = dummy_build()
    scans: dict[str, set[str]] = {}
    for config in CONFIGS:
        for path in (folder / "data" / config).glob("*.parquet"):
            table = pq.read_table(path)
            for column in ("scan_id", "image_id", "case_id"):
                if column in table.column_names:
                    for own in table.column(column).to_pylist():
                        assert own is None or re.fullmatch(
                            r"[0-9]{1,5}-[0-9]+[a-z]*(_[0-9]{1,4}(_[0-9]{1,3})?[a-z]*)?|image-[0-9]+|[0-9]{5}", own
                        )
            if "scan_id" in table.column_names:
                scans.setdefault(config, set()).update(table.column("scan_id").to_pylist())
    assert scans["det2d_1.25mm"] - {None} <= scans["det3d_1.25mm"]
    assert scans["det3d_5mm"] <= scans["det3d_1.25mm"]
    manifest = json.loads((folder / "build.json").read_text())
    assert manifest["scan_numbers"]["archives"][:2] == ["class_dataset.zip", "1.25mm_2D_detection.zip"]
