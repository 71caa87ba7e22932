"""``--format arrow``: ``load_from_disk`` maps the build into memory, and its rows equal those of ``load``."""

from __future__ import annotations

import json

import datasets
import pytest

import lung_nodule_ct
from lung_nodule_ct.declaration.configs import DET3D_1_25MM
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.targets.arrow import ArrowLayout
from lung_nodule_ct.targets.build import build_folder
from lung_nodule_ct.targets.options import BuildOptions
from lung_nodule_ct.testing.archives import CT0, metaimage, noise_volume
from lung_nodule_ct.testing.synthetic_archives import TinyArchives


@pytest.mark.parametrize("workers", ["1", "3"])
def test_one_config_is_one_dataset_dict(cli, dummy, tmp_path, workers) -> None:
    out = tmp_path / "arrow"
    done = cli("build", "det3d_1.25mm", "--format", "arrow", "--source", dummy, "--out", out, "--num-proc", workers)
    assert done.returncode == 0, done.stderr
    opened = datasets.load_from_disk(out)
    assert opened["train"].split == "train"
    loaded = lung_nodule_ct.load("det3d_1.25mm", source=dummy, cache_dir=tmp_path / "cache")
    assert opened["train"].features == loaded["train"].features
    assert opened["train"].to_list() == loaded["train"].to_list()
    view = lung_nodule_ct.volumes(opened["train"])[3]
    assert not view.array.flags.owndata
    assert json.loads((out / "build.json").read_text())["format"] == "arrow"
    assert (out / "findings.json").is_file()


def test_each_of_several_configs_has_a_folder(cli, dummy, tmp_path) -> None:
    out = tmp_path / "arrow"
    assert cli("build", "--all", "--format", "arrow", "--source", dummy, "--out", out).returncode == 0
    assert datasets.load_from_disk(out / "det2d_1.25mm").num_rows == {"train": 13, "validation": 4, "unassigned": 1}
    row = datasets.load_from_disk(out / "cls_1.25mm")["validation"][0]
    assert row["image"].size == (24, 24)


def test_one_and_four_workers_write_the_same_files(cli, tmp_path) -> None:
    tiny = TinyArchives()
    for number in range(300, 330):
        tiny[CT0] |= metaimage(f"{number}", noise_volume(number, (8, 40, 40)))
    source = tiny.write(tmp_path / "in")
    manifests = []
    for workers in ("1", "4"):
        out = tmp_path / workers
        assert (
            cli(
                "build", "det3d_1.25mm", "--format", "arrow", "--source", source, "--out", out, "--num-proc", workers
            ).returncode
            == 0
        )
        manifests.append((out / "build.json").read_text())
    assert manifests[0] == manifests[1]


@pytest.mark.parametrize("workers", [2, 9])
def test_rows_of_many_shards_do_not_depend_on_the_number_of_workers(tmp_path, monkeypatch, workers) -> None:
    layout = ArrowLayout(nested=False, shard_bytes=40_000)
    monkeypatch.setattr(BuildOptions, "layout", lambda *_: layout)
    tiny = TinyArchives()
    for number in range(300, 312):
        tiny[CT0] |= metaimage(f"{number}", noise_volume(number, (8, 40, 40)))
    source = open_folder(tiny.write(tmp_path / "in"))
    rows = []
    for number in (1, workers):
        build_folder([DET3D_1_25MM], source, tmp_path / str(number), BuildOptions(format="arrow", num_proc=number))
        rows.append(datasets.load_from_disk(tmp_path / str(number))["train"].to_list())
    assert len(list((tmp_path / "1" / "train").glob("*.arrow"))) > 3
    assert rows[0] == rows[1]
    assert len(rows[0]) > 12


def test_a_damaged_member_stops_the_build(cli, tmp_path) -> None:
    tiny = TinyArchives()
    for number in range(300, 330):
        tiny[CT0] |= metaimage(f"{number}", noise_volume(number))
    tiny[CT0]["320.raw"] = b"short"
    out = tmp_path / "outputs"
    out.mkdir()
    for workers in ("1", "4"):
        done = cli(
            "build",
            "det3d_1.25mm",
            "--format",
            "arrow",
            "--source",
            tiny.write(tmp_path / "in"),
            "--out",
            out / "a",
            "--num-proc",
            workers,
        )
        assert done.returncode == 1
        assert "320.raw" in done.stderr
        assert not list(out.iterdir())
