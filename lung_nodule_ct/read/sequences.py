"""The ``longitudinal`` config, grouped: each patient's scans in the order of time, read only when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, overload

_LIGHT = ("patient_id", "timepoint", "days_since_first", "slice_thickness_mm", "scan_id")


@dataclass(frozen=True)
class PatientSequence(Sequence[Mapping[str, Any]]):
    """One patient's scans of one slice thickness, the earliest first. An item is the whole row, volume included.

    Attributes:
        patient_id: The patient.
        slice_thickness_mm: 1.25 or 5.0.
        timepoints: Rank of each scan's date among the patient's dates. A rank is missing where the patient has no scan
            of this thickness on that date.
        days_since_first: Days of each scan since the patient's first.
        scan_ids: Keys of the scans.
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
    """Rows of a map-style dataset, by their places in it."""

    def __init__(self, dataset: Any, places: Sequence[int]) -> None:
        self._dataset, self._places = dataset, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        if isinstance(index, slice):
            return _LazyRows(self._dataset, self._places[index])
        row: Mapping[str, Any] = self._dataset[self._places[index]]
        return row


def patient_sequences(dataset: Any, *, min_scans: int = 2) -> Iterator[PatientSequence]:
    """The patients of the ``longitudinal`` config, each thickness on its own.

    Args:
        dataset: A split of ``longitudinal``. Of a ``Dataset`` only small columns are read until a scan is asked for; of an
            ``IterableDataset`` one patient's scans are held at a time.
        min_scans: Leave out sequences with fewer scans. (A patient's two dates may be of different thickness.)

    Yields:
        A sequence a patient and thickness, in the order of the dataset.

    Raises:
        ValueError: ``dataset`` has not the columns of ``longitudinal``, or ``min_scans`` is below 1.
    """
    if min_scans < 1:
        raise ValueError(f"min_scans: expected at least 1, got {min_scans}")
    columns = getattr(dataset, "column_names", None)
    if columns is not None and (missing := set(_LIGHT) - set(columns)):
        raise ValueError(
            f"dataset: expected a split of the longitudinal config; it has no {', '.join(sorted(missing))}"
        )
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "select_columns") and hasattr(dataset, "__len__"):
        light = dataset.select_columns(list(_LIGHT)).with_format(None)
        numbered: Iterator[tuple[int, Mapping[str, Any]]] = enumerate(light)
        for _, group in groupby(numbered, key=lambda item: item[1]["patient_id"]):
            yield from _by_thickness([(row, place) for place, row in group], dataset, min_scans)
    else:
        for _, rows in groupby(dataset, key=lambda row: row["patient_id"]):
            yield from _by_thickness([(row, row) for row in rows], None, min_scans)


def _by_thickness(
    entries: list[tuple[Mapping[str, Any], Any]], dataset: Any, min_scans: int
) -> Iterator[PatientSequence]:
    """One patient's scans as sequences; ``entries`` are light rows, each with its place in ``dataset`` or the whole row."""
    for thickness in sorted({row["slice_thickness_mm"] for row, _ in entries}):
        own = sorted(
            (entry for entry in entries if entry[0]["slice_thickness_mm"] == thickness),
            key=lambda entry: entry[0]["timepoint"],
        )
        if len(own) < min_scans:
            continue
        held = [entry[1] for entry in own]
        yield PatientSequence(
            patient_id=own[0][0]["patient_id"],
            slice_thickness_mm=thickness,
            timepoints=tuple(row["timepoint"] for row, _ in own),
            days_since_first=tuple(row["days_since_first"] for row, _ in own),
            scan_ids=tuple(row["scan_id"] for row, _ in own),
            _rows=held if dataset is None else _LazyRows(dataset, held),
        )
