"""The layers of the published networks, with the conventions of PyTorch.

Arrays are (batch, y, x, channels). Padding is that of PyTorch: equal on both sides, so that a convolution of stride 2 sees
other pixels than with ``SAME`` in JAX. Batch normalisation has PyTorch's momentum and its unbiased running variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

if TYPE_CHECKING:
    from collections.abc import Sequence

_KERNELS = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


@dataclass(frozen=True)
class Layers:
    """Makes the layers of one network.

    Attributes:
        rngs: Random keys of the weights.
        dtype: The type that layers compute in. Weights and statistics are float32.
        momentum: The part of the running statistics that a batch keeps.
        epsilon: Added to variances.
    """

    rngs: nnx.Rngs
    dtype: Any = jnp.float32
    momentum: float = 0.9
    epsilon: float = 1e-5

    def conv(
        self,
        inputs: int,
        outputs: int,
        size: int | tuple[int, int],
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        padding: int | tuple[int, int] | None = None,
        dilation: int = 1,
        kernel_init: nnx.Initializer = _KERNELS,
    ) -> nnx.Conv:
        """A convolution. By default, its padding keeps the size of the image if the stride is 1."""
        sizes = (size, size) if isinstance(size, int) else size
        if padding is None:
            padding = (dilation * (sizes[0] - 1) // 2, dilation * (sizes[1] - 1) // 2)
        paddings = (padding, padding) if isinstance(padding, int) else padding
        return nnx.Conv(
            inputs,
            outputs,
            sizes,
            strides=stride,
            padding=[(pad, pad) for pad in paddings],
            kernel_dilation=dilation,
            feature_group_count=groups,
            use_bias=bias,
            kernel_init=kernel_init,
            dtype=self.dtype,
            rngs=self.rngs,
        )

    def norm(self, channels: int) -> BatchNorm:
        """Batch normalisation."""
        return BatchNorm(channels, self.momentum, self.epsilon)

    def linear(self, inputs: int, outputs: int) -> nnx.Linear:
        """A linear layer with a bias."""
        return nnx.Linear(inputs, outputs, dtype=self.dtype, rngs=self.rngs)


class BatchNorm(nnx.Module):
    """Batch normalisation (Ioffe and Szegedy 2015) as in PyTorch: the running variance is unbiased.

    It computes in float32 or better, and returns the type of its input.
    """

    def __init__(self, channels: int, momentum: float, epsilon: float) -> None:
        self.scale, self.bias = nnx.Param(jnp.ones(channels)), nnx.Param(jnp.zeros(channels))
        self.mean, self.var = nnx.BatchStat(jnp.zeros(channels)), nnx.BatchStat(jnp.ones(channels))
        self.momentum, self.epsilon = momentum, epsilon
        self.use_running_average = False

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise each channel by the batch in training, and by the running statistics in evaluation."""
        values = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            axes = tuple(range(x.ndim - 1))
            mean, var = values.mean(axes), values.var(axes)
            count = x.size // x.shape[-1]
            for running, new in ((self.mean, mean), (self.var, var * (count / max(count - 1, 1)))):
                running[...] = self.momentum * running[...] + (1 - self.momentum) * new
        factor = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
        return ((values - mean) * factor + self.bias[...]).astype(x.dtype)


def max_pool(x: jax.Array, size: int, stride: int, padding: int = 0, *, ceil: bool = False) -> jax.Array:
    """The maximum of each window. With ``ceil``, a last window that is only partly inside the image counts."""
    pads = _pads(x, size, stride, padding, ceil=ceil)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, stride, stride, 1), pads)


def average_pool(
    x: jax.Array, size: int, stride: int, padding: int = 0, *, ceil: bool = False, count_padding: bool = True
) -> jax.Array:
    """The mean of each window, over all of its pixels or only over those inside the image."""
    pads = _pads(x, size, stride, padding, ceil=ceil)

    def total(values: jax.Array) -> jax.Array:
        return jax.lax.reduce_window(values, 0.0, jax.lax.add, (1, size, size, 1), (1, stride, stride, 1), pads)

    return total(x) / (size * size if count_padding else total(jnp.ones_like(x[:1, :, :, :1])))


def _pads(x: jax.Array, size: int, stride: int, padding: int, *, ceil: bool) -> Sequence[tuple[int, int]]:
    ends = []
    for length in x.shape[1:3]:
        rest = (length + 2 * padding - size) % stride
        # PyTorch leaves out a window that would start in the padding at the end
        extra = stride - rest if ceil and rest and stride - rest < size - padding else 0
        ends.append((padding, padding + extra))
    return ((0, 0), *ends, (0, 0))
