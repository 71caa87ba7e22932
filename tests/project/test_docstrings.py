"""The examples in the docstrings of the package run and give the stated results."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import lung_nodule_ct
from lung_nodule_ct import imaging

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lung_nodule_ct"
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


TORCH = [name for name in MODULES if name.startswith("lung_nodule_ct.torch.")]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODULES if name not in TORCH])
def test_examples_run(name, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)  # the examples read dummy_data
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert not result.failed


@pytest.mark.torch
@pytest.mark.parametrize("name", TORCH)
def test_examples_of_the_datasets_run(name, dummy_build, dummy_pairs) -> None:
    pytest.importorskip("torch", reason="needs the extra torch")
    folders = {"build": dummy_build("arrow"), "pairs": dummy_pairs}
    result = doctest.testmod(importlib.import_module(name), extraglobs=folders)
    assert result.attempted
    assert not result.failed


def test_every_public_name_has_an_example() -> None:
    assert len(lung_nodule_ct.__all__) == 14
    for name in lung_nodule_ct.__all__:
        value = getattr(lung_nodule_ct, name)
        module = importlib.import_module(
            "lung_nodule_ct.declaration.configs" if name == "CONFIGS" else value.__module__
        )
        docs = module.__doc__ if name == "CONFIGS" else value.__doc__
        assert docs
        assert ">>> " in docs, name


def test_every_public_name_of_imaging_has_an_example() -> None:
    assert [name for name in imaging.__all__ if ">>> " not in (getattr(imaging, name).__doc__ or "")] == []
