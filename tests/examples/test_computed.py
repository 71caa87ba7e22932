"""What a build computes from voxels when it is asked to: lung masks, key slices, and tracks of nodules over time."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("SimpleITK")

from chest_archives import SCANS, ChestArchives, chest

import lung_nodule_ct
from lung_nodule_ct.errors import OptionError
from lung_nodule_ct.testing.archives import CLS, CT0, CT1, MASKS, metaimage, noise_volume
from lung_nodule_ct.testing.phantoms import PhantomNodule, make_chest

FIRST, SECOND, OTHER = SCANS
THIN, THICK, TIME = "det3d_1.25mm", "det3d_5mm", "longitudinal"
TRACK = [
    "track_id",
    "track_confidence",
    "track_event",
    "track_parent_id",
    "track_ended",
    "track_reason",
    "track_pathology",
]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Phantom chests: patient 7 with two dates, patient 9 with one."""
    return ChestArchives().write(tmp_path_factory.mktemp("chests"))


def nodules_of(built, config) -> dict[str, dict]:
    return {nodule["nodule_id"]: nodule for row in built.rows(config) for nodule in row["nodules"]}


def test_without_an_option_nothing_is_computed(build, source) -> None:
    built = build(source, THIN, THICK, TIME)
    assert [row["lung_mask_origin"] for row in built.rows(THIN)] == ["published"] * 3
    assert [row["lung_mask_origin"] for row in built.rows(THICK)] == [None] * 3
    for config in (THIN, THICK, TIME):
        for row in built.rows(config):
            for nodule in row["nodules"]:
                assert nodule["key_slice"] == np.floor(nodule["center_voxel"][2] + 0.5)
                assert nodule["key_slice_basis"] == "centre"
    assert {nodule[name] for nodule in nodules_of(built, TIME).values() for name in TRACK} == {None}
    assert not set(TRACK) & set(next(iter(nodules_of(built, THIN).values())))
    computed = json.loads((built.folder / "build.json").read_text())["configs"][TIME]["computed"]
    assert computed == {"lung_masks": False, "key_slices": "centre", "tracks": False}


def test_masks_are_made_only_where_none_is_published(build, tmp_path) -> None:
    archives = ChestArchives()
    del archives[MASKS][f"{FIRST}.mhd"], archives[MASKS][f"{FIRST}.raw"]
    archives[MASKS] |= metaimage(SECOND, np.zeros((2, 3, 4), np.uint8))  # refused: another shape
    source = archives.write(tmp_path / "in")
    before, built = build(source, THIN).by_name(THIN), build(source, THIN, THICK, make_lung_masks=True)
    rows = built.by_name(THIN)
    assert {name: row["lung_mask_origin"] for name, row in rows.items()} == {
        FIRST: "made",
        SECOND: "made",
        OTHER: "published",
    }
    assert before[FIRST]["lung_mask"] is None
    assert rows[OTHER]["lung_mask"] == before[OTHER]["lung_mask"]
    for name in (FIRST, SECOND):
        made = np.frombuffer(rows[name]["lung_mask"]["bytes"], np.uint8).reshape(rows[name]["lung_mask"]["shape"])
        expected = chest(name).lung_mask
        assert set(np.unique(made)) <= {0, 3, 4, 7}
        assert 2 * ((made > 0) & (expected > 0)).sum() / ((made > 0).sum() + (expected > 0).sum()) > 0.97
        assert rows[name]["volume"] == before[name]["volume"]
    assert [row["lung_mask_origin"] for row in built.rows(THICK)] == ["made"] * 3
    assert sum(finding["count"] for finding in built.findings("lung-mask-made")) == 5
    assert [finding["action"] for finding in built.findings("mask-missing")] == ["one is made"]
    assert [finding["action"] for finding in built.findings("mask-shape")] == ["not used"]


def test_a_scan_without_lungs_has_no_made_mask(build, tmp_path) -> None:
    archives = ChestArchives()
    archives[CT0] |= metaimage(FIRST, noise_volume(1, (12, 40, 50)))
    del archives[MASKS][f"{FIRST}.mhd"], archives[MASKS][f"{FIRST}.raw"]
    built = build(archives.write(tmp_path / "in"), THIN, make_lung_masks=True)
    row = built.by_name(THIN)[FIRST]
    assert row["lung_mask"] is None
    assert row["lung_mask_origin"] is None
    assert len(built.findings("lung-mask-not-made")) == 1


def test_key_slices_follow_the_voxels_and_say_so(build, tmp_path) -> None:
    archives = ChestArchives()
    for row in archives.nodules:
        row[3] += 2.5  # two slices off the nodule
    archives.nodules.append([OTHER, 0.0, 0.0, 500.0, 9.0])
    archives.nodules.append([OTHER, 0.0, -100.0, 0.0, 9.0])
    archives.write_tables()
    source = archives.write(tmp_path / "in")
    built = build(source, THIN, key_slices="evidence")
    for name, row in built.by_name(THIN).items():
        nodule, true = row["nodules"][0], chest(name).voxel_of(SCANS[name])[2]
        assert nodule["key_slice_basis"] == "evidence"
        assert abs(nodule["key_slice"] - true) <= 1 < abs(nodule["center_voxel"][2] - true)
    _, outside, nothing = built.by_name(THIN)[OTHER]["nodules"]
    assert (outside["key_slice"], outside["key_slice_basis"]) == (None, None)
    assert nothing["key_slice_basis"] == "centre"


@pytest.fixture(scope="module")
def tracked_source(tmp_path_factory):
    """Patient 7 has a second nodule at the second date, which only the first one is not."""
    archives = ChestArchives()
    born = PhantomNodule((-70.0, 12.0, 0.0), 14.0)
    archives.set_scan(
        SECOND, make_chest(chest(SECOND).volume.shape, chest(SECOND).frame.spacing, [SCANS[SECOND], born], seed=1)
    )
    for rows in (archives.nodules, archives.thick_nodules):
        rows.append([SECOND, *born.center_world, born.diameter_mm])
    archives.write_tables()
    picture = archives[CLS].pop("class_dataset/validate/1/7_20190304_003_03.bmp")
    archives[CLS]["class_dataset/validate/1/7_20180102_003_03.bmp"] = picture  # all of class 1
    return archives.write(tmp_path_factory.mktemp("tracked"))


def test_nodules_are_tracked_over_dates_and_thicknesses(build, tracked_source) -> None:
    built = build(tracked_source, TIME, track=True)
    found = {
        key: tuple(nodule[name] for name in ("track_id", "track_event"))
        for key, nodule in nodules_of(built, TIME).items()
    }
    assert found == {
        "7-1_1.25mm_0": ("7-t1", "first"),
        "7-1_5mm_0": ("7-t1", "first"),
        "7-2_1.25mm_0": ("7-t1", "continued"),
        "7-2_5mm_0": ("7-t1", "continued"),
        "7-2_1.25mm_1": (None, "born"),
        "7-2_5mm_1": (None, "born"),
    }
    nodules = nodules_of(built, TIME)
    assert nodules["7-2_1.25mm_0"]["track_confidence"] > 0.9
    assert nodules["7-2_1.25mm_1"]["track_reason"]
    (finding,) = built.findings("not-tracked")
    assert finding["count"] == 2
    assert "4 of 6 nodules belong to 1 tracks" in finding["detail"]


def test_the_pathology_of_one_annotation_is_that_of_its_track(build, tracked_source) -> None:
    nodules = nodules_of(build(tracked_source, TIME, track=True), TIME)
    assert [nodules[f"7-{scan}_1.25mm_0"]["pathology"] for scan in (1, 2)] == [0, None]
    assert [nodules[f"7-{scan}_1.25mm_0"]["track_pathology"] for scan in (1, 2)] == [0, 0]
    assert nodules["7-2_1.25mm_1"]["track_pathology"] is None


def test_every_target_has_the_same_tracks(build, tracked_source, tmp_path) -> None:
    options = {"track": True, "key_slices": "evidence", "make_lung_masks": True}
    parquet = build(tracked_source, TIME, **options, keep_source_names=False).rows(TIME)
    again = build(tracked_source, TIME, **options, keep_source_names=False, num_proc=2).rows(TIME)
    assert again == parquet
    loaded = lung_nodule_ct.load(TIME, source=tracked_source, split="train", cache_dir=tmp_path / "hf", **options)
    names = ("scan_id", "lung_mask", "lung_mask_origin")
    assert [[row[name] for name in names] for row in loaded] == [[row[name] for name in names] for row in parquet]
    assert [row["nodules"] for row in loaded.select_columns("nodules")] == [row["nodules"] for row in parquet]


@pytest.mark.parametrize(
    ("options", "configs", "name"),
    [
        ({"track": True}, [THIN, "cls_1.25mm"], "track"),
        ({"make_lung_masks": True}, ["cls_1.25mm"], "make_lung_masks"),
        ({"key_slices": "evidence"}, ["det3d_bmp_1.25mm"], "key_slices"),
    ],
)
def test_an_option_that_no_config_has_is_refused(build, dummy, cli, tmp_path, options, configs, name) -> None:
    with pytest.raises(OptionError, match="only for"):
        build(dummy, *configs, **options)
    flag = {"track": ["--track"], "make_lung_masks": ["--make-lung-masks"], "key_slices": ["--key-slices", "evidence"]}
    done = cli("build", *configs, *flag[name], "--source", dummy, "--out", tmp_path / "hub")
    assert done.returncode == 2
    assert flag[name][0] in done.stderr
    assert not (tmp_path / "hub").exists()


def test_a_missing_extra_names_itself_before_anything_is_written(python, dummy, tmp_path) -> None:
    code = f"""
import sys
sys.modules["SimpleITK"] = None
import lung_nodule_ct
from lung_nodule_ct.cli import main
sys.argv = ["lung-nodule-ct", "build", "longitudinal", "--track", "--source", {str(dummy)!r}, "--out", "hub"]
main()
"""
    done = python(code, cwd=tmp_path)
    assert done.returncode == 1
    assert 'pip install "lung_nodule_ct[imaging]"' in " ".join(done.stderr.split())
    assert not (tmp_path / "hub").exists()


def test_configs_of_one_build_may_be_computed_differently(build, source) -> None:
    build(source, THIN)
    built = build(source, THICK, make_lung_masks=True, overwrite=False)
    configs = json.loads((built.folder / "build.json").read_text())["configs"]
    assert {name: entry["computed"]["lung_masks"] for name, entry in configs.items()} == {THIN: False, THICK: True}


def test_a_follow_up_that_cannot_be_registered_has_a_reason(build, tmp_path) -> None:
    archives = ChestArchives()
    for archive in (CT0, CT1):
        archives[archive].pop(f"{SECOND}.mhd", None)
    archives[CT0] |= metaimage(SECOND, noise_volume(3, chest(SECOND).volume.shape), chest(SECOND).frame)
    built = build(archives.write(tmp_path / "in"), TIME, track=True)
    nodules = nodules_of(built, TIME)
    assert {nodule["track_id"] for nodule in nodules.values()} == {None}
    assert all(nodule["track_reason"] for nodule in nodules.values())
    assert "unregistered" in nodules["7-1_1.25mm_0"]["track_reason"]


def test_growth_takes_the_tracks_of_a_build(build, tracked_source, tmp_path, monkeypatch) -> None:
    options = {"source": tracked_source, "split": "train", "cache_dir": tmp_path / "hf"}
    without = lung_nodule_ct.growth(lung_nodule_ct.load(TIME, **options))
    tracked = lung_nodule_ct.load(TIME, **options, track=True)
    monkeypatch.setattr("lung_nodule_ct.imaging.nodule_growth.track_nodules", None)  # not called again
    rows = lung_nodule_ct.growth(tracked)
    assert rows == without
    grown = rows[2]  # the scan of 1.25 mm of the second date
    assert grown.volume_change.low < (22 / 18) ** 3 - 1 < grown.volume_change.high
