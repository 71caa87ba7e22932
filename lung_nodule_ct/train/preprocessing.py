"""Preprocessing on the device: CT window, resampling to a spacing, random flips, rotations and mixing.

Boxes are moved together with the voxels. They are low and high corners in array order (y0 x0 y1 x1, or z0 y0 x0 z1 y1
x1), on the scale of voxel edges: voxel i reaches from i to i + 1.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import jax
import jax.numpy as jnp

from lung_nodule_ct.train.augmentation import change_patch
from lung_nodule_ct.train.models import get_network

if TYPE_CHECKING:
    from lung_nodule_ct.train.detection_options import AugmentOptions
    from lung_nodule_ct.train.recipes import InputOptions

    Batch = dict[str, Any]

_MIXING: Final = 2
"""Folded into the key of a step for what mixes crops."""
_CHANGES: Final = 3
"""Folded into the key of a step for the changes of patches. Flips use the key itself."""


def preprocess(
    batch: Batch, options: InputOptions, key: jax.Array | None = None, changes: AugmentOptions | None = None
) -> Batch:
    """Return a batch as the network takes it: ``image`` float32, 0 to 1, with one channel, and boxes moved along.

    Args:
        batch: Examples of a data source, with a leading batch axis.
        options: The recipe's input options.
        key: Random key of the augmentation; ``None`` for no augmentation.
        changes: Random changes of volume patches with boxes.
    """
    image = _apply_window(batch["image"], options.window)
    result = dict(batch)
    if options.spacing_mm is not None:
        target = jnp.array(options.spacing_mm)
        resample_one = resample_sequence if image.ndim == 5 else resample
        image = jax.vmap(lambda x, spacing: resample_one(x, spacing / target, options.size))(image, batch["spacing"])
        if "boxes" in batch:
            scale = batch["spacing"] / target
            shift = (jnp.array(options.size) - scale * jnp.array(batch["image"].shape[1:])) / 2
            result["boxes"] = batch["boxes"] * jnp.tile(scale, 2)[:, None] + jnp.tile(shift, 2)[:, None]
            center = (result["boxes"][..., :3] + result["boxes"][..., 3:]) / 2
            result["valid"] = batch["valid"] & ((center >= 0) & (center < jnp.array(options.size))).all(-1)
    if key is not None and options.augment:
        axes = len(options.size) or 2
        keys = jax.random.split(key, image.shape[0])
        if "boxes" in result:
            image, result["boxes"] = jax.vmap(augment)(keys, image, result["boxes"])
        else:
            no_boxes = jnp.zeros((0, 2 * axes))
            image = jax.vmap(lambda k, x: augment(k, x, no_boxes)[0])(keys, image)
    if key is not None and options.mixup:
        image, mixed = _mix(jax.random.fold_in(key, _MIXING), image, batch, options.mixup)
        result |= mixed
    if key is not None and changes is not None and "boxes" in result and image.ndim == 4:
        keys = jax.random.split(jax.random.fold_in(key, _CHANGES), image.shape[0])
        spacing = batch["spacing"] if options.spacing_mm is None else jnp.tile(target, (len(image), 1))
        change = partial(change_patch, options=changes)
        image, boxes = jax.vmap(change)(keys, image, result["boxes"], spacing)
        center = (boxes[..., :3] + boxes[..., 3:]) / 2
        result["boxes"] = boxes
        result["valid"] = result["valid"] & ((center >= 0) & (center < jnp.array(image.shape[1:]))).all(-1)
    return result | {"image": image[..., None]}


def _mix(key: jax.Array, image: jax.Array, batch: Batch, parameter: float) -> tuple[jax.Array, Batch]:
    """Mix each crop with the one before it in the batch. The order of the batch is random.

    Returns:
        The images, and the ``share`` of the crop itself with ``other_label`` and ``other_weight`` of the other one.
    """
    share = jax.random.beta(key, parameter, parameter, (len(image),))
    mixed = share[:, None, None] * image + (1 - share[:, None, None]) * jnp.roll(image, 1, 0)
    others = {f"other_{name}": jnp.roll(batch[name], 1, 0) for name in ("label", "weight")}
    return mixed, others | {"share": share}


def normalise(image: jax.Array, name: str) -> jax.Array:
    """Grey values 0 to 1 as the reference of a published network normalises them."""
    mean, deviation = get_network(name).grey
    return (image - mean) / deviation


def _apply_window(image: jax.Array, window: tuple[float, float]) -> jax.Array:
    """Hounsfield units by the window (DICOM PS3.3 C.11.2.1.3.2), 8-bit grey values by their range; both 0 to 1."""
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) / 255
    center, width = window
    return jnp.clip((image.astype(jnp.float32) - center) / width + 0.5, 0, 1)


def resample(image: jax.Array, scale: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Resample an image to another spacing around its centre, by linear interpolation.

    Where the new spacing is larger, the kernel is wider, so that no voxel is skipped.

    Args:
        image: Shape (z, y, x).
        scale: Stored spacing divided by new spacing along each axis, shape (3,).
        size: The shape of the result.
    """
    for axis, count in enumerate(size):
        stored = image.shape[axis]
        position = (jnp.arange(count) + 0.5 - count / 2) / scale[axis] + stored / 2 - 0.5
        position = jnp.clip(position, 0, stored - 1)
        reach = jnp.maximum(1, 1 / scale[axis])
        weights = jax.nn.relu(1 - jnp.abs(position[:, None] - jnp.arange(stored)) / reach)
        weights /= weights.sum(1, keepdims=True)
        image = jnp.moveaxis(jnp.tensordot(weights, image, (1, axis), precision="highest"), 0, axis)
    return image


def resample_sequence(images: jax.Array, scales: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Resample scans, shape (t, z, y, x), each with its own scale, shape (t, 3). See :func:`resample`."""
    return jax.vmap(lambda image, scale: resample(image, scale, size))(images, scales)


def augment(key: jax.Array, image: jax.Array, boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Flip and rotate one example at random, by right angles. Rotations are within the slice, and only if it is square.

    The rotations are combinations of flips and of an exchange of y and x.

    Args:
        key: Random key.
        image: Shape (…, y, x) or (…, z, y, x). Axes before those of the boxes do not change.
        boxes: Shape (k, 4) or (k, 6).
    """
    axes = boxes.shape[-1] // 2
    draws = jax.random.bernoulli(key, shape=(axes + 1,))
    low, high = boxes[:, :axes], boxes[:, axes:]
    for axis in range(axes):
        image_axis = axis - axes
        length = image.shape[image_axis]
        image = jnp.where(draws[axis], jnp.flip(image, image_axis), image)
        flipped = length - high[:, axis], length - low[:, axis]
        low, high = (
            corner.at[:, axis].set(jnp.where(draws[axis], new, corner[:, axis]))
            for corner, new in zip((low, high), flipped, strict=True)
        )
    if image.shape[-1] == image.shape[-2]:
        order = jnp.array([*range(axes - 2), axes - 1, axes - 2])
        image = jnp.where(draws[axes], jnp.swapaxes(image, -1, -2), image)
        low, high = (jnp.where(draws[axes], corner[:, order], corner) for corner in (low, high))
    return image, jnp.concatenate([low, high], 1)
