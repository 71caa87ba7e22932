"""What an audit leaves in the build's folder: ``audit.json``, and the plots under ``pictures/``; whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lung_nodule_ct.audit.plots import draw_plots
from lung_nodule_ct.declaration.manifest import to_json
from lung_nodule_ct.errors import OutputError
from lung_nodule_ct.read.audit_report import AUDIT
from lung_nodule_ct.read.sidecars import add_sidecars

if TYPE_CHECKING:
    from pathlib import Path

    from lung_nodule_ct.audit import Audit

COMMAND: Final = "audit"
PICTURES: Final = "pictures"


def write_audit(folder: Path, audit: Audit) -> tuple[Path, ...] | None:
    """Write an audit into a build's folder, in place of the last one and its plots.

    Args:
        folder: The build.
        audit: What was found.

    Returns:
        The plots; ``None`` where matplotlib is missing, and then there are none, the last audit's neither.

    Raises:
        OutputError: The folder cannot be written, or a file that is not ours stands where one shall be.
    """
    document = audit.document()
    with add_sidecars(folder, by=COMMAND) as stage:
        try:
            (stage / AUDIT).write_text(to_json(document), encoding="utf-8")
            (stage / PICTURES).mkdir()
            drawn = draw_plots(document["numbers"], stage / PICTURES)
        except OSError as error:
            raise OutputError(f"the audit of {folder} cannot be written: {error}") from error
    return None if drawn is None else tuple(folder / PICTURES / path.name for path in drawn)
