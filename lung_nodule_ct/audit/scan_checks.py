"""Every scan against its header: Hounsfield units, orientation, lungs, and the order of slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lung_nodule_ct.audit.facts import ScanFacts
from lung_nodule_ct.declaration.findings import Grade
from lung_nodule_ct.imaging.anatomy import DEPTH_SHARE, WIDTH_MM
from lung_nodule_ct.imaging.slice_order import SliceFault
from lung_nodule_ct.read.audit_report import Check, CheckGroup, Flag

if TYPE_CHECKING:
    from lung_nodule_ct.audit.facts import Facts, VolumeFacts
    from lung_nodule_ct.imaging.anatomy import Anatomy
    from lung_nodule_ct.imaging.slice_order import SliceOrder

_TURNED_MM = 25.0
"""A spine this far in front of the lungs' middle, or this much more to a side than behind it, is turned."""
_MAX_EVENTS = 5


def scans_checks(facts: Facts) -> CheckGroup:
    """Calibration, orientation and size of every distinct scan."""
    scans = [scan for scan in facts.distinct_scans if scan.measures is not None]
    if not scans:
        return CheckGroup("scans", ())
    calibration = [flag for scan in scans if (flag := _calibration(scan)) is not None]
    orientation = [flag for scan in scans if (flag := _orientation(scan)) is not None]
    lungs = [flag for scan in scans if (flag := _lungs(scan)) is not None]
    checks = (
        Check.of_flags(
            "hu-calibration",
            "The values are Hounsfield units",
            calibration,
            len(scans),
            "scans",
            "peaks of fat and muscle, mean of the lungs, values that never occur, and the highest value",
        ),
        Check.of_flags(
            "orientation",
            "The spine is behind the lungs",
            orientation,
            len(scans),
            "scans",
            "the largest piece of bone near the middle plane, in the directions that the header gives",
        ),
        Check.of_flags(
            "lung-size",
            "Lungs have the size of lungs",
            lungs,
            len(scans),
            "scans",
            "width and depth of both lungs with the spacing of the header",
        ),
    )
    numbers = {
        "fat_hu": [scan.measures.calibration.fat for scan in scans if scan.measures],
        "muscle_hu": [scan.measures.calibration.muscle for scan in scans if scan.measures],
        "lung_hu": [scan.measures.calibration.lung for scan in scans if scan.measures],
        "lung_width_mm": [scan.measures.anatomy.width_mm for scan in scans if scan.measures and scan.measures.anatomy],
    }
    return CheckGroup("scans", checks, numbers, (*calibration, *orientation, *lungs))


def order_checks(facts: Facts) -> CheckGroup:
    """The order of the slices of every distinct scan and stack."""
    flags: list[Flag] = []
    jumps: list[float] = []
    for volume in facts.volumes:
        order = _order(volume)
        if order is None:
            continue
        jumps.append(order.jump)
        for event in order.events[:_MAX_EVENTS]:
            more = f", and {len(order.events) - 1:,} more in this volume" if len(order.events) > 1 else ""
            flags.append(
                Flag(
                    "slice-order",
                    Grade.WARNING,
                    volume.row_key,
                    f"slice {event.slice}: {event.fault}, {event.measured:.2f}{more}",
                    f"{'at least' if event.fault in (SliceFault.BLANK, SliceFault.REPEATED) else 'at most'} {event.bound:g}",
                )
            )
    if not jumps:
        return CheckGroup("order", ())
    check = Check.of_flags(
        "slice-order",
        "Slices are complete and in order",
        flags,
        len(jumps),
        "volumes",
        "the difference of neighbouring slices, compared with the pairs around them and with the difference over two slices",
    )
    return CheckGroup("order", (check,), {"largest_jump": jumps}, tuple(flags))


def _order(volume: VolumeFacts) -> SliceOrder | None:
    if isinstance(volume, ScanFacts):
        return None if volume.measures is None else volume.measures.order
    return None if volume.stack is None else volume.stack.order


def _calibration(scan: ScanFacts) -> Flag | None:
    assert scan.measures is not None  # noqa: S101 -- the callers select
    calibration = scan.measures.calibration
    if not calibration.faults:
        return None
    return Flag(
        "hu-calibration", Grade.WARNING, scan.row_key, "; ".join(calibration.faults), "fat near -100, muscle near 50"
    )


def _orientation(scan: ScanFacts) -> Flag | None:
    assert scan.measures is not None  # noqa: S101 -- the callers select
    anatomy = scan.measures.anatomy
    where = None if anatomy is None else turned(anatomy)
    if where is None:
        return None
    return Flag(
        "orientation",
        Grade.WARNING,
        scan.row_key,
        where,
        "the spine is behind the middle of the lungs",
        hint="the direction of the header does not belong to these voxels",
    )


def turned(anatomy: Anatomy) -> str | None:
    """Where the spine is, if it is not behind the middle of the lungs; ``None`` if it is, or if there is none."""
    if anatomy.spine is None:
        return None
    x, y, _ = anatomy.spine
    if y < -_TURNED_MM and abs(x) < -y:
        return f"the spine is {-y:.0f} mm in front of the middle of the lungs"
    if abs(x) - abs(y) > _TURNED_MM:
        return f"the spine is {abs(x):.0f} mm to a side of the middle of the lungs"
    return None


def _lungs(scan: ScanFacts) -> Flag | None:
    assert scan.measures is not None  # noqa: S101 -- the callers select
    anatomy = scan.measures.anatomy
    if anatomy is None:
        return Flag("lung-size", Grade.WARNING, scan.row_key, "no lung was found", "two lungs")
    fault = size_fault(anatomy)
    if fault is None:
        return None
    return Flag(
        "lung-size",
        Grade.WARNING,
        scan.row_key,
        fault,
        f"width {WIDTH_MM[0]:.0f} to {WIDTH_MM[1]:.0f} mm, depth {DEPTH_SHARE[0]:g} to {DEPTH_SHARE[1]:g} of it",
        hint="the spacing of the header does not belong to these voxels, or the scan is a crop",
    )


def size_fault(anatomy: Anatomy) -> str | None:
    """Width and depth of the lungs if they are not those of lungs, otherwise ``None``."""
    width, share = anatomy.width_mm, anatomy.depth_mm / anatomy.width_mm
    if WIDTH_MM[0] <= width <= WIDTH_MM[1] and DEPTH_SHARE[0] <= share <= DEPTH_SHARE[1]:
        return None
    return f"width {width:.0f} mm, depth {anatomy.depth_mm:.0f} mm"
