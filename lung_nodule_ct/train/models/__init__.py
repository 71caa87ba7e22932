"""The published networks that the paper's baselines name. This list needs no JAX.

Every network has its module, with layer names, shapes and arithmetic of the reference, so that a file of the reference's
weights can be loaded by name (:mod:`.weights`).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast

from lung_nodule_ct.errors import TrainingError

if TYPE_CHECKING:
    from lung_nodule_ct.train.models.layers import Layers


@dataclass(frozen=True)
class PublishedNetwork:
    """A network of the literature.

    Attributes:
        name: Its name here.
        task: The task that it is for.
        module: The module that builds it.
        baseline: Its name in the paper's Tables 1 and 2.
        parameters: Number of parameters with grey images and six classes, or for detection one class.
        variant: Which of the published variants it is. The paper does not say which one it used.
        reference: The implementation that it equals.
        head: The names of the layers whose shape depends on the number of classes begin with one of these.
        grey: Mean and standard deviation of the grey values 0 to 1 that the reference's weights were trained with. Of
            its three colours, it is the mean.
        pixels: The smallest image along each axis. Of a smaller one, nothing would be left in the last layers.
    """

    name: str
    task: Literal["classification", "detection"]
    module: str
    baseline: str
    parameters: int
    variant: str
    reference: str
    head: tuple[str, ...]
    grey: tuple[float, float] = (0.449, 0.226)
    pixels: int = 1

    def document(self) -> dict[str, Any]:
        """What ``train --models --json`` prints."""
        return {
            "name": self.name,
            "task": self.task,
            "baseline": self.baseline,
            "parameters": self.parameters,
            "variant": self.variant,
            "reference": self.reference,
        }


RETINANET3D: Final = "retinanet3d"
"""The name of the strong recipe of volumes (:mod:`lung_nodule_ct.train.strong_recipe`), whose network is our own."""

_NETWORKS: Final = (
    PublishedNetwork(
        name="resnet50",
        task="classification",
        module="resnet",
        baseline="ResNet",
        parameters=23_514_054,
        variant="ResNet-50 v1.5",
        reference="timm resnet50",
        head=("fc.",),
    ),
    PublishedNetwork(
        name="convnext",
        task="classification",
        module="convnext",
        baseline="ConvNeXt",
        parameters=27_821_670,
        variant="ConvNeXt-T",
        reference="timm convnext_tiny",
        head=("head.fc.",),
        pixels=32,
    ),
    PublishedNetwork(
        name="resnext50",
        task="classification",
        module="resnet",
        baseline="ResNeXt",
        parameters=22_985_926,
        variant="ResNeXt-50 32x4d",
        reference="timm resnext50_32x4d",
        head=("fc.",),
    ),
    PublishedNetwork(
        name="res2net50",
        task="classification",
        module="resnet",
        baseline="Res2Net",
        parameters=23_656_142,
        variant="Res2Net-50 26w 4s",
        reference="timm res2net50_26w_4s",
        head=("fc.",),
    ),
    PublishedNetwork(
        name="se_resnet50",
        task="classification",
        module="resnet",
        baseline="SE-ResNet",
        parameters=26_045_046,
        variant="SE-ResNet-50",
        reference="timm seresnet50",
        head=("fc.",),
    ),
    PublishedNetwork(
        name="cabnet",
        task="classification",
        module="cabnet",
        baseline="CABNet",
        parameters=9_083_744,
        variant="DenseNet-121, 5 maps per class",
        reference="the authors' code",
        head=("category_attention.", "classifier."),
        pixels=29,
    ),
    PublishedNetwork(
        name="inception_v4",
        task="classification",
        module="inception_v4",
        baseline="InceptionV4",
        parameters=41_151_462,
        variant="Inception-v4",
        reference="timm inception_v4",
        head=("last_linear.",),
        grey=(0.5, 0.5),
        pixels=75,
    ),
    PublishedNetwork(
        name="efficientnet",
        task="classification",
        module="efficientnet",
        baseline="EfficientNet",
        parameters=4_014_658,
        variant="EfficientNet-B0",
        reference="timm efficientnet_b0",
        head=("classifier.",),
    ),
    PublishedNetwork(
        name="faster_rcnn",
        task="detection",
        module="faster_rcnn",
        baseline="Faster R-CNN",
        parameters=41_346_009,
        variant="ResNet-50 with FPN",
        reference="torchvision fasterrcnn_resnet50_fpn",
        head=("roi_heads.box_predictor.",),
    ),
    PublishedNetwork(
        name="yolov3",
        task="detection",
        module="yolov3",
        baseline="YOLOv3",
        parameters=61_523_158,
        variant="YOLOv3 on Darknet-53",
        reference="the authors' code",
        head=("bbox_head.convs_pred.",),
        grey=(0.0, 1.0),
    ),
    PublishedNetwork(
        name="ssdlite",
        task="detection",
        module="ssdlite",
        baseline="MobileNet",
        parameters=2_206_232,
        variant="SSDLite320, MobileNetV3-L",
        reference="torchvision ssdlite320_mobilenet_v3_large",
        head=("head.classification_head.",),
        grey=(0.5, 0.5),
    ),
    PublishedNetwork(
        name="ssd",
        task="detection",
        module="ssd",
        baseline="SSD",
        parameters=23_744_756,
        variant="SSD300 on VGG-16",
        reference="torchvision ssd300_vgg16",
        head=("head.classification_head.",),
        grey=(0.44966, 1 / 255),
    ),
    PublishedNetwork(
        name="retinanet",
        task="detection",
        module="retinanet",
        baseline="RetinaNet",
        parameters=32_194_797,
        variant="ResNet-50 with FPN",
        reference="torchvision retinanet_resnet50_fpn",
        head=("head.classification_head.cls_logits.",),
    ),
)
NETWORKS: Final = {network.name: network for network in _NETWORKS}
"""The published networks by name, in the order of the paper's tables."""


def get_network(name: str) -> PublishedNetwork:
    """The published network of that name.

    Raises:
        TrainingError: The network is unknown.
    """
    try:
        return NETWORKS[name]
    except KeyError:
        close = difflib.get_close_matches(name, (*NETWORKS, RETINANET3D), n=1)
        raise TrainingError(
            f"no network is named {name!r}",
            expected=f"one of {', '.join(NETWORKS)}, or for det3d_1.25mm {RETINANET3D}",
            remedy=f"did you mean {close[0]}?" if close else "see all of them: lung-nodule-ct train --models",
        ) from None


class DetectorModule(Protocol):
    """What a module of a detector has in addition to ``build``. Boxes are x0 y0 x1 y1."""

    MIN_SCORE: float
    """Candidates with a lower score are left out."""
    MAX_IOU: float
    """The largest IoU of two predicted boxes of an image."""
    MAX_BOXES: int
    """The largest number of predicted boxes of an image."""

    def add_targets(self, batch: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Add to ``image``, ``boxes`` and ``valid`` what the losses need, and return it with what they are divided by."""

    def losses(self, model: Any, batch: dict[str, Any], counts: dict[str, Any]) -> dict[str, Any]:
        """Return the losses by name. Their sum is minimised."""

    def candidates(self, model: Any, image: Any) -> tuple[Any, Any]:
        """Return candidate boxes, shape (batch, k, 4), and their scores, shape (batch, k)."""


def detector_module(name: str) -> DetectorModule:
    """The module of a published detector. This needs the extra ``train``.

    Raises:
        TrainingError: The network is unknown.
    """
    return cast("DetectorModule", import_module(f"lung_nodule_ct.train.models.{get_network(name).module}"))


def build_network(name: str, layers: Layers, *, channels: int, classes: int) -> Any:
    """Build a published network with random weights. This needs the extra ``train``.

    Args:
        name: Its name.
        layers: Makes its layers.
        channels: Channels of the images.
        classes: Number of classes, without the background.

    Raises:
        TrainingError: The network is unknown.
    """
    module = import_module(f"lung_nodule_ct.train.models.{get_network(name).module}")
    return module.build(name, layers, channels, classes)
