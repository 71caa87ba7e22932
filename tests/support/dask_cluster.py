"""A Dask cluster of two workers, which are processes of this machine, and builds of slices that go wrong where a file says so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PATHS = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "support")))
_CODE = """
import dataclasses, sys
from pathlib import Path
from faulty_slices import FAULTY_SLICES
from lung_nodule_ct.declaration.configs import get_config
from lung_nodule_ct.examples.plan import FAMILIES
from lung_nodule_ct.publish.card import write_first_card
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.system.object_store import ObjectFolder, is_url
from lung_nodule_ct.targets.build import build_folder
from lung_nodule_ct.targets.build_url import build_at_url
from lung_nodule_ct.targets.options import BuildOptions

layout = BuildOptions.layout
BuildOptions.layout = lambda *args: dataclasses.replace(layout(*args), shard_bytes=1)
FAMILIES["slice"] = FAULTY_SLICES
options = BuildOptions(engine="beam", beam_options=sys.argv[3])
configs, source, out = [get_config("det2d_1.25mm")], open_folder(Path(sys.argv[1])), sys.argv[2]
if is_url(out):
    build_at_url(configs, source, ObjectFolder(out), options, add_files=write_first_card)
else:
    build_folder(configs, source, Path(out), options, add_files=write_first_card)
"""


@contextmanager
def dask_cluster(folder: Path, faults: Path, **env: str) -> Iterator[Path]:
    """The cluster of docs/howto/cluster.md: a scheduler, and two workers of one thread. Yields the file with the address."""
    file = folder / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": _PATHS, "FAULTS": str(faults), **env}
    dask = [sys.executable, "-m", "dask"]
    local = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    commands = [
        [*dask, "scheduler", *local, "--port", "0"],
        [*dask, "worker", *local, "--nworkers", "2", "--nthreads", "1"],
    ]
    processes = [
        subprocess.Popen(command, cwd=folder, env=environment, stderr=(folder / f"log{number}").open("w"))
        for number, command in enumerate(commands)
    ]
    try:
        yield file
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(30)


def beam_in_a_process(
    source: Path, out: Path | str, beam_options: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    """Build slices with Beam in a new process, one shard per slice. Dask changes how errors are pickled in the process that imports it."""
    command = [sys.executable, "-c", _CODE, str(source), str(out), beam_options]
    return subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": _PATHS, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
