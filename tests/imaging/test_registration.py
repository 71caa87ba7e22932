"""Registration on generated patients with known warps, on real CT, and on scans that must be refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from lung_nodule_ct import imaging
from lung_nodule_ct.geometry.affine import Affine, rotation
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.imaging import Scan
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.read.volumes import Volume
from lung_nodule_ct.testing.followups import FollowUp, Lesion, Warp, make_followups

SHAPE, SPACING = (56, 110, 140), (2.6, 2.6, 2.6)
LESIONS = (Lesion((74.0, 20.0, 0.0), (10.0, 13.0)), Lesion((-70.0, -20.0, 12.0), (8.0, 8.0)))
WARP = Warp((14.0, -9.0, 11.0), (3.0, -4.0, 5.0), (1.03, 0.98, 0.97), 3.0, seed=4)
MIRRORED = (-1, 0, 0, 0, -1, 0, 0, 0, 1)


@cache
def patient(seed: int = 0) -> tuple[FollowUp, ...]:
    return make_followups((0, 200), LESIONS, (Warp(), WARP), shape=SHAPE, spacing=SPACING, seed=seed)


@cache
def scans(seed: int = 0) -> tuple[Scan, ...]:
    return tuple(Scan.from_row(scan.row("7", index)) for index, scan in enumerate(patient(seed)))


@cache
def registration() -> imaging.Registration:
    return imaging.register(*scans())


def centers(index: int) -> np.ndarray:
    return np.array([nodule["center_world"] for nodule in scans()[index].nodules])


def distances(found: imaging.Registration) -> np.ndarray:
    assert found.transform is not None, found.reason
    return np.linalg.norm(found.transform.map(centers(0)) - centers(1), axis=1)


def test_a_warp_has_an_inverse_and_takes_the_lesions_with_it() -> None:
    points = np.random.default_rng(0).uniform(-90, 90, (50, 3))
    np.testing.assert_allclose(WARP.to_scan(WARP.to_chest(points)), points, atol=0.05)
    np.testing.assert_allclose(centers(1), WARP.to_scan(centers(0)), atol=1e-6)
    assert scans()[1].nodules[0]["diameter_mm"] == 13.0


def test_the_lungs_of_a_follow_up_are_registered() -> None:
    found = registration()
    assert found.is_registered
    assert distances(found).max() < 6
    assert found.quality is not None
    assert found.quality.correlation > 0.7
    assert found.quality.overlap > 0.8


def test_a_fit_around_a_nodule_is_exact() -> None:
    for index, nodule in enumerate(scans()[0].nodules):
        near = imaging.refine(*scans(), registration(), nodule["center_world"], diameter_mm=nodule["diameter_mm"])
        assert near.center_world == tuple(nodule["center_world"])
        assert distances(near)[index] < 2.5


def test_the_same_scans_give_the_same_numbers() -> None:
    again = imaging.register(*scans())
    assert again == registration()
    nodule = scans()[0].nodules[0]
    first, second = (imaging.refine(*scans(), again, nodule["center_world"]) for _ in range(2))
    assert first == second


def test_users_threads_of_simpleitk_stay() -> None:
    import SimpleITK

    before = SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads()
    near = imaging.refine(*scans(), registration(), scans()[0].nodules[0]["center_world"])
    assert near.is_registered
    assert SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads() == before


@pytest.mark.parametrize("change", ["stored prone", "thick", "cropped", "shifted values"])
def test_scans_on_other_grids_are_registered(change) -> None:
    fixed, moving = scans()
    if change == "stored prone":
        turned = patient()[1].phantom.reoriented(MIRRORED)
        moving = Scan(turned.volume, turned.frame)
    elif change == "thick":
        thick = patient()[1].phantom.with_thick_slices(2)
        moving = Scan(thick.volume, thick.frame)
    elif change == "cropped":
        moving = imaging.crop(moving, (14, 18, 8, 126, 98, 50))
    else:
        moving = Scan(moving.array + np.int16(40), moving.frame)
    found = imaging.register(fixed, moving)
    assert distances(found).max() < 6
    near = imaging.refine(fixed, moving, found, centers(0)[0], diameter_mm=10.0)
    assert distances(near)[0] < 2.5


def test_the_follow_up_is_on_the_grid_of_the_baseline() -> None:
    rows = [scan.row("7", index) for index, scan in enumerate(patient())]
    pair = imaging.registered_pair(rows, 0, 1, center_world=centers(0)[0])
    fixed, moving = pair
    assert moving is not None
    assert moving.grid == fixed.grid
    assert moving.nodules[0]["diameter_mm"] == 13.0  # as published: a warp does not change it
    assert np.linalg.norm(np.subtract(moving.nodules[0]["center_world"], centers(0)[0])) < 2.5
    assert moving.lung_mask is not None
    near = patient()[0].phantom.voxel_of(patient()[0].nodules[0])
    box = tuple(slice(at - 8, at + 9) for at in near[::-1])
    assert np.corrcoef(fixed.array[box].ravel(), moving.array[box].ravel())[0, 1] > 0.7
    assert np.corrcoef(fixed.array[box].ravel(), scans()[1].array[box].ravel())[0, 1] < 0.4


def no_lungs() -> Scan:
    return Scan(np.full(SHAPE, 40, np.int16), Frame(spacing=SPACING))


def upside_down() -> Scan:
    scan = scans()[1]
    return Scan(scan.array[::-1], scan.frame)


def elsewhere() -> Scan:
    return imaging.crop(scans()[1], (0, 0, 0, 140, 30, 56))


@pytest.mark.parametrize(
    ("make", "reason"),
    [(no_lungs, "no lungs"), (upside_down, ""), (elsewhere, "")],
    ids=["no lungs", "flipped", "elsewhere"],
)
def test_what_does_not_fit_is_unregistered_with_a_reason(make, reason) -> None:
    moving = make()
    found = imaging.register(scans()[0], moving)
    near = imaging.refine(scans()[0], moving, found, centers(0)[0])
    assert near.transform is None
    assert near.reason
    assert reason in near.reason
    assert near.map(centers(0)) is None
    if not found.is_registered:
        pair = imaging.registered_pair((scans()[0], moving), 0, 1)
        assert pair.moving is None
        assert pair.registration.reason == found.reason


def test_the_neighbourhood_in_another_patient_is_refused() -> None:
    """The phantoms have the same lungs, so that the lungs fit; the vessels do not."""
    other = scans(9)[1]
    found = imaging.register(scans()[0], other)
    for center in centers(0):
        near = imaging.refine(scans()[0], other, found, center)
        assert not near.is_registered


@pytest.mark.parametrize("center", [(0.0, 0.0, 500.0), (0.0, 90.0, 0.0)], ids=["outside", "in the spine"])
def test_a_place_without_lung_around_it_is_refused(center) -> None:
    near = imaging.refine(*scans(), registration(), center, radius_mm=12.0)
    assert not near.is_registered
    assert near.reason


def test_a_registration_has_a_transform_or_a_reason() -> None:
    with pytest.raises(ValueError, match="reason"):
        imaging.Registration(None)
    with pytest.raises(ValueError, match="reason"):
        replace(registration(), reason="both")
    with pytest.raises(ValueError, match="frame"):
        imaging.register(Volume(scans()[0].array), scans()[1])


def test_affine_maps_compose_and_move_frames() -> None:
    turn = Affine.from_arrays(rotation((10, -20, 30)) * [1.1, 0.9, 1.0], (4, 5, 6))
    points = np.random.default_rng(1).normal(size=(5, 3)) * 50
    np.testing.assert_allclose(turn.inverse.map(turn.map(points)), points, atol=1e-9)
    np.testing.assert_allclose(turn.after(turn).map(points), turn.map(turn.map(points)), atol=1e-9)
    frame = Frame((1, 2, 3), (0.7, 0.7, 1.25), (-1, 0, 0, 0, -1, 0, 0, 0, 1))
    np.testing.assert_allclose(turn.move(frame).to_world(points), turn.map(frame.to_world(points)), atol=1e-9)
    assert turn.jacobian == pytest.approx(0.99)
    assert Affine.from_arrays(rotation((0, 0, 30)), (0, 0, 0)).rotation_deg == pytest.approx(30)
    with pytest.raises(ValueError, match="invertible"):
        Affine((1, 0, 0, 0, 1, 0, 1, 1, 0))


@pytest.mark.slow
def test_follow_ups_of_real_ct_are_registered_and_other_patients_are_not(mirror, build) -> None:
    folder = build(mirror, "det3d_1.25mm").folder
    opened = open_build(folder)
    names = [column.name for column in opened.columns("det3d_1.25mm")]
    found = {row["scan_id"]: Scan.from_row(row) for row in opened.rows("det3d_1.25mm", "train", names)}
    for one, two in (("80-1", "80-2"), ("80-1", "80-3"), ("80-2", "80-3"), ("100-1", "100-2")):
        fixed, moving = found[one], found[two]
        nodule = fixed.nodules[0]
        near = imaging.refine(
            fixed, moving, imaging.register(fixed, moving), nodule["center_world"], diameter_mm=nodule["diameter_mm"]
        )
        assert near.transform is not None, (one, two, near.reason)
        assert np.linalg.norm(near.transform.map(nodule["center_world"]) - moving.nodules[0]["center_world"]) < 2.5
    for one, two in (("1-0", "80-1"), ("100-1", "80-1"), ("94-1", "80-1"), ("80-3", "100-2")):
        assert not imaging.register(found[one], found[two]).is_registered, (one, two)
