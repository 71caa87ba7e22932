"""What an audit leaves in the build's folder: ``audit.json``, and the plots under ``pictures/``; whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.audit.plots import draw_plots
from lung_nodule_ct.errors import OutputError
from lung_nodule_ct.report import to_json

if TYPE_CHECKING:
    from lung_nodule_ct.audit import Audit

AUDIT: Final = "audit.json"
PICTURES: Final = "pictures"


def write_audit(folder: Path, audit: Audit) -> tuple[Path, ...] | None:
    """Write an audit into a build's folder, in place of the last one and its plots.

    Args:
        folder: The build.
        audit: What was found.

    Returns:
        The plots; ``None`` where matplotlib is missing, and then there are none, the last audit's neither.

    Raises:
        OutputError: The folder cannot be written.
    """
    try:
        stage = Path(tempfile.mkdtemp(prefix=".audit-", dir=folder))
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error}") from error
    try:
        (stage / AUDIT).write_text(to_json(audit.document()), encoding="utf-8")
        drawn = draw_plots(audit.document()["numbers"], stage)
        pictures = folder / PICTURES
        kept = [pictures / path.name for path in drawn or ()]
        if drawn:
            pictures.mkdir(exist_ok=True)
        for path in drawn or ():
            path.replace(pictures / path.name)
        for left in set(pictures.glob("audit-*.png")) - set(kept):
            left.unlink()
        (stage / AUDIT).replace(folder / AUDIT)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return None if drawn is None else tuple(kept)
