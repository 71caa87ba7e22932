"""The files of a build by name, their format version, and how their JSON is written."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT_VERSION = 2
MANIFEST = "build.json"
FINDINGS = "findings.json"
GENERATOR = f"lung_nodule_ct {version('lung_nodule_ct')}"


def to_json(document: Mapping[str, Any]) -> str:
    """A document as readable JSON with a newline at its end."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
