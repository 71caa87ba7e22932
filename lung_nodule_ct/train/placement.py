"""Where arrays are on several devices: a copy on each of them, or divided among them.

A batch is divided among the devices. By default, each device has a copy of the state. With ``optim.shard_parameters``, the
large arrays of the state are divided as well: weights, their averages, and the moments of the optimiser. A step gathers the
weights before it uses them, and each device updates its own part.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from lung_nodule_ct.train.recipes import OptimOptions

_DATA: Final = "data"
_SMALL: Final = 4096
"""Arrays with fewer values are not divided. To gather them would take longer than their memory is worth."""


def shardings(*, local: bool = False) -> tuple[NamedSharding, NamedSharding]:
    """Return two ways to distribute arrays over all devices: a copy on each, and the first axis divided among them.

    Args:
        local: Only over the devices of this process.
    """
    devices = jax.local_devices() if local else jax.devices()
    mesh = jax.make_mesh((len(devices),), (_DATA,), axis_types=(AxisType.Auto,), devices=devices)
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(_DATA))


def placement(options: OptimOptions) -> Callable[[Any], NamedSharding]:
    """Return the rule that places an array of the state, or its shape and type, on all devices.

    With ``shard_parameters``, the largest axis that the number of devices divides is divided among them. An array without
    such an axis, or a small one, is copied to each.
    """
    replicated, _ = shardings()
    count = replicated.num_devices

    def place(leaf: Any) -> NamedSharding:
        divisible = [axis for axis, length in enumerate(leaf.shape) if length % count == 0]
        if not options.shard_parameters or not divisible or math.prod(leaf.shape) < _SMALL:
            return replicated
        axis = max(divisible, key=lambda candidate: leaf.shape[candidate])
        return NamedSharding(replicated.mesh, PartitionSpec(*[None] * axis, _DATA))

    return place


def gather(values: Any) -> Any:
    """Copy arrays that are divided among all devices to each of them. All processes must call it."""
    if all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(values)):
        return values
    return jax.jit(lambda arrays: arrays, out_shardings=shardings()[0])(values)
