"""Image classifiers of the families that device makers benchmark."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from zoo_base import Classify, Gain, ZooTask, conv


class _Residual(nn.Module):
    def __init__(self, inp: int, out: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        self.a = conv(inp, out, 3, stride)
        self.b = conv(out, out, 3, groups=groups, act="none")
        self.skip = conv(inp, out, 1, stride, act="none") if (inp, stride) != (out, 1) else None

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.b(self.a(x)) + (x if self.skip is None else self.skip(x)))


class ResNet18(ZooTask):
    """Four stages of two residual blocks."""

    def net(self) -> nn.Module:
        blocks: list[nn.Module] = [conv(3, 8, 7, 2), nn.MaxPool2d(3, 2, 1)]
        inp = 8
        for out, stride in ((8, 1), (16, 2), (24, 2), (32, 1)):
            blocks += [_Residual(inp, out, stride), _Residual(out, out, 1)]
            inp = out
        return Classify(nn.Sequential(*blocks), inp)


class RegNet(ZooTask):
    """Residual blocks of grouped convolutions."""

    def net(self) -> nn.Module:
        body = [conv(3, 8, 3, 2), _Residual(8, 16, 2, 2), _Residual(16, 32, 2, 4)]
        return Classify(nn.Sequential(*body, _Residual(32, 32, 1, 4)), 32)


def _separable(inp: int, out: int, stride: int, act: str = "relu6") -> nn.Sequential:
    return nn.Sequential(conv(inp, inp, 3, stride, groups=inp, act=act), conv(inp, out, 1, act=act))


class MobileNetV1(ZooTask):
    """Depthwise separable convolutions."""

    def net(self) -> nn.Module:
        body = [conv(3, 8, 3, 2, act="relu6"), _separable(8, 16, 1), _separable(16, 32, 2)]
        return Classify(nn.Sequential(*body, _separable(32, 32, 1), _separable(32, 48, 2)), 48)


class _Inverted(nn.Module):
    def __init__(
        self, inp: int, out: int, stride: int, act: str, gain: type[nn.Module] | None = None
    ) -> None:
        super().__init__()
        wide = inp * 3
        layers: list[nn.Module] = [conv(inp, wide, 1, act=act)]
        layers.append(conv(wide, wide, 3, stride, groups=wide, act=act))
        if gain is not None:
            layers.append(Gain(wide, gain))
        layers.append(conv(wide, out, 1, act="none"))
        self.body = nn.Sequential(*layers)
        self.keeps = inp == out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.keeps else self.body(x)


class MobileNetV2(ZooTask):
    """Inverted residuals with linear bottlenecks."""

    def net(self) -> nn.Module:
        body = [conv(3, 8, 3, 2, act="relu6"), _Inverted(8, 12, 2, "relu6")]
        body += [_Inverted(12, 12, 1, "relu6"), _Inverted(12, 20, 2, "relu6")]
        return Classify(nn.Sequential(*body, conv(20, 40, 1, act="relu6")), 40)


class MobileNetV3(ZooTask):
    """Inverted residuals with hard swish and squeeze-excite."""

    def net(self) -> nn.Module:
        body = [conv(3, 8, 3, 2, act="hswish"), _Inverted(8, 12, 2, "relu", nn.Hardsigmoid)]
        body += [_Inverted(12, 12, 1, "hswish", nn.Hardsigmoid), _Inverted(12, 20, 2, "hswish")]
        return Classify(nn.Sequential(*body, conv(20, 40, 1, act="hswish")), 40)


class EfficientNet(ZooTask):
    """Inverted residuals with SiLU and squeeze-excite."""

    def net(self) -> nn.Module:
        body = [conv(3, 8, 3, 2, act="silu"), _Inverted(8, 12, 2, "silu", nn.Sigmoid)]
        body += [_Inverted(12, 12, 1, "silu", nn.Sigmoid), conv(12, 40, 1, act="silu")]
        return Classify(nn.Sequential(*body), 40)


class SqueezeExcite(ZooTask):
    """Plain convolutions, each with a gain per channel."""

    def net(self) -> nn.Module:
        body = [conv(3, 12, 3, 2), Gain(12), conv(12, 24, 3, 2), Gain(24), conv(24, 24, 3)]
        return Classify(nn.Sequential(*body), 24)


class _Shuffle(nn.Module):
    """Half the channels pass, half are convolved, then the two halves are interleaved."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv(half, half, 1), conv(half, half, 3, groups=half, act="none"), conv(half, half, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        kept, worked = x.chunk(2, dim=1)
        joined = torch.cat((kept, self.branch(worked)), dim=1)
        count, channels, height, width = joined.shape
        split = joined.view(count, 2, channels // 2, height, width).transpose(1, 2)
        return split.reshape(count, channels, height, width)


class ShuffleNet(ZooTask):
    """Channel shuffles between depthwise convolutions."""

    def net(self) -> nn.Module:
        body = [conv(3, 16, 3, 2), _Shuffle(16), _Shuffle(16), conv(16, 32, 1, 2), _Shuffle(32)]
        return Classify(nn.Sequential(*body), 32)


class _NextBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, 1, 3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, 4 * channels)
        self.down = nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(nn.functional.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(ZooTask):
    """Large depthwise kernels, LayerNorm over channels, GELU."""

    def net(self) -> nn.Module:
        body = [nn.Conv2d(3, 12, 4, 4), _NextBlock(12), nn.Conv2d(12, 24, 2, 2), _NextBlock(24)]
        return Classify(nn.Sequential(*body), 24)
