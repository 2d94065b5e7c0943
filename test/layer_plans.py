# SPDX-License-Identifier: Apache-2.0
"""SCRFD and ArcFace networks of the published layer plans with random weights.

They take the place of files that are out of reach, wherever the shape of a network matters and not
what it has learned. The plans are metadata from the configurations and models of
https://github.com/deepinsight/insightface: detection/scrfd/configs/scrfd, and
recognition/arcface_torch/backbones. test_layer_plans.py holds them against the real files and the
published sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnx_layers import Layers, Map

from scrfd_ros.recognition.alignment import CROP_SIZE

STRIDES = (8, 16, 32)
ANCHORS = 2
COLUMNS = {"score": 1, "bbox": 4, "kps": 10}
EMBEDDING_SIZE = 512

# Mean and deviation of what the detectors say of noise: some 16 % of the scores above 0.5 (these
# are before the sigmoid), boxes of two strides to every side, landmarks around the center.
_SPREAD = {"score": (-2.0, 2.0), "bbox": (2.0, 0.5), "kps": (0.0, 1.0)}


@dataclass(frozen=True)
class DetectorPlan:
    """Layer plan of an SCRFD network.

    Attributes:
        block: of the backbone: "depthwise" (MobileNet), "basic" or "bottleneck" (ResNet).
        blocks: their number in each of the four stages.
        planes: channels of the stages; in a MobileNet after those of two layers before them.
        neck: channels of the feature pyramid.
        convs, channels: of the head; depthwise convolutions after a depthwise backbone.
        group_norm: groups of the head's GroupNorm, in a head that is shared by all strides and
            finds no landmarks. None: BatchNorm, a head of its own for each stride, and landmarks.
        scaled: the head's boxes are multiplied by a learned number, one for each stride.
    """

    block: str
    blocks: tuple[int, int, int, int]
    planes: tuple[int, ...]
    neck: int
    convs: int
    channels: int
    group_norm: int | None = None
    scaled: bool = True


DETECTORS = {
    "500m": DetectorPlan(
        "depthwise", (2, 3, 2, 6), (16, 16, 40, 72, 152, 288), 16, 2, 64, scaled=False
    ),
    "1g": DetectorPlan("depthwise", (3, 2, 1, 5), (32, 48, 48, 160, 216, 312), 24, 2, 96, 8),
    "2.5g": DetectorPlan("basic", (3, 5, 3, 2), (24, 48, 48, 80), 24, 2, 64),
    "10g": DetectorPlan("basic", (3, 4, 2, 3), (56, 88, 88, 224), 56, 3, 80),
    "34g": DetectorPlan("bottleneck", (17, 16, 2, 8), (56, 56, 144, 184), 128, 2, 256, 32),
}
"""By the names of the catalogue."""

RESNETS = {"r50": (3, 4, 14, 3), "r100": (3, 13, 30, 3)}
"""Blocks in each stage of the recognizers' IResNets."""

RECOGNIZERS = ("mbf", *RESNETS)


def write_scrfd(
    path: Path,
    variant: str | DetectorPlan,
    *,
    batch: int | None = None,
    height: int | None = None,
    width: int | None = None,
    seed: int = 0,
) -> Path:
    """Write an SCRFD detector whose weights are random.

    Its input is input.1; its outputs are score_8, score_16, score_32, bbox_8 ... and, except for
    1g and 34g, kps_8 ..., of shape [batch, rows, 1, 4 or 10]. Noise gives faces of all scores.

    Args:
        path: file to write; returned.
        variant: one of `DETECTORS`, or a plan.
        batch, height, width: of the input, in pixels and multiples of 32; None for any.
        seed: of the weights, which the sizes do not change.
    """
    plan = DETECTORS[variant] if isinstance(variant, str) else variant
    layers = Layers(seed)
    backbone = _mobile_net if plan.block == "depthwise" else _res_net
    kinds = [kind for kind in COLUMNS if plan.group_norm is None or kind != "kps"]
    for level in _pyramid(layers, backbone(layers, plan)[1:], plan.neck):
        _head(layers, level, plan, kinds)
    heads = {_head_name(plan, stride) for stride in STRIDES}
    layers.spread({f"{head}.{kind}": _SPREAD[kind] for kind in kinds for head in sorted(heads)})
    outputs = {}
    for kind in kinds:
        for stride in STRIDES:
            rows = None
            if height is not None and width is not None:
                rows = height // stride * (width // stride) * ANCHORS
            outputs[f"{kind}_{stride}"] = (batch, rows, COLUMNS[kind])
    return layers.write(path, (batch, height, width), outputs)


def write_arcface(path: Path, variant: str, *, batch: int | None = None, seed: int = 0) -> Path:
    """Write an ArcFace recognizer whose weights are random.

    Its input is input.1, [batch, 3, 112, 112], its output is embedding, [batch, 512].

    Args:
        path: file to write; returned. 14 MB (mbf), 174 MB (r50), 261 MB (r100).
        variant: one of `RECOGNIZERS`: mbf (MobileFaceNet), r50 or r100 (IResNet).
        batch: of the input; None for any.
        seed: of the weights.
    """
    layers = Layers(seed)
    x = _mobile_face_net(layers) if variant == "mbf" else _ires_net(layers, RESNETS[variant])
    features = x.channels * (CROP_SIZE // x.stride) ** 2
    flat = layers.add("Flatten", x.name, axis=1)
    weight = layers.weight("fc.weight", (EMBEDDING_SIZE, features), 0, features**-0.5)
    bias = layers.weight("fc.bias", (EMBEDDING_SIZE,), 0, 0.05)
    product = layers.add("Gemm", flat, weight, bias, alpha=1.0, beta=1.0, transB=1)
    layers.batch_norm(Map(product, EMBEDDING_SIZE, CROP_SIZE), output="embedding")
    outputs = {"embedding": (batch, EMBEDDING_SIZE)}
    return layers.write(path, (batch, CROP_SIZE, CROP_SIZE), outputs)


def _conv_relu(
    layers: Layers, x: Map, channels: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> Map:
    return layers.relu(layers.conv(x, channels, kernel, stride, groups=groups, gain=2))


def _conv_prelu(
    layers: Layers, x: Map, channels: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> Map:
    return layers.prelu(layers.conv(x, channels, kernel, stride, groups=groups, gain=2))


def _mobile_net(layers: Layers, plan: DetectorPlan) -> list[Map]:
    """MobileNetV1; returns the last map of each stage, of strides 4 to 32."""

    def separable(x: Map, channels: int, stride: int = 1) -> Map:
        x = _conv_relu(layers, x, x.channels, 3, stride, groups=x.channels)
        return _conv_relu(layers, x, channels, 1)

    stem, first, *planes = plan.planes
    x = separable(_conv_relu(layers, layers.image, stem, 3, 2), first)
    levels = []
    for blocks, channels in zip(plan.blocks, planes, strict=True):
        for block in range(blocks):
            x = separable(x, channels, 1 if block else 2)
        levels.append(x)
    return levels


def _res_net(layers: Layers, plan: DetectorPlan) -> list[Map]:
    """ResNetV1e; returns the last map of each stage, of strides 4 to 32."""
    stem = plan.planes[0]
    x = _conv_relu(layers, layers.image, stem // 2, 3, 2)
    x = _conv_relu(layers, _conv_relu(layers, x, stem // 2), stem)
    x = layers.halve(x, "MaxPool", ceil_mode=0)
    levels = []
    for stage, (blocks, channels) in enumerate(zip(plan.blocks, plan.planes, strict=True)):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            gain = 1 / blocks  # the blocks of a stage add up
            if plan.block == "basic":
                y = _conv_relu(layers, x, channels, 3, stride)
                y = layers.conv(y, channels, gain=gain)
            else:
                y = _conv_relu(layers, _conv_relu(layers, x, channels, 1), channels, 3, stride)
                y = layers.conv(y, 4 * channels, 1, gain=gain)
            if stride == 2:
                x = layers.halve(x, "AveragePool", ceil_mode=1)
            if stride == 2 or x.channels != y.channels:
                x = layers.conv(x, y.channels, 1)
            x = layers.relu(layers.sum(y, x))
        levels.append(x)
    return levels


def _pyramid(layers: Layers, levels: list[Map], channels: int) -> list[Map]:
    """PAFPN: from coarse to fine, and back."""
    maps = [
        layers.conv(x, channels, 1, name=f"neck.lateral_convs.{i}") for i, x in enumerate(levels)
    ]
    for i in (1, 0):
        maps[i] = layers.sum(maps[i], layers.enlarge(maps[i + 1], maps[i]))
    maps = [layers.conv(x, channels, name=f"neck.fpn_convs.{i}") for i, x in enumerate(maps)]
    for i in (0, 1):
        down = layers.conv(maps[i], channels, 3, 2, name=f"neck.downsample_convs.{i}")
        maps[i + 1] = layers.sum(maps[i + 1], down)
    fine, *coarse = maps
    coarse = [layers.conv(x, channels, name=f"neck.pafpn_convs.{i}") for i, x in enumerate(coarse)]
    return [fine, *coarse]


def _head_name(plan: DetectorPlan, stride: int) -> str:
    return f"bbox_head.{stride if plan.group_norm is None else 'shared'}"


def _head(layers: Layers, x: Map, plan: DetectorPlan, kinds: list[str]) -> None:
    name = _head_name(plan, x.stride)

    def conv(x: Map, channels: int, part: str, kernel: int = 3, groups: int = 1) -> Map:
        if plan.group_norm is None:
            return _conv_relu(layers, x, channels, kernel, groups=groups)
        part = f"{name}.{part}"
        x = layers.conv(x, channels, kernel, groups=groups, name=part, bias=False)
        return layers.relu(layers.group_norm(x, plan.group_norm, f"{part}.gn"))

    features = x
    for i in range(plan.convs):
        if plan.block == "depthwise":
            groups = features.channels
            features = conv(features, groups, f"{i}.depthwise", groups=groups)
            features = conv(features, plan.channels, f"{i}.pointwise", kernel=1)
        else:
            features = conv(features, plan.channels, str(i))
    maps = {}
    for kind in kinds:
        maps[kind] = layers.conv(features, COLUMNS[kind] * ANCHORS, name=f"{name}.{kind}").name
        if kind == "bbox" and plan.scaled:
            scale = layers.weight(f"bbox_head.scales.{x.stride}", (), 1, 0.1)
            maps[kind] = layers.add("Mul", maps[kind], scale)
    for kind in kinds:
        output = f"{kind}_{x.stride}"
        last = layers.add("Transpose", maps[kind], perm=[0, 2, 3, 1])
        if kind == "score":
            layers.add("Sigmoid", layers.reshape(last, 0, -1, 1), output=output)
        else:
            layers.reshape(last, 0, -1, COLUMNS[kind], output=output)


def _mobile_face_net(layers: Layers) -> Map:
    """MobileFaceNet as in w600k_mbf."""

    def bottleneck(x: Map, inner: int, channels: int, stride: int, gain: float) -> Map:
        x = _conv_prelu(layers, x, inner, 1)
        x = _conv_prelu(layers, x, inner, 3, stride, groups=inner)
        return layers.conv(x, channels, 1, gain=gain)

    x = _conv_prelu(layers, layers.image, 128, 3, 2)
    x = _conv_prelu(layers, x, 128, groups=64)
    for inner, channels, blocks in ((128, 128, 4), (256, 256, 6), (512, 256, 2)):
        x = bottleneck(x, inner, channels, 2, 1)
        for _ in range(blocks):
            x = layers.sum(x, bottleneck(x, channels, channels, 1, 1 / blocks))
    return _conv_prelu(layers, _conv_prelu(layers, x, 512, 1), 64, 1)


def _ires_net(layers: Layers, stages: tuple[int, ...]) -> Map:
    """IResNet: BatchNorm before the first convolution of a block, no ReLU after the sum."""
    x = _conv_prelu(layers, layers.image, 64)
    for blocks, channels in zip(stages, (64, 128, 256, 512), strict=True):
        for block in range(blocks):
            stride = 1 if block else 2
            y = _conv_prelu(layers, layers.batch_norm(x), channels)
            y = layers.conv(y, channels, 3, stride, gain=1 / blocks)
            if not block:
                x = layers.conv(x, channels, 1, stride)
            x = layers.sum(y, x)
    return layers.batch_norm(x)
