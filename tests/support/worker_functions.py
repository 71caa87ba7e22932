"""Functions that tests give to spawned workers, which import this module by its name."""

from __future__ import annotations

from typing import Any

import numpy as np

from lung_nodule_ct.read.volumes import Volume


def shape_and_sum(volume: Volume) -> tuple[tuple[int, int, int], int, Any]:
    """Return what identifies a volume."""
    assert volume.frame is not None
    return volume.shape, int(volume.array.astype(np.int64).sum()), volume.frame.origin


def with_noise(sample: dict[str, Any]) -> dict[str, Any]:
    """Add random numbers of PyTorch to a sample."""
    import torch

    return sample | {"noise": torch.rand(3)}
