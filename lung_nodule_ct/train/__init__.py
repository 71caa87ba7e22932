"""The reference training loop in JAX and Flax, which reads a finished build. It needs the extra ``train``.

A good order to read the modules: :mod:`.recipes` (what is trained), :mod:`.loop` (the loop), :mod:`.step` (one step on
the device), :mod:`.batches` and :mod:`.data` (where its input comes from), :mod:`.tasks` (network, loss, predictions
and scores of each task), :mod:`.layers` (the layers of the networks), :mod:`.metrics` (the scores, in NumPy).
"""

from __future__ import annotations

from typing import Final

from lung_nodule_ct.system.imports import require_modules

_MODULES: Final = ("jax", "flax", "optax", "grain", "orbax.checkpoint", "tensorboardX", "matplotlib", "tyro")


def require_extra() -> None:
    """Check that the packages of the extra ``train`` are installed, without importing them.

    Raises:
        MissingExtraError: A package is missing. The message has the command that installs it.
    """
    require_modules("train", "training", *_MODULES)
