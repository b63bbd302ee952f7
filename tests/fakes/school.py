"""Task files of students and teachers, to be appended to the tiny task of the converter tests."""

from __future__ import annotations

SCHOOL = '''
import random
from pathlib import Path


class Wide(Tiny):
    def build(self):
        torch.manual_seed(2)
        return nn.Sequential(
            nn.Conv2d(1, 24, 3, 1, 1), nn.ReLU(), nn.Conv2d(24, 24, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d((1, 3)), nn.Flatten(), nn.Linear(72, 3))


class Jittered(Tiny):
    """Draws from every global generator: a resumed run must draw the same."""
    def build(self):
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3),
            nn.AdaptiveAvgPool2d((1, 3)), nn.Flatten(), nn.Linear(12, 3))

    def training(self, height, width, seed):
        for inputs, targets in super().training(height, width, seed):
            noise = np.random.normal() + random.random()
            yield inputs + torch.randn(()) * 0.1 + noise * 0.1, targets


class Unlabelled(Tiny):
    def training(self, height, width, seed):
        for inputs, _ in super().training(height, width, seed):
            yield inputs


class Interrupted(Tiny):
    """Somebody presses Ctrl-C in the second epoch, once."""
    def training(self, height, width, seed):
        flag = Path(__file__).with_suffix(".interrupted")
        if seed % 10 == 2 and not flag.exists():
            flag.touch()
            raise KeyboardInterrupt
        return super().training(height, width, seed)


class Diverging(Tiny):
    """Its loss is NaN from the second epoch on: one has 4 batches at 2 resolutions."""
    calls = 0

    def loss(self, outputs, targets):
        self.calls += 1
        return super().loss(outputs, targets) * (float("nan") if self.calls > 8 else 1.0)


class Broken(Wide):
    def build(self):
        class Divided(nn.Module):
            def forward(self, x):
                return x.mean((2, 3)).expand(-1, 3) / x.mean()
        return Divided()


class Four(Tiny):
    labels = ("a", "b", "c", "d")


class Coloured(Tiny):
    preprocess = Preprocess(color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3)


class Rescaled(Wide):
    """Wants inputs in another normalisation."""
    preprocess = Preprocess(color="gray", mean=(51.0,), std=(127.5,))


class Blobs(Tiny):
    """Masks of the bright bar: no labels, answers (N, 1, H, W)."""
    kind = "generic"
    resolutions = ((12, 12),)
    tolerance = 0.1
    training = property()  # no such member

    def build(self):
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, 1, 1), nn.ReLU(), nn.Conv2d(4, 1, 1))

    def calibration(self, height, width):
        for seed in range(8):
            yield bars(32, height, width, seed)[0]

    def evaluation(self, height, width):
        yield bars(32, height, width, 99)[0]


class BlobTeacher(Blobs):
    def build(self):
        class Threshold(nn.Module):
            def forward(self, x):
                return (nn.functional.avg_pool2d(x, 3, 1, 1) - 0.75) * 8
        return Threshold()
'''
