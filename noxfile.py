"""One session for each thing that CI runs: ``nox --list``.

``.ci/run`` runs these sessions. Each one creates its own environment. CI builds the wheel once and passes it in ``WHEEL``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv|venv"
nox.options.sessions = ["lint", "tests"]

LOWEST = ("datasets==4.8.0", "pyarrow==21.0.0", "pillow==11.1.0")
"""The lowest versions that a build promises to load with."""


def install(session: nox.Session, *extras: str) -> None:
    """Install the package with extras, from the wheel that CI built or from this folder."""
    session.install(f"{os.environ.get('WHEEL', '.')}[{','.join(extras)}]")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, plain English, the lock file and the conda recipe. To build the package: ``rattler-build build --recipe conda``."""
    install(session, "test")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.install("uv", "py-rattler-build")
    session.run("uv", "lock", "--check")  # pyproject.toml and uv.lock agree
    session.run("pytest", "-n", "0", "tests/project/test_supply_chain.py", "-k", "conda")


@nox.session(venv_backend="venv")
def tests(session: nox.Session) -> None:
    """The test command of the README, verbatim."""
    readme = Path("README.md").read_text(encoding="utf-8")
    command = re.search(r"^ +(python -m pip install .*pytest.*)$", readme, re.MULTILINE)
    if command is None:
        session.error("README.md has no test command")
    session.run("bash", "-c", " ".join([command[1], *session.posargs]), external=True)


@nox.session
def fast(session: nox.Session) -> None:
    """The tests that take less than a minute."""
    install(session, "test")
    session.run("pytest", "-m", "not slow", *session.posargs)


@nox.session
def commands(session: nox.Session) -> None:
    """The commands of the README on the embedded archives. Their result is then loaded with the lowest supported versions."""
    install(session, "test")
    out = str(Path(session.create_tmp()).resolve() / "build" / "lung_nodule_ct")
    session.run("lung-nodule-ct", "build", "--all", "--source", "dummy_data", "--out", out)
    for command in ("audit", "card", "preview"):
        session.run("lung-nodule-ct", command, out)
    session.notify("lowest", posargs=[out])


@nox.session
def lowest(session: nox.Session) -> None:
    """Load a build with the lowest supported versions, without this package: ``nox -s lowest -- BUILD``."""
    session.install(*LOWEST)
    session.run("python", "tests/support/load_built.py", *session.posargs)


@nox.session
def lowest_direct(session: nox.Session) -> None:
    """The fast tests with the lowest versions that pyproject.toml allows; all other sessions use the newest."""
    session.install("uv")
    python = str(Path(session.bin) / "python")
    package = f"{os.environ.get('WHEEL', '.')}[test]"
    session.run("uv", "pip", "install", "--quiet", "--python", python, "--resolution", "lowest-direct", package)
    # the pictures of test_pictures.py are written by Pillow, and an earlier Pillow writes other fields into a BMP
    session.run("pytest", "-m", "not slow", "--ignore", "tests/formats/test_pictures.py", *session.posargs)


@nox.session
def tfds(session: nox.Session) -> None:
    """TFDS and Beam, first without TensorFlow, then with it."""
    install(session, "test", "tfds", "beam")
    session.run("pytest", "-m", "tfds", *session.posargs)
    session.install("tensorflow-cpu>=2.21", "mlcroissant")
    # not again: hashes of files, whether or not TensorFlow is there
    session.run("pytest", "-m", "tfds", "--ignore", "tests/read/test_verification.py", *session.posargs)


@nox.session
def cluster(session: nox.Session) -> None:
    """Beam on a Dask cluster of two workers on this machine, also with an object store, which is a server on this machine."""
    install(session, "test", "cluster", "s3")
    session.install("moto[server]>=5.1")
    session.run("pytest", "-m", "cluster", *session.posargs)


@nox.session
def train(session: nox.Session) -> None:
    """Training."""
    install(session, "test", "train")
    session.run("pytest", "-m", "train", *session.posargs)


@nox.session
def torch(session: nox.Session) -> None:
    """The datasets for PyTorch, the images of MONAI and TorchIO, and exports that Ultralytics, supervision and nnU-Net read; on a CPU."""
    session.install("torch==2.13.0")  # first: a build for CPUs, where pip knows one
    install(session, "test", "torch", "monai", "torchio")
    # torchvision does not work with a torch for CPUs, but Ultralytics only asks for its version. The rest is what its readers import.
    session.install("--no-deps", "ultralytics>=8.4", "torchvision==0.28.0")
    session.install("supervision", "opencv-python-headless", "polars", "psutil")
    # what nnU-Net needs to check a dataset; all that it needs to train is much more
    session.install("--no-deps", "nnunetv2>=2.6", "acvl_utils", "batchgenerators", "dynamic_network_architectures")
    session.run("pytest", "-m", "torch", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site. A warning is an error, and every notebook is run."""
    install(session, "docs", "imaging", "train")
    out = Path(session.create_tmp()).resolve()
    session.run("python", "-m", "sphinx", "-W", "--keep-going", "-q", "docs", str(out / "site"), *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """All parsers of untrusted input for a minute; ``nox -s fuzz -- --seconds 3600`` for an hour."""
    install(session, "test")
    session.install("atheris")
    session.run("python", "tests/fuzz/parsers.py", *session.posargs)
