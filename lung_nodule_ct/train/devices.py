"""Devices: JAX's start-up, the check that devices fit a recipe, and how arrays are distributed over them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.system.files import cache_folder

if TYPE_CHECKING:
    from lung_nodule_ct.train.recipes import Recipe

_ADDRESS, _PROCESSES, _PROCESS = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def initialize_jax() -> None:
    """Connect to the other hosts if the environment names them, and keep compiled programs in the cache folder.

    Call it before the first use of a device.

    Raises:
        TrainingError: The environment has the address of the hosts, but not their number and the number of this
            process.
    """
    address = os.environ.get(_ADDRESS)
    if address is not None:
        numbers = [os.environ.get(name) for name in (_PROCESSES, _PROCESS)]
        try:
            count, process = (int(number or "") for number in numbers)
        except ValueError:
            raise TrainingError(
                f"{_ADDRESS} is set without the number of processes and the number of this one",
                expected=f"integers in {_PROCESSES} and {_PROCESS}",
                got=numbers,
            ) from None
        jax.distributed.initialize(address, count, process)
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def check_devices(recipe: Recipe) -> None:
    """Check that the devices are of the type that a recipe asks for, and that its batches divide evenly over them.

    Raises:
        TrainingError: They are not, or they do not.
    """
    backend = jax.default_backend()
    if recipe.device not in ("any", backend):
        raise TrainingError(
            f"no {recipe.device} is available",
            expected=recipe.device,
            got=backend,
            remedy="install JAX for this device (docs.jax.dev/en/latest/installation.html), or remove --device",
        )
    parts = jax.device_count() * recipe.optim.accumulate
    if recipe.batch_size % parts:
        raise TrainingError(
            "a batch does not divide evenly over the devices",
            expected=f"--batch-size to be a multiple of {parts}, devices times accumulated parts",
            got=recipe.batch_size,
        )


def shardings() -> tuple[NamedSharding, NamedSharding]:
    """Return two ways to distribute arrays over all devices: a copy on each, and the first axis divided among them."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
