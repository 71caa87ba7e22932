"""What is done to a batch on the device: window, resampling by spacing, flips and right-angle turns that move boxes with voxels.

Boxes are low and high corners in array order (y0 x0 y1 x1 or z0 y0 x0 z1 y1 x1) on the voxel edges' scale: voxel i spans i to i + 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from lung_nodule_ct.train.recipes import InputOptions

    Batch = dict[str, Any]


def preprocess(batch: Batch, options: InputOptions, key: jax.Array | None = None) -> Batch:
    """A batch as the model takes it: ``image`` float32 with values around 0 to 1 and one channel, boxes moved along.

    Args:
        batch: What a source loads, with a leading batch axis.
        options: The recipe's input.
        key: Of the augmentation; ``None`` for none.
    """
    image = _window(batch["image"], options.window)
    ready = dict(batch)
    if options.spacing_mm is not None:
        target = jnp.array(options.spacing_mm)
        one = resample_sequence if image.ndim == 5 else resample
        image = jax.vmap(lambda x, spacing: one(x, spacing / target, options.size))(image, batch["spacing"])
        if "boxes" in batch:
            scale = batch["spacing"] / target
            shift = (jnp.array(options.size) - scale * jnp.array(batch["image"].shape[1:])) / 2
            ready["boxes"] = batch["boxes"] * jnp.tile(scale, 2)[:, None] + jnp.tile(shift, 2)[:, None]
            middle = (ready["boxes"][..., :3] + ready["boxes"][..., 3:]) / 2
            ready["valid"] = batch["valid"] & ((middle >= 0) & (middle < jnp.array(options.size))).all(-1)
    if key is not None and options.augment:
        axes = len(options.size) or 2
        keys = jax.random.split(key, image.shape[0])
        if "boxes" in ready:
            image, ready["boxes"] = jax.vmap(move)(keys, image, ready["boxes"])
        else:
            none = jnp.zeros((0, 2 * axes))
            image = jax.vmap(lambda k, x: move(k, x, none)[0])(keys, image)
    return ready | {"image": image[..., None]}


def _window(image: jax.Array, window: tuple[float, float]) -> jax.Array:
    """HU by a window, 8-bit grey by its range; both 0 to 1 (DICOM PS3.3 C.11.2.1.3.2)."""
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) / 255
    center, width = window
    return jnp.clip((image.astype(jnp.float32) - center) / width + 0.5, 0, 1)


def resample(image: jax.Array, scale: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """An image at another distance of voxels around the same centre, linear, with a wider kernel where voxels get coarser.

    Args:
        image: Shape (z, y, x).
        scale: Stored over wanted distance by axis, shape (3,).
        size: The shape of the result.
    """
    for axis, count in enumerate(size):
        stored = image.shape[axis]
        place = (jnp.arange(count) + 0.5 - count / 2) / scale[axis] + stored / 2 - 0.5
        place = jnp.clip(place, 0, stored - 1)
        reach = jnp.maximum(1, 1 / scale[axis])
        weights = jax.nn.relu(1 - jnp.abs(place[:, None] - jnp.arange(stored)) / reach)
        weights /= weights.sum(1, keepdims=True)
        image = jnp.moveaxis(jnp.tensordot(weights, image, (1, axis), precision="highest"), 0, axis)
    return image


def resample_sequence(images: jax.Array, scales: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """:func:`resample` of a patient's scans, shapes (t, z, y, x) and (t, 3)."""
    return jax.vmap(lambda image, scale: resample(image, scale, size))(images, scales)


def move(key: jax.Array, image: jax.Array, boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One of the flips and right-angle turns at random; turns within the slice and only where it is square.

    Flips of single axes and the exchange of y and x make them all.

    Args:
        key: What is drawn is drawn from it.
        image: Shape (…, y, x) or (…, z, y, x); axes before those of the boxes are left alone.
        boxes: Shape (k, 4) or (k, 6).
    """
    axes = boxes.shape[-1] // 2
    draws = jax.random.bernoulli(key, shape=(axes + 1,))
    low, high = boxes[:, :axes], boxes[:, axes:]
    for axis in range(axes):
        own = axis - axes
        length = image.shape[own]
        image = jnp.where(draws[axis], jnp.flip(image, own), image)
        ends = length - high[:, axis], length - low[:, axis]
        low, high = (
            side.at[:, axis].set(jnp.where(draws[axis], end, side[:, axis]))
            for side, end in zip((low, high), ends, strict=True)
        )
    if image.shape[-1] == image.shape[-2]:
        order = jnp.array([*range(axes - 2), axes - 1, axes - 2])
        image = jnp.where(draws[axes], jnp.swapaxes(image, -1, -2), image)
        low, high = (jnp.where(draws[axes], side[:, order], side) for side in (low, high))
    return image, jnp.concatenate([low, high], 1)
