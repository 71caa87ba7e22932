"""Does a recipe learn? Made-up patients, a build of them, a run of the recipe's small variant, and its score beside the aim."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.declaration.configs import DET3D_BMP_1_25MM, get_config
from lung_nodule_ct.declaration.labels import VALIDATION
from lung_nodule_ct.declaration.manifest import Format
from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.targets.build import build_folder
from lung_nodule_ct.targets.options import BuildOptions
from lung_nodule_ct.testing.synthetic_archives import write_synthetic_archives
from lung_nodule_ct.train.evaluation import evaluate
from lung_nodule_ct.train.loop import train
from lung_nodule_ct.train.runs import Run, data_of

if TYPE_CHECKING:
    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.train.expected_scores import ExpectedScore
    from lung_nodule_ct.train.recipes import Recipe


DATA: Final = "made-up"
PATIENTS: Final = 100


def check(folder: Path, name: str, recipe: Recipe, aim: ExpectedScore) -> dict[str, Any]:
    """Train and judge in a folder, which holds the made-up build as well; what is there already is not done again.

    Args:
        folder: Where to.
        name: The recipe's name.
        recipe: Its small variant.
        aim: What it must reach.

    Returns:
        What ``scores.json`` holds.

    Raises:
        TrainingError: It did not learn, or as :func:`train` and :func:`evaluate`.
    """
    build = _made_up(folder / DATA, recipe.config)
    run = Run(folder, name, recipe, data_of(build, recipe.config))
    train(run, build)
    document = evaluate(run, build, VALIDATION)
    reached = document["scores"][aim.score]["value"]
    if not aim.reached_by(reached):
        raise TrainingError(
            f"{name} did not learn on made-up patients",
            expected=f"{aim.score} of at least {aim.least}",
            got=reached,
            remedy=f"look at {folder}; with the options of the check as they are, this is a fault of the code or of a package",
        )
    return document


def _made_up(folder: Path, config: str) -> BuildFolder:
    if not folder.is_dir():
        with tempfile.TemporaryDirectory() as buffers:
            stacks = config == DET3D_BMP_1_25MM.name
            source = open_folder(write_synthetic_archives(Path(buffers) / "source", PATIENTS, stacks=stacks))
            build_folder([get_config(config)], source, folder, BuildOptions(format=Format.ARROW))
    return open_build(folder)
