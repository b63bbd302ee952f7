"""Networks whose answer is an image, a grid of boxes, or made from a code."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from zoo_base import ZooTask, conv


class _UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.d1, self.d2, self.d3 = conv(3, 8), conv(8, 16, 3, 2), conv(16, 24, 3, 2)
        self.u2, self.u1 = conv(40, 16), conv(24, 8)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.d1(x)
        b = self.d2(a)
        c = self.d3(b)
        b = self.u2(torch.cat((b, _double(c)), 1))
        return self.out(self.u1(torch.cat((a, _double(b)), 1)))


def _double(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class UNet(ZooTask):
    """Segmentation with skip connections and bilinear upsampling."""

    def net(self) -> nn.Module:
        return _UNet()


class _Fpn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2, self.c3 = conv(3, 8, 3, 2), conv(8, 16, 3, 2), conv(16, 24, 3, 2)
        self.l2, self.l3 = nn.Conv2d(16, 12, 1), nn.Conv2d(24, 12, 1)
        self.smooth = conv(12, 12)
        self.score, self.box = nn.Conv2d(12, 3, 1), nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        mid = self.c2(self.c1(x))
        p3 = self.l3(self.c3(mid))
        p2 = self.l2(mid) + nn.functional.interpolate(p3, scale_factor=2.0, mode="nearest")
        maps = [self.smooth(p) for p in (p2, p3)]
        return tuple(head(p) for p in maps for head in (self.score, self.box))


class FpnDetector(ZooTask):
    """A feature pyramid with shared heads: four outputs."""

    def net(self) -> nn.Module:
        return _Fpn()


class _Ssd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = (
            nn.Sequential(conv(3, 8, 3, 2), conv(8, 16, 3, 2)),
            conv(16, 24, 3, 2),
        )
        self.scores = nn.ModuleList([nn.Conv2d(c, 3 * 5, 3, padding=1) for c in (16, 24)])
        self.boxes = nn.ModuleList([nn.Conv2d(c, 3 * 4, 3, padding=1) for c in (16, 24)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.stem(x)
        maps = (first, self.deep(first))
        scores = [self._flat(head(m), 5) for head, m in zip(self.scores, maps, strict=True)]
        boxes = [self._flat(head(m), 4) for head, m in zip(self.boxes, maps, strict=True)]
        return torch.cat(scores, 1).softmax(-1), torch.cat(boxes, 1)

    def _flat(self, x: Tensor, values: int) -> Tensor:
        return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)


class SsdHead(ZooTask):
    """Anchor boxes of two scales in one list: scores (1, boxes, 5) and offsets (1, boxes, 4)."""

    def net(self) -> nn.Module:
        return _Ssd()


class Autoencoder(ZooTask):
    """Down to a code of 32 numbers and back to the image."""

    def net(self) -> nn.Module:
        return nn.Sequential(
            *(conv(3, 8, 3, 2), conv(8, 16, 3, 2), nn.Flatten(), nn.Linear(16 * 64, 32)),
            *(nn.Linear(32, 16 * 64), nn.ReLU(), nn.Unflatten(1, (16, 8, 8))),
            *(nn.Upsample(scale_factor=2), conv(16, 8), nn.Upsample(scale_factor=2)),
            nn.Conv2d(8, 3, 3, padding=1),
        )


class GanGenerator(ZooTask):
    """From a code of 32 numbers to a 32 x 32 image by transposed convolutions and tanh."""

    def inputs(self, count: int, height: int, width: int) -> tuple[Tensor, ...]:
        return (torch.randn(count, 32),)

    def net(self) -> nn.Module:
        return nn.Sequential(
            *(nn.Linear(32, 24 * 16), nn.Unflatten(1, (24, 4, 4))),
            *(nn.ConvTranspose2d(24, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.LeakyReLU(0.2)),
            *(nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh()),
        )


class TransposedConv(ZooTask):
    """Segmentation whose upsampling is learned."""

    def net(self) -> nn.Module:
        return nn.Sequential(
            *(conv(3, 8, 3, 2), conv(8, 16, 3, 2), nn.ConvTranspose2d(16, 8, 2, 2), nn.ReLU()),
            nn.ConvTranspose2d(8, 2, 2, 2),
        )


class SuperResolution(ZooTask):
    """Twice the size by PixelShuffle."""

    resolutions = ((24, 24),)

    def net(self) -> nn.Module:
        return nn.Sequential(conv(3, 12), conv(12, 12), nn.Conv2d(12, 12, 1), nn.PixelShuffle(2))
