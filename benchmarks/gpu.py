"""What ten minutes on a GPU show of the training loop. Sections that cannot run stay open and say why.

    python -m benchmarks.gpu [--minutes 10] [--only steps peer ...] [--tiny]

| section | what it measures |
|---|---|
| ceilings | versions; bfloat16 product, copy on the device, and transfer to it |
| steps | each recipe and two published networks: step time, one wait in 50 steps and one in each; MFU; memory |
| peer | PyTorch with torch.compile and autocast, the same weights, without and with augmentation |
| sweep | examples per second and memory for larger batches, until one does not fit |
| fed | the step fed by the loader with 0, 4 and 12 workers, as a share of the step on one batch |
| resume | a run that is killed and continued: losses equal in hexadecimal, with deterministic operations |

MFU is of the data sheet's peak, by the operations of the network's convolutions and products, counted from the program by
hand: two per multiplication, three passes. ``--tiny`` runs every section with tiny networks on any device, which only tests this script.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.archives import write_patients
from benchmarks.harness import PROGRAM, argument_parser, measure_command, run_in_new_process
from benchmarks.training import pytorch_step, resident_steps
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.train.models import NETWORKS
from lung_nodule_ct.train.recipes import RECIPES, InputOptions, Recipe, published_name, published_recipe

NAMES: Final = ("det3d_1.25mm", "det2d_1.25mm", "cls_1.25mm")
PUBLISHED: Final = ("resnet50", "retinanet")
WORKERS: Final = (0, 4, 12)
FACTORS: Final = (1, 2, 4, 8)
PACKAGES: Final = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "torch")
_TINY_INPUTS: Final = {
    "det3d_1.25mm": InputOptions(size=(8, 16, 16), spacing_mm=(4.0, 4.0, 4.0)),
    "det2d_1.25mm": InputOptions(),
    "cls_1.25mm": InputOptions(size=(16, 16)),
}


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        name: A recipe, or a published network.
        build: The build that it reads.
        tiny: Whether only the script is tested.
        factor: What the batch size of the recipe is multiplied by.
        augment: Whether examples are augmented.
        bf16: Whether the network computes in bfloat16.
        workers: Processes that load data.
    """

    name: str
    build: Path
    tiny: bool
    factor: int = 1
    augment: bool = True
    bf16: bool = True
    workers: int = 0

    @property
    def recipe(self) -> Recipe:
        """The recipe with these options."""
        published = self.name in NETWORKS
        recipe = published_recipe(published_name(self.name), self.name) if published else RECIPES[self.name]
        model, inputs, size = replace(recipe.model, bf16=self.bf16), recipe.input, recipe.batch_size
        if self.tiny:
            inputs, size = _TINY_INPUTS[recipe.config], 2
            if not published:
                model = replace(model, width=8, blocks=(1, 1), patch=2, bf16=False)
        inputs = replace(inputs, augment=self.augment)
        return replace(recipe, model=model, input=inputs, batch_size=size * self.factor, workers=self.workers)

    @property
    def runs(self) -> tuple[int, int]:
        """How often steps are timed, and the number of steps each time."""
        return (1, 2) if self.tiny else (5, 50)


def main() -> None:
    """Run the sections in order, until the time is used."""
    parser = argument_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # so that memory is what is used, and PyTorch has some
    until = time.monotonic() + 60 * options.minutes
    device = run_in_new_process(find_device)
    if options.tiny:
        print(f"{device}, tiny networks: these figures only show that the script works")
    elif device == "cpu":
        for name in options.only:
            print(f"{name:8} open: no GPU is available")
        return
    with tempfile.TemporaryDirectory() as scratch:
        source = run_in_new_process(write_patients, Path(scratch) / "source", 4 if options.tiny else 8)
        build = Path(scratch) / "build"
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{scratch}/compiled"  # each piece of work has a process of its own
        measure_command([PROGRAM, "build", *NAMES, "--source", source, "--format", "arrow", "--out", build])
        for name in options.only:
            for label, work, arguments in SECTIONS[name](build, options.tiny):
                left = until - time.monotonic()
                text = _attempt(work, *arguments) if left > 0 else "open: no time is left"
                print(f"{name:8} {label:44} {text}", flush=True)


def _attempt(work: Callable[..., str], *arguments: Any) -> str:
    """What the work returns, or why it failed; the next one may work."""
    try:
        return str(run_in_new_process(work, *arguments))
    except Exception as error:
        return (
            f"failed: {type(error).__name__}: {str(error).strip().splitlines()[-1][:200] if str(error).strip() else ''}"
        )


def find_device() -> str:
    """The kind of the first device."""
    import jax

    return "cpu" if jax.default_backend() == "cpu" else str(jax.devices()[0].device_kind)


# --- the work, each in a process of its own ---------------------------------------------------------------------------


def measure_ceilings(tiny: bool) -> str:
    """Versions, and what the device reaches without a network."""
    import jax
    import jax.numpy as jnp

    side, size = (256, 1 << 20) if tiny else (8192, 1 << 30)
    square = jax.random.normal(jax.random.key(0), (side, side), jnp.bfloat16)
    product = jax.jit(lambda a: a @ a)
    product_s = _seconds(lambda: product(square), 20)
    row = jnp.zeros(size // 4, jnp.float32)
    copy = jax.jit(lambda a: a + 1)
    copy_s = _seconds(lambda: copy(row), 20)
    on_host = jax.device_get(row)
    transfer_s = _seconds(lambda: jax.device_put(on_host), 3)
    return (
        f"{jax.devices()[0].device_kind}, Python {sys.version.split()[0]}, {', '.join(_versions())}; "
        f"bfloat16 product {2 * side**3 / product_s / 1e12:.1f} TFLOP/s, copy {2 * size / copy_s / 1e9:.0f} GB/s, "
        f"transfer to the device {size / transfer_s / 1e9:.1f} GB/s"
    )


def _versions() -> Iterator[str]:
    for name in PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"no {name}"


def _seconds(work: Callable[[], Any], count: int) -> float:
    """Seconds of one call of many, for the last of which the host waits."""
    import jax

    jax.block_until_ready(work())
    started = time.perf_counter()
    for _ in range(count):
        result = work()
    jax.block_until_ready(result)
    return (time.perf_counter() - started) / count


def measure_step(case: Case) -> str:
    """Step time, MFU and memory of a recipe on a batch that stays on the device."""
    import jax

    runs, count = case.runs
    steps, info = resident_steps(case.recipe, next(_batches(case)), count, with_loss=False)
    throughput = _median_seconds(steps, runs) / count
    alone = _median_seconds(lambda: steps(1), runs * 4)
    utilization = f"{info['flops'] / throughput / info['peak']:.1%}" if info["peak"] else "of an unknown peak"
    memory = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    return (
        f"{throughput * 1e3:.2f} ms per step, {alone * 1e3:.2f} with a wait in each, {case.recipe.batch_size / throughput:,.0f} examples/s, "
        f"{info['flops'] / 1e9:,.1f} GFLOP, MFU {utilization}, peak {memory / 1e9:.1f} GB, compiled in {info['compile_s']:.0f} s"
    )


def measure_peer(case: Case) -> str:
    """PyTorch's step with the weights of ours, and the ratio of both."""
    if find_spec("torch") is None:
        return "open: PyTorch is not installed"
    runs, count = case.runs
    info, ours = run_in_new_process(_our_step, case)
    steps, loss = pytorch_step(info)
    if abs(loss - info["loss"]) > 1e-3 * abs(loss):
        return f"failed: the networks differ, losses {info['loss']} and {loss}"
    theirs = _median_seconds(steps, runs) / count
    return f"{theirs * 1e3:.2f} ms per step, ours {ours * 1e3:.2f}: {theirs / ours:.2f} times as fast"


def _our_step(case: Case) -> tuple[dict[str, Any], float]:
    runs, count = case.runs
    steps, info = resident_steps(case.recipe, next(_batches(case)), count)
    return info, _median_seconds(steps, runs) / count


def measure_fed(case: Case) -> str:
    """The step fed by the loader, as a share of the step on one batch that stays on the device."""
    import jax

    from lung_nodule_ct.train.step import initial_state, make_step

    runs, count = case.runs
    batches, recipe = _batches(case), case.recipe
    fixed = jax.device_put(next(batches))
    train_step, state = make_step(recipe), jax.jit(lambda: initial_state(recipe))()
    seconds: dict[str, list[float]] = {"fixed": [], "fed": []}
    for warm in (True, *[False] * runs):
        for kind, measured in seconds.items():
            started = time.perf_counter()
            for _ in range(count):
                state, losses = train_step(state, fixed if kind == "fixed" else jax.device_put(next(batches)))
            jax.block_until_ready((state, losses))
            if not warm:
                measured.append((time.perf_counter() - started) / count)
    fixed_s, fed_s = (median(measured) for measured in seconds.values())
    return f"{fed_s * 1e3:.2f} ms per step, {fixed_s / fed_s:.0%} of the speed with one batch"


def _batches(case: Case) -> Iterator[dict[str, Any]]:
    from lung_nodule_ct.train.batches import host_batches, open_data_source

    source = open_data_source(open_build(case.build), case.recipe, "train")
    for batch in host_batches(source, case.recipe):
        yield {name: array for name, array in batch.items() if name != "index"}


def _median_seconds(work: Callable[[], object], runs: int) -> float:
    work()  # compiles, and fills caches
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def measure_resume(build: Path, tiny: bool) -> str:
    """Kill a run and continue it, and compare its losses with those of a run that was not killed."""
    steps, save = (8, 2) if tiny else (60, 10)
    tiny_options = ["--model.width", "8", "--model.blocks", "1", "--input.size", "16", "16", "--batch-size", "8"]
    recipe = ["cls_1.25mm", *tiny_options] if tiny else ["det3d_1.25mm"]
    environment = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"}
    if tiny:
        environment = dict(os.environ)
    command = [
        str(PROGRAM),
        "train",
        str(build),
        *recipe,
        "--steps",
        str(steps),
        "--save-every",
        str(save),
        "--watch",
        "0",
    ]
    whole, killed = build.parent / "whole", build.parent / "killed"
    options: dict[str, Any] = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*command, "--out", str(whole)], check=True, **options)
    process = subprocess.Popen([*command, "--out", str(killed)], start_new_session=True, **options)
    while process.poll() is None and len(_losses(killed)) < steps // 2:
        time.sleep(0.005)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = len(_losses(killed))
    subprocess.run([*command, "--out", str(killed)], check=True, **options)
    first, second = _losses(whole), _losses(killed)
    equal = sum(a == b for a, b in zip(first, second, strict=True))
    return f"killed after {before} of {steps} steps: {equal} of {len(first)} losses are equal in hexadecimal"


def _losses(run: Path) -> list[str]:
    path = run / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row["loss_hex"] for row in csv.DictReader(file)]


# --- sections: a label, the work and its arguments --------------------------------------------------------------------

Work = tuple[str, Callable[..., str], tuple[Any, ...]]


def _ceilings(_build: Path, tiny: bool) -> Iterator[Work]:
    yield "versions and ceilings", measure_ceilings, (tiny,)


def _steps(build: Path, tiny: bool) -> Iterator[Work]:
    for name in NAMES if tiny else (*NAMES, *PUBLISHED):
        yield name, measure_step, (Case(name, build, tiny),)
    if not tiny:
        yield f"{NAMES[0]}, float32", measure_step, (Case(NAMES[0], build, tiny, bf16=False),)


def _peer(build: Path, tiny: bool) -> Iterator[Work]:
    for name in NAMES:
        for augment, label in ((False, "without augmentation"), (True, "with augmentation")):
            yield f"{name}, {label}", measure_peer, (Case(name, build, tiny, augment=augment),)


def _sweep(build: Path, tiny: bool) -> Iterator[Work]:
    for factor in FACTORS[:2] if tiny else FACTORS:
        case = Case(NAMES[0], build, tiny, factor=factor)
        yield f"{NAMES[0]}, batches of {case.recipe.batch_size}", measure_step, (case,)


def _fed(build: Path, tiny: bool) -> Iterator[Work]:
    for workers in WORKERS[:1] if tiny else WORKERS:
        yield f"{NAMES[0]}, {workers} workers", measure_fed, (Case(NAMES[0], build, tiny, workers=workers),)


def _resume(build: Path, tiny: bool) -> Iterator[Work]:
    yield "kill -9, and the same command again", measure_resume, (build, tiny)


SECTIONS: Final[dict[str, Callable[[Path, bool], Iterator[Work]]]] = {
    "ceilings": _ceilings,
    "steps": _steps,
    "peer": _peer,
    "fed": _fed,
    "resume": _resume,
    "sweep": _sweep,
}

if __name__ == "__main__":
    main()
