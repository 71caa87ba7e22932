"""What is installed only where it is asked for: ``pip install "lung_nodule_ct[tfds]"``.

Something to be done once a module has been imported, without importing it.

wrapt has such hooks, too, but brings asyncio along: that was three quarters of what to import this package cost.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from lung_nodule_ct.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


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


def run_after_import(name: str, action: Callable[[ModuleType], None]) -> None:
    """Call ``action`` with the module of that name, now or as soon as it is imported."""
    if name in sys.modules:
        action(sys.modules[name])
    else:
        sys.meta_path.insert(0, _PostImportFinder(name, action))


class _PostImportFinder:
    """A finder of the import system. Finds what the other finders find, and has the module's loader call the action."""

    def __init__(self, name: str, action: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._action = action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        others = (finder for finder in tuple(sys.meta_path) if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:  # it may be imported anew later
                sys.meta_path.remove(self)
                self._action(module)

        spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]  # a loader is made for one module
        return spec
