"""Folders of archives, by path and by URL: both are listed by the same rules and give equal builds."""

from __future__ import annotations

import fsspec
import pytest
from built import Built

from lung_nodule_ct.declaration.archives import ARCHIVES, Role
from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.errors import ArchiveError, ArchiveNotFoundError, SourceError
from lung_nodule_ct.sources.byte_sources import FsspecFile
from lung_nodule_ct.sources.resolve import open_folder, open_source
from lung_nodule_ct.sources.unrecognised import describe_unrecognised
from lung_nodule_ct.targets.build import build_folder
from lung_nodule_ct.testing.archives import CLS, CT0, DET2D, THICK0, zip_archive


@pytest.fixture
def bucket(dummy):
    """The embedded archives as objects of a store in memory."""
    files = fsspec.filesystem("memory")
    for path in dummy.rglob("*.zip"):
        files.pipe_file(f"/bucket/deep/{path.parent.name}/{path.name}", path.read_bytes())
    yield "memory://bucket"
    files.rm("/bucket", recursive=True)


def test_a_bucket_and_a_folder_give_equal_builds(bucket, dummy, tmp_path):
    configs = list(CONFIGS.values())
    build_folder(configs, open_source(bucket, configs), tmp_path / "url")
    build_folder(configs, open_folder(dummy), tmp_path / "folder")
    for config in CONFIGS:
        assert Built(tmp_path / "url").rows(config) == Built(tmp_path / "folder").rows(config)
    assert Built(tmp_path / "url").report == Built(tmp_path / "folder").report


@pytest.mark.slow
def test_worker_processes_can_read_a_url(dummy, cli, tmp_path):
    for number, source in enumerate((dummy, f"file://{dummy}")):
        done = cli("build", "det2d_1.25mm", "--num-proc", "2", "--source", source, "--out", tmp_path / str(number))
        assert done.returncode == 0, done.stderr
    assert Built(tmp_path / "0").rows("det2d_1.25mm") == Built(tmp_path / "1").rows("det2d_1.25mm")


def test_load_accepts_a_url(bucket, dummy):
    import lung_nodule_ct

    rows = lung_nodule_ct.load("cls_1.25mm", source=bucket, split="train")
    assert rows[:]["image_id"] == lung_nodule_ct.load("cls_1.25mm", source=dummy, split="train")[:]["image_id"]


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_folders_are_listed_by_the_same_rules(tmp_path, prefix):
    folder = tmp_path / "in"
    for name in (
        "deep/deeper/class_dataset.zip",
        "deep/1.25mm_2D_detection.zip",
        "1.25mm_2D_detection (1).zip",
        ".hidden/1.25mm_3D_detection_mhd_0.zip",
        "__MACOSX/1.25mm_3D_detection_mhd_1.zip",
        "other.zip",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(zip_archive({}))
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "5mm_3D_detection_mhd0.zip").write_bytes(zip_archive({}))
    (folder / "link").symlink_to(tmp_path / "linked")
    (folder / "link again").symlink_to(tmp_path / "linked")
    (tmp_path / "linked" / "back").symlink_to(folder)
    (folder / "broken.zip").symlink_to(tmp_path / "nowhere")
    source = open_folder(f"{prefix}{folder}")
    assert {spec.name for spec in ARCHIVES if source.has(spec)} == {CLS, DET2D, THICK0}
    assert [file.name for file in source.unrecognised] == ["broken.zip", "other.zip"]
    assert source.archives(Role.CLASSIFICATION)[0].location.endswith("in/deep/deeper/class_dataset.zip")
    with pytest.raises(ArchiveNotFoundError, match=r"more than one file.*\(1\)\.zip, .*deep/1\.25mm_2D"):
        source.archives(Role.DETECTION_2D)
    with pytest.raises(SourceError, match="is not a folder"):
        open_folder(f"{prefix}{folder}/other.zip")


@pytest.mark.parametrize(
    ("url", "message"),
    [("memory://nowhere", "does not exist"), ("nosuch://bucket", "cannot be"), ("abfs://x/y", "adlfs")],
)
def test_a_url_that_cannot_be_opened_is_an_error(url, message):
    with pytest.raises(SourceError, match=message):
        open_folder(url)


def test_an_object_that_was_removed_or_truncated_is_an_error(bucket):
    files = fsspec.filesystem("memory")
    path = files.find("/bucket")[0]
    archive = FsspecFile(f"memory:/{path}")
    assert archive.read_at(0, 4) == b"PK\x03\x04"
    assert archive.read_at(archive.size - 2, 100) == files.cat_file(path)[-2:]
    files.pipe_file(path, b"PK")
    with pytest.raises(ArchiveError, match="expected 10 bytes"):
        archive.read_at(0, 10)
    files.rm(path)
    with pytest.raises(ArchiveError, match="could not be read"):
        archive.read_at(0, 10)
    with pytest.raises(ArchiveError, match="could not be opened"):
        FsspecFile(f"memory:/{path}")


@pytest.mark.parametrize(
    ("names", "spec", "words"),
    [
        ([f"{CLS}?download=1"], CLS, [f"rename it to {CLS}"]),
        ([f"{CLS}.1"], CLS, [f"rename it to {CLS}"]),
        (["class_dataset - Copy.zip"], CLS, [f"rename it to {CLS}"]),
        (["class_dataset - 副本.zip"], CLS, [f"rename it to {CLS}"]),
        ([f"{CLS}.crdownload"], CLS, ["not complete"]),
        (["CLASS_DATASET.RAR"], CLS, [f"pack its content as a zip archive named {CLS}"]),
        (["class_dataset.tar.gz"], CLS, [CLS]),
        (["class_dataset.part1.rar", "class_dataset.part2.rar"], CLS, ["unpack them", CLS]),
        (["class_dataset.7z.001", "class_dataset.7z.002"], CLS, ["unpack them", CLS]),
        ([f"{CLS}.001", f"{CLS}.002"], CLS, [f"cat {CLS}.001 {CLS}.002 > joined.zip"]),
        ([f"{CLS}aa", f"{CLS}ab"], CLS, [f"cat {CLS}aa {CLS}ab > joined.zip"]),
        (["class_dataset.z01", "class_dataset.z02"], CLS, [f"zip -s 0 {CLS} --out joined.zip"]),
        (["1.25mm_3D_detection_mhd_9.zip"], CT0, ["number 9 of a series", CT0]),
        (["1.25mm_3D_detection_mhd.zip"], CT0, ["without a number", CT0]),
        (["classdataset.zip"], CLS, [CLS]),
        (["a/class_dataset/train/1/a.bmp", "a/class_dataset/train/2/b.bmp"], CLS, ["loose files", CLS]),
        (["80.mhd"], None, ["loose files"]),
        (["12582356.zip"], None, ["unpack it"]),
        (["thesis.pdf"], None, ["not an archive of this dataset"]),
    ],
)
def test_files_that_are_no_archive_are_described(names, spec, words):
    (entry,) = describe_unrecognised(names)
    assert entry.count == len(names)
    assert (entry.specs[0].name if entry.specs else None) == spec
    assert all(word in str(entry) for word in words)
    if spec is None:
        assert entry.kind == f"*.{names[0].rpartition('.')[2]}"


def test_litter_is_not_described():
    names = [".DS_Store", "a/Thumbs.db", "._x.zip", "desktop.ini", f"{CLS}.proof"]
    assert describe_unrecognised(names) == ()


def test_many_loose_files_give_one_entry_per_folder_and_extension():
    names = [f"imgs/{case:05d}/{number}.bmp" for case in range(300) for number in range(30)]
    (entry,) = describe_unrecognised(names)
    assert (entry.name, entry.count) == ("imgs/*.bmp", 9000)


def test_an_archive_that_is_missing_is_named_with_its_near_misses(tmp_path):
    (tmp_path / f"{CLS}?download=1").write_bytes(zip_archive({}))
    with pytest.raises(ArchiveNotFoundError, match=rf"{CLS}\?download=1.*rename it to {CLS}"):
        open_folder(tmp_path).archives(Role.CLASSIFICATION)
