"""``lung_nodule_ct.testing``: examples run, seeds reproduce archives, and builds read what the strategies draw."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.targets.build import build_folder
from lung_nodule_ct.targets.options import BuildOptions
from lung_nodule_ct.testing.archives import CT0, NODULE_COLUMNS, NODULES, metaimage, table
from lung_nodule_ct.testing.phantoms import Phantom, PhantomNodule, make_chest, make_lesion
from lung_nodule_ct.testing.strategies import axis_aligned_directions, tiny_archives
from lung_nodule_ct.testing.synthetic_archives import TinyArchives, write_synthetic_archives

ROOT = Path(__file__).parents[2]
MODULES = ("phantoms", "archives", "synthetic_archives", "strategies")
NODULE = PhantomNodule((60.0, 15.0, -2.0), 20.0, density_hu=900.0)  # denser than any bone


@pytest.mark.slow
def test_the_code_of_the_page_runs(python, tmp_path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "testing.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    done = python("\n".join([*blocks, "print('completed')"]), cwd=tmp_path, HF_DATASETS_CACHE=str(tmp_path / "cache"))
    assert done.stdout.splitlines()[-1:] == ["completed"], done.stderr


def test_only_the_strategies_need_hypothesis(python, tmp_path) -> None:
    modules = ", ".join(f"lung_nodule_ct.testing.{module}" for module in MODULES[:-1])
    code = f"""
import sys
sys.modules["hypothesis"] = None
import {modules}
print([name for name in ("openpyxl", "PIL") if name in sys.modules])
import lung_nodule_ct.testing.strategies
"""
    done = python(code, cwd=tmp_path)
    assert done.stdout == "[]\n"
    assert 'pip install "lung_nodule_ct[testing]"' in done.stderr


def test_modules_import_only_from_the_layers_below() -> None:
    allowed = {"errors", "declaration", "geometry", "system", "formats", "testing"}
    for path in (ROOT / "lung_nodule_ct" / "testing").glob("*.py"):
        imported = re.findall(r"^ *(?:from|import) lung_nodule_ct\.(\w+)", path.read_text(), re.MULTILINE)
        assert set(imported) <= allowed, path.name


# --- phantoms ---------------------------------------------------------------------------------------------------------


@given(axis_aligned_directions())
@pytest.mark.slow
def test_a_reoriented_phantom_keeps_every_position(direction) -> None:
    chest = make_chest((5, 40, 60), (5.0, 5.5, 4.0), [NODULE])
    reoriented = chest.reoriented(direction)
    assert reoriented.frame.direction == direction
    index = np.argwhere(chest.volume > 800)[:, ::-1]
    assert len(index)
    moved = reoriented.frame.to_voxel(chest.frame.to_world(index)).round().astype(int)
    for kind in ("volume", "lung_mask"):
        before, after = getattr(chest, kind), getattr(reoriented, kind)
        assert (before[tuple(index.T[::-1])] == after[tuple(moved.T[::-1])]).all()
    restored = reoriented.reoriented(chest.frame.direction)
    assert (restored.volume == chest.volume).all()
    np.testing.assert_allclose(restored.frame.origin, chest.frame.origin)


def test_the_box_of_a_nodule_contains_the_nodule() -> None:
    chest = make_chest((16, 60, 84), (4.0, 4.0, 1.25), [NODULE], noise=0)
    x, y, z = chest.voxel_of(NODULE)
    assert chest.volume[z, y, x] == NODULE.density_hu
    x0, y0, x1, y1 = chest.box_in_slice(NODULE, z)
    inside = np.argwhere(chest.volume[z] > 800)
    assert (inside.min(0) >= (y0, x0)).all()
    assert (inside.max(0) <= (y1, x1)).all()


def test_invalid_phantoms_are_refused() -> None:
    chest = make_chest((4, 8, 8), (4.0, 4.0, 1.25))
    with pytest.raises(ValueError, match="diameter_mm"):
        PhantomNodule((0, 0, 0), 0)
    with pytest.raises(ValueError, match="lung_mask"):
        Phantom(chest.volume, chest.lung_mask[1:], Frame())
    with pytest.raises(ValueError, match="exchanged or reversed"):
        chest.reoriented((1, 0, 0, 0, 0.8, -0.6, 0, 0.6, 0.8))
    with pytest.raises(ValueError, match="divisor of 4"):
        chest.with_thick_slices(3)
    with pytest.raises(ValueError, match="part-solid"):
        make_lesion("fluffy", (8, 8), (1, 1), (4, 4), 4, np.random.default_rng(0))


# --- archives ---------------------------------------------------------------------------------------------------------


def test_a_build_gives_the_position_of_a_nodule_of_a_phantom(tmp_path, build) -> None:
    chest = make_chest((16, 60, 84), (4.0, 4.0, 1.25), [NODULE]).reoriented((0, -1, 0, 1, 0, 0, 0, 0, 1))
    archives = TinyArchives()
    archives[CT0] = metaimage("11_20200101", chest.volume, chest.frame)
    center = ",".join(map(str, NODULE.center_world))
    archives[NODULES]["annotations.csv"] = table(NODULE_COLUMNS, f"11_20200101,{center},{NODULE.diameter_mm}")
    row = build(archives.write(tmp_path / "in"), "det3d_1.25mm").by_name("det3d_1.25mm")["11_20200101"]
    (nodule,) = row["nodules"]
    assert tuple(np.round(nodule["center_voxel"]).astype(int)) == chest.voxel_of(NODULE)


@pytest.mark.parametrize("stacks", [False, True])
def test_the_same_seed_gives_the_same_archives(tmp_path, stacks) -> None:
    one, other = (write_synthetic_archives(tmp_path / name, 4, stacks=stacks, seed=3) for name in ("one", "other"))
    written = {path.name: path.read_bytes() for path in one.iterdir()}
    assert written == {path.name: path.read_bytes() for path in other.iterdir()}
    assert len(written) == (14 if stacks else 10)
    with pytest.raises(FileExistsError):
        write_synthetic_archives(one, 4)


def test_vessels_change_nothing_but_the_voxels_of_volumes_away_from_lesions(tmp_path, build) -> None:
    plain, changed = (
        build(write_synthetic_archives(tmp_path / f"in{vessels}", 4, vessels=vessels), "det3d_1.25mm").by_name(
            "det3d_1.25mm"
        )
        for vessels in (0, 3)
    )
    for name, before in plain.items():
        nodules = before["nodules"]
        assert nodules == changed[name]["nodules"]
        old, new = (
            np.frombuffer(row["volume"]["bytes"], np.int16).reshape(row["volume"]["shape"])
            for row in (before, changed[name])
        )
        denser = new != old
        assert (new[denser] > old[denser]).all()
        assert new.max() > 300 > old.max()
        away = (np.argwhere(denser) - nodules[0]["center_voxel"][::-1]) * 2.0
        assert np.linalg.norm(away, axis=1).min() > nodules[0]["diameter_mm"] / 2


def rows_of_build(archives: TinyArchives, folder: Path) -> dict[tuple[str, str], list[dict]]:
    """Return the sorted rows of all configs by config and split, with voxels as bytes."""
    source = open_folder(archives.write(folder / "in"))
    options = BuildOptions(keep_source_names=True)
    build_folder(list(CONFIGS.values()), source, folder / "out", options)
    build = open_build(folder / "out")
    return {
        (name, split): sorted(
            (
                {key: value.tobytes() if isinstance(value, np.ndarray) else value for key, value in row.items()}
                for row in build.rows(name, split)
            ),
            key=lambda row: (row["source_name"], row.get("slice_thickness_mm")),
        )
        for name in CONFIGS
        for split in build.splits(name)
    }


@pytest.fixture(scope="module")
def plain_rows(tmp_path_factory) -> dict[tuple[str, str], list[dict]]:
    return rows_of_build(TinyArchives(), tmp_path_factory.mktemp("plain"))


@settings(max_examples=8)
@given(archives=tiny_archives())
@pytest.mark.slow
def test_the_storage_and_notation_of_archives_do_not_change_a_build(archives, plain_rows, tmp_path_factory) -> None:
    assert rows_of_build(archives, tmp_path_factory.mktemp("drawn")) == plain_rows
