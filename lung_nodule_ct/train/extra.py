"""Whether the extra ``train`` is installed, said before anything is imported that needs it."""

from __future__ import annotations

from importlib.util import find_spec

from lung_nodule_ct.errors import MissingExtraError

_NEEDS = ("jax", "flax", "optax", "grain", "orbax.checkpoint", "tensorboardX", "matplotlib", "tyro")


def require_extra() -> None:
    """Do nothing where the extra ``train`` is there.

    Raises:
        MissingExtraError: It is not; the message says how to get it.
    """
    for name in _NEEDS:
        try:
            found = find_spec(name) is not None
        except ModuleNotFoundError:  # the parent of a dotted name
            found = False
        if not found:
            raise MissingExtraError(
                f"training needs {name.partition('.')[0]}, which is not installed",
                remedy='install it with: pip install "lung_nodule_ct[train]"',
            )
