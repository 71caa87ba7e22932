"""A training step of ours beside PyTorch's of the same network, and whether the loader keeps up with it.

    python -m benchmarks.training [--recipes det3d_1.25mm ...] [--cores 1] [--rounds 5]

On CPU: float32, PyTorch eager, small batches. On an accelerator: bfloat16, the recipe's batch, ``torch.compile`` and autocast where
CUDA is, and the share of the device's stated peak (MFU). PyTorch is measured where it is installed. Both begin with the same weights
and must find the same loss. The batch is on the device already, but where the loop is fed by the loader.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.archives import write_patients
from benchmarks.harness import OURS, Measured, Standing, in_a_process_of_its_own, run_measured
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.train.recipes import RECIPES, Recipe

BATCHES = {"cls_1.25mm": 8, "det2d_1.25mm": 2, "det3d_1.25mm": 2, "longitudinal": 4}
"""The recipes that are measured, and their batches on CPU, where the recipes' own take many seconds a step."""

PEAKS = {"A100": 312e12, "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12}
"""Dense bfloat16 operations a second, as NVIDIA's data sheets state them, by a part of the device's name; the first that fits counts."""


def main() -> None:
    """Generate, build, measure each recipe, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--cores", type=int, default=0, help="keep each contender to so many cores; 0 for all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--patients", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source, build = write_patients(Path(scratch) / "source", options.patients), Path(scratch) / "build"
        configs = {RECIPES[name].config for name in options.recipes}
        arguments = ["build", *configs, "--source", source, "--format", "arrow", "--out", build]
        run_measured([OURS, *arguments])
        for name in options.recipes:
            compare(name, build, options.cores, options.rounds)


def compare(name: str, build: Path, cores: int, rounds: int) -> None:
    """Ours and PyTorch in turn, then the loader."""
    with ExitStack() as stack:
        ours = stack.enter_context(Standing(our_step, name, build, cores=cores))
        contenders = {"ours": ours}
        recipe: Recipe = ours.told["recipe"]
        size = recipe.batch_size
        print(f"{name}, {size} a batch, {ours.told['device']}, {cores or 'all'} cores", flush=True)
        if find_spec("torch") is None:
            print("  PyTorch is not installed")
        elif name != "longitudinal":
            contenders["PyTorch"] = stack.enter_context(Standing(their_step, ours.told, cores=cores))
            loss, other = ours.told["loss"], contenders["PyTorch"].told
            if abs(loss - other) > 1e-3 * abs(loss):
                raise RuntimeError(f"{name}: the networks differ, losses {loss} and {other}")
        runs: dict[str, list[Measured]] = {each: [] for each in contenders}
        for _ in range(rounds):
            for each, contender in contenders.items():
                runs[each].append(contender.run())
        for each, done in runs.items():
            wall, cpu = median(run.wall for run in done), median(run.cpu for run in done)
            peak = ours.told["peak"]
            share = f", MFU {ours.told['flops'] / wall / peak:.1%}" if peak else ""
            print(
                f"  {each:8} step {wall * 1e3:7.0f} ms (best {min(run.wall for run in done) * 1e3:.0f}), CPU {cpu * 1e3:7.0f} ms, "
                f"{size / wall:7.1f} examples/s, {done[-1].peak_mb:5.0f} MB{share}"
            )
        if "PyTorch" in runs:
            pairs = list(zip(runs["PyTorch"], runs["ours"], strict=True))
            print(
                f"  ours is {median(a.wall / b.wall for a, b in pairs):.2f} times as fast by wall, "
                f"{median(a.cpu / b.cpu for a, b in pairs):.2f} by CPU"
            )
    alone, cpu, synthetic, fed = in_a_process_of_its_own(feeding, name, build, rounds)
    print(f"  loader alone {alone:.0f} examples/s, {cpu * 1e3:.2f} CPU ms each; the step needs {synthetic:.1f}/s")
    print(f"  loop fed by the loader {fed:.1f} examples/s, {fed / synthetic:.0%} of the synthetic batch's", flush=True)


def our_step(name: str, build: Path) -> tuple[Callable[[], object], Any]:
    """Our step on a batch that stays on the device; what the peer needs to do the same."""
    import jax
    from flax import nnx

    from lung_nodule_ct.train.preprocessing import prepare
    from lung_nodule_ct.train.step import graph_of, make_step, new_state
    from lung_nodule_ct.train.tasks import task_of

    recipe, batches = opened(name, build)
    host = next(batches)
    batch, state = jax.device_put(host), jax.jit(lambda: new_state(recipe))()
    advance = make_step(recipe)
    plain = replace(recipe, model=replace(recipe.model, bf16=False), input=replace(recipe.input, augment=False))

    def loss_of(params: Any) -> Any:
        return task_of(plain).loss(nnx.merge(graph_of(plain), params), prepare(batch, plain.input), plain)[0]

    kind = jax.devices()[0].device_kind
    told = {
        "recipe": recipe,
        "device": kind,
        "peak": next((value for part, value in PEAKS.items() if part in kind), None),
        "flops": advance.lower(state, batch).cost_analysis()["flops"],
        "loss": float(jax.jit(loss_of)(state["params"])),
        "params": jax.tree.map(np.asarray, state["params"]),
        "batch": host,
    }

    def step() -> None:
        nonlocal state
        state, losses = advance(state, batch)
        jax.block_until_ready((state, losses))

    return step, told


def their_step(told: dict[str, Any]) -> tuple[Callable[[], object], Any]:
    """PyTorch's step on the same batch, and its loss of the same weights."""
    from benchmarks import torch_peer

    loss = torch_peer.loss_of(told["recipe"], told["params"], told["batch"])
    return torch_peer.make_step(told["recipe"], told["params"], told["batch"]), loss


def opened(name: str, build: Path) -> tuple[Recipe, Iterator[dict[str, np.ndarray]]]:
    """The recipe as this device runs it, and its batches."""
    import jax

    from lung_nodule_ct.train.data import open_source
    from lung_nodule_ct.train.feed import host_batches

    recipe = RECIPES[name]
    if jax.default_backend() == "cpu":
        recipe = replace(recipe, batch_size=BATCHES[name])
    else:
        recipe = replace(recipe, model=replace(recipe.model, bf16=True))
    batches = host_batches(open_source(open_build(build), recipe, "train"), recipe)
    return recipe, ({key: value for key, value in batch.items() if key != "number"} for batch in batches)


def feeding(name: str, build: Path, rounds: int) -> tuple[float, float, float, float]:
    """Examples a second of the loader alone, its CPU seconds an example, and those a second of the step on one batch and of the fed loop."""
    import jax

    from lung_nodule_ct.train.step import make_step, new_state

    recipe, batches = opened(name, build)
    held = next(batches)
    count = 40
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in islice(batches, count):
        pass
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    advance, state = make_step(recipe), jax.jit(lambda: new_state(recipe))()
    on_device = jax.device_put(held)
    state, _ = jax.block_until_ready(advance(state, on_device))
    shares: dict[str, list[float]] = {"synthetic": [], "fed": []}
    steps = 2 if jax.default_backend() == "cpu" else 50
    for _ in range(rounds):
        for kind, seconds in shares.items():
            begun = time.perf_counter()
            for _ in range(steps):
                state, told = advance(state, on_device if kind == "synthetic" else jax.device_put(next(batches)))
            jax.block_until_ready((state, told))
            seconds.append((time.perf_counter() - begun) / steps)
    rates = (recipe.batch_size / median(seconds) for seconds in shares.values())
    return count * recipe.batch_size / wall, cpu / count / recipe.batch_size, *rates


if __name__ == "__main__":
    main()
