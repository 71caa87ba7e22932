"""JAX, made ready before its first use: more hosts, the cache of compiled steps."""

from __future__ import annotations

import os

import jax

from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.system.files import cache_folder

_HOSTS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def begin() -> None:
    """Join the other hosts where the environment names them, and keep what is compiled in the cache.

    Raises:
        TrainingError: The environment says only in part who the hosts are.
    """
    address, *numbers = (os.environ.get(name) for name in _HOSTS)
    if address is not None:
        try:
            count, own = (int(number or "") for number in numbers)
        except ValueError:
            raise TrainingError(
                "more hosts need to know how many they are and which one this is",
                expected=f"numbers in {_HOSTS[1]} and {_HOSTS[2]}",
                got=numbers,
            ) from None
        jax.distributed.initialize(address, count, own)
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
