"""The README: its Python code runs on the embedded archives and gives the stated results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from archive_server import serve

from lung_nodule_ct.declaration.published import CITATION

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"(?:<!-- needs: (\w+) -->\n)?```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize(
    "package",
    [
        None,
        pytest.param("jax", marks=[pytest.mark.train, pytest.mark.slow]),
        pytest.param("tensorflow_datasets", marks=[pytest.mark.tfds, pytest.mark.slow]),
    ],
)
def test_the_python_code_runs_and_gives_the_stated_results(cli, python, tmp_path, package) -> None:
    if package is not None:
        pytest.importorskip(package)
    (tmp_path / "dummy_data").symlink_to(ROOT / "dummy_data")
    done = cli("build", "--all", "--source", "dummy_data", "--out", "build/lung_nodule_ct", cwd=tmp_path)
    assert done.returncode == 0
    blocks = [code for needed, code in BLOCK.findall(README) if needed in ("", package)]
    code = "\n".join(blocks).replace("ARCHIVES", "dummy_data")
    line = re.search(r"^slices\[0\]\[\"objects\"\] +# (.*)$", code, re.MULTILINE)
    assert line is not None
    code += f"\nassert slices[0]['objects'] == {line[1]}\nassert patch.shape == (16, 16, 16)\nprint('completed')"
    with serve(ROOT / "dummy_data") as server:
        env = {"LUNG_NODULE_CT_ZENODO_URL": server.url, "LUNG_NODULE_CT_CACHE": str(tmp_path / "downloads")}
        done = python(code, cwd=tmp_path, HF_DATASETS_CACHE=str(tmp_path / "cache"), **env)
    assert done.stdout.splitlines()[-1:] == ["completed"], done.stderr


def test_every_block_for_an_extra_is_run_by_a_test() -> None:
    assert {needed for needed, _ in BLOCK.findall(README)} == {"", "jax", "tensorflow_datasets", "torch"}


def test_links_point_to_existing_files() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_readme_cites_the_paper_as_the_card_does() -> None:
    assert f"```bibtex\n{CITATION}\n```" in README
