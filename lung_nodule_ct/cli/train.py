"""The commands ``train`` and ``leakage``."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lung_nodule_ct.cli.evaluate import print_comparison, print_scores
from lung_nodule_ct.cli.options import Data, Draws, Json, build_and_name
from lung_nodule_ct.cli.terminal import new_table, print_json, terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.train.expected_scores import ExpectedScore
    from lung_nodule_ct.train.recipes import Recipe

_HARD = "hard"
"""The word after ``--check`` that selects the hard benchmark."""


def complete_network(incomplete: str) -> list[str]:
    """Return the networks of ``--model`` that begin with some letters, for the completion of a shell."""
    from lung_nodule_ct.train.models import NETWORKS, RETINANET3D

    return [name for name in (*NETWORKS, RETINANET3D) if name.startswith(incomplete)]


def _complete_recipe(incomplete: str) -> list[str]:
    from lung_nodule_ct.train.recipes import RECIPES

    return [name for name in RECIPES if name.startswith(incomplete)]


Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        autocompletion=complete_network,
        help="Train a published network instead of our own (--models lists them), or retinanet3d, the strong recipe of volumes.",
    ),
]
Pretrained = Annotated[
    Path | None,
    typer.Option(
        "--pretrained",
        metavar="FILE",
        help="Start with the weights of a safetensors file of timm or torchvision, for --model.",
    ),
]


def train(
    context: typer.Context,
    first: Annotated[
        str,
        typer.Argument(
            metavar="BUILD RECIPE",
            help="A build as Parquet or Arrow, and the recipe to train; --list shows all recipes.",
            autocompletion=_complete_recipe,
        ),
    ] = "",
    data: Data = None,
    out: Annotated[Path | None, typer.Option("--out", help="The run's folder; runs/RECIPE by default.")] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Check that the recipe learns: train a small variant on synthetic patients, in runs/check-RECIPE. "
            "--check hard: on nodules inserted among vessels and walls, which ranks recipes, in runs/hard-RECIPE.",
        ),
    ] = False,
    real_ct: Annotated[
        Path | None,
        typer.Option("--real-ct", metavar="BUILD", help="With --check hard: insert nodules into the CT of a build."),
    ] = None,
    leave_out: Annotated[
        str | None,
        typer.Option(
            "--leave-out",
            metavar="PATIENT",
            help="With --real-ct: the patient for validation; one by the seed by default.",
        ),
    ] = None,
    listing: Annotated[
        bool, typer.Option("--list", help="List the recipes and the scores that --check expects.")
    ] = False,
    models: Annotated[
        bool, typer.Option("--models", help="List the published networks that the paper's baselines name.")
    ] = False,
    model: Model = None,
    pretrained: Pretrained = None,
    detector: Annotated[
        Path | None,
        typer.Option(
            "--detector",
            metavar="RUN",
            help="For a recipe of candidates: the run that finds them; by default a detector that learns nothing.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a model on a build. The same command again continues an interrupted run.

    Every option of the recipe can be changed, for example --steps 500 --seed 0
    --batch-size 8 --split-by patient --optim.learning-rate 3e-4.
    "BUILD RECIPE -- --help" lists all of them, with their defaults; with
    "BUILD RECIPE --model NAME -- --help", those of that network.

    To train on several hosts, set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES
    and JAX_PROCESS_ID on each of them.
    """
    given = (first, *context.args, data, out, check, real_ct, leave_out, model, pretrained, detector)
    others = [value for value in given if value]
    if others and (listing or models):
        raise typer.BadParameter(
            "it lists everything, and takes nothing else", param_hint="--list" if listing else "--models"
        )
    if models:
        _print_models(as_json=as_json)
        return
    if as_json:
        raise typer.BadParameter("it belongs to --models", param_hint="--json")
    if listing or not others:
        _print_recipes()
        return
    if not first:
        raise typer.BadParameter("name a build and a recipe, or a recipe and --check", param_hint="BUILD RECIPE")
    words, options = _split_words(first, context.args)
    is_hard = check and len(words) == 2 and _HARD in words
    if (real_ct or leave_out) and not is_hard:
        raise typer.BadParameter("it belongs to --check hard", param_hint="--real-ct" if real_ct else "--leave-out")
    if detector is not None and check:
        raise typer.BadParameter("--check has candidates of its own", param_hint="--detector")
    if check:
        if is_hard:
            words.remove(_HARD)
        if len(words) > 1 or data is not None:
            raise typer.BadParameter(
                "--check makes its own data; name only the recipe, and nothing or hard after it", param_hint="BUILD"
            )
        if pretrained is not None or (model is not None and not is_hard):
            raise typer.BadParameter("--check trains a small network of our own", param_hint="--model, --pretrained")
        if is_hard:
            target = out or Path("runs") / f"hard-{words[0]}{f'-{model}' if model else ''}"
            _check_hard(words[0], target, options, model, real_ct, leave_out)
        else:
            _check(first, out or Path("runs") / f"check-{first}", options)
        return
    folder, name = build_and_name(words, data, "RECIPE")
    recipe, build = _recipe_and_build(name, options, folder, model, pretrained)
    from lung_nodule_ct.train.false_positives import STAGE, detector_identity
    from lung_nodule_ct.train.loop import train as train_run
    from lung_nodule_ct.train.runs import Run, data_identity, file_identity, open_run

    if detector is not None and recipe.task != STAGE:
        raise typer.BadParameter(f"{name} is not a recipe of candidates", param_hint="--detector")
    data_read, finder = data_identity(build, recipe.config), None if detector is None else open_run(detector)
    if recipe.task == STAGE:
        data_read |= detector_identity(finder)
    target = out or Path("runs") / (f"{name}-{model}" if model else name)
    run = Run(target, name, recipe, data_read, file_identity(pretrained))
    train_run(run, build, pretrained, finder)
    terminal().print(f"trained: {run.folder}", highlight=False, soft_wrap=True)


def leakage(
    context: typer.Context,
    first: Annotated[
        str,
        typer.Argument(
            metavar="BUILD RECIPE",
            help="A build as Parquet or Arrow, and the recipe to train; train --list shows all recipes.",
        ),
    ],
    data: Data = None,
    model: Model = None,
    pretrained: Pretrained = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The folder of both runs; runs/leakage-RECIPE by default.")
    ] = None,
    draws: Draws = 1000,
    as_json: Json = False,
) -> None:
    """Train on the published split and on a split by patient, and print how much shared patients add to the scores.

    It takes all options of train except --split-by. The runs are OUT/published and
    OUT/patient. The same command again continues interrupted runs.
    """
    words, options = _split_words(first, context.args)
    folder, name = build_and_name(words, data, "RECIPE")
    if any(option.startswith(("--split-by", "--split_by")) for option in options):
        raise typer.BadParameter("leakage trains on both splits", param_hint="--split-by")
    recipe, build = _recipe_and_build(name, options, folder, model, pretrained)
    from lung_nodule_ct.train.leakage import train_both

    target = out or Path("runs") / (f"leakage-{name}-{model}" if model else f"leakage-{name}")
    folders = train_both(target, name, recipe, build, draws=draws, pretrained=pretrained)
    print_comparison(folders, as_json=as_json, draws=draws)


def _split_words(first: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before the options of the recipe, which this command line does not know, and these options."""
    is_word = bool(arguments) and not arguments[0].startswith("-")
    from lung_nodule_ct.train.recipes import RECIPES

    if not is_word and first not in RECIPES and (later := next((word for word in arguments if word in RECIPES), None)):
        raise typer.BadParameter(f"name {later} directly after the build, before the options", param_hint="RECIPE")
    return [first, *arguments[:is_word]], list(arguments[is_word:])


def _recipe_and_build(
    name: str, arguments: Sequence[str], folder: Path, model: str | None, pretrained: Path | None
) -> tuple[Recipe, BuildFolder]:
    """The recipe to train, and the build, before any device is used. A published network has the paper's epochs."""
    if pretrained is not None and model is None:
        raise typer.BadParameter("it needs the network of these weights, --model", param_hint="--pretrained")
    from lung_nodule_ct.train.models import RETINANET3D
    from lung_nodule_ct.train.recipes import get_recipe, published_recipe
    from lung_nodule_ct.train.strong_recipe import strong_recipe

    if model == RETINANET3D:
        if pretrained is not None:
            raise typer.BadParameter(f"there are no published weights of {RETINANET3D}", param_hint="--pretrained")
        default = strong_recipe(name)
    else:
        default = get_recipe(name) if model is None else published_recipe(name, model)
    recipe = parse_recipe(name, default, arguments)
    from lung_nodule_ct.read.build_folder import open_build
    from lung_nodule_ct.train.step import initialize_jax

    build = open_build(folder)
    initialize_jax()
    if pretrained is not None:
        from lung_nodule_ct.train.network import read_pretrained

        read_pretrained(recipe, pretrained)  # before the build is decoded
    if recipe.model.network is not None:
        from lung_nodule_ct.train.baselines import with_published_steps

        configure = partial(parse_recipe, arguments=arguments)  # --steps has priority
        recipe = with_published_steps(build, name, default, configure)
    return recipe, build


def parse_recipe(name: str, recipe: Recipe, arguments: Sequence[str]) -> Recipe:
    """A recipe with the options that the command line changes.

    Raises:
        TrainingError: An option is not valid.
        MissingExtraError: The extra ``train`` is not installed.
    """
    from lung_nodule_ct.train import require_extra

    require_extra()
    import tyro

    settings = (tyro.conf.EnumChoicesFromValues,)
    prog = f"lung-nodule-ct train BUILD {name} --"
    parsed: Recipe = tyro.cli(type(recipe), default=recipe, args=list(arguments), prog=prog, config=settings)
    return parsed


def _check(name: str, folder: Path, arguments: Sequence[str]) -> None:
    from lung_nodule_ct.train.expected_scores import EXPECTED_SCORES
    from lung_nodule_ct.train.recipes import get_recipe

    default, expected = get_recipe(name), EXPECTED_SCORES[name]
    options = (*expected.options, *arguments)
    recipe = parse_recipe(name, default, options)
    from lung_nodule_ct.train.step import initialize_jax

    initialize_jax()
    from lung_nodule_ct.train.false_positives import STAGE
    from lung_nodule_ct.train.hard_benchmark import HardBenchmark
    from lung_nodule_ct.train.loop import DATA, check_learning

    # The easy patients have no false positives to learn from.
    benchmark = HardBenchmark(recipe.seed) if recipe.task == STAGE else None
    command = shlex.join(["lung-nodule-ct", "train", str(folder / DATA), name, "--out", str(folder), *options])
    terminal().print(f"on synthetic patients: {command}", highlight=False, soft_wrap=True)
    document = check_learning(folder, name, recipe, expected, benchmark)
    _print_check(name, document | {"run": folder.name}, expected)


def _check_hard(
    name: str, folder: Path, arguments: Sequence[str], model: str | None, real_ct: Path | None, leave_out: str | None
) -> None:
    from lung_nodule_ct.train.expected_scores import EXPECTED_HARD_SCORES, ExpectedScore
    from lung_nodule_ct.train.models import RETINANET3D
    from lung_nodule_ct.train.recipes import get_recipe
    from lung_nodule_ct.train.strong_recipe import strong_recipe

    default = strong_recipe(name) if model == RETINANET3D else get_recipe(name)
    name = name if model is None else f"{name}-{model}"
    if name not in EXPECTED_HARD_SCORES:
        known = ", ".join(EXPECTED_HARD_SCORES)
        raise typer.BadParameter(f"there is no hard benchmark of {name}, only of {known}", param_hint="RECIPE")
    expected = EXPECTED_HARD_SCORES[name]
    if real_ct is not None:  # the minimum is that of phantoms
        expected = ExpectedScore(expected.options, expected.score, None)
    recipe = parse_recipe(name, default, (*expected.options, *arguments))
    from lung_nodule_ct.read.build_folder import open_build
    from lung_nodule_ct.train.step import initialize_jax

    initialize_jax()
    from lung_nodule_ct.train.hard_benchmark import HardBenchmark
    from lung_nodule_ct.train.loop import check_learning

    benchmark = HardBenchmark(recipe.seed, None if real_ct is None else open_build(real_ct), leave_out)
    document = check_learning(folder, name, recipe, expected, benchmark)
    _print_check(name, document | {"run": folder.name}, expected)


def _print_check(name: str, document: dict[str, Any], expected: ExpectedScore) -> None:
    print_scores([document])
    result = f"it learns, at least {expected}" if expected.minima else f"it runs; {expected}"
    terminal().print(f"{name}: {result}", highlight=False)


def _print_recipes() -> None:
    from lung_nodule_ct.train.expected_scores import EXPECTED_SCORES
    from lung_nodule_ct.train.recipes import RECIPES

    table = new_table("recipe", "reads", "model", "split by", "check expects")
    for name, recipe in RECIPES.items():
        table.add_row(name, recipe.config, recipe.model.head, str(recipe.split_by), str(EXPECTED_SCORES[name]))
    terminal().print(table)
    terminal().print(
        "\nTrain a recipe:       lung-nodule-ct train BUILD RECIPE\n"
        "Check that it learns: lung-nodule-ct train RECIPE --check",
        highlight=False,
    )


def _print_models(*, as_json: bool) -> None:
    from lung_nodule_ct.train.models import NETWORKS

    if as_json:
        print_json({"models": [network.document() for network in NETWORKS.values()]})
        return
    table = new_table("model", "task", "variant", parameters=True)
    for network in NETWORKS.values():
        table.add_row(network.name, network.task, network.variant, f"{network.parameters:,}")
    terminal().print(table)
    terminal().print(
        "\nTrain one:  lung-nodule-ct train BUILD RECIPE --model MODEL\n"
        "The paper does not say which variants it used.\n"
        "--json adds the name in the paper and the reference.",
        highlight=False,
    )
