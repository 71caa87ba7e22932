"""What is installed only where it is asked for: ``pip install "lung_nodule_ct[tfds]"``."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from lung_nodule_ct.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def needing(extra: str, purpose: str) -> Iterator[None]:
    """Imports of what an extra brings.

    Args:
        extra: Its name in ``pyproject.toml``.
        purpose: What needs it, as the subject of a sentence.

    Raises:
        MissingExtraError: An import fails.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise _missing(extra, purpose, str(error.name)) from error


def require(extra: str, purpose: str, *modules: str) -> None:
    """Do nothing where some modules of an extra are installed; none of them is imported.

    Raises:
        MissingExtraError: One is not.
    """
    for module in modules:
        if not is_installed(module):
            raise _missing(extra, purpose, module)


def is_installed(module: str) -> bool:
    """Whether a module could be imported."""
    try:
        return find_spec(module) is not None
    except (ValueError, ModuleNotFoundError):  # one that is blocked, or the parent of a dotted name
        return False


def _missing(extra: str, purpose: str, module: str) -> MissingExtraError:
    return MissingExtraError(
        f"{purpose} needs the package {module.partition('.')[0]}, which is not installed",
        remedy=f'install it: pip install "lung_nodule_ct[{extra}]"',
    )
