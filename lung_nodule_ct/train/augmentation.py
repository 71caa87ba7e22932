"""Random changes of volume patches on the device: zoom, rotation and elastic deformation, and changes of grey values.

Grey values are 0 to 1. Boxes are z0 y0 x0 z1 y1 x1 on the scale of voxel edges. Nodules are about round, so a rotation, which
is one of millimetres, moves the centre of a box and keeps its sides. An elastic deformation makes an ellipsoid of a nodule,
and its box is the box of the ellipsoid.
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
_CELLS = 3
"""Cells of an elastic deformation along each axis of a patch. A cell reaches from one control point to the next."""
_TILT, _ELASTIC = 1, 2
"""Folded into a key, so that draws of the other changes are the same with and without these."""
_NEWTON_STEPS = 6


def change_patch(
    key: jax.Array, image: jax.Array, boxes: jax.Array, spacing: jax.Array, options: AugmentOptions
) -> tuple[jax.Array, jax.Array]:
    """Change one patch at random. Changes that the options do not ask for cost nothing.

    Args:
        key: Random key.
        image: Shape (z, y, x).
        boxes: Shape (k, 6).
        spacing: z, y, x in mm, shape (3,).
        options: The ranges.
    """
    keys = jax.random.split(key, 7)
    if options.zoom != (1.0, 1.0) or options.rotate or options.tilt or options.elastic:
        zoom = _between(keys[0], options.zoom)
        tilts = jax.random.split(jax.random.fold_in(keys[1], _TILT))
        limits = (options.rotate, options.tilt, options.tilt)
        angles = jnp.stack([_between(k, (-limit, limit)) for k, limit in zip((keys[1], *tilts), limits, strict=True)])
        shifts = None
        if options.elastic:
            shape = (*(_CELLS + 3,) * 3, 3)
            shifts = options.elastic * jax.random.uniform(jax.random.fold_in(key, _ELASTIC), shape, minval=-1)
        image, boxes = move(image, boxes, spacing, zoom, rotation(jnp.deg2rad(angles)), shifts)
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


def rotation(angles: jax.Array) -> jax.Array:
    """The matrix that rotates z, y, x by angles in radians: within the slice from y to x, from z to x, and from z to y."""
    matrix = jnp.eye(3)
    for angle, (a, b) in zip(angles, ((1, 2), (0, 2), (0, 1)), strict=True):
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        turn = jnp.eye(3).at[a, a].set(cos).at[a, b].set(-sin).at[b, a].set(sin).at[b, b].set(cos)
        matrix = turn @ matrix
    return matrix


def move(
    image: jax.Array,
    boxes: jax.Array,
    spacing: jax.Array,
    zoom: jax.Array,
    turn: jax.Array,
    shifts: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Zoom and rotate a patch around its centre, and deform it. What comes in from outside is black.

    Args:
        image: Shape (z, y, x).
        boxes: Shape (k, 6).
        spacing: z, y, x in mm, shape (3,).
        zoom: Factor of the size.
        turn: A rotation of z, y, x in mm; see :func:`rotation`.
        shifts: The displacement of each control point along z, y, x in cells, shape (6, 6, 6, 3); ``None`` for no deformation.
    """
    shape = jnp.array(image.shape)
    middle = shape / 2
    axes = [jnp.arange(n) + 0.5 for n in image.shape]
    grid = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1)
    if shifts is not None:
        weights = [_spline_weights(axis, length) for axis, length in zip(axes, image.shape, strict=True)]
        grid += jnp.einsum("zi,yj,xk,ijkc->zyxc", *weights, shifts, precision="highest") * (shape / _CELLS)
    read = ((grid - middle) * spacing) @ turn / spacing / zoom  # the transpose of a rotation is its inverse
    moved = map_coordinates(image, list(jnp.moveaxis(read + middle - 0.5, -1, 0)), order=1, mode="constant", cval=0.0)
    center, half = (boxes[:, :3] + boxes[:, 3:]) / 2, (boxes[:, 3:] - boxes[:, :3]) / 2 * zoom
    center = ((center - middle) * spacing) @ turn.T / spacing * zoom + middle
    if shifts is not None:
        center, half = jax.vmap(lambda c, h: _deform(c, h, shape, shifts))(center, half)
    return moved, jnp.concatenate([center - half, center + half], 1)


def _spline_weights(position: jax.Array, length: float | jax.Array) -> jax.Array:
    """The weights of the control points of an axis, shape (…, 6), by cubic B-splines. A position is 0 to ``length``."""
    distance = jnp.abs(position[..., None] / length * _CELLS + 1 - jnp.arange(_CELLS + 3))
    inner = 2 / 3 - distance**2 + distance**3 / 2
    return jnp.where(distance < 1, inner, jnp.clip(2 - distance, 0) ** 3 / 6)


def _deform(center: jax.Array, half: jax.Array, shape: jax.Array, shifts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where the voxel at a point is after the deformation, and half of the sides of the box of the ellipsoid around it."""

    def source(point: jax.Array) -> jax.Array:
        """The point that the deformed image shows at a point."""
        weights = [_spline_weights(point[axis], shape[axis]) for axis in range(3)]
        return point + jnp.einsum("i,j,k,ijkc->c", *weights, shifts, precision="highest") * (shape / _CELLS)

    def approach(_: int, moved: jax.Array) -> jax.Array:
        return moved - jnp.linalg.inv(jax.jacfwd(source)(moved)) @ (source(moved) - center)

    moved = jax.lax.fori_loop(0, _NEWTON_STEPS, approach, center)
    stretch = jnp.linalg.inv(jax.jacfwd(source)(moved))
    return moved, jnp.sqrt(((stretch * half) ** 2).sum(1))


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
