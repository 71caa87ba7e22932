"""From samples to batches: a collate function that keeps what cannot be stacked, and a sampler of patients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch.utils.data import Sampler

from lung_nodule_ct.errors import OptionError

_RAGGED: Final = frozenset(
    {"boxes", "labels", "pathology", "area", "iscrowd", "volume", "lung_mask", "days", "timepoints"}
)
"""What has another shape in every sample. It is always a list, also if all shapes of a batch happen to be equal."""


def collate(samples: Sequence[Any]) -> Any:
    """Return a batch of samples, for the ``collate_fn`` of a ``DataLoader``. Nulls and lists are kept.

    Args:
        samples: Dictionaries, as the datasets of this package return them, or rows that :func:`lung_nodule_ct.decoded` decoded; or pairs
            ``(image, target)``.

    Returns:
        A dictionary with one entry per key: tensors of equal shape are stacked, and numbers become a tensor. Boxes, labels, volumes and
        everything else whose size differs, strings, lists and columns with nulls are lists with one entry per sample. Pairs become a list
        of images and a list of targets, as torchvision's detectors take them.

    Raises:
        ValueError: The samples do not have the same keys.

    Example:
        >>> batch = collate([{"image": torch.zeros(1, 4), "boxes": torch.zeros(2, 6), "id": "80-1", "fold": None}] * 3)
        >>> batch["image"].shape, len(batch["boxes"]), batch["id"], batch["fold"]
        (torch.Size([3, 1, 4]), 3, ['80-1', '80-1', '80-1'], [None, None, None])
    """
    if not isinstance(samples[0], Mapping):
        return tuple(list(part) for part in zip(*samples, strict=True))
    keys = list(samples[0])
    for sample in samples:
        if set(sample) != set(keys):
            raise ValueError(f"samples: expected the keys {', '.join(keys)} in each, got {', '.join(sample)}")
    return {key: _column(key, [sample[key] for sample in samples]) for key in keys}


def _column(key: str, values: list[Any]) -> Any:
    if all(isinstance(value, bool | int | float) for value in values):
        return torch.tensor(values)
    is_stackable = key not in _RAGGED and all(isinstance(value, torch.Tensor) for value in values)
    if is_stackable and len({(value.shape, value.dtype) for value in values}) == 1:
        return torch.stack(values)
    return values


class _Patients(Protocol):
    """A dataset that knows the patient of each sample."""

    @property
    def patients(self) -> tuple[str, ...]:
        """The patient of each sample."""


class PatientSampler(Sampler[int]):
    """A sampler that draws the same number of samples of each patient, so that patients with many scans do not count more.

    Samples whose patient is unknown count as one patient.

    Args:
        dataset: A dataset of this package.
        per_patient: Number of samples of each patient in an epoch; all samples of a patient who has fewer.
        seed: With the epoch (``set_epoch``), it determines the order.

    Raises:
        OptionError: A number is out of range, or no patient is known.

    Example:
        >>> import lung_nodule_ct  # build is the folder of a build
        >>> sampler = PatientSampler(lung_nodule_ct.torch.detection2d(build))
        >>> len(sampler) == len(set(sampler))
        True
    """

    def __init__(self, dataset: _Patients, per_patient: int = 1, seed: int = 0) -> None:
        if per_patient < 1:
            raise OptionError("per_patient", "every patient is drawn", expected="1 or more", got=per_patient)
        if seed < 0:
            raise OptionError("seed", "a seed is not negative", expected="0 or more", got=seed)
        if not any(dataset.patients):
            raise OptionError(
                "dataset", "no sample has a known patient", remedy="use a config with the column patient_id"
            )
        self.per_patient, self.seed, self.epoch = per_patient, seed, 0
        self._samples: dict[str, list[int]] = {}
        for index, patient in enumerate(dataset.patients):
            self._samples.setdefault(patient, []).append(index)

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(min(self.per_patient, len(own)) for own in self._samples.values())

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self.seed, self.epoch))
        chosen = [random.choice(own, min(self.per_patient, len(own)), replace=False) for own in self._samples.values()]
        yield from random.permutation(np.concatenate(chosen)).tolist()
