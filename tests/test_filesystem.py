"""Sources by URL: what fsspec opens gives what a folder gives, and says what is wrong where it cannot."""

from __future__ import annotations

import fsspec
import pytest
from built import Built

from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.errors import ArchiveError, SourceError
from lung_nodule_ct.sources.byte_sources import FsspecFile
from lung_nodule_ct.sources.resolve import open_folder, open_source
from lung_nodule_ct.targets.build import build_folder


@pytest.fixture
def bucket(dummy):
    """The embedded archives as objects of a store that has no paths on this machine."""
    files = fsspec.filesystem("memory")
    for path in dummy.rglob("*.zip"):
        files.pipe_file(f"/bucket/deep/{path.parent.name}/{path.name}", path.read_bytes())
    yield "memory://bucket"
    files.rm("/bucket", recursive=True)


def test_a_bucket_builds_what_a_folder_builds(bucket, dummy, tmp_path):
    configs = list(CONFIGS.values())
    build_folder(configs, open_source(bucket, configs), tmp_path / "url")
    build_folder(configs, open_folder(dummy), tmp_path / "folder")
    for config in CONFIGS:
        assert Built(tmp_path / "url").rows(config) == Built(tmp_path / "folder").rows(config)
    assert Built(tmp_path / "url").report == Built(tmp_path / "folder").report


def test_a_url_goes_to_worker_processes(dummy, cli, tmp_path):
    for number, source in enumerate((dummy, f"file://{dummy}")):
        done = cli("build", "det2d_1.25mm", "--num-proc", "2", "--source", source, "--out", tmp_path / str(number))
        assert done.returncode == 0, done.stderr
    assert Built(tmp_path / "0").rows("det2d_1.25mm") == Built(tmp_path / "1").rows("det2d_1.25mm")


def test_load_dataset_takes_a_url(bucket, dummy):
    import lung_nodule_ct

    rows = lung_nodule_ct.load("cls_1.25mm", source=bucket, split="train")
    assert rows[:]["image_id"] == lung_nodule_ct.load("cls_1.25mm", source=dummy, split="train")[:]["image_id"]


@pytest.mark.parametrize(
    ("url", "says"),
    [("memory://nowhere", "does not exist"), ("nosuch://bucket", "cannot be"), ("abfs://x/y", "adlfs")],
)
def test_what_cannot_be_opened_is_said(url, says):
    with pytest.raises(SourceError, match=says):
        open_folder(url)


def test_an_object_that_is_gone_or_was_cut(bucket):
    files = fsspec.filesystem("memory")
    place = files.find("/bucket")[0]
    opened = FsspecFile(f"memory:/{place}")
    assert opened.read_at(0, 4) == b"PK\x03\x04"
    assert opened.read_at(opened.size - 2, 100) == files.cat_file(place)[-2:]
    files.pipe_file(place, b"PK")
    with pytest.raises(ArchiveError, match="expected 10 bytes"):
        opened.read_at(0, 10)
    files.rm(place)
    with pytest.raises(ArchiveError, match="could not be read"):
        opened.read_at(0, 10)
    with pytest.raises(ArchiveError, match="could not be opened"):
        FsspecFile(f"memory:/{place}")
