"""Tracks and growth of generated patients: links among decoys, births, ends and splits, what is not known, volumes and doubling times."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from lung_nodule_ct import imaging
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.imaging import Scan
from lung_nodule_ct.imaging.nodule_volume import Interval
from lung_nodule_ct.testing.followups import Lesion, Warp, make_followups
from lung_nodule_ct.testing.phantoms import Phantom

SHAPE, SPACING = (50, 100, 126), (2.9, 2.9, 2.9)
WARPS = (
    Warp(),
    Warp((12.0, -8.0, 9.0), (2.0, -3.0, 4.0), (1.02, 0.99, 0.98), 2.5, seed=4),
    Warp((-9.0, 6.0, -7.0), (-2.0, 2.0, -3.0), (0.99, 1.02, 1.01), 2.5, seed=5),
)
GROWS = Lesion((74.0, 20.0, 0.0), (10.0, 12.0, 14.0))
MISSED = Lesion((-80.0, -30.0, 10.0), (11.0, None, 12.0))
BORN = Lesion((-70.0, 20.0, 12.0), (None, 9.0, 10.0))
ENDS = Lesion((70.0, -40.0, 20.0), (9.0, None, None))
DECOYS = tuple(
    Lesion(center, tuple(10.0 if scan == only else None for scan in range(3)))
    for only, centers in enumerate(
        [
            [(-60.0, 35.0, -20.0), (95.0, -20.0, -15.0)],
            [(-95.0, 10.0, -18.0), (85.0, 35.0, 24.0)],
            [(-80.0, -5.0, 28.0), (95.0, 10.0, -28.0)],
        ]
    )
    for center in centers
)


@cache
def rows() -> tuple[dict[str, Any], ...]:
    scans = make_followups(
        (0, 200, 420), (GROWS, MISSED, BORN, ENDS, *DECOYS), WARPS, shape=SHAPE, spacing=SPACING, seed=2
    )
    return tuple(scan.row("80", index) for index, scan in enumerate(scans))


@cache
def tracks() -> tuple[imaging.TrackedNodule, ...]:
    return tuple(imaging.track_nodules(iter(rows())))


def of_scan(timepoint: int) -> list[imaging.TrackedNodule]:
    return [track for track in tracks() if track.timepoint == timepoint]


def thick(row: dict[str, Any]) -> dict[str, Any]:
    """The same date in slices of twice the thickness, with centres that differ a little."""
    phantom = Phantom(row["volume"], row["lung_mask"].astype(np.int16), Frame.from_row(row)).with_thick_slices(2)
    frame = phantom.frame
    nodules = [
        {**nodule, "center_world": tuple(np.add(nodule["center_world"], (1, 0, 1)))} for nodule in row["nodules"][::-1]
    ]
    return {
        **row,
        "volume": phantom.volume,
        "lung_mask": None,
        "slice_thickness_mm": 5.8,
        "origin": frame.origin,
        "spacing": frame.spacing,
        "nodules": nodules,
    }


# --- tracks -----------------------------------------------------------------------------------------------------------


def test_every_annotation_has_one_entry_in_the_order_of_the_rows() -> None:
    expected = [(row["scan_id"], index) for row in rows() for index in range(len(row["nodules"]))]
    assert [(track.scan_id, track.nodule) for track in tracks()] == expected


def test_a_nodule_of_all_scans_is_one_track() -> None:
    found = [of_scan(timepoint)[0] for timepoint in range(3)]
    assert [track.track_id for track in found] == ["80-t1"] * 3
    assert [track.event for track in found] == ["first", "continued", "continued"]
    assert found[0].track_confidence is None
    assert min(track.track_confidence or 0 for track in found[1:]) > 0.9


def test_a_track_goes_on_where_one_annotation_is_missing() -> None:
    first, last = of_scan(0)[1], of_scan(2)[1]
    assert first.track_id is not None
    assert first.track_id == last.track_id
    assert first.ended is False


def test_births_and_ends_are_explicit() -> None:
    born, ends = of_scan(1)[1], of_scan(0)[2]
    assert born.event == "born"
    assert born.track_id == of_scan(2)[2].track_id is not None
    assert ends.track_id is None
    assert ends.ended is True
    assert ends.reason is not None
    assert "no scan of another date" in ends.reason


def test_decoys_are_not_linked() -> None:
    alone = [track for timepoint, count in enumerate((3, 2, 3)) for track in of_scan(timepoint)[count:]]
    assert len(alone) == 6
    assert all(track.track_id is None and track.track_confidence is None for track in alone)


def test_both_thicknesses_of_a_date_have_the_same_tracks() -> None:
    first, second = rows()[:2]
    both = imaging.track_nodules([first, thick(first), second, thick(second)])
    thin_first, thick_first = both[:5], both[5:10]
    assert [track.track_id for track in thick_first] == [track.track_id for track in thin_first[::-1]]
    assert [track.slice_thickness_mm for track in thick_first] == [5.8] * 5
    assert thin_first[0].track_id is not None


def test_a_part_of_a_nodule_is_a_split() -> None:
    first, second = rows()[:2]
    whole = second["nodules"][0]
    part = {**whole, "center_world": tuple(np.add(whole["center_world"], (6.0, 5.0, 0.0))), "diameter_mm": 5.0}
    found = imaging.track_nodules([first, {**second, "nodules": [whole, part]}])
    assert found[-2].event == "continued"
    assert found[-1].event == "split"
    assert found[-1].parent_id == found[-2].track_id


def test_a_nodule_without_a_diameter_is_linked_by_its_place() -> None:
    first, second = ({**row, "nodules": [{**row["nodules"][0], "diameter_mm": None}]} for row in rows()[:2])
    assert imaging.track_nodules([first, second])[1].track_id == "80-t1"


def test_one_scan_has_no_tracks() -> None:
    found = imaging.track_nodules(rows()[:1])
    assert {track.reason for track in found} == {"the build has scans of one date of the patient only"}


def test_scans_without_a_patient_or_in_one_unregistered_pair_have_none() -> None:
    first, second = rows()[:2]
    anonymous = imaging.track_nodules([{**first, "patient_id": None, "timepoint": None}])
    assert all(track.reason and "no patient" in track.reason for track in anonymous)
    blank = {**second, "volume": np.full(SHAPE, 40, np.int16)}
    refused = imaging.track_nodules([first, blank])
    assert all(track.track_id is None and track.reason and "no lungs" in track.reason for track in refused)


def test_a_place_outside_the_other_scan_is_not_called_an_end() -> None:
    first, second = rows()[:2]
    scan = imaging.crop(Scan.from_row(second), (0, 0, 0, 126, 100, 28))
    frame, _ = scan.grid
    low = {**second, "volume": scan.array, "lung_mask": None, "origin": frame.origin, "nodules": []}
    found = imaging.track_nodules([first, low])
    above = [track for track, nodule in zip(found, first["nodules"], strict=True) if nodule["center_world"][2] > 15]
    assert above
    assert all(track.ended is None for track in above)


def test_the_order_of_time_is_required() -> None:
    with pytest.raises(ValueError, match="in order"):
        imaging.track_nodules([rows()[1], rows()[0]])


# --- volumes and growth -----------------------------------------------------------------------------------------------


@cache
def sphere(diameter: float, spacing: tuple[float, float, float], density: float, *, vessel: bool = False) -> Scan:
    """A noisy sphere in lung with a soft edge, computed from points that are finer than the voxels."""
    count = np.ceil((2.6 * diameter + 20) / np.array(spacing)).astype(int)
    frame = Frame(spacing=spacing)
    center = frame.to_world((count - 1) / 2 + (0.3, -0.2, 0.1))
    x2, y2, z2 = (
        (((np.arange(3 * n) - 1) / 3 * mm - at) ** 2).astype(np.float32)
        for n, mm, at in zip(count, spacing, center, strict=True)
    )
    across = z2[:, None] + y2
    inside = across[:, :, None] + x2 < (diameter / 2) ** 2
    if vessel:
        inside |= (across < 1.2**2)[:, :, None]
    share = inside.reshape(*np.stack([count[::-1], [3] * 3], 1).ravel()).mean(axis=(1, 3, 5), dtype=np.float32)
    hu = ndimage.gaussian_filter(-860 + (density + 860) * share, [0.5 / mm for mm in spacing[::-1]])
    hu += np.random.default_rng(0).normal(0, 20, hu.shape)
    return Scan(np.rint(hu).astype(np.int16), frame, nodules=({"center_world": center, "diameter_mm": diameter},))


def volume_of(diameter: float) -> float:
    return math.pi / 6 * diameter**3


@pytest.mark.parametrize("density", [30.0, -500.0])
@pytest.mark.parametrize(
    ("diameter", "spacing"),
    [(5.0, (0.7, 0.7, 1.25)), (8.0, (0.7, 0.7, 1.25)), (20.0, (0.7, 0.7, 1.25)), (16.0, (0.7, 0.7, 5.0))],
)
def test_the_volume_of_a_sphere_is_within_ten_percent(diameter, spacing, density) -> None:
    scan = sphere(diameter, spacing, density)
    nodule = scan.nodules[0]
    for given in (nodule, {**nodule, "center_world": nodule["center_world"] + 0.6, "diameter_mm": 1.1 * diameter}):
        found = imaging.measure_nodule(scan, given)
        assert found.volume_mm3 is not None, found.reason
        assert found.volume_mm3.value == pytest.approx(volume_of(diameter), rel=0.1)
        assert found.volume_mm3.low < volume_of(diameter) < found.volume_mm3.high
        assert found.mass_mg is not None
        assert found.mass_mg.value == pytest.approx(volume_of(diameter) * (1 + density / 1000), rel=0.2)


def test_a_vessel_through_a_nodule_is_not_part_of_it() -> None:
    scan = sphere(9.0, (0.7, 0.7, 1.25), 30.0, vessel=True)
    found = imaging.measure_nodule(scan, scan.nodules[0])
    assert found.volume_mm3 is not None, found.reason
    assert found.volume_mm3.value == pytest.approx(volume_of(9.0), rel=0.1)


@pytest.mark.parametrize(
    ("nodule", "reason"),
    [
        ({"center_world": (20.0, 20.0, 20.0), "diameter_mm": None}, "no diameter"),
        ({"center_world": (-90.0, 0.0, 0.0), "diameter_mm": 8.0}, "outside"),
        ({"center_world": (4.0, 4.0, 4.0), "diameter_mm": 8.0}, "denser"),
        ({"center_world": (20.0, 20.0, 20.0), "diameter_mm": 2.0}, "too large"),
    ],
)
def test_what_cannot_be_measured_has_a_reason(nodule, reason) -> None:
    found = imaging.measure_nodule(sphere(9.0, (0.7, 0.7, 1.25), 30.0), nodule)
    assert found.volume_mm3 is None
    assert found.diameter_mm is None
    assert found.reason is not None
    assert reason in found.reason


def test_an_interval_contains_its_value() -> None:
    with pytest.raises(ValueError, match="low"):
        Interval(3.0, 1.0, 2.0)


def pair(diameters, thickness: float = 1.25, *, densities=(30.0, 30.0), days=(0, 200)):
    """Rows of two scans of one sphere, with tracks: nothing needs to be registered."""
    scans = [sphere(d, (0.7, 0.7, thickness), density) for d, density in zip(diameters, densities, strict=True)]
    made, known = [], []
    for index, scan in enumerate(scans):
        frame, _ = scan.grid
        identity = {"patient_id": "7", "scan_id": f"7-{index + 1}", "timepoint": index, "slice_thickness_mm": thickness}
        geometry = {"origin": frame.origin, "spacing": frame.spacing, "direction": frame.direction}
        made.append(
            {**identity, **geometry, "days_since_first": days[index], "volume": scan.array, "nodules": scan.nodules}
        )
        known.append(imaging.TrackedNodule(**identity, nodule=0, track_id="7-t1"))
    return made, known


@pytest.mark.parametrize("ratio", [1.3, 2.0, 5.0])
def test_the_doubling_time_is_within_twenty_percent(ratio) -> None:
    made, known = pair((10.0, 10.0 * ratio ** (1 / 3)))
    first, second = imaging.growth(made, tracks=known)
    expected = 200 * math.log(2) / math.log(ratio)
    assert first.volume_doubling_days is None
    assert second.volume_doubling_days is not None, second.reason
    assert second.volume_doubling_days.value == pytest.approx(expected, rel=0.2)
    assert second.volume_doubling_days.low < expected < second.volume_doubling_days.high
    assert second.volume_change is not None
    assert second.volume_change.value == pytest.approx(ratio - 1, abs=0.1 * ratio)
    assert second.reason is None


@pytest.mark.parametrize(
    ("diameters", "options", "reason"),
    [
        ((10.0, 10.4), {}, "25%"),
        ((12.0, 9.0), {}, "25%"),
        ((16.0, 20.0), {"thickness": 5.0}, "too thick"),
        ((10.0, 14.0), {"days": (0, None)}, "days"),
    ],
)
def test_a_doubling_time_that_is_not_known_is_null_with_its_reason(diameters, options, reason) -> None:
    made, known = pair(diameters, **options)
    second = imaging.growth(made, tracks=known)[1]
    assert second.volume_doubling_days is None
    assert second.mass_doubling_days is None
    assert second.reason is not None
    assert reason in second.reason


def test_a_denser_nodule_gains_mass_and_the_table_is_flat() -> None:
    made, known = pair((10.0, 11.5), densities=(-500.0, -200.0))
    second = imaging.growth(made, tracks=known)[1].as_dict()
    assert second["mass_mg"] / imaging.growth(made, tracks=known)[0].as_dict()["mass_mg"] > 2
    assert second["mass_doubling_days"] < second["volume_doubling_days"]
    assert second["days_since_first"] == 200
    assert second["category"] == "stable"
    assert all(value is None or isinstance(value, str | int | float) for value in second.values())


@pytest.mark.parametrize(
    ("diameters", "category"), [((20.0, 27.0), "progress"), ((8.0, 11.0), "stable"), ((14.0, 9.0), "response")]
)
def test_diameters_as_published_have_a_category(diameters, category) -> None:
    made, known = pair(diameters)
    assert imaging.growth(made, tracks=known)[1].category == category


def test_growth_measures_the_tracks_that_it_finds() -> None:
    scans = [{**row, "nodules": row["nodules"][:1]} for row in rows()[:2]]
    found = imaging.growth(scans)
    assert [row.track for row in found] == imaging.track_nodules(scans)
    assert found[1].diameter_change == pytest.approx(0.2)


def test_tracks_of_other_scans_are_refused() -> None:
    made, known = pair((10.0, 12.0))
    with pytest.raises(ValueError, match="no more"):
        imaging.growth(made, tracks=known[:1])
    with pytest.raises(ValueError, match="expected nodule 0 of scan 7-1"):
        imaging.growth(made, tracks=known[::-1])
    with pytest.raises(ValueError, match="expected no more"):
        imaging.growth(made, tracks=[*known, known[0]])
