"""Keys of a MetaImage header that change what its numbers mean, and that neither ITK nor this package applies.

The voxels and the geometry of an example are those that SimpleITK reads from the same header. Where a key says that they mean something
else (centimetres, a scale of the intensities, another orientation), nothing is converted, because the annotations of the archives are
in millimetres and were made on these voxels; the contradiction is reported.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.findings import Code
from lung_nodule_ct.declaration.identity import quoted
from lung_nodule_ct.formats.text import read_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lung_nodule_ct.geometry.frame import Frame

Issue = tuple[Code, str, str]
"""An irregularity: its code, what the header contains, what was done."""

_MILLIMETRES: Final = ("", "?", "mm", "millimeter", "millimeters", "millimetre", "millimetres", "unknown")
_CT: Final = ("", "?", "ct", "other", "unknown")
_NEUTRAL: Final = {
    "ElementToIntensityFunctionSlope": 1.0,
    "ElementToIntensityFunctionOffset": 0.0,
    "HeaderSizePerSlice": 0.0,
}
"""Keys with the one value that changes nothing."""
_RESCALING: Final = {"rescaleslope": 1.0, "rescaleintercept": 0.0}
"""Likewise for keys that MetaImage does not have and DICOM does, without blanks and in lower case."""
_DIRECTIONS: Final = {
    "R": (0, 1.0),
    "L": (0, -1.0),
    "A": (1, 1.0),
    "P": (1, -1.0),
    "I": (2, 1.0),
    "S": (2, -1.0),
}
"""World axis of each letter, and the sign of the direction that leads away from it: ITK writes RAI for the identity matrix."""
_AGREES: Final = 0.5
"""The minimum cosine of the angle between an axis and the direction that its letter names, which is 60 degrees."""


def meaning_issues(fields: Mapping[str, str], frame: Frame) -> list[Issue]:
    """Return the irregularities of keys that say something else than what is used.

    Args:
        fields: The values of a header by key.
        frame: The geometry that is used.
    """
    issues = [
        (Code.HEADER_KEY_NOT_APPLIED, f"{key} = {quoted(fields[key][:80])}", "the stored values are used, as ITK does")
        for key, neutral in _NEUTRAL.items()
        if key in fields and read_numbers(fields[key].split()) not in ((neutral,), ())
    ]
    issues += [
        (
            Code.HEADER_KEY_NOT_APPLIED,
            f"{quoted(key)} = {quoted(value[:80])}",
            "the stored values are used, as ITK does",
        )
        for key, value in fields.items()
        if (neutral := _RESCALING.get(re.sub("[ _-]", "", key.lower()))) is not None
        and read_numbers(value.split()) not in ((neutral,), ())
    ]
    if (units := fields.get("DistanceUnits", "")).lower() not in _MILLIMETRES:
        detail = f"DistanceUnits = {quoted(units[:80])}"
        issues.append((Code.HEADER_KEY_NOT_APPLIED, detail, "the numbers are taken as millimetres, as ITK does"))
    modality = fields.get("Modality", "")
    if modality.upper().removeprefix("MET_MOD_").lower() not in _CT:
        issues.append((Code.HEADER_CONFLICT, f"Modality = {quoted(modality[:80])}", "taken as CT, as the archive says"))
    spacing, size = (read_numbers(fields.get(key, "").split()) for key in ("ElementSpacing", "ElementSize"))
    if spacing and size and tuple(map(abs, spacing)) != size:
        detail = f"ElementSpacing = {quoted(fields['ElementSpacing'][:80])}, ElementSize = {quoted(fields['ElementSize'][:80])}"
        issues.append((Code.HEADER_CONFLICT, detail, "ElementSpacing is used, as ITK does"))
    orientation = fields.get("AnatomicalOrientation", "")
    if _contradicts(orientation.upper(), frame):
        detail = f"AnatomicalOrientation = {quoted(orientation)}, which is not that of the matrix"
        issues.append((Code.HEADER_CONFLICT, detail, "the matrix is used, as ITK does"))
    return issues


def _contradicts(letters: str, frame: Frame) -> bool:
    """Whether three letters name other directions than the matrix has; any other text contradicts nothing."""
    named = [_DIRECTIONS[letter] for letter in letters if letter in _DIRECTIONS]
    if len(letters) != 3 or len({axis for axis, _ in named}) != 3:
        return False
    return any(
        frame.matrix[axis, column] * sign < _AGREES * float((frame.matrix[:, column] ** 2).sum()) ** 0.5
        for column, (axis, sign) in enumerate(named)
    )
