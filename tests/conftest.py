"""Shared fixtures: separate caches, the embedded archives, the command line, and builds.

The caches are set here, before any test module is imported, because ``datasets`` reads its cache folders when it is imported.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

_CACHES = tempfile.mkdtemp(prefix="lung-nodule-ct-tests-")
atexit.register(shutil.rmtree, _CACHES, ignore_errors=True)
for _variable in [name for name in os.environ if name.startswith(("HF_", "LUNG_NODULE_CT_")) and "MIRROR" not in name]:
    del os.environ[_variable]
os.environ |= {
    "HF_HOME": f"{_CACHES}/hf",
    "HF_HUB_OFFLINE": "1",
    "TFDS_DATA_DIR": f"{_CACHES}/tfds",
    "XDG_CACHE_HOME": f"{_CACHES}/cache",
    "MPLCONFIGDIR": f"{_CACHES}/matplotlib",
    "LUNG_NODULE_CT_CACHE": f"{_CACHES}/downloads",
    "LUNG_NODULE_CT_ZENODO_URL": "http://127.0.0.1:9",  # no server listens there; a test with a server sets its own address
    # Tests run most programs a few times only, so JAX compiles them in a third of the time, and each of them once.
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
}
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{_CACHES}/compiled"  # workers and commands inherit it

import contextlib  # noqa: E402
import io  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402
from built import Built  # noqa: E402
from hypothesis import Phase, settings  # noqa: E402

# Hypothesis draws the same examples every time, without a time limit. `--hypothesis-profile=explore` draws new examples.
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.register_profile("deterministic", deadline=None, derandomize=True)
# For `benchmarks.mutants`, which runs the tests thousands of times: one failing example is enough.
settings.register_profile(
    "mutants", deadline=None, derandomize=True, max_examples=50, phases=(Phase.explicit, Phase.generate)
)
settings.load_profile("deterministic")

# A shell that runs the tests in the background lets them ignore Ctrl-C, which the commands that they start would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
DUMMY = ROOT / "dummy_data"
MIRROR = Path(os.environ.get("LUNG_NODULE_CT_MIRROR", ROOT.parent / "shared" / "mirror"))


def pytest_configure(config: pytest.Config) -> None:
    """Run the files in the order of their collection. By their number of tests, the few that take longest would start last."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that open a browser as ``browser`` and ``slow``."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
            item.add_marker("slow")


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def dummy() -> Path:
    """The embedded archives."""
    return DUMMY


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Real chest CT in the published layout, if it is available."""
    if not (MIRROR / "expected.json").is_file():
        pytest.skip("real CT is not available on this machine")
    return MIRROR


@pytest.fixture(scope="session")
def cli() -> Run:
    """Run the command line in this process: ``cli("build", ..., cwd=..., NAME="value")``.

    For exit codes of signals, encodings of the terminal, and variables that are read at import, use ``cli_process``.
    """
    return run_in_process


@pytest.fixture(scope="session")
def cli_process() -> Run:
    """Run the command line in a separate process, as a user does."""

    def run(*arguments: str | Path, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        return _run_process([sys.executable, "-m", "lung_nodule_ct", *map(str, arguments)], cwd or ROOT, env)

    return run


@pytest.fixture(scope="session")
def python() -> Run:
    """Run Python code in a separate process, where JAX has that number of devices."""

    def run(code: str, *, cwd: Path, devices: int = 1, **env: str) -> subprocess.CompletedProcess[str]:
        env["XLA_FLAGS"] = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
        return _run_process([sys.executable, "-c", code], cwd, env)

    return run


def run_in_process(*arguments: str | Path, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, and return its exit code and output."""
    from lung_nodule_ct.cli import main

    command = ["lung-nodule-ct", *map(str, arguments)]
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="\n", write_through=True) for _ in range(2))
    code: Any = 0
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(cwd or ROOT):
        for name, value in env.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", command)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as stop:
                code = stop.code
    texts = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(command, 0 if code is None else code, *texts)


def _run_process(command: list[str], cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False, timeout=900
    )


@pytest.fixture
def optimised() -> Iterator[None]:
    """XLA optimises what it compiles, which takes longer."""
    import jax

    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="session")
def dummy_build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Build all configs of the embedded archives in a format, once per session. A test that changes the folder must copy it."""
    folders: dict[str, Path] = {}

    def folder(format_: str = "parquet") -> Path:
        if format_ not in folders:
            out = tmp_path_factory.mktemp(format_) / "lung_nodule_ct"
            done = run_in_process("build", "--all", "--source", DUMMY, "--format", format_, "--out", out)
            assert done.returncode == 0, done.stderr
            folders[format_] = out
        return folders[format_]

    return folder


@pytest.fixture(scope="session")
def dummy_pairs(dummy_build: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registered pairs of the embedded archives, exported once per session."""
    out = tmp_path_factory.mktemp("exported") / "pairs"
    done = run_in_process("export", dummy_build("arrow"), "longitudinal", "--to", "nifti-pairs", "--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Built]:
    """Build configs in this process and keep the source names: ``build(source, "det2d_1.25mm")``. An earlier build is replaced."""

    def run(source: Path, *configs: str, overwrite: bool = True, **options: Any) -> Built:
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
            overwrite=overwrite,
        )
        return Built(out)

    return run
