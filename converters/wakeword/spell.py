"""Learning to hear: the trunk spells thousands of synthesised words, whoever says them.

The target of a clip is how American English says it, whatever the accent of the voice, so the
trunk learns what accents and voices have in common. The loss needs no alignment: connectionist
temporal classification (Graves et al. 2006).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from converters.wakeword.augment import Surroundings, between_silence, disguised
from converters.wakeword.feature_store import FeatureStore, batches
from converters.wakeword.network import STRIDE, Shape, Speller
from converters.wakeword.pace import pace
from converters.wakeword.phonemes import SOUNDS
from edge_sdk.audio.samples import Floats
from edge_sdk.errors import ConversionError

_LETTER: Final = {sound: 1 + number for number, sound in enumerate(SOUNDS)}
_HELD_OUT: Final = 25
"""Of every so many clips one is for judging."""
_WARM_UP: Final = 0.05
"""Share of the training in which the learning rate rises."""
BATCH: Final = 48


@dataclass(frozen=True, slots=True)
class Epoch:
    """How learning goes."""

    number: int
    epochs: int
    loss: float
    errors: float
    """Wrong sounds per sound, on held-out clips; 1 before anything is learned."""


def hear_clips(sounds: Iterable[Floats], around: Surroundings, seed: int) -> FeatureStore:
    """Each clip (N,) at 16 kHz once, somewhere."""
    chance = np.random.default_rng(seed)
    store = FeatureStore()
    for sound in sounds:
        before, after = chance.uniform(0.1, 0.7), chance.uniform(0.25, 0.4)
        store.add(around.heard(between_silence(sound, before, after), chance))
    return store


def learn_to_spell(
    clips: Sequence[tuple[str, ...]],
    hear: Callable[[int], FeatureStore],
    shape: Shape,
    *,
    epochs: int,
    seed: int = 0,
    fresh_every: int = 4,
    learning_rate: float = 2e-3,
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> Speller:
    """Train on clips and how each is said.

    Args:
        clips: sounds of each clip (:data:`converters.wakeword.phonemes.SOUNDS`).
        hear: features of all clips, anew for each number it is given.
        fresh_every: epochs after which the clips are heard in other rooms.
    """
    torch.manual_seed(seed)
    chance = np.random.default_rng(seed)
    speller = Speller(shape)
    optimizer = torch.optim.AdamW(speller.parameters(), learning_rate, weight_decay=1e-2)
    held = [i for i in range(len(clips)) if i % _HELD_OUT == 0]
    learned = [i for i in range(len(clips)) if i % _HELD_OUT]
    store = hear(0)
    for number in range(epochs):
        if number and number % fresh_every == 0:
            store = hear(number // fresh_every)
        lengths = [store.frames(i) for i in learned]
        chosen = [[learned[i] for i in batch] for batch in batches(lengths, BATCH, chance)]
        speller.train()
        losses = []
        for step, batch in enumerate(chosen):
            done = (number + step / len(chosen)) / epochs
            _set_rate(optimizer, learning_rate * pace(done, 0.01 + done / _WARM_UP))
            losses.append(_learn(speller, optimizer, store, batch, clips, chance))
        wrong = errors(speller, store, held, clips)
        report(Epoch(number + 1, epochs, float(np.mean(losses)), wrong))
    return speller.eval()


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _learn(
    speller: Speller,
    optimizer: torch.optim.Optimizer,
    store: FeatureStore,
    chosen: Sequence[int],
    clips: Sequence[tuple[str, ...]],
    chance: np.random.Generator,
) -> float:
    logits = speller(disguised(store.batch(chosen), chance))
    loss = spelling_loss(logits, store, chosen, clips)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(speller.parameters(), 2.0)
    optimizer.step()
    return float(loss.detach())


def spelling_loss(
    logits: Tensor, store: FeatureStore, chosen: Sequence[int], clips: Sequence[tuple[str, ...]]
) -> Tensor:
    """Of logits (N, 1 + sounds, T), per sound."""
    letters = [[_LETTER[sound] for sound in clips[i]] for i in chosen]
    loss: Tensor = nn.functional.ctc_loss(
        logits.log_softmax(1).permute(2, 0, 1),
        torch.tensor([letter for row in letters for letter in row]),
        torch.tensor([store.frames(i) // STRIDE for i in chosen]),
        torch.tensor([len(row) for row in letters]),
        zero_infinity=True,
    )
    return loss


@torch.no_grad()
def errors(
    speller: Speller, store: FeatureStore, chosen: Sequence[int], clips: Sequence[tuple[str, ...]]
) -> float:
    """Sounds that are missing, wrong or too many, per sound that was said."""
    speller.eval()
    wrong = total = 0
    for first in range(0, len(chosen), BATCH):
        rows = chosen[first : first + BATCH]
        best = speller(store.batch(rows)).argmax(1).numpy()
        for row, index in enumerate(rows):
            wanted = [_LETTER[sound] for sound in clips[index]]
            steps = store.frames(index) // STRIDE
            wrong += distance(_collapsed(best[row, :steps].tolist()), wanted)
            total += len(wanted)
    return wrong / max(1, total)


def _collapsed(letters: Sequence[int]) -> list[int]:
    before = [0, *letters[:-1]]
    return [now for now, last in zip(letters, before, strict=True) if now and now != last]


def distance(found: Sequence[object], wanted: Sequence[object]) -> int:
    """Fewest insertions, deletions and replacements (Levenshtein)."""
    row = list(range(len(wanted) + 1))
    for i, one in enumerate(found, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(wanted, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (one != other))
    return row[-1]


def save_trunk(speller: Speller, path: Path) -> None:
    """Weights and shape, to be used by many phrases."""
    from converters.module import save_weights

    save_weights(speller, path)


def load_trunk(path: Path, shape: Shape) -> Speller:
    """What :func:`save_trunk` wrote.

    Raises:
        ConversionError: ``conversion.bad-embedding``.
    """
    speller = Speller(shape)
    try:
        state = torch.load(path, weights_only=True)
        if not isinstance(state, dict):
            raise ValueError("it holds no named weights")
        speller.load_state_dict(state)
    except OSError as error:
        raise _no_embedding(path, error.strerror or str(error)) from error
    except (RuntimeError, ValueError) as error:
        raise _no_embedding(path, str(error).partition("\n")[0].rstrip(":.")) from error
    except (EOFError, LookupError, AttributeError, TypeError, UnpicklingError) as error:
        raise _no_embedding(path, "it is no file of PyTorch") from error
    return speller.eval()


def _no_embedding(path: Path, why: str) -> ConversionError:
    return ConversionError(
        "bad-embedding",
        f"{path} holds no embedding of this network: {why}.",
        "Leave --embedding out to train one, or name a file that this version wrote.",
    )
