"""What all tests share: where the data are, and how a build is made and looked at."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from built import Built
from hypothesis import settings

# The same examples every time, however slow the machine; `--hypothesis-profile=explore` draws new ones.
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

ROOT = Path(__file__).parents[1]
DUMMY = ROOT / "dummy_data"
MIRROR = Path(os.environ.get("LUNG_NODULE_CT_MIRROR", ROOT.parent / "shared" / "mirror"))


@pytest.fixture(scope="session", autouse=True)
def _own_hub_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep datasets off the network and out of the user's cache, here and in every process that a test starts."""
    os.environ["HF_HOME"] = str(tmp_path_factory.mktemp("hf"))
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.pop("LUNG_NODULE_CT_SOURCE", None)
    os.environ["LUNG_NODULE_CT_CACHE"] = str(tmp_path_factory.mktemp("downloads"))
    os.environ["LUNG_NODULE_CT_ZENODO_URL"] = "http://127.0.0.1:9"  # nobody answers there; servers of tests are named


@pytest.fixture(scope="session")
def dummy() -> Path:
    """The embedded archives."""
    return DUMMY


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Real chest CT in the published layout, where it is at hand."""
    if not (MIRROR / "expected.json").is_file():
        pytest.skip("the mirror of real CT is not on this machine")
    return MIRROR


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def cli() -> Run:
    """Run the command line as a user does."""

    def run(*arguments: str | Path, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("lung-nodule-ct")), *map(str, arguments)]
        return subprocess.run(
            command, cwd=cwd or ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture(scope="session")
def python() -> Run:
    """Run a piece of Python in a process of its own."""

    def run(code: str, *, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=cwd,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Built]:
    """Build configs in this process: ``build(source, "det2d_1.25mm")`` with source names kept."""

    def run(source: Path, *configs: str, **options: Any) -> Built:
        from lung_nodule_ct.declaration.configs import get_config
        from lung_nodule_ct.publish.card import write_first_card
        from lung_nodule_ct.sources.resolve import open_folder
        from lung_nodule_ct.targets.build import build_folder
        from lung_nodule_ct.targets.options import BuildOptions

        options.setdefault("keep_source_names", True)
        out = tmp_path / "out"
        build_folder(
            [get_config(name) for name in configs],
            open_folder(source),
            out,
            BuildOptions(**options),
            add_files=write_first_card,
        )
        return Built(out)

    return run
