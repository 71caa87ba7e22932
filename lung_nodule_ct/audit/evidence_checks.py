"""Is there a nodule at every annotated place? The verdicts of scans, slices and stacks, and the mistakes that explain the missing ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.audit.facts import ScanFacts, VolumeFacts
from lung_nodule_ct.declaration.findings import Grade
from lung_nodule_ct.imaging.judgement import LEAST_MM, LEAST_SIDE, NoduleVerdict
from lung_nodule_ct.read.audit_report import Check, CheckGroup, Flag, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lung_nodule_ct.audit.facts import ExampleFacts, Facts
    from lung_nodule_ct.audit.measures import Judged
    from lung_nodule_ct.imaging.judgement import NoduleEvidence

_JUDGED = (
    NoduleVerdict.PRESENT,
    NoduleVerdict.ABSENT,
    NoduleVerdict.FAINT,
    NoduleVerdict.OFF_CENTRE,
    NoduleVerdict.OTHER_SIZE,
)
_LEAST_ROWS: Final = 3
"""Number of rows that one mistake must explain before it is called one of the table."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotation and its evidence.

    Attributes:
        row: The row that holds it.
        number: Its index in the row.
        judged: Its evidence, and the pictures of a flagged annotation.
    """

    row: ExampleFacts
    number: int
    judged: Judged

    @property
    def evidence(self) -> NoduleEvidence:
        """Its evidence."""
        return self.judged.evidence


def evidence_checks(facts: Facts) -> CheckGroup:
    """The verdicts on all annotations, each scan once."""
    seen = _seen_elsewhere(facts.distinct_scans)
    kinds: dict[str, tuple[str, list[Annotation]]] = {
        "nodule-evidence": ("There is a nodule at every centre", []),
        "stack-evidence": ("There is a nodule in every box of a stack", []),
        "box-evidence": ("There is a nodule in every box of a slice", []),
    }
    for annotation in judged_annotations(facts):
        row = annotation.row
        name = (
            "nodule-evidence"
            if isinstance(row, ScanFacts)
            else "stack-evidence"
            if isinstance(row, VolumeFacts)
            else "box-evidence"
        )
        kinds[name][1].append(annotation)
    checks: list[Check] = []
    flags: list[Flag] = []
    numbers: dict[str, Any] = {}
    for name, (title, found) in kinds.items():
        if not found:
            continue
        own = [flag for annotation in found if (flag := _flag(name, annotation, seen)) is not None]
        flags += own
        counts = Counter(str(annotation.evidence.verdict) for annotation in found)
        numbers[name] = {str(verdict): counts[str(verdict)] for verdict in NoduleVerdict if counts[str(verdict)]}
        checks.append(_check(name, title, found, own))
    return CheckGroup("evidence", tuple(checks), numbers, tuple(flags))


def judged_annotations(facts: Facts, *, distinct: bool = True) -> Iterator[Annotation]:
    """Every measured annotation of scans, stacks and slices.

    Args:
        facts: The facts.
        distinct: Take a scan once that two configs contain.
    """
    scans = {id(scan) for scan in (facts.distinct_scans if distinct else facts.scans)}
    for row in facts.examples:
        if isinstance(row, ScanFacts):
            found = row.measures.nodules if row.measures is not None and id(row) in scans else ()
        elif isinstance(row, VolumeFacts):
            found = row.stack.nodules if row.stack is not None else ()
        else:
            found = row.picture.boxes if row.picture is not None else ()
        for number, judged in enumerate(found):
            yield Annotation(row, number, judged)


def _flag(name: str, annotation: Annotation, seen: Mapping[tuple[str, float, int], Sequence[ScanFacts]]) -> Flag | None:
    evidence, row = annotation.evidence, annotation.row
    if evidence.grade is None:
        return None
    hint, other = evidence.hint, None
    if (
        hint is None
        and isinstance(row, ScanFacts)
        and evidence.verdict in (NoduleVerdict.ABSENT, NoduleVerdict.OUTSIDE)
    ):
        found = seen.get((*row.volume_key, annotation.number), ())
        if found:
            other = found[0].row_key
            hint = f"there is such a nodule at this place in {found[0].scan_key}, {found[0].slice_thickness_mm:g} mm"
    return Flag(
        name,
        evidence.grade,
        row.row_key,
        f"{evidence.verdict}: {evidence.measured}",
        evidence.bound,
        annotation=annotation.number,
        hint=hint,
        other=other,
    )


def _seen_elsewhere(scans: Sequence[ScanFacts]) -> Mapping[tuple[str, float, int], Sequence[ScanFacts]]:
    """The scans in which a nodule of another scan of the patient is seen at its place, by that scan and the index."""
    seen: defaultdict[tuple[str, float, int], list[ScanFacts]] = defaultdict(list)
    for scan in scans:
        for other in scan.measures.seen_here if scan.measures is not None else ():
            seen[*other.scan, other.number].append(scan)
    return seen


def _check(name: str, title: str, found: Sequence[Annotation], flags: Sequence[Flag]) -> Check:
    counts = Counter(annotation.evidence.verdict for annotation in found)
    judged = sum(counts[verdict] for verdict in _JUDGED)
    present = judged - sum(counts[verdict] for verdict in (NoduleVerdict.ABSENT, NoduleVerdict.FAINT))
    errors = sum(flag.grade is Grade.ERROR for flag in flags)
    verdict = Verdict.FAIL if errors else Verdict.WARN if flags else Verdict.PASS
    others = ", ".join(
        f"{counts[each]:,} {each}" for each in NoduleVerdict if counts[each] and each is not NoduleVerdict.PRESENT
    )
    least = f"{LEAST_MM:g} mm" if name == "nodule-evidence" else f"{LEAST_SIDE:g} pixels"
    detail = f"rays from the centre, compared with random places in the same lungs; no verdict below {least}" + (
        f"; {others}" if others else ""
    )
    hints = Counter(flag.hint for flag in flags if flag.hint is not None)
    for hint, count in hints.most_common(2):
        if count >= _LEAST_ROWS:
            detail += f"; in {count:,} of {len(flags):,} flagged rows, {hint}"
    for flag in flags[:3]:
        detail += f"; {flag.row}, annotation {flag.annotation}: {flag.measured}"
    return Check(name, title, verdict, f"{present:,} of {judged:,} present, {len(flags):,} flagged", "all", detail)
