"""A config that only the tests declare works in every target and command without a change of the package."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pytest
from lung_mask_2d import LUNG_MASK_2D, registered
from scan_rows import voxels

import lung_nodule_ct
from lung_nodule_ct.cli import app
from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.examples.plan import make_plan
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.testing.archives import MASKS, metaimage
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

NAME = LUNG_MASK_2D.name


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with registered():
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet build with audit, preview and card."""
    out = tmp_path_factory.mktemp("new_config") / "build"
    with registered():
        run("build", NAME, "--source", "dummy_data", "--out", str(out))
        for command in ("audit", "preview", "card"):
            run(command, str(out))
    return out


def run(*arguments: str) -> None:
    app(list(arguments), standalone_mode=False)


def masks(source: Path) -> dict[str, np.ndarray]:
    """Return the lung masks of det3d_1.25mm by scan."""
    rows = lung_nodule_ct.load("det3d_1.25mm", source=source, split="train")
    return {
        row["scan_id"]: voxels(row, "lung_mask", "u1")
        for row in rows
        if row["lung_mask"] is not None and row["lung_mask"]["bytes"] is not None
    }


def test_one_unit_yields_an_example_per_slice(built, dummy) -> None:
    units = make_plan(LUNG_MASK_2D, open_folder(dummy)).units
    build = open_build(built)
    rows = list(build.rows(NAME, "train"))
    assert len(rows) > len(units)
    expected = masks(dummy)
    by_scan = {scan: [row for row in rows if row["scan_id"] == scan] for scan in expected}
    for scan, volume in expected.items():
        assert [row["slice_index"] for row in by_scan[scan]] == list(range(len(volume)))
        assert [row["has_lung"] for row in by_scan[scan]] == [bool(labels.any()) for labels in volume]


@pytest.mark.parametrize("num_proc", [None, 2])
def test_load_dataset_prepares_and_streams_the_config(dummy, tmp_path, num_proc) -> None:
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset("lung_nodule_ct", NAME, data_dir=str(dummy), cache_dir=cache, num_proc=num_proc)
    streamed = datasets.load_dataset(
        "lung_nodule_ct", NAME, data_dir=str(dummy), cache_dir=cache, streaming=True, split="train"
    )
    volume = masks(dummy)
    labels = [np.asarray(row["mask"]) for row in loaded["train"] if row["scan_id"] in volume]
    assert len(labels) == sum(map(len, volume.values()))
    assert np.array_equal(np.stack(labels[:16]), next(iter(volume.values())))
    assert [row["slice_index"] for row in streamed] == loaded["train"]["slice_index"]


@pytest.mark.parametrize(
    "format_",
    [
        "parquet",
        "arrow",
        pytest.param("tfrecord", marks=pytest.mark.tfds),
        pytest.param("array_record", marks=pytest.mark.tfds),
    ],
)
def test_every_format_can_be_built(dummy, tmp_path, format_) -> None:
    if format_ in ("tfrecord", "array_record"):
        pytest.importorskip("tensorflow_datasets")
    out = tmp_path / "out"
    run("build", NAME, "--source", str(dummy), "--format", format_, "--out", str(out))
    manifest = json.loads((out / "build.json").read_text())
    rows = manifest["configs"][NAME]["rows"]["train"]
    if format_ == "parquet":
        assert datasets.load_dataset(str(out), NAME, cache_dir=str(tmp_path / "c"))["train"].num_rows == rows
    elif format_ == "arrow":
        assert datasets.load_from_disk(out)["train"].num_rows == rows
    elif format_ == "array_record":
        import tensorflow_datasets as tfds

        source = tfds.data_source(
            f"lung_nodule_ct/{NAME}", data_dir=out, split="train", builder_kwargs={"file_format": "array_record"}
        )
        assert len(source) == rows
        assert source[5]["slice_index"] == 5
    else:
        import tensorflow_datasets as tfds

        builder = tfds.builder(f"lung_nodule_ct/{NAME}", data_dir=out, file_format="tfrecord")
        assert builder.info.splits["train"].num_examples == rows


def test_a_split_by_patient_shares_no_patient(dummy, tmp_path) -> None:
    out = tmp_path / "out"
    run("build", NAME, "--source", str(dummy), "--split-by", "patient", "--out", str(out))
    build = open_build(out)
    patients = [{row["patient_id"] for row in build.rows(NAME, split)} for split in build.splits(NAME)]
    assert len(patients) > 1
    assert not set.intersection(*patients)


def test_card_croissant_audit_preview_and_publish_include_the_config(built, capsys) -> None:
    card = (built / "README.md").read_text()
    assert f"`{NAME}`" in card
    assert LUNG_MASK_2D.summary in card
    assert "image-segmentation" in card
    croissant = json.loads((built / "croissant.json").read_text())
    assert NAME in [record["name"] for record in croissant["recordSet"]]
    audit = json.loads((built / "audit.json").read_text())
    verdicts = {check["name"]: check["verdict"] for check in audit["checks"]}
    assert verdicts
    assert set(verdicts.values()) <= {"pass", "warn", "unknown", "fail"}
    assert NAME in (built / "preview.html").read_text()
    run("publish", str(built), "someone/somewhere", "--dry-run", "--private", "--allow", "unknown-licence")
    assert f"data/{NAME}/" in capsys.readouterr().out


def test_a_row_is_drawn(built) -> None:
    pytest.importorskip("matplotlib")
    row = datasets.load_dataset(str(built), NAME, split="train")[0]
    assert lung_nodule_ct.show(row).axes


def test_a_reader_of_the_build_needs_no_declaration(built, tmp_path) -> None:
    """A process without the declaration reads the description in the build."""
    code = f"""
from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.read.build_folder import open_build
assert {NAME!r} not in CONFIGS
build = open_build({str(built)!r})
assert build.config({NAME!r}).kind == "mask_slice"
print(next(build.rows({NAME!r}, "train"))["slice_index"], [column.name for column in build.columns({NAME!r})])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == f"0 {list(LUNG_MASK_2D.schema.names)}\n", done.stderr


def test_equal_pixels_are_one_finding_of_bounded_length(tmp_path) -> None:
    """82 blank slices of one mask are one finding, not 82, and its text does not grow with them."""
    tiny = TinyArchives()
    tiny[MASKS] = metaimage("9", np.zeros((82, 10, 12), np.int16))
    out = tmp_path / "out"
    run("build", NAME, "--source", str(tiny.write(tmp_path / "in")), "--out", str(out))
    findings = json.loads((out / "findings.json").read_text())["findings"]
    (same,) = [finding for finding in findings if finding["code"] == "same-pixels"]
    assert same["count"] == 81
    assert len(json.dumps(same)) < 1000


def test_a_second_config_or_family_of_the_same_name_is_refused() -> None:
    import dataclasses

    from lung_mask_2d import MASK_SLICES

    from lung_nodule_ct.declaration.configs import add_config
    from lung_nodule_ct.examples.family import Family
    from lung_nodule_ct.examples.plan import add_family

    add_config(LUNG_MASK_2D)  # adding the same config again changes nothing
    assert CONFIGS[NAME] is LUNG_MASK_2D
    with pytest.raises(ValueError, match="another config"):
        add_config(dataclasses.replace(LUNG_MASK_2D, summary="another"))
    with pytest.raises(ValueError, match="family"):
        add_family(LUNG_MASK_2D.kind, Family(MASK_SLICES.plan, MASK_SLICES.make))
