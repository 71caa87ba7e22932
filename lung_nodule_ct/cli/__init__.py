"""The command line ``lung-nodule-ct``, one module per topic.

Exit codes: 0 success, with or without findings; 1 an error stopped the command; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import errno
import gc
import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from lung_nodule_ct.cli.audit import audit, verify
from lung_nodule_ct.cli.baselines import baselines
from lung_nodule_ct.cli.build import build, prepare
from lung_nodule_ct.cli.download import download, lock
from lung_nodule_ct.cli.evaluate import compare, evaluate
from lung_nodule_ct.cli.export import export
from lung_nodule_ct.cli.inspect import configs, inspect
from lung_nodule_ct.cli.preview import preview
from lung_nodule_ct.cli.publish import card, publish
from lung_nodule_ct.cli.train import leakage, train
from lung_nodule_ct.errors import LungNoduleCTError

_NOT_WRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM})
_OBJECTS_PER_COLLECTION = 50_000
"""How many more objects the garbage collector waits for. With 700, it takes a tenth of a second of a start: modules are many objects, and no cycles."""
_HELP = {"help_option_names": ["-h", "--help"]}
_BUILD = "build/lung_nodule_ct"
EXAMPLES = {
    "configs": "configs",
    "inspect": "inspect --source ARCHIVES",
    "download": "download det2d_1.25mm",
    "lock": "lock --out archives.lock",
    "build": "build det2d_1.25mm cls_1.25mm --source ARCHIVES",
    "prepare": "prepare det2d_1.25mm --source ARCHIVES",
    "preview": f"preview {_BUILD} --open",
    "audit": f"audit {_BUILD} --only evidence",
    "verify": f"verify {_BUILD}",
    "card": f"card {_BUILD} --repository USER/REPO",
    "export": f"export {_BUILD} det2d_1.25mm --to coco --out build/coco",
    "publish": f"publish {_BUILD} USER/REPO --private --dry-run",
    "train": f"train {_BUILD} cls_1.25mm --out runs/cls",
    "evaluate": f"evaluate {_BUILD} runs/cls --split validation",
    "compare": "compare runs/cls runs/cls-by-patient",
    "leakage": f"leakage {_BUILD} cls_1.25mm --steps 500",
    "baselines": f"baselines {_BUILD} --out runs/paper --only resnet50",
}
"""What the help of each command shows as its example."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings=_HELP,
    epilog="Example: lung-nodule-ct build --all --source dummy_data",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from lung_nodule_ct import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """The lung nodule CT dataset, from the published archives to typed data."""


_EXTRA = {**_HELP, "allow_extra_args": True}
_RECIPE = {**_EXTRA, "ignore_unknown_options": True}
for command, settings in (
    (configs, _HELP),
    (inspect, _EXTRA),
    (download, _HELP),
    (lock, _HELP),
    (build, _HELP),
    (prepare, _HELP),
    (preview, _HELP),
    (audit, _HELP),
    (verify, _HELP),
    (card, _HELP),
    (export, _HELP),
    (publish, _HELP),
    (train, _RECIPE),
    (evaluate, _EXTRA),
    (compare, _HELP),
    (leakage, _RECIPE),
    (baselines, _RECIPE),
):
    app.command(context_settings=settings, epilog=f"Example: lung-nodule-ct {EXAMPLES[command.__name__]}")(command)


def main() -> None:
    """Run the command line. An error of this package becomes one line and exit code 1, and so does a full or read-only disk."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names may not fit the encoding of the terminal
    sys.argv[1:] = map(_with_home, sys.argv[1:])
    gc.set_threshold(_OBJECTS_PER_COLLECTION)
    try:
        app()
    except LungNoduleCTError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _with_home(argument: str) -> str:
    """Expand the ``~`` of a path. A shell does that for words, but not for ``--out=~/build`` or quoted words."""
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return f"{option}{equals}{Path(value).expanduser()}" if value == "~" or value.startswith("~/") else argument
