"""Patient sequences: the scans of the ``longitudinal`` config by patient, in chronological order, read only when they are accessed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, overload

_SMALL_COLUMNS = ("patient_id", "timepoint", "days_since_first", "slice_thickness_mm", "scan_id")


@dataclass(frozen=True)
class PatientSequence(Sequence[Mapping[str, Any]]):
    """The scans of one patient in one slice thickness, the earliest first. An item is the complete row, volume included.

    Attributes:
        patient_id: The patient.
        slice_thickness_mm: 1.25 or 5.0.
        timepoints: Rank of the date of each scan among the dates of the patient. A rank is missing if the patient has no scan of
            this thickness on that date.
        days_since_first: Days from the first scan of the patient to each scan.
        scan_ids: Keys of the scans.

    Example:
        >>> import lung_nodule_ct
        >>> scans = lung_nodule_ct.load("longitudinal", source="dummy_data", split="train")
        >>> patient = next(iter(lung_nodule_ct.patient_sequences(scans)))
        >>> len(patient), patient.timepoints, patient[0]["timepoint"]
        (3, (0, 1, 2), 0)
    """

    patient_id: str
    slice_thickness_mm: float
    timepoints: tuple[int, ...]
    days_since_first: tuple[int, ...]
    scan_ids: tuple[str, ...]
    _rows: Sequence[Mapping[str, Any]] = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.timepoints)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        return self._rows[index]


class _LazyRows(Sequence[Mapping[str, Any]]):
    """Rows of a map-style dataset, by index."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self._dataset, self._indices = dataset, indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        if isinstance(index, slice):
            return _LazyRows(self._dataset, self._indices[index])
        row: Mapping[str, Any] = self._dataset[self._indices[index]]
        return row


def patient_sequences(dataset: Any, *, min_scans: int = 2) -> Iterator[PatientSequence]:
    """Iterate over the patients of the ``longitudinal`` config, one sequence per patient and slice thickness.

    Args:
        dataset: A split of ``longitudinal``. From a ``Dataset`` only small columns are read until a scan is accessed; of an
            ``IterableDataset`` the scans of one patient are in memory at a time.
        min_scans: Sequences with fewer scans are left out. The two dates of a patient may have different thicknesses.

    Yields:
        Sequences in the order of the dataset.

    Raises:
        ValueError: ``dataset`` does not have the columns of ``longitudinal``, or ``min_scans`` is below 1.

    Example:
        >>> import lung_nodule_ct
        >>> scans = lung_nodule_ct.load("longitudinal", source="dummy_data", split="train")
        >>> for patient in lung_nodule_ct.patient_sequences(scans):
        ...     print(patient.patient_id, patient.slice_thickness_mm, patient.days_since_first)
        12 1.25 (0, 463, 913)
        12 5.0 (0, 913)
        27 1.25 (0, 318)
        27 5.0 (0, 318)
    """
    if min_scans < 1:
        raise ValueError(f"min_scans: expected at least 1, got {min_scans}")
    columns = getattr(dataset, "column_names", None)
    if columns is not None and (missing := set(_SMALL_COLUMNS) - set(columns)):
        raise ValueError(
            f"dataset: expected a split of the longitudinal config; it has no {', '.join(sorted(missing))}"
        )
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "select_columns") and hasattr(dataset, "__len__"):
        small = dataset.select_columns(list(_SMALL_COLUMNS)).with_format(None)
        numbered: Iterator[tuple[int, Mapping[str, Any]]] = enumerate(small)
        for _, group in groupby(numbered, key=lambda item: item[1]["patient_id"]):
            yield from _by_thickness([(row, index) for index, row in group], dataset, min_scans)
    else:
        for _, rows in groupby(dataset, key=lambda row: row["patient_id"]):
            yield from _by_thickness([(row, row) for row in rows], None, min_scans)


def _by_thickness(
    entries: list[tuple[Mapping[str, Any], Any]], dataset: Any, min_scans: int
) -> Iterator[PatientSequence]:
    """The scans of one patient as sequences. ``entries`` are rows of small columns, each with its index or the complete row."""
    for thickness in sorted({row["slice_thickness_mm"] for row, _ in entries}):
        scans = sorted(
            (entry for entry in entries if entry[0]["slice_thickness_mm"] == thickness),
            key=lambda entry: entry[0]["timepoint"],
        )
        if len(scans) < min_scans:
            continue
        rows = [entry[1] for entry in scans]
        yield PatientSequence(
            patient_id=scans[0][0]["patient_id"],
            slice_thickness_mm=thickness,
            timepoints=tuple(row["timepoint"] for row, _ in scans),
            days_since_first=tuple(row["days_since_first"] for row, _ in scans),
            scan_ids=tuple(row["scan_id"] for row, _ in scans),
            _rows=rows if dataset is None else _LazyRows(dataset, rows),
        )
