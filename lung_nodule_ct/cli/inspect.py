"""``lung-nodule-ct configs`` and ``lung-nodule-ct inspect``."""

from __future__ import annotations

import typer

from lung_nodule_ct.cli.options import Json, Offline, SourceOption
from lung_nodule_ct.cli.terminal import new_table, print_findings, print_indented, print_json, terminal
from lung_nodule_ct.declaration.configs import CONFIGS


def configs(as_json: Json = False) -> None:
    """List the configs with their columns and the archives that they read."""
    from lung_nodule_ct.declaration.archives import archives_of

    listed = [
        {
            "name": config.name,
            "summary": config.summary,
            "example": config.example,
            "splits": list(config.splits),
            "columns": list(config.schema.names),
            "reads": [archive.name for archive in archives_of(*config.reads)],
            "context": [archive.name for archive in archives_of(*config.context)],
        }
        for config in CONFIGS.values()
    ]
    if as_json:
        print_json(listed)
        return
    console = terminal()
    for entry in listed:
        lines = [f"{entry['summary']} An example is {entry['example']}."]
        lines += [
            f"[dim]{key}[/] {', '.join(entry[key])}" for key in ("splits", "columns", "reads", "context") if entry[key]
        ]
        console.print(f"[bold]{entry['name']}[/]", highlight=False)
        print_indented("\n".join(lines))
        console.print()


def inspect(
    context: typer.Context,
    source: SourceOption = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Show the content of a source: archives, patients, scans, timepoints, findings. Reads no voxels.

    Without --source, archives that are not in the cache are read from Zenodo by ranges of their directories.
    """
    if len(context.args) > 1 or (context.args and (source or context.args[0].startswith("-"))):
        raise typer.BadParameter(f"unexpected arguments: {' '.join(context.args)}")
    source = source or next(iter(context.args), None)  # the folder used to be an argument
    from lung_nodule_ct.examples.report import inspect_source
    from lung_nodule_ct.sources.resolve import open_source

    inspection = inspect_source(open_source(source, list(CONFIGS.values()), remote=True, offline=offline))
    if as_json:
        print_json(inspection.document())
        return
    from rich.markup import escape

    from lung_nodule_ct.errors import printable

    console = terminal()
    archives = new_table("archive", "role", "state", bytes=True, members=True)
    colours = {"found": "green", "missing": "yellow", "unreadable": "red"}
    for archive in inspection.archives:
        numbers = ("" if number is None else f"{number:,}" for number in (archive.size, archive.members))
        archives.add_row(archive.name, archive.role, f"[{colours[archive.state]}]{archive.state}[/]", *numbers)
    console.print(archives, "")
    counted = ("patients", "scans", "timepoints", "nodules", "findings")
    table = new_table("config", "examples", **dict.fromkeys(counted, True))
    for config in inspection.configs:
        counts = config.counts()
        if config.plan is None:
            table.add_row(config.name, "[yellow]cannot be built[/]")
            continue
        examples = "\n".join(
            split if count is None else f"{split} {count:,}" for split, count in counts["examples"].items()
        )
        table.add_row(config.name, examples, *("" if counts[key] is None else f"{counts[key]:,}" for key in counted))
    console.print(table, "")
    if figures := inspection.figures():
        comparison = new_table("published counts", here=True, preprint=True, published=True, agrees=False)
        for figure in figures:
            shown = (figure[name] for name in ("figure", "here", "preprint", "published", "agrees_with"))
            comparison.add_row(*("" if value is None else str(value) for value in shown))
        console.print(comparison, "")
    for file in inspection.unrecognised:
        console.print(f"[yellow]![/] not recognised: {escape(printable(str(file)))}", highlight=False, soft_wrap=True)
    problems = [archive.problem for archive in inspection.archives if archive.problem]
    problems += [config.problem for config in inspection.configs if config.problem]
    for problem in dict.fromkeys(problems):
        console.print(f"[yellow]![/] {escape(problem)}")
    findings = (finding for config in inspection.configs if config.plan for finding in config.plan.findings)
    print_findings(list(dict.fromkeys(findings)))
