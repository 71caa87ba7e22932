"""Key slices of nodules with known centres, on phantoms and on real CT."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import lung_nodule_ct
from lung_nodule_ct import imaging
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.imaging import KeySlice, KeySliceBasis, Scan
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.read.volumes import Volume
from lung_nodule_ct.testing.phantoms import PhantomNodule, make_chest

NODULES = (PhantomNodule((74.0, -4.0, 6.0), 18.0), PhantomNodule((-70.0, 20.0, -11.0), 12.0))


@cache
def scan() -> Scan:
    chest = make_chest((48, 128, 160), (2.2, 2.2, 1.25), NODULES)
    return Scan(chest.volume, chest.frame)


def entry(nodule: PhantomNodule, **changes) -> dict:
    return {"center_world": nodule.center_world, "diameter_mm": nodule.diameter_mm, **changes}


def centre_slice(nodule: PhantomNodule) -> float:
    return float(scan().frame.to_voxel(nodule.center_world)[2])


@pytest.mark.parametrize("nodule", NODULES)
def test_the_key_slice_is_that_of_the_equator(nodule) -> None:
    found = imaging.key_slice(scan(), entry(nodule))
    assert found.basis is KeySliceBasis.EVIDENCE
    assert found.reason == ""
    assert abs(found.index - centre_slice(nodule)) <= 1.5


@pytest.mark.parametrize("shift", [-3.0, 3.0])
def test_the_key_slice_follows_the_voxels_rather_than_the_annotated_centre(shift) -> None:
    nodule = NODULES[0]
    x, y, z = nodule.center_world
    found = imaging.key_slice(scan(), entry(nodule, center_world=(x, y, z + shift)))
    assert found.basis is KeySliceBasis.EVIDENCE
    assert abs(found.index - centre_slice(nodule)) <= 1.5


def test_where_a_nodule_is_wide_is_its_key_slice() -> None:
    """A nodule like a pear: the centre of the annotated sphere is not where it is widest."""
    chest = make_chest(
        (48, 128, 160),
        (2.2, 2.2, 1.25),
        [PhantomNodule((74.0, -4.0, 0.0), 18.0), PhantomNodule((74.0, -4.0, 5.0), 22.0)],
    )
    nodule = {"center_world": (74.0, -4.0, 2.0), "diameter_mm": 24.0}
    found = imaging.key_slice(Scan(chest.volume, chest.frame), nodule)
    assert found.basis is KeySliceBasis.EVIDENCE
    assert chest.frame.to_voxel((0, 0, 3.5))[2] <= found.index <= chest.frame.to_voxel((0, 0, 7.5))[2]


@pytest.mark.parametrize(
    ("nodule", "reason"),
    [
        (entry(NODULES[0], diameter_mm=None), "no size"),
        (entry(NODULES[0], diameter_mm=4.0), "too small"),
        (entry(NODULES[0], center_world=(74.0, 40.0, 6.0)), "absent"),
    ],
)
def test_without_evidence_it_is_the_slice_of_the_centre(nodule, reason) -> None:
    found = imaging.key_slice(scan(), nodule)
    assert found.basis is KeySliceBasis.CENTRE
    assert found.index == round(centre_slice(NODULES[0]))
    assert reason in found.reason


def test_a_scan_without_lungs_has_key_slices_by_the_centre() -> None:
    volume = Volume(np.zeros((9, 30, 30), np.int16), Frame())
    found = imaging.key_slice(volume, {"center_world": (9.0, 9.0, 4.4), "diameter_mm": 8.0})
    assert (found.index, found.basis) == (4, KeySliceBasis.CENTRE)
    assert "lungs" in found.reason


@pytest.mark.parametrize(("z", "index"), [(-0.6, None), (-0.5, 0), (8.49, 8), (8.5, None)])
def test_a_centre_outside_has_no_key_slice(z, index) -> None:
    volume = Volume(np.zeros((9, 30, 30), np.int16), Frame())
    nodule = {"center_world": (9.0, 9.0, z), "diameter_mm": None}
    found = imaging.key_slice(volume, nodule)
    assert found.index == index
    assert (found.basis is None) == (index is None)
    series = imaging.spatial_series(volume, nodule)
    assert len(series) == (index is not None)
    assert series.slices.shape[1:] == (30, 30)


def test_a_scan_that_is_stored_from_the_head_has_the_same_key_slice() -> None:
    turned = make_chest((48, 128, 160), (2.2, 2.2, 1.25), NODULES).reoriented((1, 0, 0, 0, 1, 0, 0, 0, -1))
    found = imaging.key_slice(Scan(turned.volume, turned.frame), entry(NODULES[0]))
    expected = imaging.key_slice(scan(), entry(NODULES[0]))
    assert abs(found.index - (47 - expected.index)) <= 1


def test_a_series_is_the_slices_of_the_box() -> None:
    series = imaging.spatial_series(scan(), entry(NODULES[0]))
    assert series.box is not None
    assert (series.first, series.first + len(series)) == (series.box[2], series.box[5])
    assert np.array_equal(series.slices, scan().array[series.first : series.box[5]])
    assert 0 <= series.key.index - series.first < len(series)
    middle = series.slices[series.key.index - series.first]
    x0, y0, _, x1, y1, _ = series.box
    tissue = (series.slices[:, y0:y1, x0:x1] > -300).sum(axis=(1, 2))
    assert (middle[y0:y1, x0:x1] > -300).sum() > 0.9 * tissue.max()


def test_an_index_needs_a_basis() -> None:
    with pytest.raises(ValueError, match="basis"):
        KeySlice(3, None)
    with pytest.raises(ValueError, match="frame"):
        imaging.key_slice(Volume(np.zeros((9, 30, 30), np.int16)), entry(NODULES[0]))


def test_key_slices_of_real_ct_are_within_the_nodules(mirror, build) -> None:
    folder = build(mirror, "det3d_1.25mm").folder
    rows = open_build(folder).rows("det3d_1.25mm", "train", ["nodules"])
    by_evidence = 0
    for volume, row in zip(lung_nodule_ct.volumes(folder), rows, strict=True):
        for nodule in row["nodules"]:
            found = imaging.key_slice(volume, nodule)
            by_evidence += found.basis is KeySliceBasis.EVIDENCE
            assert nodule["box_voxel"][2] <= found.index < nodule["box_voxel"][5]
            assert abs(found.index - nodule["center_voxel"][2]) * 1.25 <= max(2.5, 0.3 * nodule["diameter_mm"])
    assert by_evidence >= 6
