"""Who is who: pictures that show another scan, another slice or another position than their names say, and patients who look like one person."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lung_nodule_ct.audit.copies_checks import thumbnail_of
from lung_nodule_ct.declaration.configs import Kind
from lung_nodule_ct.declaration.findings import Grade
from lung_nodule_ct.imaging.chest_search import ChestSearch
from lung_nodule_ct.imaging.slice_search import SliceSearch
from lung_nodule_ct.imaging.thumbnails import SYMMETRIES
from lung_nodule_ct.read.audit_report import Check, CheckGroup, Flag, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.audit.facts import ExampleFacts, Facts, ScanFacts
    from lung_nodule_ct.imaging.slice_search import Found
    from lung_nodule_ct.imaging.thumbnails import Thumbnail

_OWN, _OTHER = 0.9, 0.95
"""A picture shows another scan if its best correlation is below the first with its own scan and above the second with another.
Pictures had 0.974 with their own scan, and at most 0.80 with others."""
_ONE_PERSON = 0.88
"""Two patients look like one person from this median correlation of slices cut to the lungs. Scans of one patient had at least 0.93, those of two at
most 0.79; they were 13 scans of four patients with warped follow-ups, so that this is no more than a hint."""
_CANDIDATES = 8
_MOST_OF_A_SCAN = 0.6
_LEAST_PICTURES = 5
_REGULAR = 0.75
"""Median distance of the slices of a scan from a straight line in their numbers, in cells of the coarse grid (2.5 mm): 0 to 0.5 in
the mirror, where the numbers are not compared if it is larger."""
_APART = 2.5
_APART_PER_NUMBER = 0.03
"""Least distance of a misnumbered slice from the line, in cells, and what is added for each number from the middle one, as the slope is not exact."""
_CLEARLY = 1.15
"""How much further from 1 the correlation at the place of the number is than where the picture was found: three
cells away 1.13 to 2.5 times (1.3 or more for most), in the next cell 1.01 to 1.27."""


@dataclass(frozen=True, slots=True)
class _Placed:
    """A picture that was found in its own scan."""

    row: ExampleFacts
    thumbnail: Thumbnail
    found: Found


def identity_checks(facts: Facts) -> CheckGroup:
    """Whether each slice shows the scan of its name, at the place of its number, in the position of the other slices of its scan."""
    scans = [scan for scan in facts.distinct_scans if scan.measures is not None and scan.slice_thickness_mm < 2]
    search = SliceSearch([scan.measures.thumbnail for scan in scans if scan.measures is not None])
    own = _own_scans(scans)
    placed: defaultdict[int, list[_Placed]] = defaultdict(list)
    flags: list[Flag] = []
    compared = 0
    for row in facts.of(*facts.configs(Kind.SLICE)):
        thumbnail = thumbnail_of(row)
        numbers = own.get(("scan", row.scan_id)) or own.get(("patient", row.patient_id))
        if thumbnail is None or not numbers:
            continue
        compared += 1
        found = search.find(thumbnail, numbers)
        if found is None or found.correlation < _OWN:
            flags.extend(_other_scan(row, search.find_anywhere(thumbnail), found, scans))
        else:
            placed[found.scan].append(_Placed(row, thumbnail, found))
    for pictures in placed.values():
        flags.extend(_turned(pictures))
        flags.extend(_misnumbered(pictures, search))
    people = _people(scans)
    if not compared:
        return people
    check = Check.of_flags(
        "slice-identity",
        "Slices show what their names say",
        flags,
        compared,
        "slices",
        "each slice is searched in the thin scan of its name, in eight positions, and in other scans if it is not there",
    )
    return CheckGroup("identity", (check, *people.checks), {"slices": compared, **people.numbers}, tuple(flags))


def _people(thin: Sequence[ScanFacts]) -> CheckGroup:
    """Patients whose scans look like those of another patient; a few scans with the most similar middle slice are compared with each."""
    chests = [
        (scan, scan.measures.chest)
        for scan in thin
        if scan.patient_id is not None and scan.measures is not None and scan.measures.chest is not None
    ]
    scans = [scan for scan, _ in chests]
    own = Counter(scan.patient_id for scan in scans)
    if len(own) < 2:
        return CheckGroup("identity", ())
    search = ChestSearch([chest for _, chest in chests])
    alike: dict[tuple[str, ...], str] = {}
    for number, scan in enumerate(scans):
        for other in search.nearest(number, own[scan.patient_id] - 1 + _CANDIDATES):
            pair = tuple(sorted({str(scan.patient_id), str(scans[other].patient_id)}))
            if len(pair) == 2 and pair not in alike and search.similarity(number, other) >= _ONE_PERSON:
                alike[pair] = f"{scan.scan_key} and {scans[other].scan_key}"
    detail = f"a hint only: slices of the lungs of each thin scan are searched in the {_CANDIDATES} most similar scans of other patients"
    check = Check(
        "patients-alike",
        "Patients look like different people",
        Verdict.PASS,
        f"{len(alike):,} pairs of {len(own):,} patients look like one person",
        None,
        "; ".join([detail, *alike.values()]),
    )
    return CheckGroup("identity", (check,), {"patients_alike": [list(pair) for pair in alike]})


def _own_scans(scans: Sequence[ScanFacts]) -> Mapping[tuple[str, str | None], list[int]]:
    """The numbers of the scans with a ``scan_id``, and of a patient."""
    own: defaultdict[tuple[str, str | None], list[int]] = defaultdict(list)
    for number, scan in enumerate(scans):
        for key in (("scan", scan.scan_id), ("patient", scan.patient_id)):
            if key[1] is not None:
                own[key].append(number)
    return own


def _other_scan(
    row: ExampleFacts, other: Found | None, found: Found | None, scans: Sequence[ScanFacts]
) -> Iterator[Flag]:
    if other is None or other.correlation < _OTHER:
        return
    shown = scans[other.scan]
    own = -1.0 if found is None else found.correlation
    yield Flag(
        "slice-identity",
        Grade.WARNING,
        row.row_key,
        f"correlation {own:.2f} with its scan, {other.correlation:.2f} with {shown.scan_key}",
        f"at least {_OWN:g}",
        hint=f"the picture shows a slice of {shown.scan_key}",
        other=shown.row_key,
    )


def _turned(pictures: Sequence[_Placed]) -> Iterator[Flag]:
    usual, count = Counter(each.found.symmetry for each in pictures).most_common(1)[0]
    if count < _MOST_OF_A_SCAN * len(pictures):
        return
    for each in pictures:
        if each.found.symmetry != usual:
            measured = f"{SYMMETRIES[each.found.symmetry]} against its scan, correlation {each.found.correlation:.2f}"
            bound = f"as the other slices of the scan: {SYMMETRIES[usual]}"
            yield Flag("slice-identity", Grade.WARNING, each.row.row_key, measured, bound)


def _misnumbered(pictures: Sequence[_Placed], search: SliceSearch) -> Iterator[Flag]:
    """Pictures whose place in the scan does not go with their number, where those of the others do."""
    numbered = [(number, each) for each in pictures if (number := _number(each.row)) is not None]
    if len(numbered) < _LEAST_PICTURES:
        return
    numbers = np.array([number for number, _ in numbered], float)
    places = np.array([each.found.z for _, each in numbered], float)
    expected = _line(numbers, places)
    away = np.abs(places - expected)
    if float(np.median(away)) > _REGULAR:
        return
    allowed = _APART + _APART_PER_NUMBER * np.abs(numbers - np.median(numbers))
    for index in np.flatnonzero(away > allowed).tolist():
        each = numbered[index][1]
        there = search.correlation(each.thumbnail, each.found.scan, round(expected[index]), each.found.symmetry)
        if 1 - there >= _CLEARLY * (1 - each.found.correlation):
            yield Flag(
                "slice-identity",
                Grade.WARNING,
                each.row.row_key,
                f"another slice than its number says, {away[index]:.0f} places of 2.5 mm away, "
                f"correlation {each.found.correlation:.3f} there and {there:.3f} at the place of its number",
                "at the place of its number, as the other slices of the scan",
                hint="its name has the number of another slice",
            )


def _number(row: ExampleFacts) -> int | None:
    digits = re.search(r"(\d+)$", str(row.key.get("image_id") or ""))
    return int(digits[1]) if digits else None


def _line(numbers: NDArray[Any], places: NDArray[Any]) -> NDArray[Any]:
    """The places on the line through the median slope of all pairs, which a few wrong numbers do not move."""
    first, second = np.triu_indices(len(numbers), 1)
    steps = numbers[second] - numbers[first]
    slopes = (places[second] - places[first])[steps != 0] / steps[steps != 0]
    slope = float(np.median(slopes)) if len(slopes) else 0.0
    line: NDArray[Any] = slope * numbers + np.median(places - slope * numbers)
    return line
