"""The README: its Python code runs on the embedded archives and gives the stated results."""

from __future__ import annotations

import re
from pathlib import Path

from archive_server import serve

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_python_code_runs_and_gives_the_stated_results(cli, python, tmp_path) -> None:
    (tmp_path / "dummy_data").symlink_to(ROOT / "dummy_data")
    done = cli("build", "--all", "--source", "dummy_data", "--out", "build/lung_nodule_ct", cwd=tmp_path)
    assert done.returncode == 0
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    blocks = [block for block in blocks if "torch" not in block]  # tests/torch/test_pages.py runs these
    code = "\n".join(blocks).replace("ARCHIVES", "dummy_data")
    line = re.search(r"^slices\[0\]\[\"objects\"\] +# (.*)$", code, re.MULTILINE)
    assert line is not None
    code += f"\nassert slices[0]['objects'] == {line[1]}\nprint('completed')"
    with serve(ROOT / "dummy_data") as server:
        env = {"LUNG_NODULE_CT_ZENODO_URL": server.url, "LUNG_NODULE_CT_CACHE": str(tmp_path / "downloads")}
        done = python(code, cwd=tmp_path, HF_DATASETS_CACHE=str(tmp_path / "cache"), **env)
    assert done.stdout.splitlines()[-1:] == ["completed"], done.stderr


def test_links_point_to_existing_files() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
