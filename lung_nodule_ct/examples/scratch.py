"""Memory for arrays that live for one example, used again for the next: touching new pages costs more than to fill them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray


class Scratch:
    """Arrays by purpose. An array is overwritten when its purpose is asked for again, so only one example may be alive."""

    def __init__(self) -> None:
        self._memory: dict[str, NDArray[np.uint8]] = {}

    def take(self, purpose: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of any content."""
        wanted = np.dtype(dtype)
        size = math.prod(shape) * wanted.itemsize
        if self._memory.get(purpose, _NOTHING).size < size:
            self._memory.pop(purpose, None)  # first give back, then take: never both at once
            self._memory[purpose] = np.empty(size, np.uint8)
        return self._memory[purpose][:size].view(wanted).reshape(shape)

    def packed(self, size: int) -> NDArray[np.uint8]:
        """So many bytes for a member as it is packed."""
        return self.take("packed", (size,), np.uint8)

    def lend(self, purpose: str, size: int) -> NDArray[np.uint8] | None:
        """So many bytes, to be used for something else before an array is taken for that purpose."""
        return self.take(purpose, (size,), np.uint8)


class Fresh(Scratch):
    """Every array is new and stays, for those who keep examples."""

    def take(self, purpose: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:  # noqa: ARG002
        """An array of any content."""
        return np.empty(shape, dtype)

    def lend(self, purpose: str, size: int) -> NDArray[np.uint8] | None:  # noqa: ARG002
        """None: nothing is used again."""
        return None


_NOTHING = np.empty(0, np.uint8)
