"""Draw the rooms of the package and their imports into docs/architecture.md.

    python docs/make_architecture.py

An arrow leads from a room to a room that it imports. Arrows that follow from others are left out: if A imports B and C, and B imports C,
only A -> B -> C is drawn. The layer of a room is one more than the highest layer that it imports.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lung_nodule_ct"
PAGE = ROOT / "docs" / "architecture.md"
START, END = "<!-- rooms: start -->\n", "<!-- rooms: end -->\n"

Graph = Mapping[str, set[str]]


def room_of(path: Path, package: Path = PACKAGE) -> str:
    """The room of a module: its folder, or its own name at the top of the package."""
    parts = path.relative_to(package).with_suffix("").parts
    return parts[0] if len(parts) > 1 or parts[0] != "__init__" else package.name


def imports_of(path: Path, package: Path = PACKAGE) -> Iterator[tuple[str, int]]:
    """The modules of the package that a module imports anywhere, by dotted name without the package, with the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}:{node.lineno}: rooms are imported by their full names")
            names = [str(node.module)]
            if node.module == package.name:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith(f"{package.name}."):
                yield name.removeprefix(f"{package.name}."), node.lineno


def room_graph(package: Path = PACKAGE) -> dict[str, set[str]]:
    """The rooms that each room imports."""
    graph: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        room = room_of(path, package)
        imported = {name.partition(".")[0] for name, _ in imports_of(path, package)}
        # a name that is not a room is one of the public names, which __init__.py holds
        is_room = {name: (package / name).is_dir() or (package / f"{name}.py").is_file() for name in imported}
        graph.setdefault(room, set()).update({name if is_room[name] else package.name for name in imported} - {room})
    return graph


def layers(graph: Graph) -> dict[str, int]:
    """The layer of every room, from 1.

    Raises:
        ValueError: Rooms import each other in a circle.
    """
    known: dict[str, int] = {}

    def layer(room: str, path: tuple[str, ...] = ()) -> int:
        if room in path:
            raise ValueError(f"rooms import each other in a circle: {' -> '.join((*path, room))}")
        if room not in known:
            known[room] = 1 + max((layer(other, (*path, room)) for other in graph[room]), default=0)
        return known[room]

    for room in graph:
        layer(room)
    return known


def reduced(graph: Graph) -> dict[str, set[str]]:
    """The graph without arrows that follow from other arrows."""

    def reachable(room: str) -> set[str]:
        return graph[room] | {far for near in graph[room] for far in reachable(near)}

    return {
        room: {other for other in near if other not in set().union(*map(reachable, near))}
        for room, near in graph.items()
    }


def diagram(graph: Graph) -> str:
    """The graph as Mermaid, the highest layer first."""
    order = layers(graph)
    rooms = sorted(graph, key=lambda room: (-order[room], room))
    lines = ["```mermaid", "graph TD"]
    for number in sorted(set(order.values()), reverse=True):
        lines.append(f"    subgraph layer{number}[layer {number}]")
        lines += [f"        {room}[{label(room)}]" for room in rooms if order[room] == number]
        lines.append("    end")
    arrows = reduced(graph)
    lines += [f"    {room} --> {other}" for room in rooms for other in sorted(arrows[room])]
    return "\n".join([*lines, "```", ""])


def layer_table() -> str:
    """The layers as a Markdown table, the highest first, for pages that cannot draw Mermaid."""
    graph = room_graph()
    order = layers(graph)
    lines = ["| layer | rooms | import from |", "| --- | --- | --- |"]
    for number in sorted(set(order.values()), reverse=True):
        rooms = sorted(room for room in graph if order[room] == number)
        near = {room: ", ".join(f"`{label(other)}`" for other in sorted(reduced(graph)[room])) for room in rooms}
        for room in rooms:
            lines.append(f"| {number} | `{label(room)}` | {near[room]} |")
    return "\n".join(lines)


def label(room: str) -> str:
    """A room as it is written in the page: folders end with a slash."""
    return f"{room}/" if (PACKAGE / room).is_dir() else "__init__.py" if room == PACKAGE.name else f"{room}.py"


def page(text: str) -> str:
    """The page with the diagram of the package as it is."""
    head, _, rest = text.partition(START)
    _, _, tail = rest.partition(END)
    return f"{head}{START}{diagram(room_graph())}{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
