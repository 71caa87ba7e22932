"""Reading a finished build: the same values as the shards hold, and errors that say what is wrong with a folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset, load_from_disk

from lung_nodule_ct.errors import BuildFolderError
from lung_nodule_ct.read.build_folder import open_build


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_rows_are_what_the_dataset_holds(cli, tmp_path, dummy, form):
    out = tmp_path / "out"
    assert cli("build", "--all", "--source", dummy, "--format", form, "--out", out).returncode == 0
    build = open_build(out)
    assert build.format == form
    for config, splits in build.configs.items():
        for split, count in splits.items():
            if form == "arrow":
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
            some = [row for place, row in enumerate(build.rows(config, split, ids)) if place in (0, count - 1)]
            assert list(build.rows(config, split, ids, sorted({0, count - 1}))) == some


def _break(folder: Path, how: str) -> Path:
    match how:
        case "nowhere":
            return folder / "nowhere"
        case "empty":
            (folder / "sub").mkdir()
            return folder / "sub"
        case "no manifest":
            (folder / "build.json").unlink()
        case "another version":
            document = json.loads((folder / "build.json").read_text())
            (folder / "build.json").write_text(json.dumps(document | {"format_version": 99}))
        case "no json":
            (folder / "build.json").write_text("{")
        case "shard missing":
            next(folder.rglob("*.parquet")).unlink()
        case "shard cut":
            shard = next(folder.rglob("*.parquet"))
            shard.write_bytes(shard.read_bytes()[:-1])
    return folder


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("nowhere", "there is no folder"),
        ("empty", "is empty"),
        ("no manifest", "an incomplete one"),
        ("another version", "got version 99"),
        ("no json", "cannot be read"),
        ("shard missing", "is missing"),
        ("shard cut", "not as it was built"),
    ],
)
def test_what_is_no_build_is_refused(build, dummy, how, says):
    folder = build(dummy, "cls_1.25mm").folder
    with pytest.raises(BuildFolderError, match=says):
        open_build(_break(folder, how))


def test_what_a_build_lacks_is_named(build, dummy):
    made = open_build(build(dummy, "cls_1.25mm").folder)
    for arguments in (
        ("det2d_1.25mm", "train"),
        ("cls_1.25mm", "test"),
        ("cls_1.25mm", "train", ["nothing"]),
        ("cls_1.25mm", "train", None, [10**6]),
        ("cls_1.25mm", "train", None, [1, 0]),
    ):
        with pytest.raises(BuildFolderError):
            list(made.rows(*arguments))


def test_a_shard_with_a_flipped_bit_is_not_shown(build, dummy):
    folder = build(dummy, "cls_1.25mm").folder
    shard = next(folder.rglob("train*.parquet"))
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(BuildFolderError, match="cannot be read"):
        list(open_build(folder).rows("cls_1.25mm", "train"))
