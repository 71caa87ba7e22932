"""Measures of voxels on phantoms with known truth: lungs, evidence, calibration, orientation, order of slices, agreement."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lung_nodule_ct
from lung_nodule_ct.declaration.findings import Grade
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.imaging.anatomy import measure_anatomy
from lung_nodule_ct.imaging.comparison import coarse_scan, compare_mask, compare_scans
from lung_nodule_ct.imaging.evidence import finder_of
from lung_nodule_ct.imaging.hounsfield import calibrate
from lung_nodule_ct.imaging.judgement import NoduleVerdict, judge_box, judge_sphere
from lung_nodule_ct.imaging.lungs import block_mean, find_lungs, usual_hu
from lung_nodule_ct.imaging.slice_order import SliceFault, slice_order
from lung_nodule_ct.read.volumes import Volume
from lung_nodule_ct.testing.phantoms import Phantom, PhantomNodule, make_chest

SPACING = (2.2, 2.2, 2.5)
SOLID = PhantomNodule((74.0, -4.0, 0.0), 18.0)
FAINT = PhantomNodule((-70.0, 20.0, 5.0), 12.0, -500.0)


@cache
def chest() -> Phantom:
    return make_chest((36, 128, 160), SPACING, [SOLID, FAINT])


def judge_at(center, diameter, phantom: Phantom | None = None):
    phantom = phantom or chest()
    lungs = find_lungs(phantom.volume, phantom.frame.spacing)
    finder = finder_of(phantom.volume, lungs, phantom.frame.spacing)
    return judge_sphere(finder, phantom.frame, phantom.volume.shape, center, diameter)


def histogram(volume) -> np.ndarray:
    return np.bincount(np.ravel(volume).astype(np.int64) + 32768, minlength=65536)


# --- lungs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [lambda v: v, lambda v: v + 1024, lambda v: 2 * v, lambda v: v // 2 - 300])
def test_lungs_are_found_whatever_the_scale_is(change) -> None:
    phantom = chest()
    lungs = find_lungs(change(phantom.volume.astype(np.int32)), SPACING)
    agreement = compare_mask(phantom.lung_mask.astype(np.uint8), lungs, phantom.frame)
    assert agreement is not None
    assert agreement.dice > 0.98


@pytest.mark.parametrize("margin", [20, 4, 0, -6])
def test_lungs_are_found_in_tight_crops(margin) -> None:
    phantom = chest()
    used_y, used_x = (np.flatnonzero(phantom.lung_mask.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    part = (
        slice(None),
        slice(max(0, used_y[0] - margin), used_y[-1] + 1 + margin),
        slice(max(0, used_x[0] - margin), used_x[-1] + 1 + margin),
    )
    lungs = find_lungs(phantom.volume[part], SPACING)
    agreement = compare_mask(phantom.lung_mask[part].astype(np.uint8), lungs, phantom.frame)
    assert agreement is not None
    assert agreement.dice > 0.97


def test_a_blank_slice_does_not_connect_the_lungs_to_the_air_outside() -> None:
    volume = chest().volume.copy()
    volume[12] = -1000
    assert not find_lungs(volume, SPACING).is_empty


@pytest.mark.parametrize("volume", [np.zeros((4, 30, 30), np.int16), np.full((1, 1, 1), -1000, np.int16)])
def test_a_volume_without_lungs_has_none(volume) -> None:
    lungs = find_lungs(volume, (1.0, 1.0, 1.0))
    assert lungs.is_empty
    assert finder_of(volume, lungs, (1.0, 1.0, 1.0)) is None
    with pytest.raises(ValueError, match="no lung"):
        lungs.places(3, 12.0)


# --- evidence ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodule", [SOLID, FAINT])
def test_a_nodule_is_present_where_it_was_drawn(nodule) -> None:
    evidence = judge_at(nodule.center_world, nodule.diameter_mm)
    assert evidence.verdict is NoduleVerdict.PRESENT
    assert evidence.grade is None
    assert evidence.place is not None
    assert evidence.place.p_value < 0.03
    assert evidence.place.shift < 2.5


@pytest.mark.parametrize("direction", [(1, 0, 0), (0, -1, 0), (0, 0, 1), (0.6, 0.8, 0)])
@pytest.mark.parametrize("distance", [9.0, 24.0])
def test_a_moved_centre_is_flagged(direction, distance) -> None:
    center = np.add(SOLID.center_world, np.multiply(direction, distance))
    evidence = judge_at(center, SOLID.diameter_mm)
    assert evidence.grade is not None
    if distance == 9.0:
        assert evidence.verdict is NoduleVerdict.OFF_CENTRE
    assert evidence.hint_voxel is not None
    found = chest().frame.to_world(evidence.hint_voxel)
    assert np.linalg.norm(found - SOLID.center_world) < 4


@pytest.mark.parametrize(
    ("factor", "is_flagged"), [(0.5, True), (0.7, True), (0.85, False), (1.15, False), (2.0, True)]
)
def test_another_diameter_is_flagged(factor, is_flagged) -> None:
    evidence = judge_at(SOLID.center_world, factor * SOLID.diameter_mm)
    assert (evidence.verdict is NoduleVerdict.OTHER_SIZE) == is_flagged


@pytest.mark.parametrize(
    ("world", "hint"),
    [
        ((-4.0, 74.0, 0.0), "x and y are exchanged"),
        ((-74.0, 4.0, 0.0), "the signs of x and y (RAS) are reversed"),
        ((7.4, -0.4, 0.0), "the numbers are in centimetres"),
        (tuple(chest().frame.to_voxel(SOLID.center_world).tolist()), "the numbers are voxels"),
    ],
)
def test_the_usual_mistakes_are_named(world, hint) -> None:
    phantom = make_chest((36, 128, 160), SPACING, [SOLID])
    evidence = judge_at(world, SOLID.diameter_mm, phantom)
    assert evidence.grade is Grade.ERROR
    assert evidence.hint == f"there is such a nodule if {hint}"


def test_normal_lung_and_tissue_are_flagged() -> None:
    for place in ((74.0, 40.0, 0.0), (0.0, -100.0, 0.0)):
        evidence = judge_at(place, 18.0)
        assert evidence.grade is not None
        assert evidence.place is None or evidence.place.score < 0.3


def test_small_cut_and_outside_have_their_own_verdicts() -> None:
    assert judge_at(SOLID.center_world, 5.0).verdict is NoduleVerdict.SMALL
    assert judge_at(SOLID.center_world, None).verdict is NoduleVerdict.NO_SIZE
    assert judge_at((0.0, 0.0, 4000.0), 18.0).verdict is NoduleVerdict.OUTSIDE
    x, y, z = SOLID.center_world
    cut = chest().volume[19:], replace(chest().frame, origin=tuple(chest().frame.to_world((0, 0, 19)).tolist()))
    below = judge_at((x, y, z), 18.0, Phantom(cut[0], chest().lung_mask[19:], cut[1]))
    assert below.verdict in (NoduleVerdict.CUT, NoduleVerdict.PRESENT, NoduleVerdict.OUTSIDE)
    assert below.verdict is NoduleVerdict.OUTSIDE or below.grade is None


@settings(max_examples=8, deadline=None)
@given(order=st.permutations((0, 1, 2)), signs=st.tuples(*[st.sampled_from((-1, 1))] * 3))
def test_the_verdict_does_not_depend_on_the_storage_of_the_volume(order, signs) -> None:
    matrix = np.zeros((3, 3))
    matrix[list(order), range(3)] = signs
    if order[2] != 2:  # lungs are searched in axial slices
        return
    phantom = chest().reoriented(matrix.ravel().tolist())
    evidence = judge_at(SOLID.center_world, SOLID.diameter_mm, phantom)
    assert evidence.verdict is NoduleVerdict.PRESENT


def test_a_box_of_a_slice_and_of_a_stack_are_judged_in_the_same_way() -> None:
    phantom = chest()
    z = phantom.voxel_of(SOLID)[2]
    grey = np.clip((phantom.volume + 1350) * (255 / 1500), 0, 255).astype(np.uint8)
    box = phantom.box_in_slice(SOLID, z)
    assert box is not None
    lungs = find_lungs(grey[z][None], (2.2, 2.2, 1.0))
    finder = finder_of(usual_hu(grey[z], lungs.low, lungs.high), lungs, (1.0, 1.0))
    assert judge_box(finder, grey[z].shape, box).verdict in (NoduleVerdict.PRESENT, NoduleVerdict.SMALL)
    wide = (box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1)
    assert judge_box(finder, grey[z].shape, wide).verdict is NoduleVerdict.PRESENT
    moved = (wide[0] - 20, wide[1], wide[2] - 20, wide[3])
    assert judge_box(finder, grey[z].shape, moved).grade is not None
    stack = find_lungs(grey, SPACING, is_crop=True)
    deep = finder_of(usual_hu(grey, stack.low, stack.high), stack, (1.0, 1.0, 2.5 / 2.2))
    solid = (wide[0], wide[1], z - 4, wide[2], wide[3], z + 4)
    assert judge_box(deep, grey.shape, solid).verdict is NoduleVerdict.PRESENT
    assert judge_box(deep, grey.shape, (wide[0], wide[1], 0, wide[2], wide[3], 6)).grade is None  # ends with the stack


def test_the_public_function_gives_the_same_verdict() -> None:
    nodule = {"center_world": SOLID.center_world, "diameter_mm": SOLID.diameter_mm}
    evidence = lung_nodule_ct.evidence(Volume(chest().volume, chest().frame), nodule)
    assert evidence == judge_at(SOLID.center_world, SOLID.diameter_mm)
    with pytest.raises(ValueError, match="no frame"):
        lung_nodule_ct.evidence(Volume(chest().volume), nodule)


# --- calibration ------------------------------------------------------------------------------------------------------


CHANGES = {
    "intercept missing": lambda v: np.maximum(v, -1024) + 1024,
    "slope of 2": lambda v: 2 * v,
    "slope of a half": lambda v: v // 2,
    "wrapped bytes": lambda v: v.astype(np.int8).astype(np.int32),
    "8 bits in the lung window": lambda v: np.clip((v + 1350) * 255 / 1500, 0, 255).astype(np.int32),
    "100 HU more": lambda v: v + 100,
    "100 HU less": lambda v: v - 100,
    "zeros": lambda v: v * 0,
}


def calibration(volume):
    lungs = find_lungs(volume, SPACING)
    coarse = block_mean(volume, lungs.step)
    mean = None if lungs.is_empty else float(coarse[lungs.mask].mean())
    return calibrate(histogram(volume), histogram(np.rint(coarse)), mean)


def test_a_sound_scan_has_no_fault_of_calibration() -> None:
    assert calibration(chest().volume.astype(np.int32)).faults == ()


@pytest.mark.parametrize("name", CHANGES)
def test_other_units_are_seen(name) -> None:
    assert calibration(CHANGES[name](chest().volume.astype(np.int32))).faults


# --- orientation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "is_behind"),
    [((1, 0, 0, 0, 1, 0, 0, 0, 1), True), ((-1, 0, 0, 0, -1, 0, 0, 0, 1), False), ((0, 1, 0, 1, 0, 0, 0, 0, 1), False)],
)
def test_the_spine_is_behind_the_lungs_only_with_the_right_header(direction, is_behind) -> None:
    volume = chest().volume.copy()
    lungs = find_lungs(volume, SPACING)
    (x0, x1), (y0, y1), _ = lungs.extent
    x, y = round((x0 + x1) / 2), round((y0 + y1) / 2 + 0.6 * (y1 - y0) / 2)
    volume[:, y - 8 : y + 9, x - 8 : x + 9] = 600  # the spine of make_chest lies behind the lungs
    frame = Frame(spacing=SPACING, direction=tuple(map(float, direction)))
    anatomy = measure_anatomy(volume, find_lungs(volume, SPACING), frame)
    assert anatomy is not None
    assert anatomy.spine_is_behind is is_behind


# --- order of slices --------------------------------------------------------------------------------------------------


def test_sound_slices_have_no_event() -> None:
    order = slice_order(chest().volume, SPACING)
    assert order is not None
    assert order.events == ()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda v: np.delete(v, [15, 16], 0), SliceFault.JUMP),
        (lambda v: v[np.r_[:14, 13, 15 : len(v)]], SliceFault.REPEATED),
        (lambda v: v[np.r_[:10, 14, 11:14, 10, 15 : len(v)]], SliceFault.ORDER),
        (lambda v: np.where(np.arange(len(v))[:, None, None] == 9, -1000, v), SliceFault.BLANK),
        (lambda v: np.concatenate([v[:20], np.roll(v[20:], 12, 2)]), SliceFault.JUMP),
    ],
)
def test_faults_of_the_order_are_seen_at_their_place(change, fault) -> None:
    order = slice_order(change(chest().volume), SPACING)
    assert order is not None
    assert fault in {event.fault for event in order.events}


def test_few_or_small_slices_are_not_judged() -> None:
    assert slice_order(chest().volume[:5], SPACING) is None
    assert slice_order(chest().volume[:, :20, :20], SPACING) is None


# --- agreement --------------------------------------------------------------------------------------------------------


def test_both_thicknesses_agree_and_a_wrong_header_does_not() -> None:
    phantom = make_chest((32, 128, 160), (2.2, 2.2, 1.25), [SOLID])
    thick = phantom.with_thick_slices(4)
    thin, reference = coarse_scan(phantom.volume, phantom.frame), coarse_scan(thick.volume, thick.frame)
    sound = compare_scans(thin, reference)
    assert sound.correlation > 0.985
    assert abs(sound.slope - 1) < 0.05
    moved = replace(phantom.frame, origin=tuple(np.add(phantom.frame.origin, (10.0, 0.0, 0.0)).tolist()))
    assert compare_scans(coarse_scan(phantom.volume, moved), reference).correlation < 0.95
    assert compare_scans(coarse_scan(phantom.volume[:, :, ::-1], phantom.frame), reference).correlation < 0.95
    assert compare_scans(coarse_scan(phantom.volume + 50, phantom.frame), reference).offset_hu == pytest.approx(
        -50, abs=3
    )
    far = replace(phantom.frame, origin=(4000.0, 0.0, 0.0))
    assert compare_scans(coarse_scan(phantom.volume, far), reference).overlap == 0


def test_masks_are_compared_by_overlap_and_sides() -> None:
    phantom = chest()
    mask, lungs = phantom.lung_mask.astype(np.uint8), find_lungs(phantom.volume, SPACING)
    sound = compare_mask(mask, lungs, phantom.frame)
    assert sound is not None
    assert sound.sides == 1  # label 3 is the left lung of a phantom
    assert sound.shift_mm < 1
    moved = compare_mask(np.roll(mask, 3, 2), lungs, phantom.frame)
    assert moved is not None
    assert moved.shift_mm == pytest.approx(6.6, abs=1)
    exchanged = compare_mask(np.where(mask == 3, 4, np.where(mask == 4, 3, 0)).astype(np.uint8), lungs, phantom.frame)
    assert exchanged is not None
    assert exchanged.sides == -1
    half = np.concatenate([mask[:18], np.where(mask[18:] == 3, 4, np.where(mask[18:] == 4, 3, 0))]).astype(np.uint8)
    changing = compare_mask(half, lungs, phantom.frame)
    assert changing is not None
    assert changing.sides == 0
    one = compare_mask(np.where(mask == 4, 0, mask).astype(np.uint8), lungs, phantom.frame)
    assert one is not None
    assert one.smaller_share == 0
    assert one.dice < 0.75
