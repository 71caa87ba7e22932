"""What training needs, said before anything is imported that needs it."""

from __future__ import annotations

from lung_nodule_ct.system.imports import require


def require_extra() -> None:
    """Do nothing where the extra ``train`` is there.

    Raises:
        MissingExtraError: It is not; the message says how to get it.
    """
    modules = ("jax", "flax", "optax", "grain", "orbax.checkpoint", "tensorboardX", "matplotlib", "tyro")
    require("train", "training", *modules)
