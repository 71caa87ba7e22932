"""Names from archives as one line of a terminal can show them."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""``text`` with what does not print (line ends, escape sequences, marks of direction, lone surrogates) as ``\x1b``."""
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
