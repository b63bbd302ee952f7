"""Losses of distillation. Pure functions of tensors; the teacher's side carries no gradient."""

from __future__ import annotations

import torch
from torch.nn import functional as F

_SMOOTH = 1.0
"""Added to both sides of the Dice ratio: two empty masks agree."""


def logit_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Divergence of softened answers (Hinton et al., "Distilling the Knowledge", 2015).

    Args:
        student: (N, classes, ...) raw scores.
        teacher: the same shape.
        temperature: above 0; softens both sides. The result is scaled by its square, so that the
            gradient's size does not depend on it.

    Returns:
        () mean over everything but the classes.
    """
    softened = F.log_softmax(student / temperature, dim=1)
    wanted = F.log_softmax(teacher.detach() / temperature, dim=1)
    divergence = (wanted.exp() * (wanted - softened)).sum(dim=1)
    return divergence.mean() * temperature**2


def feature_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Squared difference of features in units of the teacher's variance (Romero et al., 2015).

    Args:
        student: (N, C, H, W) or (N, C), already adapted to the teacher's channels.
        teacher: (N, C, H', W') or (N, C); images are pooled to the smaller of both sizes.
    """
    teacher = teacher.detach()
    if student.dim() == 4 and student.shape[2:] != teacher.shape[2:]:
        sides = zip(student.shape[2:], teacher.shape[2:], strict=True)
        height, width = (min(one, other) for one, other in sides)
        student = F.adaptive_avg_pool2d(student, (height, width))
        teacher = F.adaptive_avg_pool2d(teacher, (height, width))
    return F.mse_loss(student, teacher) / teacher.var(correction=0).clamp_min(1e-6)


def mask_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Cross-entropy and Dice distance to the teacher's soft masks, in equal parts.

    Dice as in Milletari et al., "V-Net" (2016), which keeps small objects from drowning in the
    background.

    Args:
        student: (N, masks, H, W) logits.
        teacher: the same shape.
    """
    wanted = torch.sigmoid(teacher.detach())
    entropy = F.binary_cross_entropy_with_logits(student, wanted)
    found = torch.sigmoid(student)
    axes = tuple(range(2, student.dim()))
    overlap = 2 * (found * wanted).sum(axes) + _SMOOTH
    total = found.square().sum(axes) + wanted.square().sum(axes) + _SMOOTH
    return 0.5 * entropy + 0.5 * (1 - overlap / total).mean()


def mask_overlap(student: torch.Tensor, teacher: torch.Tensor) -> float:
    """Mean intersection over union of the masks that both see, (N, masks, H, W) logits.

    Two empty masks overlap fully.
    """
    one, other = student > 0, teacher > 0
    axes = tuple(range(2, student.dim()))
    both, either = (one & other).sum(axes).float(), (one | other).sum(axes).float()
    return float(torch.where(either > 0, both / either.clamp_min(1), 1.0).mean())
