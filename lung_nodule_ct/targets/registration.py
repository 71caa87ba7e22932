"""Registration of the builders: ``import lung_nodule_ct`` is sufficient for ``load_dataset("lung_nodule_ct", …)`` and ``tfds.load``.

``datasets`` has no entry point for builders, and registering a packaged module makes it search the working directory. Therefore
``dataset_module_factory`` is wrapped in the modules of ``datasets`` that use it, by an import hook that waits until ``datasets`` is
imported, so the order of imports does not matter. A local folder with a card, ``data_files``, a ``revision`` and every other name are
passed to the original function.
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
    """Wrap the factory in each module of ``datasets`` that uses it, now or as soon as it is imported."""
    for module in ("datasets.load", "datasets.inspect"):
        run_after_import(module, _wrap_factory)
    run_after_import("tensorflow_datasets", _import_tfds_builder)


def _import_tfds_builder(_module: ModuleType) -> None:
    """Import the TFDS builder; creating its class registers it."""
    import_module(_TFDS_MODULE)


def _wrap_factory(module: ModuleType) -> None:
    original = module.dataset_module_factory
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def factory(path: str, *args: Any, **kwargs: Any) -> Any:
        is_other = kwargs.get("data_files") is not None or kwargs.get("revision") is not None or args
        if path != _NAME or is_other or Path(path, "README.md").is_file():
            return original(path, *args, **kwargs)
        from datasets.load import DatasetModule  # noqa: PLC0415 -- imported already when the factory is called

        return DatasetModule(_BUILDER_MODULE, "", {"dataset_name": _NAME})

    setattr(factory, _MARK, True)
    module.dataset_module_factory = factory  # type: ignore[attr-defined]  # the purpose of this module
