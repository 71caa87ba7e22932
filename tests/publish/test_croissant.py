"""``croissant.json`` is valid for mlcroissant, and its records are the rows of ``load_dataset``."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from altered import alter_manifest
from PIL import Image

from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.publish.card_folder import CardOptions, add_card
from lung_nodule_ct.publish.croissant import croissant_text
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.testing.archives import MASKS, NODULES, table
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

mlc = pytest.importorskip("mlcroissant")


@pytest.fixture(scope="module")
def with_card(dummy_build, tmp_path_factory) -> Path:
    """A build of all configs, with its card."""
    out = tmp_path_factory.mktemp("croissant") / "lung_nodule_ct"
    shutil.copytree(dummy_build("parquet"), out)
    add_card(open_build(out), CardOptions(examples=4, croissant=True))
    return out


@pytest.fixture(scope="module")
def dataset(with_card) -> Any:
    """The dataset that mlcroissant reads."""
    return mlc.Dataset(jsonld=str(with_card / "croissant.json"))


def plain(value: Any, prefix: str) -> Any:
    """Convert a value of a record to that of ``load_dataset``: names without path, text for bytes, Python numbers."""
    match value:
        case dict():
            return {name.removeprefix(f"{prefix}/"): plain(item, name) for name, item in value.items()}
        case list():
            return [plain(item, prefix) for item in value]
        case bytes():
            return value if prefix.endswith("/bytes") else value.decode()
        case np.generic():
            return value.item()
        case Image.Image():
            return np.asarray(value.convert("RGB")).tolist()
    return value


def loaded(value: Any) -> Any:
    """Convert a value of ``load_dataset`` for the comparison: images to pixels."""
    match value:
        case Image.Image():
            return np.asarray(value.convert("RGB")).tolist()
        case list():
            return [loaded(item) for item in value]
        case dict():
            return {name: loaded(item) for name, item in value.items()}
    return value


def assert_same_records(folder: Path, dataset: Any, config: str, cache: Path) -> list[dict[str, Any]]:
    """Compare all records of a config with the rows of ``load_dataset``, and return the rows."""
    splits = datasets.load_dataset(str(folder), config, cache_dir=str(cache))
    expected = {split: [loaded(row) for row in rows] for split, rows in splits.items()}
    records: dict[str, list[dict[str, Any]]] = {split: [] for split in expected}
    for record in dataset.records(config):
        row = plain(record, config)
        split = row.pop("split_of_shard") if config == "preview" else row.pop("split")
        for name in ("volume", "lung_mask"):
            if name in row and row[name]["bytes"] is None:  # mlcroissant returns a null struct with null fields
                assert row[name].pop("shape") is None
                row[name] = None
        records[split].append(row)
    assert records == expected
    return [row for rows in expected.values() for row in rows]


@pytest.mark.parametrize("config", [*CONFIGS, "preview"])
@pytest.mark.slow
def test_records_are_the_rows_of_load_dataset(with_card, dataset, config, tmp_path) -> None:
    rows = assert_same_records(with_card, dataset, config, tmp_path)
    assert all(len(row["volume"]["bytes"]) for row in rows if "volume" in row)


def test_null_values_stay_null(build, tmp_path) -> None:
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
    from lung_mask_2d import LUNG_MASK_2D, registered

    with registered():
        folder = build(dummy, LUNG_MASK_2D.name).folder
    (folder / "croissant.json").write_text(croissant_text(open_build(folder)))
    dataset = mlc.Dataset(jsonld=str(folder / "croissant.json"))
    assert len(assert_same_records(folder, dataset, LUNG_MASK_2D.name, tmp_path)) == 95


def test_there_are_no_warnings_if_the_records_are_known(build, dummy) -> None:
    folder = build(dummy, "cls_1.25mm").folder
    for days, expected in ((["2024-06-28", "2024-07-01"], "2024-07-01"), (["2024-06-28", None], None)):
        records = [
            {"number": number, "doi": f"10.5072/{number}", "licence": "cc-by-4.0", "datePublished": day}
            for number, day in enumerate(days, 1)
        ]
        alter_manifest(folder, lambda document, records=records: document.update(records=records))
        text = croissant_text(open_build(folder))
        assert json.loads(text).get("datePublished", "").split("T")[0] == (expected or "")
        (folder / "croissant.json").write_text(text)
        issues = mlc.Dataset(jsonld=str(folder / "croissant.json")).metadata.ctx.issues
        assert not issues.errors
        assert bool(issues.warnings) == (expected is None)
    assert "Phantoms, not patients" in json.loads(text)["description"]


def test_it_is_valid_croissant_1_1(with_card, dataset) -> None:
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    # the date of publication and the licence are unknown to this build
    assert len(issues.warnings) == 2
    assert all("datePublished" in text or "license" in text for text in issues.warnings)
    document = json.loads((with_card / "croissant.json").read_text())
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


def test_every_shard_is_listed_with_its_hash(with_card) -> None:
    document = json.loads((with_card / "croissant.json").read_text())
    files = {entry["contentUrl"]: entry for entry in document["distribution"] if entry["@type"] == "cr:FileObject"}
    assert set(files) == {path.relative_to(with_card).as_posix() for path in with_card.rglob("*.parquet")}
    for name, entry in files.items():
        content = (with_card / name).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["contentSize"] == f"{len(content)} B"


def test_boxes_are_arrays_with_their_frame(with_card) -> None:
    document = json.loads((with_card / "croissant.json").read_text())
    count = 0
    for record_set in document["recordSet"]:
        for field in record_set["field"]:
            for part in field.get("subField", ()):
                if part["name"] == "box_voxel":
                    assert (part["isArray"], part["arrayShape"], part["dataType"]) == (True, "6", "cr:Int32")
                    assert f"`{record_set['@id']}/volume`" in part["description"]
                    count += 1
                if part["name"].startswith("center_"):
                    assert (part["isArray"], part["arrayShape"], part["dataType"]) == (True, "3", "cr:Float64")
                    assert "Frame" in part["description"]
    assert count == 4


def test_one_split_can_be_read_alone(with_card, dataset) -> None:
    records = list(
        mlc.Dataset(jsonld=str(with_card / "croissant.json")).records(
            "cls_1.25mm", filters={"cls_1.25mm/split": "validation"}
        )
    )
    assert len(records) == open_build(with_card).configs["cls_1.25mm"]["validation"]


@pytest.mark.slow
def test_without_mlcroissant_there_is_no_file_and_the_message_names_the_extra(build, dummy, python, tmp_path) -> None:
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
