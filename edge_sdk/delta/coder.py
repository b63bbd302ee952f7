"""An entropy coder that is fast in numpy: interleaved rANS with tables that learn as they go.

Asymmetric numeral systems (J. Duda, arXiv:1311.2540) in their range form, interleaved over lanes
(F. Giesen, arXiv:1402.3392): each lane has a state of its own and all share one sequence of 16-bit
words, so that one numpy operation decodes a symbol of every lane. Coder and decoder count the same
symbols and so have the same tables without sending them. Whole numbers only: every machine gets the
same ones.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import ContractError

Ints: TypeAlias = npt.NDArray[np.int64]

PRECISION = 15
"""Frequencies of a context add up to ``1 << PRECISION``."""
MAX_RAW_BITS = 16
"""Most bits of one call of ``raw``."""
MAX_LANES = 4096
_FLOOR = 1 << 16
"""A state below this takes in another word."""
_WEIGHT = 256
"""What one symbol adds to its count."""
_MAX_TOTAL = 1 << 22
"""Counts of a context are halved beyond this, so that it follows what changes."""
_REFRESH = 2048
"""Symbols between two renewals of the tables, at most."""


class Table:
    """Adaptive frequencies of an alphabet in a number of contexts.

    Args:
        prior: first counts, (contexts, symbols), none below 1; what one symbol weighs is 256.
    """

    def __init__(self, prior: Ints) -> None:
        self.contexts, self.symbols = prior.shape
        self._counts = prior.astype(np.int64).copy()
        self._offsets = (np.arange(self.contexts, dtype=np.int64) << PRECISION)[:, None]
        self._fresh: list[Ints] = []
        self._pending = self._seen = 0
        self._renew()

    def learn(self, places: Ints) -> None:
        """Count symbols, given as ``context * symbols + symbol``."""
        self._fresh.append(places)
        self._pending += len(places)
        self._seen += len(places)
        if self._pending >= min(1 + self._seen // 32, _REFRESH):
            counted = np.bincount(np.concatenate(self._fresh), minlength=self._counts.size)
            self._counts += counted.reshape(self._counts.shape) * _WEIGHT
            self._fresh, self._pending = [], 0
            self._renew()

    def _renew(self) -> None:
        totals = self._counts.sum(1)
        if (totals > _MAX_TOTAL).any():
            full = totals > _MAX_TOTAL
            self._counts[full] = (self._counts[full] + 1) >> 1
            totals = self._counts.sum(1)
        room = (1 << PRECISION) - self.symbols
        shares = 1 + self._counts * room // totals[:, None]
        rows = np.arange(self.contexts)
        shares[rows, shares.argmax(1)] += (1 << PRECISION) - shares.sum(1)
        self.shares: Ints = shares.reshape(-1)
        self.starts: Ints = (shares.cumsum(1) - shares + self._offsets).reshape(-1)
        """Ascending over the whole table: a context's begin at ``context << PRECISION``."""


class Writer:
    """Records symbols in the order in which they will be read.

    Args:
        lanes: how many states.
    """

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self._steps: list[tuple[bool, npt.NDArray[np.uint32], npt.NDArray[np.uint32]]] = []

    def symbols(self, table: Table, contexts: Ints, symbols: Ints | None) -> Ints:
        """One symbol for each of the first lanes; gives the same back."""
        symbols = _given(symbols)
        places = contexts * table.symbols + symbols
        starts = table.starts[places] & ((1 << PRECISION) - 1)
        self._steps.append((True, table.shares[places].astype(np.uint32), starts.astype(np.uint32)))
        table.learn(places)
        return symbols

    def raw(self, widths: Ints, values: Ints | None) -> Ints:
        """Plain bits for each of the first lanes; gives the same back."""
        values = _given(values)
        self._steps.append((False, widths.astype(np.uint32), values.astype(np.uint32)))
        return values

    def finish(self) -> bytes:
        """Everything recorded."""
        states = np.full(self.lanes, _FLOOR, np.int64)
        words: list[npt.NDArray[np.uint16]] = []
        while self._steps:
            coded, sizes, values = self._steps.pop()
            own = states[: len(sizes)]
            size, value = sizes.astype(np.int64), values.astype(np.int64)
            limits = size << (32 - PRECISION) if coded else 1 << (32 - size)
            over = own >= limits
            words.append(own[over].astype(np.uint16))
            own[over] >>= 16
            if coded:
                own[:] = (own // size << PRECISION) + value + own % size
            else:
                own[:] = own << size | value
        tail = np.concatenate(words[::-1]) if words else np.empty(0, np.uint16)
        return states.astype("<u4").tobytes() + tail.astype("<u2").tobytes()


class Reader:
    """Gives back what a :class:`Writer` recorded, call by call.

    Args:
        data: what :meth:`Writer.finish` gave.
        lanes: as the writer's.

    Raises:
        ContractError: ``contract.bad-delta``, here and in every call.
    """

    def __init__(self, data: bytes | memoryview, lanes: int) -> None:
        head = 4 * lanes
        if not 1 <= lanes <= MAX_LANES or len(data) < head or len(data) % 2:
            raise bad_delta("its coded part is cut off")
        self.lanes = lanes
        self._states = np.frombuffer(data, "<u4", lanes).astype(np.int64)
        self._words = np.frombuffer(data, "<u2", offset=head)
        self._at = 0
        if (self._states < _FLOOR).any():
            raise bad_delta("its coded part is damaged")

    def symbols(self, table: Table, contexts: Ints, symbols: Ints | None = None) -> Ints:
        """One symbol for each of the first lanes, as many as there are contexts."""
        own = self._states[: len(contexts)]
        keys = (contexts << PRECISION) + (own & ((1 << PRECISION) - 1))
        places = table.starts.searchsorted(keys, "right") - 1
        own >>= PRECISION
        own *= table.shares[places]
        own += keys - table.starts[places]
        self._refill(own)
        table.learn(places)
        found: Ints = places - contexts * table.symbols
        return found

    def raw(self, widths: Ints, values: Ints | None = None) -> Ints:
        """Plain bits for each of the first lanes."""
        own = self._states[: len(widths)]
        found = own & ((1 << widths) - 1)
        own >>= widths
        self._refill(own)
        return found

    def _refill(self, own: Ints) -> None:
        low = np.flatnonzero(own < _FLOOR)
        if not low.size:
            return
        words = self._words[self._at : self._at + low.size]
        if words.size != low.size:
            raise bad_delta("its coded part ends too early")
        own[low] = own[low] << 16 | words
        self._at += low.size

    def finish(self) -> None:
        """Make sure that everything was read and came out even, which damage hardly does."""
        if self._at != self._words.size or (self._states != _FLOOR).any():
            raise bad_delta("its coded part does not come out even")


def _given(values: Ints | None) -> Ints:
    if values is None:
        raise TypeError("a writer has to be given what it writes")
    return values


Coder: TypeAlias = Writer | Reader


def bad_delta(problem: str) -> ContractError:
    """A delta that cannot be followed."""
    return ContractError(
        "bad-delta",
        f"A delta of the release is malformed: {problem}.",
        "Nothing on a device, which fetches the whole file instead; for the publisher: create the"
        " release again with `edge release create`.",
    )
