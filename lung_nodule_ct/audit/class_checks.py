"""Counts compared with the paper: the published figures, nodules by size, and examples by pathology class."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.labels import PATHOLOGY, PATHOLOGY_NAMES
from lung_nodule_ct.declaration.published import FIGURES, SIZE_GROUPS
from lung_nodule_ct.read.audit_report import Check, CheckGroup, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.audit.facts import Facts, NoduleFacts
    from lung_nodule_ct.declaration.published import FigureCount

_TOLERANCE = 0.01  # of all nodules: percentages and counts of the paper differ in the second decimal
_PREPRINT = {figure.name: figure.preprint or 0 for figure in FIGURES}
_SIZES = tuple(group.name for group in SIZE_GROUPS)


def published_checks(facts: Facts) -> CheckGroup:
    """Every published figure except the sizes, which :func:`sizes_checks` compares together."""
    counts = [count for count in facts.figures if count.figure.name not in _SIZES]
    numbers = {
        count.figure.name: {
            "here": count.measured,
            "preprint": count.figure.preprint,
            "published": count.figure.published,
            "agrees_with": count.agreement,
        }
        for count in counts
    }
    limit = facts.build.limit
    complete = () if limit is None else (_not_complete(limit),)
    return CheckGroup("published_figures", (*complete, *(_figure(count, limit) for count in counts)), numbers)


def sizes_checks(facts: Facts) -> CheckGroup:
    """The nodules of the 1.25 mm scans in the four groups of diameters that the paper uses."""
    name, title = "sizes", "Nodules by size, in the groups of the paper"
    published = [_PREPRINT[size] for size in _SIZES]
    shares = " / ".join(f"{100 * count / sum(published):.1f}" for count in published)
    expected = f"{shares} % of {sum(published):,} (preprint)"
    by_size = {count.figure.name: count for count in facts.figures if count.figure.name in _SIZES}
    counts = [by_size[size].measured or 0 for size in _SIZES]
    nodules = _thin_nodules(facts)
    numbers = {
        "groups": list(_SIZES),
        "counts": counts,
        "preprint": published,
        "not_positive": sum(nodule.diameter_mm is not None and nodule.diameter_mm <= 0 for nodule in nodules),
    }
    total = sum(counts)
    if facts.build.limit is not None:
        return CheckGroup(name, (Check.unknown(name, title, _few(facts.build.limit), expected),), numbers)
    if not total:
        missing = by_size[_SIZES[0]].config is None
        reason = by_size[_SIZES[0]].method if missing else "the 1.25 mm scans have no nodule"
        return CheckGroup(name, (Check.unknown(name, title, reason, expected),), numbers)
    measured = [count / total for count in counts]
    published_shares = [count / sum(published) for count in published]
    agrees = all(abs(a - b) <= _TOLERANCE for a, b in zip(measured, published_shares, strict=True))
    detail = f"up to 10 mm, 20 mm, 30 mm, and over 30 mm: {by_size[_SIZES[0]].method}"
    if numbers["not_positive"]:
        detail += f"; {numbers['not_positive']:,} more diameters are zero or negative"
    text = " / ".join(f"{100 * share:.1f}" for share in measured) + f" % of {total:,}"
    check = Check(name, title, Verdict.PASS if agrees else Verdict.WARN, text, expected, detail)
    return CheckGroup(name, (check,), numbers)


def classes_checks(facts: Facts) -> CheckGroup:
    """Examples by class and split, and the nodules of the 1.25 mm scans by class and size."""
    by_split = _classes_by_split(facts)
    return CheckGroup(
        "classes",
        (_balance(by_split),),
        {"names": list(PATHOLOGY_NAMES), "by_split": by_split, "by_size": _classes_by_size(_thin_nodules(facts))},
    )


def _few(limit: int) -> str:
    return f"the build was made with --limit {limit}"


def _not_complete(limit: int) -> Check:
    return Check(
        "complete",
        "The build is complete",
        Verdict.WARN,
        f"at most {limit:,} examples of each split",
        "all examples",
        f"{_few(limit)}; what other checks count is not that of the dataset",
    )


def _figure(count: FigureCount, limit: int | None) -> Check:
    key = re.sub(r"\W+", "-", count.figure.name.lower()).strip("-")
    name, title, expected = f"figure-{key}", f"Published: {count.figure.name}", count.figure.expected
    if count.measured is None or limit is not None:
        return Check.unknown(name, title, count.method if limit is None else _few(limit), expected)
    verdict = Verdict.WARN if count.agreement == "neither" else Verdict.PASS
    detail = f"agrees with {count.agreement}; counted: {count.method}"
    return Check(name, title, verdict, f"{count.measured:,}", expected, detail)


def _thin_nodules(facts: Facts) -> list[NoduleFacts]:
    """The nodules of the config in which the sizes of the paper are counted."""
    config = next(count.config for count in facts.figures if count.figure.name == _SIZES[0])
    return [nodule for scan in facts.scans if scan.config == config for nodule in scan.nodules]


def _classes_by_split(facts: Facts) -> dict[str, list[int]]:
    """The number of examples of each class by split, or by config and split if several configs have classes."""
    configs = {example.config for example in facts.examples if example.pathology is not None}
    by_split = {}
    for config in (name for name in facts.build.configs if name in configs):
        counts = Counter((example.split, example.pathology) for example in facts.of(config))
        for split in facts.build.configs[config]:
            key = split if len(configs) == 1 else f"{config}, {split}"
            by_split[key] = [counts[split, entry.index] for entry in PATHOLOGY]
    return by_split


def _balance(by_split: dict[str, list[int]]) -> Check:
    name, title, expected = "class-balance", "Class balance", "every class in every split"
    totals = [sum(counts) for counts in zip(*by_split.values(), strict=True)]
    if not sum(totals):
        return Check.unknown(name, title, "the build has no config with a pathology class per example", expected)
    published = _PREPRINT["malignant nodules"] / (_PREPRINT["malignant nodules"] + _PREPRINT["benign nodules"])
    malignant = sum(totals[entry.index] for entry in PATHOLOGY if entry.malignant) / sum(totals)
    absent = [
        f"{entry.name} in {split}"
        for split, counts in by_split.items()
        for entry in PATHOLOGY
        if not counts[entry.index]
    ]
    ratio = f"{max(totals) / min(totals):.1f} : 1" if min(totals) else "not defined, a class has no example"
    detail = "; ".join(
        f"{split}: " + ", ".join(f"{entry.letter} {counts[entry.index]:,}" for entry in PATHOLOGY)
        for split, counts in by_split.items()
    )
    if absent:
        detail += f"; there is no {', no '.join(absent)}"
    return Check(
        name,
        title,
        Verdict.WARN if absent else Verdict.PASS,
        f"largest to smallest {ratio}, {100 * malignant:.1f} % malignant",
        f"{expected}; {100 * published:.1f} % malignant (preprint, of nodules)",
        detail,
    )


def _classes_by_size(nodules: Sequence[NoduleFacts]) -> dict[str, Any]:
    def counts(pathology: int | None) -> list[int]:
        of_class = [nodule.diameter_mm for nodule in nodules if nodule.pathology == pathology]
        diameters = [diameter for diameter in of_class if diameter is not None]
        return [sum(map(group.holds, diameters)) for group in SIZE_GROUPS]

    return {
        "groups": list(_SIZES),
        "counts": {entry.name: counts(entry.index) for entry in PATHOLOGY},
        "class_unknown": counts(None),
    }
