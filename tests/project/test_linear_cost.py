"""The cost of every command grows linearly with the data: no function executes more lines per example when there are more of them."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counted_work import count_lines, superlinear

from lung_nodule_ct.declaration.configs import CONFIGS, get_config
from lung_nodule_ct.examples.plan import make_plan
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.read.volumes import volumes
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.testing.archives import (
    BMP0,
    BMP_TABLES,
    CLS,
    CT0,
    CT1,
    DET2D,
    MASKS,
    NODULE_COLUMNS,
    NODULES,
    SHAPE,
    THICK0,
    THICK_FRAME,
    THICK_NODULES,
    THICK_SHAPE,
    Members,
    metaimage,
    noise_picture,
    noise_volume,
    split_files,
    stack_tables,
    table,
    voc_annotation,
    workbook,
    write_archives,
)
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

SIZES = (24, 48, 96)
"""Scans, stacks, slices and crops of the sources whose cost is compared."""
SCANS = "det3d_1.25mm"
SLICES = "det2d_1.25mm"
BOX = (2, 3, 9, 11)


def many(folder: Path, count: int) -> Path:
    """Write archives with a number of scans of both thicknesses, stacks, slices and crops; two scans per patient."""
    archives = dict.fromkeys(TinyArchives(), None)
    content: dict[str, Members] = {name: {} for name in archives}
    mask = np.zeros(SHAPE, np.int16)
    mask[1:4, 2:6, 2:6], mask[1:4, 2:6, 7:10] = 3, 4
    scans = [f"{1 + number // 2}_{2018 + number % 2}0102" for number in range(count)]
    for number, scan in enumerate(scans):
        content[(CT0, CT1)[number % 2]] |= metaimage(scan, noise_volume(number))
        content[MASKS] |= metaimage(scan, mask)
        content[THICK0] |= metaimage(scan, noise_volume(count + number, THICK_SHAPE), THICK_FRAME)
        split = "train" if number % 4 else "validate"
        content[CLS][f"class_dataset/{split}/{1 + number % 6}/{scan}_001_01.bmp"] = noise_picture(number)
    rows = [f"{scan},-6.0,-17.0,33.0,3" for scan in scans]
    content[NODULES] = content[THICK_NODULES] = {"annotations.csv": table(NODULE_COLUMNS, *rows)}
    content[DET2D] = slices([f"{scan}_002" for scan in scans])
    cases = {f"{number + 1:05}": (2, 4, 3, 8, 5, 9) for number in range(count)}
    content[BMP0] = {
        f"imgs/{case}/{level}.bmp": noise_picture(10 * int(case) + level) for case in cases for level in range(6)
    }
    content[BMP_TABLES] = stack_tables(cases, dict.fromkeys(cases, 7.5), val=list(cases)[::4])
    return write_archives(folder, content, method=zipfile.ZIP_STORED)


def slices(stems: list[str]) -> Members:
    """The members of an archive of slices, with all files that repeat the boxes or the splits."""
    lines = [f"{stem}.jpg {','.join(map(str, BOX))},0" for stem in stems]
    return {
        **{f"JPEGImages/{stem}.jpg": noise_picture(number, kind="JPEG") for number, stem in enumerate(stems)},
        **{f"Annotations/{stem}.xml": voc_annotation(BOX, filename=f"{stem}.jpg") for stem in stems},
        **split_files(stems[::2], stems[1::2], "ImageSets/Main/"),
        **split_files(lines[::2], lines[1::2]),
        "VOC_CT.xlsx": workbook(
            [["image", "xmin", "ymin", "xmax", "ymax"], *([f"{stem}.jpg", *BOX] for stem in stems)]
        ),
    }


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[int, Path]:
    return {count: many(tmp_path_factory.mktemp(f"source-{count}"), count) for count in SIZES}


@pytest.fixture(scope="module")
def builds(sources, cli, tmp_path_factory) -> dict[tuple[int, str], Path]:
    folders = {}
    for count, source in sources.items():
        for format_ in ("parquet", "arrow"):
            folder = tmp_path_factory.mktemp("builds") / f"{format_}-{count}"
            run_cli(cli, "build", "--all", "--source", source, "--format", format_, "--out", folder)
            folders[count, format_] = folder
    return folders


def run_cli(cli, *arguments: Any) -> None:
    done = cli(*arguments)
    assert done.returncode == 0, done.stderr


def grown(work: Callable[[int], object]) -> dict[str, list[int]]:
    """The functions whose cost grows faster than the data. The first run imports modules and fills caches, so it is not counted."""
    work(SIZES[0])
    return superlinear({count: count_lines(lambda count=count: work(count)) for count in SIZES})  # type: ignore[misc]


def test_a_quadratic_function_is_named() -> None:
    counts = {count: Counter(linear=100 * count, pairs=count * count, few=count * count // 50) for count in SIZES}
    assert superlinear(counts) == {"pairs": [576, 2304, 9216]}


def test_planning_and_inspecting(sources, cli) -> None:
    for config in CONFIGS:
        assert not grown(lambda count, config=config: make_plan(get_config(config), open_folder(sources[count])))
    assert not grown(lambda count: run_cli(cli, "inspect", "--source", sources[count]))


@pytest.mark.slow
@pytest.mark.parametrize("config", list(CONFIGS))
def test_building(sources, cli, tmp_path, config) -> None:
    def work(count: int) -> None:
        for run in range(2):  # the second finds the first in its folder
            run_cli(
                cli,
                "build",
                config,
                "--source",
                sources[count],
                "--out",
                tmp_path / f"{count}",
                *(["--overwrite"] * run),
            )

    assert not grown(work)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["audit", "preview", "card", "verify"])
def test_commands_on_a_build(builds, cli, command) -> None:
    assert not grown(lambda count: run_cli(cli, command, builds[count, "parquet"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "format_"),
    [(SLICES, "coco"), (SLICES, "voc"), ("det3d_bmp_1.25mm", "yolo"), (SCANS, "nifti"), (SCANS, "nndetection")],
)
def test_exporting(builds, cli, tmp_path, config, format_) -> None:
    def work(count: int) -> None:
        run_cli(cli, "export", builds[count, "parquet"], config, "--to", format_, "--out", tmp_path / f"{count}")

    assert not grown(work)


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_reading_every_volume_and_every_row_in_random_order(builds, format_) -> None:
    def read_volumes(count: int) -> None:
        scans = volumes(builds[count, format_], config=SCANS)
        for index in np.random.default_rng(0).permutation(count):
            scans[int(index)].patch(center_voxel=(5, 5, 2), size=(4, 4, 2))

    def read_rows(count: int) -> None:
        build = open_build(builds[count, format_])
        for config in CONFIGS:
            for split in build.splits(config):
                assert sum(1 for _ in build.rows(config, split, indices=range(build.count(config, split))))

    assert not grown(read_volumes)
    assert not grown(read_rows)
