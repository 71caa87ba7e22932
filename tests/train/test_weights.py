"""Weights by PyTorch's names: every entry is used once, and files that are not complete are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax")
pytest.importorskip("flax")

from seeded_weights import safetensors

from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.train.models.weights import load_weights, read_safetensors, torch_weights

pytestmark = pytest.mark.train

VALUES: dict[str, Any] = {
    "params": {
        "conv1": {"kernel": np.zeros((3, 3, 1, 2), np.float32)},
        "blocks": {0: {"scale": np.zeros(2, np.float32), "gamma": np.zeros(2, np.float32)}},
        "fc": {"kernel": np.zeros((2, 6), np.float32), "bias": np.zeros(6, np.float32)},
    },
    "statistics": {"blocks": {0: {"mean": np.zeros(2, np.float32), "var": np.zeros(2, np.float32)}}},
}


def weights(classes: int = 6) -> dict[str, np.ndarray]:
    shapes = {
        "conv1.weight": (2, 3, 3, 3),
        "blocks.0.weight": (2,),
        "blocks.0.gamma": (2,),
        "blocks.0.running_mean": (2,),
        "blocks.0.running_var": (2,),
        "blocks.0.num_batches_tracked": (),
        "fc.weight": (classes, 2),
        "fc.bias": (classes,),
    }
    random = np.random.default_rng(0)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_weights_are_loaded_by_name_with_the_axes_of_jax() -> None:
    given = weights()
    loaded = load_weights(VALUES, given)
    kernel = np.asarray(loaded["params"]["conv1"]["kernel"])
    np.testing.assert_allclose(kernel[1, 2, 0], given["conv1.weight"][:, :, 1, 2].sum(1), rtol=1e-6)  # summed over RGB
    assert (np.asarray(loaded["params"]["fc"]["kernel"]) == given["fc.weight"].T).all()
    assert (np.asarray(loaded["statistics"]["blocks"][0]["var"]) == given["blocks.0.running_var"]).all()
    back = torch_weights(loaded)
    assert back.keys() == {name for name in given if "tracked" not in name}
    assert all((back[name] == given[name]).all() for name in back if name != "conv1.weight")


def test_a_head_with_another_number_of_classes_is_kept_only_if_it_is_named() -> None:
    with pytest.raises(TrainingError, match=r"fc.* has another shape; expected .*, got \(.*1000"):
        load_weights(VALUES, weights(1000))
    loaded = load_weights(VALUES, weights(1000), new=("fc.",))
    assert not np.asarray(loaded["params"]["fc"]["kernel"]).any()
    for shape in ((6, 9), (1, 6, 2), (2, 2, 1, 1)):  # other inputs, or another kind of layer
        with pytest.raises(TrainingError, match=r"fc\.weight has another shape"):
            load_weights(VALUES, weights() | {"fc.weight": np.zeros(shape, np.float32)}, new=("fc.",))
    assert np.asarray(loaded["params"]["conv1"]["kernel"]).any()


def test_names_that_are_missing_or_not_used_are_refused() -> None:
    given = weights()
    with pytest.raises(TrainingError, match=r"the network has no layer9\.weight"):
        load_weights(VALUES, given | {"layer9.weight": np.zeros(1)})
    del given["blocks.0.gamma"]
    with pytest.raises(TrainingError, match=r"the weights have no blocks\.0\.gamma"):
        load_weights(VALUES, given)
    given |= {"fc.weight": np.zeros((5, 2)), "fc.bias": np.zeros(5)} | {f"a.{n}": np.zeros(1) for n in range(7)}
    with pytest.raises(TrainingError) as error:
        load_weights(VALUES, given)
    problem = "the weights have no blocks.0.gamma; the network has no a.0, a.1, a.2, a.3, a.4 and 2 more; "
    assert error.value.problem == problem + "the array fc.weight, fc.bias has another shape"
    assert "(2, 6)" in str(error.value)
    assert "(2, 5)" in str(error.value)


@pytest.mark.parametrize(
    "array", [np.array([0, np.nan]), np.array([np.inf, 0], np.float16), np.array([1, 2]), np.array([True, False])]
)
def test_arrays_that_are_not_of_finite_numbers_are_refused(array: np.ndarray) -> None:
    with pytest.raises(TrainingError, match=r"blocks\.0\.gamma is not of finite numbers of a floating type"):
        load_weights(VALUES, weights() | {"blocks.0.gamma": array})


def test_a_safetensors_file_is_read(tmp_path) -> None:
    given = weights()
    (tmp_path / "w.safetensors").write_bytes(safetensors(given))
    read = read_safetensors(tmp_path / "w.safetensors")
    assert read.keys() == given.keys()
    assert all((read[name] == given[name]).all() for name in given)
    halves = np.arange(4, dtype=np.uint16) + 0x3F80  # bfloat16 is the upper half of float32
    (tmp_path / "h.safetensors").write_bytes(safetensors({"w": halves}, {"w": "BF16"}))
    values = (halves.astype(np.uint32) << 16).view(np.float32)
    assert (read_safetensors(tmp_path / "h.safetensors")["w"].astype(np.float32) == values).all()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x10\0\0\0\0\0\0\0{}",
        b"PK\x03\x04" + bytes(40),
        safetensors(weights())[:-1],
        safetensors(weights()).replace(b"F32", b"X32"),
        safetensors(weights()).replace(b'"shape": [2]', b'"shape": [3]'),
        b"\x02\0\0\0\0\0\0\0[]",
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
    ],
    ids=["empty", "short header", "zip", "cut", "type", "shape", "list", "deep"],
)
def test_a_file_that_is_not_complete_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(data)
    with pytest.raises(TrainingError, match="is not a complete safetensors file"):
        read_safetensors(tmp_path / "w.safetensors")
    with pytest.raises(TrainingError, match="cannot be read"):
        read_safetensors(tmp_path / "missing.safetensors")
