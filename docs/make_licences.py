"""Write ``docs/licences.md``: the licence of every package that the project depends on, from ``uv.lock`` and installed metadata.

Run it in an environment with all extras: ``python docs/make_licences.py``.
"""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("licences.md")
PROJECT = "lung-nodule-ct"
_CLASSIFIERS = {
    "Apache License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.1-or-later",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
Package = dict[str, Any]
"""A package as the lock file describes it."""
_NOT_LISTED = ("test", "docs", "bench", "all")
_HEAD = """# Licences of dependencies

The licences that the packages declare. "core" is what `pip install lung_nodule_ct` installs, with what these packages need themselves; of an extra
only the packages that it names are listed. Extras for development and the extra `all` are left out. Versions are in `uv.lock`. A test compares this page with both.

| package | licence | needed by |
| --- | --- | --- |
"""


def needed() -> dict[str, list[str]]:
    """What needs each package: ``core`` and the extras, by the name of the package."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    packages = {package["name"]: package for package in lock["package"]}
    project = packages[PROJECT]
    by_package: dict[str, list[str]] = {name: ["core"] for name in _closure(project, packages)}
    for extra, dependencies in project["optional-dependencies"].items():
        if extra not in _NOT_LISTED:
            for dependency in dependencies:
                by = by_package.setdefault(dependency["name"], [])
                by += [word for word in (f"`{extra}`",) if word not in by]
    return dict(sorted(by_package.items()))


def _closure(package: Package, packages: dict[str, Package]) -> set[str]:
    """The packages that a package needs, and those that these need."""
    found: set[str] = set()
    waiting = list(_names(package))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _names(packages[name])
    return found


def _names(package: Package) -> list[str]:
    return [dependency["name"] for dependency in package.get("dependencies", [])]


def licence(name: str) -> str | None:
    """The licence that an installed package declares; ``None`` if it is not installed."""
    try:
        metadata = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    if expression := metadata.get("License-Expression"):
        return expression
    classifiers = [
        entry.rpartition(" :: ")[2] for entry in metadata.get_all("Classifier") or [] if "License ::" in entry
    ]
    text = (metadata.get("License") or "").strip().splitlines()
    if classifiers:
        return ", ".join(_CLASSIFIERS.get(entry, entry) for entry in classifiers)
    return _CLASSIFIERS.get(text[0], text[0][:60]) if text else "not declared"


def page(known: dict[str, str]) -> str:
    """The page; packages that are not installed here keep the licence that the page gives."""
    rows = [f"| {name} | {licence(name) or known.get(name, '?')} | {', '.join(by)} |" for name, by in needed().items()]
    return _HEAD + "\n".join(rows) + "\n"


def listed() -> dict[str, str]:
    """The licences on the page, by package."""
    if not PAGE.is_file():
        return {}
    rows = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return {row[0].removeprefix("| "): row[1] for row in rows}


if __name__ == "__main__":
    PAGE.write_text(page(listed()), encoding="utf-8")
