"""The threshold of a cascade, chosen on disagreement between two points; no label is used.

Accuracy on a few hundred samples is too noisy to choose by: a threshold that looks free there can
cost points elsewhere. Disagreement with the better point bounds the loss from above (a frame that
both decide alike cannot be lost), and falls monotonically as the threshold rises.

What is reported is cross-validated. When a threshold that keeps the tolerance on the samples it was
chosen on does not keep it on others, a stricter one is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_sdk.contracts.operating_point import Cascade
from edge_sdk.runtime.margins import margins

FOLDS = 5
REPEATS = 4
"""Times the samples are divided anew, so that the estimate hangs less on one division."""
LEAST_SAMPLES = 50
STRICTNESS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
"""Shares of the tolerance that are tried as the aim on the samples at hand."""

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a cascade may cost and must give."""

    tolerance: float = 0.02
    """Share of frames that may be decided otherwise than by the better point; 0..1."""
    least_saving: float = 0.1
    """Share of the better point's latency that must be saved; 0..1."""


DEFAULTS = Terms()


@dataclass(frozen=True, slots=True)
class Pair:
    """Answers of two points to the same samples, and what they cost."""

    first: Floats
    """(N, K) logits of the cheaper point."""
    full: Floats
    """(N, K) logits of the better one."""
    first_ms: float
    full_ms: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """A cascade that pays, or why it does not."""

    threshold: float = 2.0
    escalated: float = 1.0
    disagreement: float = 0.0
    mean_ms: float = 0.0
    alone_ms: float = 0.0
    samples: int = 0
    refusal: str = ""
    """Empty when it pays."""

    @property
    def saving(self) -> float:
        """Share of the better point's mean latency."""
        return 1.0 - self.mean_ms / self.alone_ms if self.alone_ms > 0 else 0.0

    def cascade(self, first: str) -> Cascade:
        """As a release carries it.

        Args:
            first: id of the cheaper point.
        """
        return Cascade(
            first=first,
            threshold=self.threshold,
            escalated=self.escalated,
            disagreement=self.disagreement,
            mean_ms=self.mean_ms,
            alone_ms=self.alone_ms,
            samples=self.samples,
        )


def calibrate(pair: Pair, terms: Terms = DEFAULTS, seed: int = 0) -> Verdict:
    """Choose the threshold, and refuse what does not pay.

    Args:
        pair: two points' answers to the same samples.
        terms: what is asked.
        seed: of the division into folds.
    """
    count = len(pair.first)
    base = Verdict(alone_ms=pair.full_ms, mean_ms=pair.first_ms + pair.full_ms, samples=count)
    if count < LEAST_SAMPLES:
        return _refused(base, f"{count} samples say too little; {LEAST_SAMPLES} is the least")
    if pair.first_ms > (1.0 - terms.least_saving) * pair.full_ms:
        return _refused(
            base,
            f"the first point takes {pair.first_ms:.2f} ms and the better one "
            f"{pair.full_ms:.2f}: too little to save",
        )
    sure = margins(pair.first).astype(np.float64)
    differs = pair.first.argmax(1) != pair.full.argmax(1)
    for strictness in STRICTNESS:
        aim = terms.tolerance * strictness
        escalated, disagreement = cross_validated(sure, differs, aim, seed)
        if disagreement <= terms.tolerance:
            break
    else:
        return _refused(
            base,
            f"even where it is surest the first point decides {disagreement:.1%} of the frames "
            f"otherwise; {terms.tolerance:.1%} is tolerated",
        )
    found = Verdict(
        threshold=threshold_for(sure, differs, aim),
        escalated=escalated,
        disagreement=disagreement,
        mean_ms=pair.first_ms + escalated * pair.full_ms,
        alone_ms=pair.full_ms,
        samples=count,
    )
    if found.threshold > 1.0 or found.saving < terms.least_saving:
        return _refused(
            found,
            f"{escalated:.0%} of the frames would have to be looked at again, which leaves "
            f"{found.saving:.0%} of the latency to save; {terms.least_saving:.0%} is the least",
        )
    return found


def threshold_for(sure: npt.NDArray[np.float64], differs: Bools, aim: float) -> float:
    """The lowest threshold with which at most ``aim`` of all samples are decided otherwise.

    Args:
        sure: (N,) margins of the first point.
        differs: (N,) whether the better point decides otherwise.
        aim: share of the N samples.

    Returns:
        One of the margins, or 2.0 (nothing stands) where even the surest samples differ too often.
    """
    order = np.argsort(-sure, kind="stable")
    lost = np.cumsum(differs[order])
    ordered = sure[order]
    # Equal margins stand or fall together: only the last of each run can be a threshold.
    ends = np.append(ordered[1:] != ordered[:-1], True)
    good = ends & (lost <= aim * len(sure) + 1e-9)
    return float(ordered[np.flatnonzero(good)[-1]]) if good.any() else 2.0


def cross_validated(
    sure: npt.NDArray[np.float64], differs: Bools, aim: float, seed: int
) -> tuple[float, float]:
    """Share escalated and share decided otherwise, on samples the threshold was not chosen on."""
    escalated = lost = 0
    for chosen, held_out in _folds(len(sure), seed):
        stands = sure[held_out] >= threshold_for(sure[chosen], differs[chosen], aim)
        escalated += int(np.count_nonzero(~stands))
        lost += int(np.count_nonzero(stands & differs[held_out]))
    total = REPEATS * len(sure)
    return escalated / total, lost / total


def _folds(count: int, seed: int) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    random = np.random.default_rng(seed)
    for _ in range(REPEATS):
        parts = np.array_split(random.permutation(count), FOLDS)
        for number, held_out in enumerate(parts):
            rest = [part for other, part in enumerate(parts) if other != number]
            yield np.concatenate(rest), held_out


def _refused(verdict: Verdict, why: str) -> Verdict:
    return Verdict(
        threshold=verdict.threshold,
        escalated=verdict.escalated,
        disagreement=verdict.disagreement,
        mean_ms=verdict.mean_ms,
        alone_ms=verdict.alone_ms,
        samples=verdict.samples,
        refusal=why,
    )
