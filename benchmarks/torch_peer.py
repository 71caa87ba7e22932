"""The networks, losses and training steps of our recipes in PyTorch, for a comparison of speed.

The layers and their order are the same, so that weights can be copied and losses compared. On a CPU, steps are eager and
use float32. On a GPU, they use ``torch.compile`` for preprocessing, network and loss together, autocast to bfloat16, TF32,
and cuDNN's search for the fastest algorithm. Both use the channels-last memory format, fused AdamW, and gradients set to ``None``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 -- the customary name
from torch import Tensor, nn

from lung_nodule_ct.train.recipes import InputOptions, ModelOptions, Recipe
from lung_nodule_ct.train.tasks.classification import CLASSES

CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
Batch = dict[str, Tensor]


def convolution(axes: int, inputs: int, outputs: int, size: int) -> nn.Module:
    """A convolution of stride 1 that keeps the size."""
    return CONVOLUTIONS[axes](inputs, outputs, size, padding=size // 2)


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation in groups of about 8 channels."""
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 8)), channels, eps=1e-6)


class Block(nn.Module):
    """A basic residual block."""

    def __init__(self, axes: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.first_norm = convolution(axes, inputs, outputs, 3), norm(outputs)
        self.second, self.second_norm = convolution(axes, outputs, outputs, 3), norm(outputs)
        self.skip = convolution(axes, inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map shape (batch, inputs, …) to (batch, outputs, …)."""
        y = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)))))
        return F.relu(self.skip(x) + y)


class Encoder(nn.Module):
    """A ResNet whose first layer gets blocks of pixels as channels. Returns the features of every stage."""

    def __init__(self, axes: int, options: ModelOptions) -> None:
        super().__init__()
        self.axes, self.patch = axes, options.patch
        self.widths = [options.width * 2**stage for stage in range(len(options.blocks))]
        self.stem, self.stem_norm = convolution(axes, options.patch**axes, self.widths[0], 3), norm(self.widths[0])
        self.stages = nn.ModuleList()
        inputs = self.widths[0]
        for width, count in zip(self.widths, options.blocks, strict=True):
            self.stages.append(nn.Sequential(*(Block(axes, width if n else inputs, width) for n in range(count))))
            inputs = width
        self.pool = (nn.AvgPool2d if axes == 2 else nn.AvgPool3d)(2, ceil_mode=True, count_include_pad=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map shape (batch, 1, …) to a list of shapes (batch, channels, … / stride)."""
        x = F.pad(x, [side for n in reversed(x.shape[2:]) for side in (0, -n % self.patch)])
        x = F.relu(self.stem_norm(self.stem(self.split_into_blocks(x).contiguous(memory_format=FORMATS[self.axes]))))
        features = []
        for index, stage in enumerate(self.stages):
            x = stage(self.pool(x) if index else x)
            features.append(x)
        return features

    def split_into_blocks(self, x: Tensor) -> Tensor:
        """Map shape (batch, 1, …) to (batch, pixels per block, … / block size)."""
        if self.axes == 2:
            return F.pixel_unshuffle(x, self.patch)
        batch, _, z, y, x_length = x.shape
        side = self.patch
        split = x.reshape(batch, z // side, side, y // side, side, x_length // side, side)
        return split.permute(0, 2, 4, 6, 1, 3, 5).reshape(batch, side**3, z // side, y // side, x_length // side)


class Classifier(nn.Module):
    """An encoder, the mean of its last stage, and a linear layer."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.encoder = Encoder(2, recipe.model)
        self.head = nn.Linear(self.encoder.widths[-1], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Map shape (batch, 1, y, x) to logits (batch, 6)."""
        return self.head(self.encoder(x)[-1].mean((2, 3)))

    def loss(self, batch: Batch) -> Tensor:
        """The weighted cross-entropy of a batch."""
        each = F.cross_entropy(self(batch["image"]).float(), batch["label"].long(), reduction="none")
        return (each * batch["weight"]).mean()


class Detector(nn.Module):
    """An encoder, a feature pyramid, and the head ``center`` on its finest level."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        options = recipe.model
        self.axes, self.stride = len(recipe.input.size) or 2, options.patch
        self.encoder = Encoder(self.axes, options)
        width = 2 * options.width
        self.across = nn.ModuleList(convolution(self.axes, inputs, width, 1) for inputs in self.encoder.widths)
        self.tower = convolution(self.axes, width, width, 3)
        self.score = convolution(self.axes, width, 1, 3)
        self.shape = convolution(self.axes, width, 2 * self.axes, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map shape (batch, 1, …) to the logits (batch, …) and encoded boxes (batch, …, 2 * axes) of each cell."""
        features = self.encoder(x)
        level = self.across[-1](features[-1])
        for across, feature in zip(reversed(self.across[:-1]), reversed(features[:-1]), strict=True):
            finer = across(feature)
            upsampled = F.interpolate(level, scale_factor=2.0, mode="nearest")
            level = finer + upsampled[(..., *(slice(n) for n in finer.shape[2:]))]
        y = F.relu(self.tower(F.relu(level)))
        return self.score(y)[:, 0], self.shape(y).movedim(1, -1)

    def loss(self, batch: Batch) -> Tensor:
        """The penalty-reduced focal loss of the centres plus the GIoU loss of the boxes."""
        logits, shapes = self(batch["image"])
        cells = torch.stack(
            torch.meshgrid(*(torch.arange(n, device=logits.device) for n in logits.shape[1:]), indexing="ij"), -1
        ).reshape(-1, self.axes)
        logits, shapes = logits.float().flatten(1), shapes.float().flatten(1, -2)
        heat, matches = self.targets(cells, batch["boxes"], batch["valid"])
        p = torch.sigmoid(logits)
        positive = -F.logsigmoid(logits) * (1 - p) ** 2
        negative = -F.logsigmoid(-logits) * p**2 * (1 - heat) ** 4
        focal = torch.where(heat == 1, positive, negative).sum() / (heat == 1).sum().clamp(min=1)
        distances = F.softplus(shapes) * self.stride
        center = (cells + 0.5) * self.stride
        predicted = torch.cat([center - distances[..., : self.axes], center + distances[..., self.axes :]], -1)
        truth = batch["boxes"].gather(1, matches[..., None].expand(-1, -1, 2 * self.axes))
        weight = torch.where(heat > 0.5, heat, 0)
        return focal + ((1 - self.generalized_iou(predicted, truth)) * weight).sum() / weight.sum().clamp(min=1)

    def targets(self, cells: Tensor, boxes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """The heat of each cell, and the index of the nodule that it is assigned to, both of shape (batch, cells)."""
        low, high = boxes[:, None, :, : self.axes], boxes[:, None, :, self.axes :]
        distance = cells[:, None] - torch.floor((low + high) / 2 / self.stride)
        spread = ((high - low) / self.stride / 6).clamp(min=0.4)
        heat = torch.exp(-((distance / spread) ** 2).sum(-1) / 2) * valid[:, None]
        return heat.max(-1)

    def generalized_iou(self, a: Tensor, b: Tensor) -> Tensor:
        """The generalised intersection over union of boxes."""
        (a0, a1), (b0, b1) = ((box[..., : self.axes], box[..., self.axes :]) for box in (a, b))
        common = (torch.minimum(a1, b1) - torch.maximum(a0, b0)).clamp(min=0).prod(-1)
        union = (a1 - a0).clamp(min=0).prod(-1) + (b1 - b0).clamp(min=0).prod(-1) - common
        hull = (torch.maximum(a1, b1) - torch.minimum(a0, b0)).prod(-1)
        return common / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)


def preprocess(batch: Batch, options: InputOptions) -> Batch:
    """Apply the window, resampling, flips and rotations on the device, as our preprocessing does."""
    image = batch["image"]
    if image.dtype == torch.uint8:
        image = image.float() / 255
    else:
        center, width = options.window
        image = ((image.float() - center) / width + 0.5).clamp(0, 1)
    result = dict(batch)
    if options.spacing_mm is not None:
        scale = batch["spacing"] / torch.tensor(options.spacing_mm, device=image.device)
        size = torch.tensor(options.size, device=image.device)
        shift = (size - scale * torch.tensor(image.shape[1:], device=image.device)) / 2
        result["boxes"] = batch["boxes"] * scale.repeat(1, 2)[:, None] + shift.repeat(1, 2)[:, None]
        center = (result["boxes"][..., :3] + result["boxes"][..., 3:]) / 2
        result["valid"] = batch["valid"] & ((center >= 0) & (center < size)).all(-1)
        for axis, letters in enumerate(("bij,bjyx->biyx", "bij,bzjx->bzix", "bij,bzyj->bzyi")):
            image = torch.einsum(
                letters, resampling_weights(image.shape[axis + 1], options.size[axis], scale[:, axis]), image
            )
    if options.augment:
        boxes = result.get("boxes", torch.zeros(len(image), 0, 2 * (image.ndim - 1), device=image.device))
        image, result["boxes"] = augment(image, boxes)
    return result | {"image": image[:, None]}


def resampling_weights(stored: int, count: int, scale: Tensor) -> Tensor:
    """Return the weights of linear resampling around the centre, shape (batch, count, stored)."""
    positions = (torch.arange(count, device=scale.device) + 0.5 - count / 2) / scale[:, None] + stored / 2 - 0.5
    reach = (1 / scale).clamp(min=1)[:, None, None]
    indices = torch.arange(stored, device=scale.device)
    weights = F.relu(1 - (positions.clamp(0, stored - 1)[..., None] - indices).abs() / reach)
    return weights / weights.sum(-1, keepdim=True)


def augment(image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Flip and rotate each example and its boxes at random, without a loop over the examples."""
    axes = image.ndim - 1
    draws = torch.rand(axes + 1, len(image), device=image.device) < 0.5
    low, high = boxes[..., :axes], boxes[..., axes:]

    def where(drawn: Tensor, new: Tensor, old: Tensor) -> Tensor:
        return torch.where(drawn.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    for axis in range(axes):
        image = where(draws[axis], torch.flip(image, [axis + 1]), image)
        length, at_axis = image.shape[axis + 1], torch.arange(axes, device=image.device) == axis
        low, high = (
            where(draws[axis], torch.where(at_axis, length - other, corner), corner)
            for corner, other in ((low, high), (high, low))
        )
    if image.shape[-1] == image.shape[-2]:
        order = [*range(axes - 2), axes - 1, axes - 2]
        image = where(draws[axes], image.swapaxes(-1, -2), image)
        low, high = (where(draws[axes], corner[..., order], corner) for corner in (low, high))
    return image, torch.cat([low, high], -1)


def build_model(recipe: Recipe, params: Any) -> Any:
    """Return the network with a copy of our weights.

    Raises:
        RuntimeError: The networks differ.
    """
    model = Classifier(recipe) if recipe.task == "classification" else Detector(recipe)
    model.load_state_dict({name: torch.tensor(value) for name, value in convert_weights(params)})
    return model


def convert_weights(params: Any, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yield our weights with the names and the order of axes of PyTorch."""
    for name, value in params.items():
        if isinstance(value, dict):
            yield from convert_weights(value, f"{prefix}{name}.")
        elif name == "kernel":
            yield f"{prefix}weight", np.moveaxis(np.asarray(value), (-1, -2), (0, 1))
        else:
            yield f"{prefix}{'weight' if name == 'scale' else name}", np.asarray(value)


def compute_loss(recipe: Recipe, params: Any, batch: dict[str, np.ndarray]) -> float:
    """Return the loss of our weights on a batch without augmentation, in float32 on a CPU."""
    tensors = {name: torch.tensor(value) for name, value in batch.items()}
    with torch.no_grad():
        return float(build_model(recipe, params).loss(preprocess(tensors, replace(recipe.input, augment=False))))


def make_step(recipe: Recipe, params: Any, batch: dict[str, np.ndarray]) -> Callable[[], Tensor]:
    """Return a training step on a batch that is already on the device. The step returns its loss and does not wait for it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    on_gpu = device == "cuda"
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    tensors = {name: torch.tensor(value, device=device) for name, value in batch.items()}
    axes = len(recipe.input.size) or 2
    model = build_model(recipe, params).to(device=device, memory_format=FORMATS[axes])
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.optim.ema)
    )
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": recipe.optim.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.optim.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(step / recipe.optim.warmup, 1))

    def compute(tensors: Batch) -> Tensor:
        prepared = preprocess(tensors, recipe.input)  # in float32, as ours
        with torch.autocast(device, torch.bfloat16, enabled=on_gpu):
            loss: Tensor = model.loss(prepared)
        return loss

    model_loss = torch.compile(compute) if on_gpu else compute

    def step() -> Tensor:
        loss = model_loss(tensors)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.optim.clip)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        return loss.detach()

    return step
