"""What pieces of work found, left as small files beside the data by whichever process did them, and gathered at the end."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.examples.report import Pixels, same_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_NAME = "findings-{}.part"


def leave_part(folder: Path, place: int, findings: Sequence[Finding], pixels: Sequence[Pixels]) -> None:
    """Leave what was found.

    Args:
        folder: Where.
        place: In the plan, from 1, of the first unit that it is of; 0 for the plan itself.
        findings: What was found.
        pixels: Where pixels stand.
    """
    part = {"findings": [asdict(finding) for finding in findings], "pixels": list(pixels)}
    (folder / _NAME.format(f"{place:09d}")).write_text(json.dumps(part), encoding="utf-8")


def gather_parts(folder: Path) -> tuple[Finding, ...]:
    """All that was found, in the order of the plan, and which pixels stand more than once; the parts are taken away."""
    findings: list[Finding] = []
    pixels: list[Pixels] = []
    for path in sorted(folder.glob(_NAME.format("*"))):
        part = json.loads(path.read_text(encoding="utf-8"))
        findings += [Finding(**{**entry, "code": Code(entry["code"])}) for entry in part["findings"]]
        pixels += [Pixels(*entry) for entry in part["pixels"]]
        path.unlink()
    return (*findings, *same_pixels(pixels))
