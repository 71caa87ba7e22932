"""The cost of every command grows linearly with the data: no function executes more lines per example when there are more of them."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archive_server import serve
from counted_work import count_lines, superlinear

import lung_nodule_ct
from lung_nodule_ct.audit import audit_build
from lung_nodule_ct.declaration.configs import CONFIGS, get_config
from lung_nodule_ct.declaration.labels import SplitBy
from lung_nodule_ct.examples.plan import make_plan
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.read.rows import split_rows
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
from lung_nodule_ct.train.data.images import Crops, Slices
from lung_nodule_ct.train.data.volumes import Patches, Sequences
from lung_nodule_ct.train.recipes import get_recipe

SIZES = (12, 24, 48)
"""Scans, stacks, slices and crops of the sources whose cost is compared."""
SCANS = "det3d_1.25mm"
SLICES = "det2d_1.25mm"
BOX = (2, 3, 9, 11)


def many(folder: Path, count: int) -> Path:
    """Write archives with ``count`` scans of each thickness, stacks, slices and crops; two scans per patient."""
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
            for path in filter(Path.is_file, folder.rglob("*")):
                path.read_bytes()  # shards are written past the cache, and readers look at which pages are in memory
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
    functions = {"__name__": "lung_nodule_ct.example"}
    exec(QUADRATIC, functions)
    assert list(grown(functions["pairs_of"])) == ["lung_nodule_ct.example: pairs_of"]
    assert not grown(functions["items_of"])


QUADRATIC = """
def items_of(count):
    for number in range(100 * count):
        number + 1

def pairs_of(count):
    for number in range(count):
        for other in range(count):
            number == other
"""


def test_planning_and_inspecting(sources, cli) -> None:
    for config in CONFIGS:
        assert not grown(lambda count, config=config: make_plan(get_config(config), open_folder(sources[count])))
    assert not grown(lambda count: run_cli(cli, "inspect", "--source", sources[count]))


@pytest.mark.slow
@pytest.mark.parametrize("config", list(CONFIGS))
def test_building(sources, cli, tmp_path, config) -> None:
    def work(count: int) -> None:
        out = tmp_path / f"{count}"
        shutil.rmtree(out, ignore_errors=True)
        for _ in range(2):  # the second finds the first in its folder
            run_cli(cli, "build", config, "--source", sources[count], "--out", out)

    assert not grown(work)


WITHOUT_VOXELS = (
    "dates",
    "published_figures",
    "sizes",
    "classes",
    "splits",
    "duplicates",
    "tables",
    "timepoints",
    "rows",
)


def test_auditing_what_is_not_in_voxels(builds) -> None:
    assert not grown(lambda count: audit_build(open_build(builds[count, "parquet"]), only=WITHOUT_VOXELS))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["preview", "card", "verify"])
def test_commands_on_a_build(builds, cli, command) -> None:
    assert not grown(lambda count: run_cli(cli, command, builds[count, "parquet"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "format_"),
    [
        (SLICES, "coco"),
        (SLICES, "voc"),
        ("det3d_bmp_1.25mm", "yolo"),
        (SCANS, "nifti"),
        (SCANS, "nndetection"),
        (SCANS, "luna16"),
    ],
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


@pytest.mark.parametrize(
    ("recipe", "source"), [("cls_1.25mm", Crops), (SLICES, Slices), (SCANS, Patches), ("longitudinal", Sequences)]
)
def test_loading_training_examples(builds, recipe, source) -> None:
    options = get_recipe(recipe)
    if source in (Patches, Sequences):
        spacing = (1.0, 1.0, 1.0) if source is Sequences else None
        options = replace(options, input=replace(options.input, size=(4, 8, 8), spacing_mm=spacing))

    def load(count: int) -> None:
        rows = split_rows(open_build(builds[count, "arrow"]), options.config, "train", SplitBy.PUBLISHED)
        examples = source(rows, options)
        assert len(examples.ids) == len(examples.patients)
        for index in range(len(examples)):
            examples.load(index, np.random.default_rng(index))

    assert not grown(load)


def test_streaming_from_a_server(sources, tmp_path, monkeypatch) -> None:
    requests: dict[int, int] = {}

    def stream(count: int) -> None:
        monkeypatch.setenv("LUNG_NODULE_CT_CACHE", str(tmp_path / f"{count}"))
        with serve(sources[count]) as server:
            monkeypatch.setenv("LUNG_NODULE_CT_ZENODO_URL", server.url)
            for config in (SLICES, SCANS):
                rows = lung_nodule_ct.load(config, split="train", streaming=True, cache_dir=tmp_path / "cache")
                assert sum(1 for _ in rows) > count // 4
            requests[count] = len(server.requests)

    assert not grown(stream)
    least, _, most = (requests[count] for count in SIZES)
    assert most <= 4.6 * least
