"""The benchmark for a GPU: without one its rows stay open, operations are counted by hand, and the script works."""

from __future__ import annotations

from pathlib import Path

import pytest

for needed in ("jax", "flax", "grain", "optax", "orbax.checkpoint"):
    pytest.importorskip(needed)

pytestmark = pytest.mark.train

ROOT = Path(__file__).parents[2]
CPU = {"JAX_PLATFORMS": "cpu"}
RUN = "import sys; from benchmarks.gpu import main; sys.argv[1:] = {!r}; main()"
COUNT = """
import jax, jax.numpy as jnp
from benchmarks.training import count_jaxpr

def work(image, kernel, matrix):
    image = jax.lax.conv_general_dilated(image, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    image = jax.lax.fori_loop(0, 3, lambda _, x: jnp.tanh(x), image)  # neither a convolution nor a product
    return jax.jit(lambda x: x.reshape(-1, 8) @ matrix)(image)

shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((5, 16, 16, 4), (3, 3, 4, 8), (8, 7))]
print(count_jaxpr(jax.make_jaxpr(work)(*shapes).jaxpr))
"""


def test_operations_are_two_per_multiplication_of_convolutions_and_products(python) -> None:
    convolution, product = 2 * (5 * 8 * 8 * 8) * (3 * 3 * 4), 2 * (5 * 8 * 8 * 7) * 8
    done = python(COUNT, cwd=ROOT, **CPU)
    assert done.stdout.split() == [str(convolution + product)], done.stderr


def test_without_a_gpu_every_section_is_open_and_says_so(python) -> None:
    done = python(RUN.format([]), cwd=ROOT, **CPU)
    assert done.returncode == 0, done.stderr
    names = ("ceilings", "steps", "peer", "fed", "resume", "sweep")
    assert done.stdout.splitlines() == [f"{name:8} open: no GPU is available" for name in names]


@pytest.mark.slow
def test_the_script_works_in_its_tiny_mode(python) -> None:
    done = python(RUN.format(["--tiny", "--only", "ceilings", "fed", "resume"]), cwd=ROOT, **CPU)
    assert done.returncode == 0, done.stderr
    first, ceilings, fed, resume = done.stdout.splitlines()
    assert first == "cpu, tiny networks: these figures only show that the script works"
    assert "TFLOP/s" in ceilings
    assert "of the speed with one batch" in fed
    assert "8 of 8 losses are equal in hexadecimal" in resume
