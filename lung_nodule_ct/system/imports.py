"""Imports of optional packages, and actions to be run after another package has been imported."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


@contextmanager
def optional_imports(extra: str, purpose: str) -> Iterator[None]:
    """Wrap imports of packages that an extra of this package installs.

    Args:
        extra: The name of the extra in ``pyproject.toml``.
        purpose: What needs the packages, as the subject of a sentence.

    Raises:
        MissingExtraError: An import fails.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise _missing(extra, purpose, str(error.name)) from error


def import_name(package: str, modules: Mapping[str, str], name: str, extra: str, purpose: str) -> Any:
    """Import a public name of a package at its first use: the body of the ``__getattr__`` of a package that needs an extra.

    Args:
        package: The package, which keeps the value.
        modules: The module of each public name, without the package.
        name: The name.
        extra: The name of the extra in ``pyproject.toml``.
        purpose: What needs the packages, as the subject of a sentence.

    Raises:
        AttributeError: The package has no such name.
        MissingExtraError: An import fails.
    """
    if name not in modules:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    with optional_imports(extra, purpose):
        value = getattr(import_module(f"{package}.{modules[name]}"), name)
    setattr(sys.modules[package], name, value)
    return value


def require_modules(extra: str, purpose: str, *modules: str) -> None:
    """Check that some modules of an extra are installed, without importing them.

    Args:
        extra: The name of the extra in ``pyproject.toml``.
        purpose: What needs the modules, as the subject of a sentence.
        modules: The names of the modules.

    Raises:
        MissingExtraError: A module is not installed.
    """
    for module in modules:
        if not is_installed(module):
            raise _missing(extra, purpose, module)


def is_installed(module: str) -> bool:
    """Whether a module could be imported. The module itself is not imported."""
    try:
        return find_spec(module) is not None
    except (ValueError, ModuleNotFoundError):  # the module is blocked, or the parent of a dotted name is missing
        return False


def run_after_import(name: str, action: Callable[[ModuleType], None]) -> None:
    """Call an action with a module: now if it is imported already, otherwise as soon as it is.

    The package wrapt offers the same, but it imports asyncio, which took three quarters of the time that
    ``import lung_nodule_ct`` takes.

    Args:
        name: The name of the module.
        action: Is called once, with the module.
    """
    if name in sys.modules:
        action(sys.modules[name])
    else:
        sys.meta_path.insert(0, _PostImportFinder(name, action))


class _PostImportFinder:
    """A finder of the import system that delegates to the other finders and makes the module's loader call an action."""

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
            if self in sys.meta_path:  # the action runs once, even if the module is imported again later
                sys.meta_path.remove(self)
                self._action(module)

        spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]  # every module has its own loader
        return spec


def _missing(extra: str, purpose: str, module: str) -> MissingExtraError:
    return MissingExtraError(
        f"{purpose} needs the package {module.partition('.')[0]}, which is not installed",
        remedy=f'install it: pip install "lung_nodule_ct[{extra}]"',
    )
