"""``lung-nodule-ct``: see what there is, build it, warm the cache. A module a command.

Exit codes: 0 done, findings or not; 1 an error stopped it; 2 it was called wrongly; 130 it was interrupted.
"""

from __future__ import annotations

import io
import sys

import typer

from lung_nodule_ct.cli.audit import audit
from lung_nodule_ct.cli.build import build
from lung_nodule_ct.cli.card import card
from lung_nodule_ct.cli.download import download, lock
from lung_nodule_ct.cli.evaluate import compare, evaluate, leakage
from lung_nodule_ct.cli.export import export
from lung_nodule_ct.cli.inspect import configs, inspect
from lung_nodule_ct.cli.prepare import prepare
from lung_nodule_ct.cli.preview import preview
from lung_nodule_ct.cli.publish import publish
from lung_nodule_ct.cli.train import train
from lung_nodule_ct.errors import LungNoduleCTError

app = typer.Typer(
    help="The lung nodule CT dataset, from the published archives to typed data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (
    configs,
    inspect,
    build,
    prepare,
    download,
    lock,
    preview,
    audit,
    card,
    export,
    publish,
    evaluate,
    compare,
):
    app.command()(command)
for training in (train, leakage):
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(training)


def main() -> None:
    """Run the command line; errors of ours become one line and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names need not fit the terminal's encoding
    try:
        app()
    except LungNoduleCTError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
