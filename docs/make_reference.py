"""The pages of the reference that follow from the code: ``command_line.md`` and ``configs.md``. ``docs/conf.py`` writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer.main

from lung_nodule_ct.cli import app
from lung_nodule_ct.declaration.archives import archives_of
from lung_nodule_ct.declaration.configs import CONFIGS, Config
from lung_nodule_ct.declaration.schema import Category, Column, ColumnType, Integer, Real, Records, Vector, Voxels

_ENDINGS = re.compile(r"\[/?(?:bold|dim|italic|cyan|green|red|yellow)?\]")


def write(folder: Path) -> None:
    """Write the pages into a folder. A page that is up to date is not touched."""
    for name, text in (("command_line.md", command_line()), ("configs.md", configs())):
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def command_line() -> str:
    """The page of the commands, with the help texts and defaults of the command line itself."""
    group: Any = typer.main.get_command(app)
    types = {info.callback.__name__: get_type_hints(info.callback) for info in app.registered_commands if info.callback}
    parts = [
        "# Command line",
        "`lung-nodule-ct COMMAND --help` shows the same texts. Every command ends with the exit code 0 after success, with or "
        "without findings; 1 if an error stopped it; 2 after a wrong option; 130 if it was interrupted.",
    ]
    for name, command in group.commands.items():
        parts += [f"## `{name}`", _plain(command.help)]
        rows = [_parameter(parameter, types[command.callback.__name__]) for parameter in command.params]
        parts.append(_table(("argument or option", "meaning", "default"), rows))
    return "\n\n".join(parts) + "\n"


def configs() -> str:
    """The page of the configs and their columns, from the declaration."""
    parts = [
        "# Configs and columns",
        "A config is one view of the dataset. *or null* means that a value may be unknown: it is then null, and never a guess. "
        "Builds with `--keep-source-names` have the column `source_name` as well.",
        "World coordinates are LPS millimetres (x, y, z), voxel coordinates the continuous index (x, y, z) at the centre of a "
        "voxel, 3D boxes half-open: see [Geometry](../explanation/geometry.md).",
        *(part for config in CONFIGS.values() for part in _config(config)),
    ]
    return "\n\n".join(parts) + "\n"


def _config(config: Config) -> Iterator[str]:
    yield f"## `{config.name}`"
    yield f"{config.summary} An example is {config.example}. Published splits: {', '.join(config.splits)}."
    yield f"Reads {_archives(archive.name for archive in archives_of(*config.reads))}. " + (
        f"Of {_archives(archive.name for archive in archives_of(*config.context))}, only directories and tables are read, "
        "for the numbers of scans, timepoints and pathology."
        if config.context
        else ""
    )
    rows = [row for column in config.schema.columns for row in _column("", column)]
    yield _table(("column", "type", "meaning"), rows)


def _archives(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _column(prefix: str, column: Column) -> Iterator[tuple[str, ...]]:
    yield f"`{prefix}{column.name}`", type_text(column.type), column.doc + (", or null" if column.nullable else "")
    if isinstance(column.type, Records):
        for field in column.type.fields:
            yield from _column(f"{prefix}{column.name}[].", field)


def type_text(type_: ColumnType) -> str:
    """What a reader calls a type of the declaration."""
    match type_:
        case Integer(bits):
            return f"int{bits}"
        case Real(bits):
            return f"float{bits}"
        case Vector(item, length):
            return f"{length} x {type_text(item)}"
        case Voxels(dtype):
            return f"{dtype} volume: `bytes`, `shape` (z, y, x)"
        case Category(names):
            return "class: " + ", ".join(f"{index} {name}" for index, name in enumerate(names))
        case Records():
            return "list"
        case _:
            return {"Text": "string", "Flag": "bool", "Picture": "image"}[type(type_).__name__]


def _parameter(parameter: Any, types: dict[str, Any]) -> tuple[str, ...]:
    is_option = parameter.param_type_name == "option"
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    label = names if is_option else f"`{parameter.metavar or parameter.name.upper()}`"
    meaning = _plain(parameter.help)
    hint = types.get(parameter.name)
    kinds = [kind for kind in (hint, *get_args(hint)) if isinstance(kind, type) and issubclass(kind, Enum)]
    if kinds:
        meaning += f" One of {', '.join(f'`{entry.value}`' for entry in kinds[0])}."
    default = parameter.default
    if parameter.required:
        shown = "required"
    else:
        shown = "" if default in (None, False, "") else f"`{getattr(default, 'value', default)}`"
    return label, meaning, shown


def _plain(text: str | None) -> str:
    """A help text without the markup of the terminal."""
    return _ENDINGS.sub("", text or "").replace("\\[", "[").replace("<", "&lt;").replace("*", "\\*").strip()


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )
