"""Random changes of volume patches on the device: zoom and rotation, and changes of grey values.

Grey values are 0 to 1. Boxes are z0 y0 x0 z1 y1 x1 on the scale of voxel edges. Nodules are about round, so a rotation moves
the centre of a box and keeps its sides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

if TYPE_CHECKING:
    from lung_nodule_ct.train.detection_options import AugmentOptions

_REACH = 3
"""Voxels that a blur reaches to each side."""


def change_patch(
    key: jax.Array, image: jax.Array, boxes: jax.Array, options: AugmentOptions
) -> tuple[jax.Array, jax.Array]:
    """Change one patch at random. Changes that the options do not ask for cost nothing.

    Args:
        key: Random key.
        image: Shape (z, y, x).
        boxes: Shape (k, 6).
        options: The ranges.
    """
    keys = jax.random.split(key, 7)
    if options.zoom != (1.0, 1.0) or options.rotate:
        zoom = _between(keys[0], options.zoom)
        angle = jnp.deg2rad(_between(keys[1], (-options.rotate, options.rotate)))
        image, boxes = move(image, boxes, zoom, angle)
    if options.low_resolution > 1:
        image = _lower_resolution(image, _between(keys[2], (1.0, options.low_resolution)))
    if options.blur:
        image = _blur(image, _between(keys[3], (0.0, options.blur)))
    if options.gamma != (1.0, 1.0):
        image = jnp.clip(image, 1e-6, 1) ** _between(keys[4], options.gamma)
    if options.contrast != (1.0, 1.0):
        image = image.mean() + (image - image.mean()) * _between(keys[5], options.contrast)
    if options.noise:
        strength, values = jax.random.split(keys[6])
        image += _between(strength, (0.0, options.noise)) * jax.random.normal(values, image.shape)
    return jnp.clip(image, 0, 1), boxes


def move(image: jax.Array, boxes: jax.Array, zoom: jax.Array, angle: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Zoom a patch, and rotate it within the slice, around its centre. What comes in from outside is black.

    Args:
        image: Shape (z, y, x).
        boxes: Shape (k, 6).
        zoom: Factor of the size.
        angle: In radians, from y to x.
    """
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turn = jnp.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
    middle = jnp.array(image.shape) / 2
    grid = jnp.stack(jnp.meshgrid(*(jnp.arange(n) + 0.5 for n in image.shape), indexing="ij"), -1) - middle
    read = (grid @ turn) / zoom + middle - 0.5  # the transpose of a rotation is its inverse
    moved = map_coordinates(image, list(jnp.moveaxis(read, -1, 0)), order=1, mode="constant", cval=0.0)
    center, half = (boxes[:, :3] + boxes[:, 3:]) / 2, (boxes[:, 3:] - boxes[:, :3]) / 2 * zoom
    center = (center - middle) @ turn.T * zoom + middle
    return moved, jnp.concatenate([center - half, center + half], 1)


def _between(key: jax.Array, ends: tuple[float, float]) -> jax.Array:
    return jax.random.uniform(key, minval=ends[0], maxval=ends[1])


def _blur(image: jax.Array, width: jax.Array) -> jax.Array:
    """A Gaussian blur of random width, in voxels."""
    weights = jnp.exp(-0.5 * (jnp.arange(-_REACH, _REACH + 1) / jnp.maximum(width, 1e-3)) ** 2)
    weights /= weights.sum()
    for axis, length in enumerate(image.shape):
        padded = jnp.pad(image, [(_REACH * (other == axis),) * 2 for other in range(image.ndim)], mode="edge")
        parts = (jax.lax.slice_in_dim(padded, k, k + length, axis=axis) for k in range(2 * _REACH + 1))
        image = sum((weight * part for weight, part in zip(weights, parts, strict=True)), jnp.zeros_like(image))
    return image


def _lower_resolution(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Read the nearest of fewer voxels, ``factor`` times farther apart."""
    for axis, length in enumerate(image.shape):
        nearest = jnp.round(jnp.round(jnp.arange(length) / factor) * factor)
        image = jnp.take(image, jnp.clip(nearest, 0, length - 1).astype(int), axis=axis)
    return image
