"""The reference training loop in JAX and Flax: reads finished builds, trains, evaluates, compares. Needs the extra ``train``.

Read in this order: :mod:`.recipes` (what is trained), :mod:`.loop` (how), :mod:`.step` (one step on the device), :mod:`.feed` (where
its batches come from), :mod:`.tasks` (model, loss, predict and score of each task), :mod:`.metrics` (NumPy only).
"""

from __future__ import annotations

from lung_nodule_ct.system.imports import require_modules


def require_extra() -> None:
    """Do nothing where the extra ``train`` is there.

    Raises:
        MissingExtraError: It is not; the message says how to get it.
    """
    modules = ("jax", "flax", "optax", "grain", "orbax.checkpoint", "tensorboardX", "matplotlib", "tyro")
    require_modules("train", "training", *modules)
