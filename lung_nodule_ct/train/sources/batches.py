"""Every example of a split once, in its order, in batches of one shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lung_nodule_ct.train.sources import Example, Source


def whole_batches(source: Source, size: int) -> Iterator[tuple[range, Example]]:
    """Numbers of examples and their batch; the last batch is filled up with its last example."""
    for start in range(0, len(source), size):
        numbers = range(start, min(start + size, len(source)))
        yield numbers, stacked((source.load(number, np.random.default_rng(0)) for number in numbers), size)


def stacked(examples: Iterable[Example], size: int) -> Example:
    """Some examples as a batch of ``size``, the last of them repeated."""
    held = list(examples)
    held += held[-1:] * (size - len(held))
    return {name: np.stack([example[name] for example in held]) for name in held[0]}
