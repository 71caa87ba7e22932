"""Training where the extra is not installed: the recipes can be listed, and the error says what to install."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def test_recipes_are_listed(cli) -> None:
    done = cli("train", "--list")
    assert done.returncode == 0
    assert "det2d_1.25mm-retina" in done.stdout


@pytest.mark.skipif(find_spec("jax") is not None, reason="the extra train is installed")
@pytest.mark.parametrize("command", [("train", "cls_1.25mm"), ("evaluate", "runs/x"), ("compare", "runs/x")])
def test_without_the_extra_the_error_names_it(cli, command) -> None:
    done = cli(*command)
    assert done.returncode == 1
    assert 'pip install "lung_nodule_ct[train]"' in done.stderr
