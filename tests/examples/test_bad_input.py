"""Input that cannot be built: exit code 1, one line that names archive and member, no traceback and no output."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from lung_nodule_ct.testing.archives import (
    BMP0,
    BMP_TABLES,
    CLS,
    CT0,
    CT1,
    DET2D,
    MASKS,
    NODULES,
    THICK0,
    THICK1,
    metaimage_header,
    noise_picture,
    overwrite_zip_field,
    zip_archive,
)
from lung_nodule_ct.testing.synthetic_archives import TinyArchives


def colour_picture() -> bytes:
    """Return an encoded picture in colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 16), (1, 2, 3)).save(buffer, "BMP")
    return buffer.getvalue()


@pytest.fixture
def refused(tmp_path, cli):
    """Build a config, check that the command fails, and return its error message."""

    def run(source: Path, config: str, *options: str) -> str:
        out = tmp_path / "outputs"
        out.mkdir(exist_ok=True)
        done = cli("build", config, "--source", source, "--out", out / "hub", *options)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stderr + done.stdout
        assert list(out.iterdir()) == []
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        return line

    return run


def damaged(tiny: TinyArchives, folder: Path, archive: str, member: str) -> Path:
    """Change one byte of the compressed data of a member."""
    source = tiny.write(folder)
    data = bytearray((source / archive).read_bytes())
    at = data.index(member.encode()) + len(member) + 20
    data[at] ^= 0xFF
    (source / archive).write_bytes(bytes(data))
    return source


@pytest.mark.parametrize(
    ("archive", "member", "config"),
    [
        (CT0, "9.raw", "det3d_1.25mm"),
        (MASKS, "9.raw", "det3d_1.25mm"),
        (NODULES, "annotations.csv", "det3d_1.25mm"),
        (DET2D, "JPEGImages/9_004.jpg", "det2d_1.25mm"),
        (DET2D, "Annotations/9_004.xml", "det2d_1.25mm"),
        (BMP0, "imgs/00001/3.bmp", "det3d_bmp_1.25mm"),
    ],
)
def test_a_damaged_member_is_an_error_that_names_it(tmp_path, refused, archive, member, config) -> None:
    message = refused(damaged(TinyArchives(), tmp_path / "in", archive, member), config)
    assert archive in message
    assert member in message
    assert "Download the archive again" in message


@pytest.mark.parametrize(
    ("change", "config", "names"),
    [
        (
            lambda t: t[CT0].update({"9.raw": t[CT0]["9.raw"][:-1]}),
            "det3d_1.25mm",
            [CT0, "9.mhd", "9.raw", "1,440", "1,439"],
        ),
        (
            lambda t: t[CT0].update({"9.mhd": metaimage_header("9", ElementDataFile="../x.raw")}),
            "det3d_1.25mm",
            [CT0, "9.mhd", "../x.raw"],
        ),
        (
            lambda t: t[CT0].update({"9.mhd": metaimage_header("9", DimSize="12 10 7")}),
            "det3d_1.25mm",
            [CT0, "9.mhd", "12 x 10 x 7"],
        ),
        (
            lambda t: t[DET2D].update({"JPEGImages/9_004.jpg": b"\xff\xd8\xff cut"}),
            "det2d_1.25mm",
            [DET2D, "9_004.jpg"],
        ),
        (
            lambda t: t[DET2D].update({"JPEGImages/9_004.jpg": noise_picture(kind="GIF")}),
            "det2d_1.25mm",
            [DET2D, "9_004.jpg"],
        ),
        (
            lambda t: t[BMP0].update({"imgs/00001/3.bmp": noise_picture(size=(9, 9))}),
            "det3d_bmp_1.25mm",
            [BMP0, "imgs/00001/3.bmp", "9 x 9"],
        ),
        *(
            (
                lambda t, field=field, value=value: t[CT0].update({"9.mhd": metaimage_header("9", **{field: value})}),
                "det3d_1.25mm",
                [CT0, "9.mhd", value],
            )
            for field, value in (
                ("ElementSpacing", "0,8"),
                ("ElementType", "MET_HALF"),
                ("NDims", "4"),
            )
        ),
        (lambda t: t[NODULES].clear(), "det3d_1.25mm", [NODULES, "annotations.csv"]),
        (lambda t: t[BMP_TABLES].clear(), "det3d_bmp_1.25mm", [BMP_TABLES, "image_annotation_augment_diameter.csv"]),
    ],
)
def test_an_invalid_member_is_an_error_that_names_it(tmp_path, refused, change, config, names) -> None:
    tiny = TinyArchives()
    change(tiny)
    message = refused(tiny.write(tmp_path / "in"), config)
    for name in names:
        assert name in message
    assert "ownload" not in message  # the archive is intact
    assert "report" in message or "Nothing outside the archive" in message


@pytest.mark.parametrize(
    ("archive", "member", "config"),
    [
        (CT0, "9.mhd", "det3d_1.25mm"),
        (CT0, "9.raw", "det3d_1.25mm"),
        (MASKS, "9.raw", "det3d_1.25mm"),
        (NODULES, "annotations.csv", "det3d_1.25mm"),
        (CLS, "class_dataset/train/5/9_001_02.bmp", "cls_1.25mm"),
        (DET2D, "JPEGImages/9_004.jpg", "det2d_1.25mm"),
        (DET2D, "Annotations/9_004.xml", "det2d_1.25mm"),
        (DET2D, "ImageSets/Main/train.txt", "det2d_1.25mm"),
        (DET2D, "VOC_CT.xlsx", "det2d_1.25mm"),
        (BMP0, "imgs/00001/3.bmp", "det3d_bmp_1.25mm"),
        (BMP_TABLES, "train.txt", "det3d_bmp_1.25mm"),
    ],
)
def test_a_git_lfs_pointer_instead_of_a_member_is_an_error(tmp_path, refused, archive, member, config) -> None:
    tiny = TinyArchives()
    tiny[archive][member] = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"
    message = refused(tiny.write(tmp_path / "in"), config)
    assert f"{archive} > {member}: is a Git LFS pointer and not the data" in message
    assert "`git lfs pull`" in message


@pytest.mark.parametrize(
    ("slice_", "expected"),
    [
        (b"\xff\xd8\xff cut", "is damaged; expected a JPEG, BMP or PNG picture"),
        (b"not a picture", "is damaged; expected a JPEG, BMP or PNG picture"),
        (colour_picture(), "is not a slice; expected 8-bit grey values, got a colour picture"),
    ],
)
def test_an_invalid_slice_is_reported_once(tmp_path, refused, slice_, expected) -> None:
    tiny = TinyArchives()
    tiny[BMP0]["imgs/00001/3.bmp"] = slice_
    message = refused(tiny.write(tmp_path / "in"), "det3d_bmp_1.25mm")
    assert f"imgs/00001/3.bmp: {expected}" in message
    assert message.count("imgs/00001/3.bmp") == message.count("expected") == 1
    assert "object at 0x" not in message


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, "missing"),
        (b"", "empty file"),
        (b"version https://git-lfs.github.com/spec/v1\nsize 9\n", "Git LFS pointer"),
        (b"<!DOCTYPE html>", "HTML"),
        (zip_archive({"a": bytes(999)})[:-9], "broke off"),
        (overwrite_zip_field(zip_archive({"9.mhd": b"x" * 99}), "flags", 1), "encrypted"),
    ],
)
def test_a_missing_or_invalid_archive_is_an_error_that_names_it(tmp_path, refused, data, expected) -> None:
    source = TinyArchives().write(tmp_path / "in")
    if data is None:
        (source / CT0).unlink()
    else:
        (source / CT0).write_bytes(data)
    message = refused(source, "det3d_1.25mm")
    assert CT0 in message
    assert expected in message


@pytest.mark.parametrize(
    ("archives", "config"),
    [([CLS], "cls_1.25mm"), ([DET2D], "det2d_1.25mm"), ([CT0, CT1], "det3d_1.25mm"), ([CT0, CT1], "longitudinal")],
)
def test_a_config_whose_archives_hold_something_else_is_not_built(tmp_path, refused, archives, config) -> None:
    tiny = TinyArchives()
    for archive in archives:
        tiny[archive] = {"holiday.txt": b"a foreign archive"}
    if config == "longitudinal":
        tiny[THICK0] = {}
        tiny[THICK1] = {}
    message = refused(tiny.write(tmp_path / "in"), config)
    assert all(archive in message for archive in archives)
    assert "nothing of what they should contain" in message


def test_an_archive_that_holds_something_else_is_an_error_finding(tmp_path, refused, build) -> None:
    tiny = TinyArchives()
    tiny[CT1] = {CT1: zip_archive(tiny[CT1])}
    source = tiny.write(tmp_path / "in")
    (finding,) = build(source, "det3d_1.25mm").findings("archive-empty")
    assert (finding["grade"], finding["archive"]) == ("error", CT1)
    assert "it holds itself once more" in finding["detail"]
    assert "archive-empty" in refused(source, "det3d_1.25mm", "--strict")


def test_files_that_are_no_archive_are_findings_of_the_configs_that_may_need_them(tmp_path, build) -> None:
    source = TinyArchives().write(tmp_path / "in")
    (source / "1.25mm_3D_detection_mhd_9.zip").write_bytes(zip_archive({"a.mhd": b""}))
    (source / "80_20200101.mhd").write_bytes(b"")
    built = build(source, "det3d_1.25mm", "cls_1.25mm")
    findings = {(entry["config"], entry["archive"]) for entry in built.findings("file-unrecognised")}
    assert findings == {
        ("det3d_1.25mm", f"{CT0}, {CT1}, {MASKS}, {NODULES}"),
        ("det3d_1.25mm", "*.mhd"),
        ("cls_1.25mm", "*.mhd"),
    }


def test_a_member_name_outside_the_archive_is_an_error(tmp_path, refused) -> None:
    tiny = TinyArchives()
    tiny[DET2D]["../../escaped.jpg"] = noise_picture()
    message = refused(tiny.write(tmp_path / "in"), "det2d_1.25mm")
    assert DET2D in message
    assert "../../escaped.jpg" in message
    assert not (tmp_path.parent / "escaped.jpg").exists()


def test_control_characters_in_a_name_are_escaped(tmp_path, refused) -> None:
    tiny = TinyArchives()
    tiny[DET2D]["JPEGImages/7\n_\x1b[31m_\u202e1.jpg"] = b"\xff\xd8\xff cut"
    message = refused(tiny.write(tmp_path / "in"), "det2d_1.25mm")
    assert "JPEGImages/7\\n_\\x1b[31m_\\u202e1.jpg" in message


def test_a_source_that_does_not_exist_is_an_error(tmp_path, refused) -> None:
    assert "does not exist" in refused(tmp_path / "nowhere", "det2d_1.25mm")


def test_errors_of_worker_processes_name_the_member(tmp_path, refused, monkeypatch) -> None:
    tiny = TinyArchives()
    for number in range(300, 320):
        tiny[CT0] |= {f"{number}.mhd": metaimage_header(str(number)), f"{number}.raw": bytes(1440)}
    tiny[CT0]["310.raw"] = b"short"
    message = refused(tiny.write(tmp_path / "in"), "det3d_1.25mm", "--num-proc", "2")
    assert "310.raw" in message


def test_a_folder_that_is_not_a_build_is_not_replaced(tmp_path, cli) -> None:
    source = TinyArchives().write(tmp_path / "in")
    out = tmp_path / "documents"
    out.mkdir()
    (out / "thesis.tex").write_text("written by the user")
    done = cli("build", "det2d_1.25mm", "--source", source, "--out", out)
    assert done.returncode == 1
    assert "not the result of a previous build" in done.stderr
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_strict_refuses_errors_and_accepts_warnings(tmp_path, refused, cli) -> None:
    tiny = TinyArchives()
    tiny[DET2D]["JPEGImages/9_005.jpg"] = noise_picture(9, kind="JPEG")
    done = cli(
        "build",
        "det2d_1.25mm",
        "--strict",
        "--source",
        tiny.write(tmp_path / "warned"),
        "--out",
        tmp_path / "warned out",
    )
    assert done.returncode == 0
    tiny[DET2D]["ImageSets/Main/val.txt"] += b"absent\n"
    message = refused(tiny.write(tmp_path / "in"), "det2d_1.25mm", "--strict")
    assert "listed-but-missing" in message
    assert "absent" in message
