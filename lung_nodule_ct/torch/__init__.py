"""Datasets for PyTorch, which read a finished build: patches, slices, crops, patients and pairs of scans. Needs the extra ``torch``.

The names in ``__all__`` are public, and they are imported at their first use. A sample holds only tensors, numbers, strings and lists. It
depends on the seed, the epoch and its index alone, so it is the same with any number of workers, forked or spawned. docs/pytorch.md shows
how to use them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lung_nodule_ct.system.imports import import_name

if TYPE_CHECKING:
    from lung_nodule_ct.torch.batches import PatientSampler, collate
    from lung_nodule_ct.torch.pair_dataset import RegisteredPairs, registered_pairs
    from lung_nodule_ct.torch.patch_dataset import Patches, patches
    from lung_nodule_ct.torch.picture_datasets import Crops, Detection2D, crops, detection2d
    from lung_nodule_ct.torch.sequence_dataset import Sequences, sequences

_MODULES = {
    "Crops": "picture_datasets",
    "Detection2D": "picture_datasets",
    "Patches": "patch_dataset",
    "PatientSampler": "batches",
    "RegisteredPairs": "pair_dataset",
    "Sequences": "sequence_dataset",
    "collate": "batches",
    "crops": "picture_datasets",
    "detection2d": "picture_datasets",
    "patches": "patch_dataset",
    "registered_pairs": "pair_dataset",
    "sequences": "sequence_dataset",
}

__all__ = [
    "Crops",
    "Detection2D",
    "Patches",
    "PatientSampler",
    "RegisteredPairs",
    "Sequences",
    "collate",
    "crops",
    "detection2d",
    "patches",
    "registered_pairs",
    "sequences",
]


def __getattr__(name: str) -> Any:
    return import_name(__name__, _MODULES, name, "torch", "lung_nodule_ct.torch")


def __dir__() -> list[str]:
    return list(__all__)
