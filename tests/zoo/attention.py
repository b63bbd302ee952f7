"""Networks built around attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from zoo_base import Classify, ZooTask, conv

WIDTH = 32


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        count, length, width = x.shape
        parts = self.qkv(x).reshape(count, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        scores = (query @ key.transpose(-2, -1)) * (width // self.heads) ** -0.5
        mixed = (scores.softmax(-1) @ value).transpose(1, 2)
        return self.out(mixed.reshape(count, length, width))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = _Attention(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class AttentionBlock(ZooTask):
    """One pre-norm block over a sequence of 16 vectors."""

    resolutions = ((1, 16),)

    def inputs(self, count: int, height: int, width: int) -> tuple[Tensor, ...]:
        return (torch.randn(count, width, WIDTH),)

    def net(self) -> nn.Module:
        return _Block(WIDTH)


class _Vit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.position = nn.Parameter(torch.randn(1, 17, WIDTH) * 0.1)
        self.blocks = nn.Sequential(_Block(WIDTH), _Block(WIDTH))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class VisionTransformer(ZooTask):
    """Patches, a class token, learned positions."""

    def net(self) -> nn.Module:
        return _Vit()


class _MobileVitBlock(nn.Module):
    """Attention among the pixels that have the same place in their 2 x 2 patch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.local = conv(channels, WIDTH, 3, act="silu")
        self.mix = _Block(WIDTH)
        self.back = conv(WIDTH, channels, 1, act="silu")
        self.join = conv(2 * channels, channels, 3, act="silu")

    def forward(self, x: Tensor) -> Tensor:
        y = self.local(x)
        count, width, rows, columns = y.shape
        cut = y.reshape(count * width * (rows // 2), 2, columns // 2, 2).transpose(1, 2)
        cut = cut.reshape(count, width, (rows // 2) * (columns // 2), 4).permute(0, 3, 2, 1)
        mixed = self.mix(cut.reshape(count * 4, -1, width))
        cut = mixed.reshape(count, 4, -1, width).permute(0, 3, 2, 1)
        cut = cut.reshape(count * width * (rows // 2), columns // 2, 2, 2).transpose(1, 2)
        return self.join(torch.cat((x, self.back(cut.reshape(count, width, rows, columns))), 1))


class MobileViT(ZooTask):
    """Convolutions around attention over unfolded patches."""

    def net(self) -> nn.Module:
        body = (conv(3, 8, 3, 2, act="silu"), conv(8, 16, 3, 2, act="silu"), _MobileVitBlock(16))
        return Classify(nn.Sequential(*body), 16)


class _Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(100, WIDTH)
        self.places = nn.Embedding(32, WIDTH)
        self.blocks = nn.Sequential(_Block(WIDTH), _Block(WIDTH))
        self.head = nn.Linear(WIDTH, 8)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.blocks(self.words(ids) + self.places(places))
        known = (ids > 0).unsqueeze(-1).to(x.dtype)
        return self.head((x * known).sum(1) / known.sum(1).clamp(min=1.0))


class TextEncoder(ZooTask):
    """Token ids of two lengths; each length becomes a file of its own, zero pads."""

    resolutions = ((1, 24), (1, 12))

    def inputs(self, count: int, height: int, width: int) -> tuple[Tensor, ...]:
        ids = torch.randint(1, 100, (count, width))
        ids[:, width - width // 4 :] = 0
        return (ids,)

    def net(self) -> nn.Module:
        return _Text()
