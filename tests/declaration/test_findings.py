"""The number and the length of what a report holds are bounded, and nothing is lost from the counts."""

from __future__ import annotations

from lung_nodule_ct.declaration.findings import MAX_PLACES, Code, Finding, FindingCollector, summarize
from lung_nodule_ct.errors import Place


def test_the_first_hundred_of_a_code_and_archive_are_kept_and_the_others_are_counted() -> None:
    report = FindingCollector()
    for row in range(1000):
        report.add(Code.BAD_ROW, "left out", Place("a.zip", "t.csv", f"line {row}"))
        report.add(Code.BAD_ROW, "left out", Place("b.zip", "t.csv", f"line {row}"), count=2)
    report.add(Code.TABLE_EMPTY, "nothing", Place("a.zip"))
    assert len(report.findings) == 2 * MAX_PLACES + 1 + 2
    assert summarize(report.findings)["bad-row"]["count"] == 3000
    first, *_, last = [finding for finding in report.findings if finding.place.archive == "a.zip"]
    assert (first.place.row, last.place.row, last.count) == ("line 0", None, 1000 - MAX_PLACES)


def test_collecting_again_keeps_the_bound_and_the_count() -> None:
    parts = []
    for part in range(3):
        report = FindingCollector()
        report.extend(
            Finding(Code.BAD_ROW, "left out", Place("a.zip", "t.csv", f"{part}: {row}")) for row in range(150)
        )
        parts.append(report)
    together = FindingCollector()
    for part in parts:
        together.extend(part.findings)
    assert len(together.findings) == MAX_PLACES + 1
    assert sum(finding.count for finding in together.findings) == 450


def test_texts_are_shortened() -> None:
    report = FindingCollector()
    report.add(Code.OBJECT_UNKNOWN, "x" * 9000, Place("a.zip", "m" * 9000, "r" * 9000), "d" * 9000)
    (finding,) = report.findings
    texts = (finding.resolution, finding.place.member, finding.place.row, finding.detail)
    assert max(len(text or "") for text in texts) <= 2001


def test_the_text_of_a_row_is_made_for_kept_findings_only() -> None:
    class CountedRow:
        made = 0

        @property
        def reference(self) -> str:
            CountedRow.made += 1
            return "line 1"

    report = FindingCollector()
    for _ in range(1000):
        report.add_row(Code.LISTED_BUT_MISSING, "left out", Place("a.zip", "train.txt"), CountedRow())
    assert CountedRow.made == MAX_PLACES
    assert sum(finding.count for finding in report.findings) == 1000
