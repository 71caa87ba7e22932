"""Put faults into real data, one at a time, and count which of them a build and its audit report by name.

    python -m benchmarks.faults_in_data --mirror MIRROR --faults FOLDER [--only A01 C07] [--workers 2] [--json FILE]

FOLDER holds ``inject.py``, a module with ``Mirror`` and ``FAULTS`` (``{id: (text, configs, edit)}``): each edit changes the archives of a
mirror in memory. Every fault is built with all configs and audited, as the sound mirror is. It counts as reported if there is a
finding of grade warning or error that the sound mirror does not have and that names a member, a row or a scan, or such a flag of
``audit.json``. What cannot be known from the data is not counted (``--unknowable``), and controls must be silent.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import argument_parser
from lung_nodule_ct.audit import audit_build, measures
from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.declaration.manifest import Format
from lung_nodule_ct.errors import LungNoduleCTError
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.targets.build import build_folder
from lung_nodule_ct.targets.options import BuildOptions

UNKNOWABLE = ("A07", "B01", "E02", "F06", "G04", "G11", "H02")
"""What no check can see in the data alone, by the list that comes with the faults."""


def main() -> None:
    """Run the faults, and print one line for each and the totals."""
    parser = argument_parser(__doc__)
    parser.add_argument("--mirror", type=Path, required=True)
    parser.add_argument("--faults", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--unknowable", nargs="*", default=list(UNKNOWABLE))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        mirror = Path(shutil.copytree(options.mirror, Path(scratch) / "mirror"))
        sound = reports(mirror, Path(scratch) / "sound")
        names = [name for name in faults_of(options.faults) if not options.only or name in options.only]
        tasks = [(name, str(options.faults), str(mirror), scratch) for name in names]
        results = {}
        with ProcessPoolExecutor(options.workers) as pool:
            for name, text, found in pool.map(_run, tasks):
                results[name] = {"text": text, "reports": [entry for entry in found if entry not in set(sound)]}
                print(_line(name, results[name], options.unknowable), flush=True)
    print(f"sound mirror: {len(sound)} reports", *sound, sep="\n  ")
    known = [name for name in results if name not in options.unknowable and "[control]" not in results[name]["text"]]
    reported = [name for name in known if results[name]["reports"]]
    controls = [name for name in results if "[control]" in results[name]["text"]]
    print(f"reported {len(reported)} of {len(known)} faults; missed: {', '.join(sorted(set(known) - set(reported)))}")
    print(f"controls with reports: {sum(bool(results[name]['reports']) for name in controls)} of {len(controls)}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


@cache
def faults_of(folder: Path) -> dict[str, tuple[str, Any, Callable[[Any], None]]]:
    """The faults of ``inject.py``."""
    found: dict[str, tuple[str, Any, Callable[[Any], None]]] = _module(folder).FAULTS
    return found


@cache
def _module(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("inject", folder / "inject.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{folder} has no inject.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["inject"] = module
    spec.loader.exec_module(module)
    return module


def reports(source: Path, out: Path) -> list[str]:
    """Build and audit a mirror. Returns one text for each report of grade warning or error that names something."""
    try:
        build_folder(list(CONFIGS.values()), open_folder(source), out, BuildOptions(format=Format.ARROW))
    except LungNoduleCTError as error:
        return [f"build stops: {error}"]
    document = json.loads((out / "findings.json").read_text("utf-8"))
    found = [
        f"{entry['code']} {entry['archive']} {entry['member']} {entry['row']} {entry['detail']}"
        for entry in document["findings"]
        if entry["grade"] in ("warning", "error") and (entry["member"] or entry["row"])
    ]
    flags = audit_build(open_build(out)).document()["flags"]
    shutil.rmtree(out)
    return found + [
        f"{flag['check']} {flag['grade']} {flag['config']} {flag['key']} {flag['annotation']} {flag['measured']} {flag['hint']} {flag['other']}"
        for flag in flags
    ]


def _run(task: tuple[str, str, str, str]) -> tuple[str, str, list[str]]:
    name, folder, mirror, scratch = task
    _remember_measures()
    module, (text, _, edit) = _module(Path(folder)), faults_of(Path(folder))[name]
    with tempfile.TemporaryDirectory(dir=scratch) as work:
        changed = module.Mirror(mirror)
        edit(changed)
        changed.save(Path(work) / "mirror")
        return name, text, reports(Path(work) / "mirror", Path(work) / "out")


def _line(name: str, result: dict[str, Any], unknowable: Iterable[str]) -> str:
    kind = "cannot be known" if name in unknowable else "reported" if result["reports"] else "-"
    first = result["reports"][0][:150] if result["reports"] else ""
    return f"{name}  {kind:15}  {len(result['reports']):3}  {result['text'][:60]:60}  {first}"


@cache
def _remember_measures() -> None:
    """Measure each volume once in a process: a fault changes few of them."""
    for owner, name in ((measures, "measure_scan"), (measures.Measurement, "stack"), (measures.Measurement, "picture")):
        setattr(
            owner,
            name,
            staticmethod(_remembered(getattr(owner, name)))
            if owner is not measures
            else _remembered(getattr(owner, name)),
        )


def _remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    results: dict[str, Any] = {}

    def call(*arguments: Any) -> Any:
        digest = hashlib.sha256()
        for value in arguments:
            digest.update(
                value.tobytes() + repr(value.shape).encode() if isinstance(value, np.ndarray) else repr(value).encode()
            )
        key = digest.hexdigest()
        if key not in results:
            results[key] = function(*arguments)
        return results[key]

    return call


if __name__ == "__main__":
    main()
