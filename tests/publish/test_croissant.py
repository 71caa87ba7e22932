"""croissant.json: it is valid for mlcroissant, and its records are the rows of ``load_dataset``."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.publish.card_folder import CardOptions, add_card
from lung_nodule_ct.publish.croissant import croissant_text
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.testing.archives import MASKS, NODULES, table
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

mlc = pytest.importorskip("mlcroissant")


@pytest.fixture(scope="module")
def carded(dummy_build, tmp_path_factory) -> Path:
    """A build of all configs, with its card."""
    out = tmp_path_factory.mktemp("croissant") / "lung_nodule_ct"
    shutil.copytree(dummy_build("parquet"), out)
    add_card(open_build(out), CardOptions(examples=4, croissant=True))
    return out


@pytest.fixture(scope="module")
def dataset(carded) -> Any:
    """The file, read by mlcroissant."""
    return mlc.Dataset(jsonld=str(carded / "croissant.json"))


def plain(value: Any, prefix: str) -> Any:
    """A value of a record as ``load_dataset`` returns it: names without path, text for bytes, numbers of Python."""
    match value:
        case dict():
            return {name.removeprefix(f"{prefix}/"): plain(own, name) for name, own in value.items()}
        case list():
            return [plain(own, prefix) for own in value]
        case bytes():
            return value if prefix.endswith("/bytes") else value.decode()
        case np.generic():
            return value.item()
        case Image.Image():
            return np.asarray(value.convert("RGB")).tolist()
    return value


def loaded(value: Any) -> Any:
    """A value of ``load_dataset``, for the comparison."""
    match value:
        case Image.Image():
            return np.asarray(value.convert("RGB")).tolist()
        case list():
            return [loaded(own) for own in value]
        case dict():
            return {name: loaded(own) for name, own in value.items()}
    return value


def assert_same_records(folder: Path, dataset: Any, config: str, cache: Path) -> list[dict[str, Any]]:
    """Compare all records of a config with the rows of ``load_dataset``, and return the rows."""
    splits = datasets.load_dataset(str(folder), config, cache_dir=str(cache))
    expected = {split: [loaded(row) for row in own] for split, own in splits.items()}
    records: dict[str, list[dict[str, Any]]] = {split: [] for split in expected}
    for record in dataset.records(config):
        row = plain(record, config)
        split = row.pop("split_of_shard") if config == "preview" else row.pop("split")
        for name in ("volume", "lung_mask"):
            if name in row and row[name]["bytes"] is None:  # a struct that is null has null fields
                assert row[name].pop("shape") is None
                row[name] = None
        records[split].append(row)
    assert records == expected
    return [row for rows in expected.values() for row in rows]


@pytest.mark.parametrize("config", [*CONFIGS, "preview"])
@pytest.mark.slow
def test_records_are_the_rows_of_load_dataset(carded, dataset, config, tmp_path) -> None:
    rows = assert_same_records(carded, dataset, config, tmp_path)
    assert all(len(row["volume"]["bytes"]) for row in rows if "volume" in row)


def test_nulls_are_nulls(build, tmp_path) -> None:
    tiny = TinyArchives()
    tiny[NODULES]["annotations.csv"] = table("9,900,900,900,4", "9,-6.0,-17.0,33.0,3", "7_20180102,-6.0,-17.0,33.0,3")
    del tiny[MASKS]["9.mhd"], tiny[MASKS]["9.raw"]
    folder = build(tiny.write(tmp_path / "in"), "det3d_1.25mm").folder
    add_card(open_build(folder), CardOptions(examples=1, croissant=True))
    dataset = mlc.Dataset(jsonld=str(folder / "croissant.json"))
    rows = assert_same_records(folder, dataset, "det3d_1.25mm", tmp_path)
    assert {row["lung_mask"] is None for row in rows} == {True, False}
    assert {nodule["box_voxel"] is None for row in rows for nodule in row["nodules"]} == {True, False}
    assert [] in [row["nodules"] for row in rows]
    assert {row["days_since_first"] is None for row in rows} == {True, False}


@pytest.mark.slow
def test_a_config_of_an_unknown_kind_is_described(build, dummy, tmp_path) -> None:
    from lung_mask_2d import LUNG_MASK_2D, register, unregister

    register()
    try:
        folder = build(dummy, LUNG_MASK_2D.name).folder
    finally:
        unregister()
    (folder / "croissant.json").write_text(croissant_text(open_build(folder)))
    dataset = mlc.Dataset(jsonld=str(folder / "croissant.json"))
    assert len(assert_same_records(folder, dataset, LUNG_MASK_2D.name, tmp_path)) == 95


def test_it_is_valid_croissant_1_1(carded, dataset) -> None:
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    # this build knows neither a date of publication nor a licence, and neither is invented
    assert len(issues.warnings) == 2
    assert all("datePublished" in text or "license" in text for text in issues.warnings)
    document = json.loads((carded / "croissant.json").read_text())
    assert document["conformsTo"] == ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
    assert dataset.metadata.ctx.is_v1_1()
    assert {name for name in document if name.startswith("rai:")} >= {
        f"rai:{name}"
        for name in [
            "dataCollection",
            "dataBiases",
            "dataLimitations",
            "dataUseCases",
            "personalSensitiveInformation",
            "dataAnnotationProtocol",
            "dataPreprocessingProtocol",
            "dataReleaseMaintenancePlan",
        ]
    }


def test_every_shard_is_listed_with_its_hash(carded) -> None:
    document = json.loads((carded / "croissant.json").read_text())
    files = {entry["contentUrl"]: entry for entry in document["distribution"] if entry["@type"] == "cr:FileObject"}
    assert set(files) == {path.relative_to(carded).as_posix() for path in carded.rglob("*.parquet")}
    for name, entry in files.items():
        content = (carded / name).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["contentSize"] == f"{len(content)} B"


def test_boxes_are_arrays_with_their_frame(carded) -> None:
    document = json.loads((carded / "croissant.json").read_text())
    seen = 0
    for record_set in document["recordSet"]:
        for field in record_set["field"]:
            for part in field.get("subField", ()):
                if part["name"] == "box_voxel":
                    assert (part["isArray"], part["arrayShape"], part["dataType"]) == (True, "6", "cr:Int32")
                    assert f"`{record_set['@id']}/volume`" in part["description"]
                    seen += 1
                if part["name"].startswith("center_"):
                    assert (part["isArray"], part["arrayShape"], part["dataType"]) == (True, "3", "cr:Float64")
                    assert "Frame" in part["description"]
    assert seen == 4


def test_one_split_can_be_read_alone(carded, dataset) -> None:
    records = list(
        mlc.Dataset(jsonld=str(carded / "croissant.json")).records(
            "cls_1.25mm", filters={"cls_1.25mm/split": "validation"}
        )
    )
    assert len(records) == open_build(carded).configs["cls_1.25mm"]["validation"]


@pytest.mark.slow
def test_without_mlcroissant_there_is_no_file_and_a_hint(build, dummy, python, tmp_path) -> None:
    folder = build(dummy, "cls_1.25mm").folder
    code = (
        "import sys; sys.modules['mlcroissant'] = None; sys.argv[1:] = ['card', {!r}, '--examples', '1', {!r}]; "
        "from lung_nodule_ct.cli import main; main()"
    )
    done = python(code.format(str(folder), "--croissant"), cwd=tmp_path)
    assert done.returncode == 1
    assert 'pip install "lung_nodule_ct[croissant]"' in done.stderr
    done = python(code.format(str(folder), "--repository=me/nodules"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'croissant.json was left out: pip install "lung_nodule_ct[croissant]"' in done.stdout
    assert not (folder / "croissant.json").exists()
