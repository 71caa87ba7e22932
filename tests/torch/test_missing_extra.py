"""Without PyTorch, the package works, and what needs PyTorch names the extra."""

from __future__ import annotations

import pytest

import lung_nodule_ct


@pytest.mark.parametrize("name", ["patches", "detection2d", "crops", "sequences", "collate", "PatientSampler"])
def test_a_dataset_names_the_extra(python, tmp_path, name) -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = None  # the import fails\n"
        "import lung_nodule_ct\n"
        "from lung_nodule_ct.errors import MissingExtraError\n"
        f"try: lung_nodule_ct.torch.{name}\n"
        "except MissingExtraError as error: print(error)"
    )
    assert python(code, cwd=tmp_path).stdout == (
        "lung_nodule_ct.torch needs the package torch, which is not installed. "
        'Install it: pip install "lung_nodule_ct[torch]"\n'
    )


def test_decoded_names_the_extra_at_once(python, tmp_path) -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['jax'] = None\n"
        "import lung_nodule_ct\n"
        "from lung_nodule_ct.errors import MissingExtraError\n"
        "for name in ('torch', 'jax'):\n"
        "    try: lung_nodule_ct.decoded(name)\n"
        "    except MissingExtraError as error: print(error)"
    )
    shown = python(code, cwd=tmp_path).stdout
    assert "lung_nodule_ct[torch]" in shown
    assert "lung_nodule_ct[train]" in shown


def test_the_room_does_not_hide_the_package_torch(python, tmp_path) -> None:
    code = "import lung_nodule_ct.torch, sys; print('torch' in sys.modules, lung_nodule_ct.torch.__name__)"
    assert python(code, cwd=tmp_path).stdout == "False lung_nodule_ct.torch\n"


def test_unknown_names_are_refused_and_public_names_are_listed() -> None:
    assert dir(lung_nodule_ct.torch) == lung_nodule_ct.torch.__all__
    with pytest.raises(AttributeError, match="has no attribute 'volumes'"):
        _ = lung_nodule_ct.torch.volumes
