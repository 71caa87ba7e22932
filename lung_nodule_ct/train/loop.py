"""The training loop, and the check that a recipe learns: a small variant of it, trained on synthetic patients, reaches a score."""

from __future__ import annotations

import json
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jax

from lung_nodule_ct.declaration.configs import Kind, get_config
from lung_nodule_ct.declaration.labels import TRAIN, VALIDATION
from lung_nodule_ct.declaration.manifest import Format, to_json
from lung_nodule_ct.errors import OutputError, TrainingError
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.system.files import write_atomically
from lung_nodule_ct.targets.build import build_folder
from lung_nodule_ct.targets.options import BuildOptions
from lung_nodule_ct.testing.synthetic_archives import write_synthetic_archives
from lung_nodule_ct.train.averaging import MEASURED_BATCHES, make_measure, needs_statistics
from lung_nodule_ct.train.batches import global_batches, open_data_source
from lung_nodule_ct.train.evaluation import evaluate
from lung_nodule_ct.train.false_positives import STAGE, detector_identity, save_candidates
from lung_nodule_ct.train.network import pretrained_values
from lung_nodule_ct.train.placement import placement, shardings
from lung_nodule_ct.train.runs import BENCHMARK, Checkpoints, Run, data_identity, training
from lung_nodule_ct.train.step import check_devices, make_step, new_state
from lung_nodule_ct.train.training_log import TrainingLog, ValidationCurve

if TYPE_CHECKING:
    from collections.abc import Callable

    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.train.expected_scores import ExpectedScore
    from lung_nodule_ct.train.hard_benchmark import HardBenchmark
    from lung_nodule_ct.train.recipes import Recipe
DATA: Final = "synthetic"
"""The folder of the synthetic build, in the folder of the check."""
_PATIENTS: Final = 100


def train(run: Run, build: BuildFolder, pretrained: Path | None = None, detector: Run | None = None) -> None:
    """Train a run to its last step. It continues from the latest checkpoint, if there is one.

    Args:
        run: The run.
        build: A build that holds its config.
        pretrained: The file of weights that the run starts with, if it names one.
        detector: For a stage that removes false positives, the run that finds its candidates; by default the detector that learns nothing.

    Raises:
        BuildFolderError: The build does not hold the config.
        TrainingError: The data, the devices, the weights or the folder do not fit the recipe, another command trains the run, or a loss is not
            finite.
    """
    recipe = run.recipe
    run.require_unchanged()
    check_devices(recipe)
    weights = None if pretrained is None else pretrained_values(recipe, pretrained)
    if recipe.task == STAGE:
        save_candidates(run, build, detector)
    source = open_data_source(build, recipe, TRAIN, run.folder)
    with training(run) as raise_interrupt:
        run.save()
        replicated, by_example = shardings()
        best = Checkpoints(run.folder, recipe, writable=True, best=True) if recipe.select == "best" else None
        with Checkpoints(run.folder, recipe, writable=True) as checkpoints, best or nullcontext():
            if checkpoints.latest_step is not None:
                state = checkpoints.restore(placement(recipe.optim))
            else:
                state = new_state(recipe, weights)
            checkpoints.require_free_space(state)
            start = int(state["step"])
            for saved in filter(None, (checkpoints, best)):
                saved.delete_after(start)
            train_step, curve = make_step(recipe), ValidationCurve(run, build, start)
            open_measure = cache(partial(make_measure, recipe, replicated))
            with TrainingLog(run.folder, recipe, source, start) as log:
                for step, (indices, batch) in enumerate(global_batches(source, recipe, by_example, start), start):
                    with jax.transfer_guard("disallow"):
                        state, losses = train_step(state, batch)
                    raise_interrupt()  # a Ctrl-C that was dropped in a callback
                    log.add(step, indices, losses)
                    if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
                        log.flush()  # so that no checkpoint is saved after a loss that is not finite
                        if needs_statistics(recipe, state, step + 1):
                            examples = replace(recipe, steps=min(recipe.steps, MEASURED_BATCHES))
                            batches = (batch for _, batch in global_batches(source, examples, by_example))
                            state = state | {"average": open_measure()(state["average"], batches)}
                        if curve.add(state, step + 1) and best is not None:
                            best.save(state, step + 1)
                        checkpoints.save(state, step + 1)


def check_learning(
    folder: Path, name: str, recipe: Recipe, expected: ExpectedScore, benchmark: HardBenchmark | None = None
) -> dict[str, Any]:
    """Train and evaluate a recipe on synthetic patients. An existing build or run in the folder is used again.

    Args:
        folder: The folder of the run. The synthetic build is a subfolder.
        name: The recipe's name.
        recipe: The recipe's small variant.
        expected: The score that it must reach.
        benchmark: The scans of the hard benchmark; by default the patients of the easy check.

    Returns:
        The content of ``scores.json``.

    Raises:
        TrainingError: The score is too low, or training or evaluation fails.
    """
    write = benchmark.write if benchmark else partial(_write_easy, recipe.config, expected.vessels)
    content = (
        benchmark.domain() if benchmark else {"domain": "easy", "config": recipe.config, "vessels": expected.vessels}
    )
    build = _built(folder / DATA, recipe.config, write, content)
    data = data_identity(build, recipe.config)
    if benchmark:
        data |= {BENCHMARK: benchmark.domain()}
    if recipe.task == STAGE:
        data |= detector_identity(None)
    run = Run(folder, name, recipe, data)
    train(run, build)
    document = evaluate(run, build, VALIDATION, with_learning_free=True)
    for score, minimum in expected.minima.items():
        value = document["scores"][score]["value"]
        if value is None or value < minimum:
            raise TrainingError(
                f"{name} did not learn on {'the scans of the hard benchmark' if benchmark else 'synthetic patients'}",
                expected=f"{score} of at least {minimum}",
                got=value,
                remedy=f"see the page in {folder}; with unchanged options, this is a fault of the code or of a package",
            )
    return document


def _write_easy(config: str, vessels: int, folder: Path) -> Path:
    stacks = get_config(config).kind == Kind.STACK
    return write_synthetic_archives(folder, _PATIENTS, stacks=stacks, vessels=vessels)


def _built(folder: Path, config: str, write: Callable[[Path], Path], content: dict[str, Any]) -> BuildFolder:
    """A build of the archives that ``write`` makes, or the one that is there. A file next to it says what it was made of.

    Raises:
        TrainingError: The one that is there was made of something else, by a command that stopped before the run was saved.
    """
    record, text = folder.with_name(f"{folder.name}.json"), to_json(content)
    if folder.is_dir():
        if record.is_file() and (got := record.read_text("utf-8")) != text:
            raise TrainingError(
                f"{folder} has other scans",
                expected=json.dumps(content),
                got=json.dumps(json.loads(got)),
                remedy="use the same command again, or another --out",
            )
    else:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(record, text)
        except OSError as error:
            raise OutputError(f"{folder.parent} cannot be written: {error}") from error
        with tempfile.TemporaryDirectory() as scratch:
            source = open_folder(write(Path(scratch) / "source"))
            build_folder([get_config(config)], source, folder, BuildOptions(format=Format.ARROW))
    return open_build(folder)
