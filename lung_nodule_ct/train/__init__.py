"""The reference training loop in JAX and Flax: reads finished builds, trains, evaluates, compares. Needs the extra ``train``.

Read in this order: :mod:`.recipes` (what is trained), :mod:`.loop` (how), :mod:`.step` (one step on the device), :mod:`.feed` (where
its batches come from), :mod:`.tasks` (model, loss, predict and score of each task), :mod:`.metrics` (NumPy only).
"""
