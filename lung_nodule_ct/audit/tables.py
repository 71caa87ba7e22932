"""The annotations that are told more than once: do they say the same? The build compares them; this counts what it found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lung_nodule_ct.audit.check import Part, unknown
from lung_nodule_ct.declaration.configs import DET2D_1_25MM, DET3D_BMP_1_25MM
from lung_nodule_ct.declaration.findings import Code
from lung_nodule_ct.read.audit_report import Check, Verdict

if TYPE_CHECKING:
    from lung_nodule_ct.audit.facts import Facts


def tables_part(facts: Facts) -> Part:
    """The XML against the workbook and the lists, and the two tables of the stacks."""
    checks = (
        _compared(facts, DET2D_1_25MM.name, "voc-workbook", "VOC XML against the workbook and lists"),
        _compared(facts, DET3D_BMP_1_25MM.name, "stack-tables", "Stack boxes against the tables of splits"),
    )
    configs = (DET2D_1_25MM.name, DET3D_BMP_1_25MM.name)
    codes = (Code.TABLES_DISAGREE, Code.CROSS_CHECK_IMPOSSIBLE, Code.SPLIT_LISTS_DISAGREE)
    numbers = {
        config: {str(code): facts.findings(config, (code,)) for code in codes}
        for config in configs
        if config in facts.build.configs
    }
    return Part("tables", checks, numbers)


def _compared(facts: Facts, config: str, name: str, title: str) -> Check:
    expected = "0 disagree"
    if config not in facts.build.configs:
        return unknown(name, title, f"{config} is not in the build", expected)
    disagree = facts.findings(config, (Code.TABLES_DISAGREE,))
    impossible = facts.findings(config, (Code.CROSS_CHECK_IMPOSSIBLE,))
    if impossible and not disagree:
        return unknown(
            name,
            title,
            "the build found nothing to compare with: see cross-check-impossible in findings.json",
            expected,
        )
    rows = sum(facts.build.configs[config].values())
    return Check(
        name,
        title,
        Verdict.FAIL if disagree else Verdict.PASS,
        f"{disagree:,} disagree, of {rows:,} examples",
        expected,
        "as the build compared them: tables-disagree in findings.json",
    )
