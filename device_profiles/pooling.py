"""Fits all published rows together: boards of a kind lend each other what they cannot measure.

A row of 24 networks cannot tell nine parameters apart, one of 8 int8 networks even less. Each row
is therefore drawn towards the mean of its relatives: cores with the same arithmetic, one thread or
several, the same board's other rows counting most. An int8 row is drawn towards its own float row,
plus what int8 changes on its relatives. Leaving a network out leaves it out of *every* row, so the
errors are those of a network that nobody has measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from device_profiles.fit import FIRM, START, Array, Network, centred, fit, mape_percent, predict_ms
from device_profiles.published import Published, TimingRow

SAME_BOARD = 5.0
SAME_THREADING = 2.0
INT8_WEIGHT = 1.0
"""Of the prior in int8 rows, which have a third of the float rows' networks."""

Key = tuple[str, int]
"""Board and threads."""


@dataclass(frozen=True)
class PooledRow:
    """A fitted row."""

    row: TimingRow
    theta: Array
    errors: dict[str, float]
    """Signed relative error of each network, left out of all rows."""

    @property
    def percent(self) -> float:
        """Leave-one-out mean absolute percentage error."""
        return mape_percent(self.errors)

    @property
    def worst_percent(self) -> float:
        """Largest absolute leave-one-out error."""
        return 100 * max(abs(error) for error in self.errors.values())


def fit_published(published: Published) -> Iterator[list[PooledRow]]:
    """Fit everything once with all networks and once without each.

    Yields:
        A growing state after each network, so that a caller can show progress; the last one is
        complete.
    """
    fits = _Pool(published).fit()
    errors: dict[tuple[Key, str], dict[str, float]] = {}
    rows = {(_key(row), row.precision): row for row in published.rows}
    for name in published.layers:
        pool = _Pool(published, without=name)
        left_out = pool.fit()
        for key, row in rows.items():
            if name in row.ms:
                net = pool.network(row, name)
                error = predict_ms(left_out[key], net) / row.ms[name] - 1
                errors.setdefault(key, {})[name] = error
        yield [PooledRow(row, fits[key], errors.get(key, {})) for key, row in rows.items()]


class _Pool:
    """One joint fit."""

    def __init__(self, published: Published, without: str = "") -> None:
        self._networks = {size: published.networks(size) for size in (1, 2, 4)}
        self._float = self._rows(published, "float", without)
        self._int8 = self._rows(published, "int8", without)

    @staticmethod
    def _rows(published: Published, precision: str, without: str) -> dict[Key, TimingRow]:
        return {
            _key(row): TimingRow(
                board=row.board,
                section=row.section,
                threads=row.threads,
                half=row.half,
                precision=row.precision,
                ms={name: ms for name, ms in row.ms.items() if name != without},
            )
            for row in published.rows
            if row.precision == precision
        }

    def network(self, row: TimingRow, name: str) -> Network:
        return self._networks[_element_bytes(row)][name]

    def fit(self) -> dict[tuple[Key, str], Array]:
        """Parameters by row and precision."""
        plain = {key: self._fit(row) for key, row in self._float.items()}
        floats = {
            key: self._fit(row, self._prior(key, plain, self._float), FIRM, plain[key])
            for key, row in self._float.items()
        }
        ints = {
            key: self._fit(row, floats[key], INT8_WEIGHT)
            for key, row in self._int8.items()
            if key in floats
        }
        for _ in range(2):
            change = {key: theta - floats[key] for key, theta in ints.items()}
            ints = {
                key: self._fit(
                    self._int8[key],
                    floats[key] + self._prior(key, change, self._int8, SAME_THREADING),
                    INT8_WEIGHT,
                    ints[key],
                )
                for key in ints
            }
        joined: dict[tuple[Key, str], Array] = {(k, "float"): t for k, t in floats.items()}
        return joined | {(k, "int8"): t for k, t in ints.items()}

    def _fit(
        self,
        row: TimingRow,
        prior: Array = START,
        weight: float = 0.02,
        start: Array | None = None,
    ) -> Array:
        return fit(self._networks[_element_bytes(row)], row.ms, prior, weight, start)

    def _prior(
        self,
        key: Key,
        thetas: Mapping[Key, Array],
        rows: Mapping[Key, TimingRow],
        threading: float = 0.0,
    ) -> Array:
        """Weighted mean over the relatives; ``threading`` 0 leaves out the other threading."""
        mine = rows[key]
        weights: list[float] = []
        found: list[Array] = []
        for other, theta in thetas.items():
            alike = (other[1] > 1) == (mine.threads > 1)
            if other == key or rows[other].half != mine.half or not (alike or threading):
                continue
            same_board = SAME_BOARD if other[0] == key[0] else 1.0
            weights.append(same_board * (threading if alike and threading else 1.0))
            found.append(centred(theta))
        return np.average(_stack(found), axis=0, weights=np.array(weights))


def _stack(arrays: Sequence[Array]) -> Array:
    return np.stack(list(arrays))


def _key(row: TimingRow) -> Key:
    return row.board, row.threads


def _element_bytes(row: TimingRow) -> int:
    if row.precision == "int8":
        return 1
    return 2 if row.half else 4
