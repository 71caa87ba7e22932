"""The command ``baselines``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lung_nodule_ct.cli.options import DEFAULT_BUILD, Data, Draws, Json
from lung_nodule_ct.cli.terminal import new_table, print_json, terminal
from lung_nodule_ct.cli.train import complete_network, parse_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.train.baseline_tables import BaselineRow


def baselines(
    context: typer.Context,
    first: Annotated[str, typer.Argument(metavar="BUILD", help="A build as Parquet or Arrow.")] = "",
    data: Data = None,
    out: Annotated[Path, typer.Option("--out", help="The folder of the tables and the runs.")] = Path("runs/paper"),
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="NAME",
            help="Train only this network; can be repeated. train --models lists them.",
            autocompletion=complete_network,
        ),
    ] = None,
    draws: Draws = 1000,
    as_json: Json = False,
) -> None:
    """Train the networks of the paper's Tables 1 and 2 by its protocol, and write its tables with our scores in them.

    Each network is trained on the published split, which shares patients, and on a split by patient. The same command
    again continues: finished networks are not trained again. A network that fails is a row with its reason, the others
    go on, and the exit code is 1.

    All options of train can be given, for example --steps 50 for a short run.
    """
    words = [word for word in (first, *context.args) if word]
    folder = data
    if words and not words[0].startswith("-"):
        if data is not None:
            raise typer.BadParameter("the build is named twice", param_hint="--data")
        folder = Path(words.pop(0))
    if words and not words[0].startswith("-"):
        raise typer.BadParameter(f"got an unexpected extra argument: {words[0]}", param_hint="BUILD")
    if any(option.startswith(("--split-by", "--split_by")) for option in words):
        raise typer.BadParameter("baselines trains on both splits", param_hint="--split-by")
    from lung_nodule_ct.train import require_extra

    require_extra()
    from lung_nodule_ct.read.build_folder import open_build
    from lung_nodule_ct.train.step import initialize_jax

    build = open_build(folder or DEFAULT_BUILD)
    initialize_jax()
    from lung_nodule_ct.train.baseline_tables import TABLES_JSON, TABLES_MARKDOWN, table_lines
    from lung_nodule_ct.train.baselines import train_baselines

    chosen = list(dict.fromkeys(only or ()))
    rows = train_baselines(out, build, partial(parse_recipe, arguments=words), only=chosen, draws=draws)
    if as_json:
        print_json({"rows": list(table_lines(rows))})
    else:
        _print_tables(list(table_lines(rows)))
        terminal().print(f"written to {out / TABLES_MARKDOWN}", highlight=False, soft_wrap=True)
    failed = [row for row in rows if row.problem is not None and (not chosen or row.network in chosen)]
    if failed:
        raise _failure(failed, len(rows) if not chosen else 2 * len(chosen), out / TABLES_JSON)


def _failure(failed: Sequence[BaselineRow], count: int, path: Path) -> Exception:
    from lung_nodule_ct.errors import TrainingError

    names = ", ".join(f"{row.network} ({row.split_by})" for row in failed)
    return TrainingError(
        f"{len(failed)} of {count} runs have no scores: {names}",
        remedy=f"the reasons are in {path}; the same command tries these again",
    )


def _print_tables(lines: Sequence[dict[str, Any]]) -> None:
    """Print both tables without intervals, so that they fit 80 columns."""
    from lung_nodule_ct.train.baseline_tables import format_cell

    for number in sorted({line["table"] for line in lines}):
        of_table = [line for line in lines if line["table"] == number]
        names = list(of_table[0]["scores"])
        table = new_table(f"Table {number}", "scores of", **dict.fromkeys(names, True))
        for line in of_table:
            cells = [format_cell(line["scores"][name], 3, interval=False) or "-" for name in names]
            table.add_row(line["baseline"] if line["source"] == "paper" else "", line["source"], *cells)
        terminal().print(table, highlight=False)
        terminal().print()
