"""Reading a finished build: the values of the shards, and errors that state what is wrong with a folder."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset, load_from_disk

from lung_nodule_ct.declaration.labels import SplitBy
from lung_nodule_ct.errors import BuildFolderError
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.read.rows import split_rows
from lung_nodule_ct.targets.options import BuildOptions


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_rows_equal_those_of_the_loaded_dataset(cli, tmp_path, dummy, format_):
    out = tmp_path / "out"
    assert cli("build", "--all", "--source", dummy, "--format", format_, "--out", out).returncode == 0
    build = open_build(out)
    assert build.format == format_
    for config, splits in build.configs.items():
        for split, count in splits.items():
            if format_ == "arrow":
                dataset = load_from_disk(str(out / config))[split]
            else:
                dataset = load_dataset(str(out), config, split=split, cache_dir=str(tmp_path / "cache"))
            expected = dataset.with_format("arrow")[:].to_pylist()
            rows = build.rows(config, split)
            for row, other in zip(rows, expected, strict=True):
                assert list(row) == dataset.column_names
                for name, value in row.items():
                    if isinstance(value, np.ndarray):
                        assert value.tobytes() == other[name]["bytes"]
                        assert list(value.shape) == other[name]["shape"]
                    elif isinstance(value, bytes):
                        assert value == other[name]["bytes"]
                    else:
                        assert value == other[name]
            ids = [name for name in build.metadata_columns(config) if name.endswith("_id")]
            expected_ids = [row for index, row in enumerate(build.rows(config, split, ids)) if index in (0, count - 1)]
            assert list(build.rows(config, split, ids, sorted({0, count - 1}))) == expected_ids


def _damage(folder: Path, fault: str) -> Path:
    match fault:
        case "missing":
            return folder / "missing"
        case "empty":
            (folder / "sub").mkdir()
            return folder / "sub"
        case "no manifest":
            (folder / "build.json").unlink()
        case "another version":
            document = json.loads((folder / "build.json").read_text())
            (folder / "build.json").write_text(json.dumps(document | {"format_version": 99}))
        case "invalid json":
            (folder / "build.json").write_text("{")
        case "shard missing":
            next(folder.rglob("*.parquet")).unlink()
        case "shard cut":
            shard = next(folder.rglob("*.parquet"))
            shard.write_bytes(shard.read_bytes()[:-1])
    return folder


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "there is no folder"),
        ("empty", "is empty"),
        ("no manifest", "an incomplete one"),
        ("another version", "got version 99"),
        ("invalid json", "cannot be read"),
        ("shard missing", "is missing"),
        ("shard cut", "not as it was built"),
    ],
)
def test_a_folder_that_is_not_a_build_is_refused(build, dummy, fault, message):
    folder = build(dummy, "cls_1.25mm").folder
    with pytest.raises(BuildFolderError, match=message):
        open_build(_damage(folder, fault))


def test_a_missing_config_split_column_or_row_is_an_error(build, dummy):
    opened = open_build(build(dummy, "cls_1.25mm").folder)
    for arguments in (
        ("det2d_1.25mm", "train"),
        ("cls_1.25mm", "test"),
        ("cls_1.25mm", "train", ["nothing"]),
        ("cls_1.25mm", "train", None, [10**6]),
        ("cls_1.25mm", "train", None, [1, 0]),
    ):
        with pytest.raises(BuildFolderError):
            list(opened.rows(*arguments))


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_rows_of_several_shards_are_found_by_their_numbers(build, dummy, monkeypatch, format_):
    layout = BuildOptions.layout
    monkeypatch.setattr(BuildOptions, "layout", lambda *args: dataclasses.replace(layout(*args), shard_bytes=20_000))
    opened = open_build(build(dummy, "det3d_1.25mm", format=format_).folder)
    assert len(opened.files("det3d_1.25mm", "train")) > 2
    rows = list(opened.rows("det3d_1.25mm", "train", ["scan_id"]))
    again = pickle.loads(pickle.dumps(opened))
    for picked in ([0], [3], [1, 2, 5], [], range(len(rows))):
        expected = [rows[number] for number in picked]
        for each in (opened, again):
            assert list(each.rows("det3d_1.25mm", "train", ["scan_id"], picked)) == expected


def test_a_shard_with_a_flipped_bit_is_an_error(build, dummy):
    folder = build(dummy, "cls_1.25mm").folder
    shard = next(folder.rglob("train*.parquet"))
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(BuildFolderError, match="cannot be read"):
        list(open_build(folder).rows("cls_1.25mm", "train"))


def test_no_copy_for_training_is_kept_of_a_damaged_shard(build, dummy, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNG_NODULE_CT_CACHE", str(tmp_path / "cache"))
    folder = build(dummy, "cls_1.25mm").folder
    shard = next(folder.rglob("train*.parquet"))
    sound = shard.read_bytes()
    draw = np.random.default_rng(0)
    for position in draw.integers(0, len(sound), 40):
        content = bytearray(sound)
        content[position] ^= 1 << int(draw.integers(8))
        shard.write_bytes(content)
        with pytest.raises(BuildFolderError):
            split_rows(open_build(folder), "cls_1.25mm", "train", SplitBy.PUBLISHED)
        assert not (tmp_path / "cache").exists()
    shard.write_bytes(sound)
    rows = split_rows(open_build(folder), "cls_1.25mm", "train", SplitBy.PUBLISHED)
    expected = [row["image"] for row in open_build(folder).rows("cls_1.25mm", "train")]
    assert [rows.picture(index) for index in range(len(rows))] == expected
