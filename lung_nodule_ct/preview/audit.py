"""``audit.json`` of a build, as ``lung-nodule-ct audit`` writes it, for the page to show."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.errors import BuildFolderError

if TYPE_CHECKING:
    from pathlib import Path

AUDIT: Final = "audit.json"
_VERSION = 1
_VERDICTS = ("pass", "warn", "fail", "unknown")
_TEXTS = ("name", "title", "verdict", "measured", "expected", "detail")


def read_audit(folder: Path) -> dict[str, Any] | None:
    """The generator and the checks of a build's audit; ``None`` where it has none.

    Raises:
        BuildFolderError: The file is there and is no audit of a version that we know.
    """
    path = folder / AUDIT
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text("utf-8"))
        version = document["format_version"]
        checks = [{name: check.get(name) for name in _TEXTS} for check in document["checks"]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _refused(path, f"it cannot be read ({error!r})") from error
    if version != _VERSION:
        raise _refused(path, f"expected format_version {_VERSION}, got {version!r}")
    if strange := [check["verdict"] for check in checks if check["verdict"] not in _VERDICTS]:
        raise _refused(path, f"expected a verdict among {', '.join(_VERDICTS)}, got {strange[0]!r}")
    return {"generator": document.get("generator"), "checks": checks}


def _refused(path: Path, problem: str) -> BuildFolderError:
    remedy = f"write it again: lung-nodule-ct audit {path.parent}; or remove it"
    return BuildFolderError(f"{path} is no audit: {problem}", remedy=remedy)
