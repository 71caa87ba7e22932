"""What is installed only where it is asked for: ``pip install "lung_nodule_ct[tfds]"``."""

from __future__ import annotations

from contextlib import contextmanager
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
        raise MissingExtraError(
            f"{purpose} needs the package {error.name}, which is not installed",
            remedy=f'pip install "lung_nodule_ct[{extra}]"',
        ) from error
