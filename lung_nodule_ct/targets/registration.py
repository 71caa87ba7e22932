"""``import lung_nodule_ct`` is enough for ``load_dataset("lung_nodule_ct", …)``, in either order of imports.

``datasets`` has no entry point for builders, and a packaged module's name alone makes it search the working directory. So
``dataset_module_factory`` is wrapped where ``datasets`` looks it up, by a hook that waits until ``datasets`` is imported.
A local folder with a card, ``data_files`` or a ``revision`` go to the original, as does every other name.
"""

from __future__ import annotations

import functools
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.system.imports import run_after_import

if TYPE_CHECKING:
    from types import ModuleType

_NAME = "lung_nodule_ct"
_BUILDER_MODULE = "lung_nodule_ct.targets.huggingface"
_TFDS_MODULE = "lung_nodule_ct.targets.tfds.builder"
_MARK = "_lung_nodule_ct"


def register() -> None:
    """Wrap the factory in each module of ``datasets`` that holds it, now or as soon as it is imported."""
    for module in ("datasets.load", "datasets.inspect"):
        run_after_import(module, _wrap_factory)
    run_after_import("tensorflow_datasets", _import_tfds_builder)


def _import_tfds_builder(_module: ModuleType) -> None:
    """A TFDS builder is registered where its class is made."""
    import_module(_TFDS_MODULE)


def _wrap_factory(module: ModuleType) -> None:
    original = module.dataset_module_factory
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def factory(path: str, *args: Any, **kwargs: Any) -> Any:
        asks_for_another = kwargs.get("data_files") is not None or kwargs.get("revision") is not None or args
        if path != _NAME or asks_for_another or Path(path, "README.md").is_file():
            return original(path, *args, **kwargs)
        from datasets.load import DatasetModule  # noqa: PLC0415 -- datasets is only imported by those who use it

        return DatasetModule(_BUILDER_MODULE, "", {"dataset_name": _NAME})

    setattr(factory, _MARK, True)
    module.dataset_module_factory = factory  # type: ignore[attr-defined]  # that is what this module is for
