"""Lung masks at full resolution: phantoms with known truth, real CT, and volumes without lungs."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import lung_nodule_ct
from lung_nodule_ct import imaging
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.testing.phantoms import LEFT_LUNG, RIGHT_LUNG, Phantom, PhantomNodule, make_chest

SPACING = (1.6, 1.6, 2.5)
RIGHT, LEFT, BOTH = 3, 4, 7


@cache
def chest() -> Phantom:
    return make_chest((32, 160, 220), SPACING, [PhantomNodule((74.0, -4.0, 0.0), 18.0)])


def dice(a, b) -> float:
    return float(2 * (a & b).sum() / max(1, int(a.sum() + b.sum())))


def tight(mask: np.ndarray, margin: int) -> tuple[slice, slice, slice]:
    """The slices of a mask's box in y and x, with a margin."""
    used = [np.flatnonzero((mask > 0).any(axis=axes)) for axes in ((0, 2), (0, 1))]
    y, x = (slice(max(0, int(at[0]) - margin), int(at[-1]) + 1 + margin) for at in used)
    return slice(None), y, x


def filled(phantom: Phantom, label: int) -> np.ndarray:
    return phantom.lung_mask == label


@pytest.mark.parametrize("change", [lambda v: v, lambda v: v + 1024, lambda v: v.astype(np.float32) / 2 - 300])
def test_both_lungs_of_a_phantom_have_their_labels(change) -> None:
    phantom = chest()
    mask = imaging.segment_lungs(change(phantom.volume), phantom.frame)
    assert mask.dtype == np.uint8
    assert mask.shape == phantom.volume.shape
    assert set(np.unique(mask)) <= {0, RIGHT, LEFT, BOTH}
    assert dice(mask == RIGHT, filled(phantom, RIGHT_LUNG)) > 0.985
    assert dice(mask == LEFT, filled(phantom, LEFT_LUNG)) > 0.985


@pytest.mark.parametrize(
    "direction",
    [(-1, 0, 0, 0, -1, 0, 0, 0, 1), (1, 0, 0, 0, 1, 0, 0, 0, -1), (0, 0, 1, 1, 0, 0, 0, 1, 0)],
    ids=["prone", "from the head", "coronal"],
)
def test_labels_are_of_the_patients_sides_however_the_volume_is_stored(direction) -> None:
    turned = chest().reoriented(direction)
    mask = imaging.segment_lungs(turned.volume, turned.frame)
    assert dice(mask == RIGHT, filled(turned, RIGHT_LUNG)) > 0.985
    assert dice(mask == LEFT, filled(turned, LEFT_LUNG)) > 0.985


def test_a_spacing_is_enough_for_a_volume_along_the_patients_axes() -> None:
    phantom = chest()
    expected = imaging.segment_lungs(phantom.volume, phantom.frame)
    assert np.array_equal(imaging.segment_lungs(phantom.volume, SPACING), expected)


@pytest.mark.parametrize("margin", [20, 4, 0, -8])
def test_crops_that_touch_the_lungs_are_segmented(margin) -> None:
    phantom = chest()
    part = tight(phantom.lung_mask, margin)
    mask = imaging.segment_lungs(phantom.volume[part], SPACING)
    assert dice(mask > 0, phantom.lung_mask[part] > 0) > 0.97
    assert dice(mask == LEFT, filled(phantom, LEFT_LUNG)[part]) > 0.97


def test_vessels_and_nodules_within_a_lung_are_filled() -> None:
    phantom = chest()
    mask = imaging.segment_lungs(phantom.volume, phantom.frame)
    x, y, z = phantom.voxel_of(PhantomNodule((74.0, -4.0, 0.0), 18.0))
    assert phantom.volume[z, y, x] > -200
    assert mask[z, y, x] == LEFT


def test_lungs_that_touch_are_two() -> None:
    """A bridge of lung through the heart."""
    phantom = chest()
    volume = phantom.volume.copy()
    volume[8:24, 60:68, 84:156] = -860
    mask = imaging.segment_lungs(volume, SPACING)
    truth = phantom.lung_mask
    assert dice(mask == RIGHT, truth == RIGHT_LUNG) > 0.93
    assert dice(mask == LEFT, truth == LEFT_LUNG) > 0.93
    assert mask[16, 64, 88] == RIGHT
    assert mask[16, 64, 150] == LEFT


def test_lungs_that_do_not_fall_apart_are_cut_where_they_are_thinnest() -> None:
    volume = np.full((8, 120, 200), 40, np.int16)
    volume[:, 20:100, 20:180] = -860
    volume[:, 20:36, 95:105] = 40
    mask = imaging.segment_lungs(volume, (1.5, 1.5, 2.5))
    assert mask[4, 60, 90] == RIGHT
    assert mask[4, 60, 110] == LEFT


def test_a_single_lung_has_the_label_of_its_side() -> None:
    phantom = chest()
    volume = np.where(phantom.lung_mask == RIGHT_LUNG, 40, phantom.volume)
    mask = imaging.segment_lungs(volume, SPACING)
    assert not (mask == RIGHT).any()
    assert dice(mask == LEFT, phantom.lung_mask == LEFT_LUNG) > 0.985


def test_the_trachea_is_not_lung() -> None:
    """A trachea that a bronchus on each side connects with the lungs."""
    phantom = chest()
    volume = phantom.volume.copy()
    y, x = np.indices(volume.shape[1:])
    tube = (y - 100) ** 2 + (x - 110) ** 2 < 6**2
    volume[8:, tube] = -1000
    volume[8:11, 97:103, 80:140] = -1000
    mask = imaging.segment_lungs(volume, SPACING)
    assert (mask[14:, tube] > 0).mean() < 0.02
    assert dice(mask > 0, phantom.lung_mask > 0) > 0.97


def test_a_table_and_arms_are_not_lung() -> None:
    phantom = make_chest((24, 200, 320), SPACING)
    volume = phantom.volume.copy()
    volume[:, 178:182, 60:260] = 200
    volume[:, 182:186, 60:260] = -900
    y, x = np.indices(volume.shape[1:])
    for side in (25, 295):
        volume[:, (y - 100) ** 2 + (x - side) ** 2 < 20**2] = 30
        volume[:, (y - 100) ** 2 + (x - side) ** 2 < 6**2] = 900
    assert dice(imaging.segment_lungs(volume, SPACING) > 0, phantom.lung_mask > 0) > 0.98


def test_contrast_in_vessels_and_heart_changes_little() -> None:
    phantom = chest()
    volume = phantom.volume.copy()
    volume[(volume > 25) & (volume < 60)] = 350
    assert dice(imaging.segment_lungs(volume, SPACING) > 0, phantom.lung_mask > 0) > 0.97


def test_filling_that_makes_the_lungs_overlap_is_labelled_7() -> None:
    """Two lungs that interlock: the end of one is in a dent of the other."""
    volume = np.full((6, 120, 200), 40, np.int16)
    volume[:, 20:100, 20:100] = volume[:, 20:100, 104:180] = -860
    volume[:, 40:80, 66:104] = 40
    volume[:, 54:66, 86:104] = -860
    mask = imaging.segment_lungs(volume, (1.5, 1.5, 2.5), closing_mm=45.0)
    assert (mask == BOTH).any()
    assert not (imaging.segment_lungs(volume, (1.5, 1.5, 2.5), closing_mm=0.0) == BOTH).any()


@pytest.mark.parametrize(
    ("shape", "value", "spacing"),
    [((4, 30, 30), 0, 1.0), ((1, 1, 1), -1000, 1.0), ((3, 40, 40), -1000, 1.0), ((1, 64, 64), -900, 5.0)],
)
@pytest.mark.filterwarnings("error")
def test_a_volume_without_lungs_has_an_empty_mask(shape, value, spacing) -> None:
    volume = np.full(shape, value, np.int16)
    mask = imaging.segment_lungs(volume, (spacing,) * 3)
    assert mask.shape == volume.shape
    assert not mask.any()


def test_one_slice_is_segmented() -> None:
    phantom = chest()
    mask = imaging.segment_lungs(phantom.volume[16:17], SPACING)
    assert dice(mask == LEFT, filled(phantom, LEFT_LUNG)[16:17]) > 0.97


def test_thick_slices_are_segmented() -> None:
    thick = chest().with_thick_slices(2)
    mask = imaging.segment_lungs(thick.volume, thick.frame)
    assert dice(mask > 0, thick.lung_mask > 0) > 0.97


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="axes z, y, x"):
        imaging.segment_lungs(np.zeros((4, 4), np.int16), (1, 1, 1))
    with pytest.raises(ValueError, match="closing_mm"):
        imaging.segment_lungs(np.zeros((4, 4, 4), np.int16), Frame(), closing_mm=-1)


def test_masks_of_real_ct_are_those_of_its_publishers(mirror, build) -> None:
    folder = build(mirror, "det3d_1.25mm").folder
    for scan, published in zip(
        lung_nodule_ct.volumes(folder), lung_nodule_ct.volumes(folder, "lung_mask"), strict=True
    ):
        volume, truth = scan.numpy(), published.numpy()
        mask = imaging.segment_lungs(volume, scan.frame)
        assert dice(mask > 0, truth > 0) > 0.98
        assert dice(mask == RIGHT, truth == RIGHT) > 0.98
        assert dice(mask == LEFT, truth == LEFT) > 0.98
        for margin in (0, -8):
            part = tight(truth, margin)
            assert dice(imaging.segment_lungs(volume[part], scan.frame) > 0, truth[part] > 0) > 0.95
