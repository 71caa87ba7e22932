"""``lung-nodule-ct configs``."""

from __future__ import annotations

from lung_nodule_ct.cli.options import Json
from lung_nodule_ct.cli.terminal import print_json, terminal
from lung_nodule_ct.declaration.configs import CONFIGS


def configs(as_json: Json = False) -> None:
    """List the configs: what each holds, and which archives it reads."""
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
    from rich.padding import Padding

    console = terminal()
    for entry in listed:
        lines = [f"{entry['summary']} An example is {entry['example']}."]
        lines += [
            f"[dim]{key}[/] {', '.join(entry[key])}" for key in ("splits", "columns", "reads", "context") if entry[key]
        ]
        console.print(f"[bold]{entry['name']}[/]", highlight=False)
        console.print(Padding("\n".join(lines), (0, 0, 1, 4)), highlight=False)
