"""Compare training steps with PyTorch's steps of the same networks, and compare the loader's speed with the step's.

    python -m benchmarks.training [--recipes det3d_1.25mm ...] [--cores 1] [--rounds 5]

On a CPU, both use float32 and small batches, and PyTorch is eager. On an accelerator, both use bfloat16 and the recipe's
batch size, PyTorch uses ``torch.compile`` and autocast on CUDA, the host waits for the device once in 50 steps, and the
ratio to the device's peak performance (MFU) is printed, by the operations of the network's convolutions and products.
PyTorch is measured if it is installed. Both networks start with the same weights and must have the same loss in float32.
The batch is already on the device, except in the loop that the loader feeds. ``benchmarks.gpu`` measures more on a GPU.
"""

from __future__ import annotations

import math
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
from benchmarks.harness import PROGRAM, Measurement, RepeatedWork, argument_parser, measure_command, run_in_new_process
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.train.recipes import RECIPES, Recipe

BATCHES = {"cls_1.25mm": 8, "det2d_1.25mm": 2, "det3d_1.25mm": 2, "longitudinal": 4}
"""The measured recipes and their batch sizes on a CPU, where a step with the recipe's batch size takes many seconds."""

PEAKS = {"A100": 312e12, "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12}
"""Dense bfloat16 operations per second, from NVIDIA's data sheets, by a part of the device's name (first match)."""


def main() -> None:
    """Build synthetic patients, measure each recipe, and print the results."""
    parser = argument_parser(__doc__)
    parser.add_argument("--recipes", nargs="+", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--cores", type=int, default=0, help="number of cores for each step; 0 for all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--patients", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source = run_in_new_process(write_patients, Path(scratch) / "source", options.patients)
        build = Path(scratch) / "build"
        configs = {RECIPES[name].config for name in options.recipes}
        measure_command([PROGRAM, "build", *configs, "--source", source, "--format", "arrow", "--out", build])
        for name in options.recipes:
            compare(name, build, options.cores, options.rounds)


def compare(name: str, build: Path, cores: int, rounds: int) -> None:
    """Measure our step and PyTorch's in turn, and then the loader."""
    with ExitStack() as stack:
        ours = stack.enter_context(RepeatedWork(our_step, name, build, cores=cores))
        steps = {"ours": ours}
        recipe: Recipe = ours.info["recipe"]
        size = recipe.batch_size
        print(f"{name}, {size} a batch, {ours.info['device']}, {cores or 'all'} cores", flush=True)
        if find_spec("torch") is None:
            print("  PyTorch is not installed")
        elif name != "longitudinal":
            steps["PyTorch"] = stack.enter_context(RepeatedWork(pytorch_step, ours.info, cores=cores))
            loss, pytorch_loss = ours.info["loss"], steps["PyTorch"].info
            if abs(loss - pytorch_loss) > 1e-3 * abs(loss):
                raise RuntimeError(f"{name}: the networks differ, losses {loss} and {pytorch_loss}")
        runs: dict[str, list[Measurement]] = {framework: [] for framework in steps}
        for _ in range(rounds):
            for framework, step in steps.items():
                runs[framework].append(step.run())
        for framework, measured in runs.items():
            count = ours.info["steps"]
            wall, cpu = (median(getattr(run, name) for run in measured) / count for name in ("wall", "cpu"))
            peak = ours.info["peak"]
            utilization = f", MFU {ours.info['flops'] / wall / peak:.1%}" if peak else ""
            print(
                f"  {framework:8} step {wall * 1e3:7.0f} ms (best {min(run.wall for run in measured) / count * 1e3:.0f}), "
                f"CPU {cpu * 1e3:7.0f} ms, {size / wall:7.1f} examples/s, {measured[-1].peak_mb:5.0f} MB{utilization}"
            )
        if "PyTorch" in runs:
            pairs = list(zip(runs["PyTorch"], runs["ours"], strict=True))
            print(
                f"  ours is {median(a.wall / b.wall for a, b in pairs):.2f} times as fast by wall, "
                f"{median(a.cpu / b.cpu for a, b in pairs):.2f} by CPU"
            )
    loader, cpu, fixed, fed = run_in_new_process(measure_loader, name, build, rounds)
    print(f"  loader alone {loader:.0f} examples/s, {cpu * 1e3:.2f} CPU ms each; the step needs {fixed:.1f}/s")
    print(
        f"  loop fed by the loader {fed:.1f} examples/s, {fed / fixed:.0%} of the loop on one fixed batch", flush=True
    )


def our_step(name: str, build: Path) -> tuple[Callable[[], object], Any]:
    """Return our steps on a batch that stays on the device, and the information that PyTorch needs for the same steps."""
    import jax

    recipe, batches = recipe_and_batches(name, build)
    return resident_steps(recipe, next(batches), steps_per_run(jax.default_backend()))


def steps_per_run(backend: str) -> int:
    """Steps between two waits for the device. On a CPU the host computes them, so it waits after each."""
    return 1 if backend == "cpu" else 50


def resident_steps(
    recipe: Recipe, host_batch: dict[str, np.ndarray], count: int, *, with_loss: bool = True
) -> tuple[Callable[..., object], Any]:
    """Return steps on a batch that stays on the device, and information about them.

    Args:
        recipe: The recipe.
        host_batch: The batch.
        count: Steps of one call, unless it has another number, after which the host waits.
        with_loss: Compute the loss in float32, which takes more memory than a step in bfloat16.
    """
    import jax

    from lung_nodule_ct.train.step import initial_state, make_step

    batch, state = jax.device_put(host_batch), jax.jit(lambda: initial_state(recipe))()
    train_step = make_step(recipe)
    started = time.perf_counter()
    program = train_step.lower(state, batch).compile()
    compile_s = time.perf_counter() - started
    kind = jax.devices()[0].device_kind
    info = {
        "recipe": recipe,
        "device": kind,
        "peak": next((value for part, value in PEAKS.items() if part in kind), None),
        "flops": count_operations(recipe, state, batch),
        "compile_s": compile_s,
        "loss": float(jax.jit(lambda state: plain_loss(recipe, state, batch))(state)) if with_loss else None,
        "params": jax.tree.map(np.asarray, state["params"]),
        "batch": host_batch,
        "steps": count,
    }

    def steps(number: int = count) -> None:
        nonlocal state
        for _ in range(number):
            state, losses = program(state, batch)
        jax.block_until_ready((state, losses))

    return steps, info


def plain_loss(recipe: Recipe, state: Any, batch: Any) -> Any:
    """The loss in float32, without augmentation. Products are computed in float32 as well, not in TensorFloat-32."""
    import jax

    from lung_nodule_ct.train.network import network
    from lung_nodule_ct.train.preprocessing import preprocess
    from lung_nodule_ct.train.tasks import get_task

    plain = replace(recipe, model=replace(recipe.model, bf16=False), input=replace(recipe.input, augment=False))
    with jax.default_matmul_precision("highest"):
        model, task = network(plain).in_training(state, jax.random.key(0)), get_task(plain)
        examples, totals = task.add_targets(preprocess(batch, plain.input), plain)
        return task.loss(model, examples, plain, jax.tree.map(lambda total: jax.numpy.maximum(total, 1), totals))[0]


def count_operations(recipe: Recipe, state: Any, batch: Any) -> int:
    """The operations of the convolutions and products of a step: two per multiplication, and three passes. Nothing else counts.

    Convolutions are counted as such, also where a CPU computes them by another algorithm.
    """
    import jax

    if recipe.model.network is None:
        recipe = replace(recipe, model=replace(recipe.model, native_conv=True))
    return 3 * count_jaxpr(jax.make_jaxpr(lambda state: plain_loss(recipe, state, batch))(state).jaxpr)


def count_jaxpr(jaxpr: Any) -> int:
    """The operations of the convolutions and products of a program and of the programs in it. The body of a loop counts once."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            kernel, output = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
            outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            total += 2 * math.prod(output) * math.prod(kernel) // outputs
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
        for parameter in equation.params.values():
            for inner in parameter if isinstance(parameter, (tuple, list)) else (parameter,):
                inner_jaxpr = getattr(inner, "jaxpr", inner)
                if hasattr(inner_jaxpr, "eqns"):
                    total += count_jaxpr(inner_jaxpr)
    return total


def pytorch_step(info: dict[str, Any]) -> tuple[Callable[[], object], Any]:
    """Return PyTorch's steps on the same batch, and its loss with the same weights."""
    from benchmarks import torch_peer

    loss = torch_peer.compute_loss(info["recipe"], info["params"], info["batch"])
    step = torch_peer.make_step(info["recipe"], info["params"], info["batch"])

    def steps() -> None:
        for _ in range(info["steps"]):
            result = step()
        result.item()  # waits for the device

    return steps, loss


def recipe_and_batches(name: str, build: Path) -> tuple[Recipe, Iterator[dict[str, np.ndarray]]]:
    """Return the recipe with the options for this device, and its batches."""
    import jax

    from lung_nodule_ct.train.batches import host_batches, open_data_source

    recipe = RECIPES[name]
    if jax.default_backend() == "cpu":
        recipe = replace(recipe, batch_size=BATCHES[name])
    batches = host_batches(open_data_source(open_build(build), recipe, "train"), recipe)
    return recipe, ({key: value for key, value in batch.items() if key != "index"} for batch in batches)


def measure_loader(name: str, build: Path, rounds: int) -> tuple[float, float, float, float]:
    """Measure the loader.

    Returns:
        Examples per second of the loader alone, its CPU seconds per example, and examples per second of the step on one
        fixed batch and of the loop that the loader feeds.
    """
    import jax

    from lung_nodule_ct.train.step import initial_state, make_step

    recipe, batches = recipe_and_batches(name, build)
    fixed_batch = next(batches)
    count = 40
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in islice(batches, count):
        pass
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    train_step, state = make_step(recipe), jax.jit(lambda: initial_state(recipe))()
    on_device = jax.device_put(fixed_batch)
    state, _ = jax.block_until_ready(train_step(state, on_device))
    seconds: dict[str, list[float]] = {"fixed": [], "fed": []}
    steps = 2 if jax.default_backend() == "cpu" else 50
    for _ in range(rounds):
        for kind, measured in seconds.items():
            started = time.perf_counter()
            for _ in range(steps):
                state, losses = train_step(state, on_device if kind == "fixed" else jax.device_put(next(batches)))
            jax.block_until_ready((state, losses))
            measured.append((time.perf_counter() - started) / steps)
    rates = (recipe.batch_size / median(measured) for measured in seconds.values())
    return count * recipe.batch_size / wall, cpu / count / recipe.batch_size, *rates


if __name__ == "__main__":
    main()
