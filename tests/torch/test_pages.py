"""The code of the pages for PyTorch and MONAI runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra torch")
pytest.importorskip("monai", reason="needs the extra monai")
pytest.importorskip("torchio", reason="needs the extra torchio")

pytestmark = pytest.mark.torch

ROOT = Path(__file__).parents[2]


def blocks(page: str) -> list[str]:
    """The Python blocks of a page, without their indentation."""
    found = re.findall(r"^( *)```python\n(.*?)^ *```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


@pytest.fixture
def workplace(tmp_path, dummy_build, dummy_pairs, monkeypatch) -> Path:
    """A folder with the archives and a build, as the pages name them."""
    (tmp_path / "dummy_data").symlink_to(ROOT / "dummy_data")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "lung_nodule_ct").symlink_to(dummy_build("arrow"))
    (tmp_path / "pairs").symlink_to(dummy_pairs)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_code_of_the_page_for_pytorch_runs(workplace, python) -> None:
    code = "\n".join(blocks("docs/pytorch.md"))
    code += (
        "\nassert batch['spacing'].shape == (2, 3) and str(batch['spacing'].dtype) == 'torch.float64'"
        "\nassert tuple(even.shape[1:]) == (167, 119, 10), even.shape"
        "\nassert sequence['days'].tolist() == [0, 463, 913]"
        "\nassert pair['image'].shape == (2, 64, 64, 64) and len(pair['boxes']) == len(pair['moving_boxes']) == 1"
        "\nassert rows[0]['image'].shape == (1, 84, 60, 16)"
        "\nassert dataset[0]['image'].max() <= 1"
        "\nprint('completed')"
    )
    done = python(code, cwd=workplace)
    assert done.stdout.splitlines()[-1:] == ["completed"], done.stderr


def test_the_lines_of_the_readme_give_a_tensor(workplace, python) -> None:
    (code,) = (block for block in blocks("README.md") if "lung_nodule_ct.torch" in block)
    assert len(code.splitlines()) <= 10
    shape = re.search(r'^batch\["image"\]\.shape +# (torch\.Size\(.*?\))', code, re.MULTILINE)
    assert shape is not None
    done = python(f"{code}\nprint(batch['image'].shape)", cwd=workplace)
    assert done.stdout.splitlines()[-1:] == [shape[1]], done.stderr


def test_the_documented_chain_of_monai_reads_an_export(workplace, cli) -> None:
    done = cli("export", "build/lung_nodule_ct", "det3d_1.25mm", "--to", "monai", "--out", "monai", cwd=workplace)
    assert done.returncode == 0, done.stderr
    (code,) = (block for block in blocks("docs/exports.md") if "load_decathlon_datalist" in block)
    names: dict = {}
    exec(code, names)
    boxes = 0
    for item in names["items"]:
        read = names["chain"](item)
        assert read["box"].shape == (len(item["box"]), 6)
        boxes += len(read["box"])
        for box in read["box"]:
            assert (box[3:] > box[:3]).all()
    assert boxes
