"""A line to the person at the terminal, beside what a command prints as its answer."""

from __future__ import annotations

from rich.console import Console


def notice(message: str) -> None:
    """Say something on standard error, as it stands."""
    Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)
