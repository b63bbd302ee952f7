"""What a delta says: instructions, and whether they fit their files.

Everything is checked before it is used: a delta is bytes from outside, and a damaged or hostile one
must cost neither memory nor time beyond the sizes that its signed manifest states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from math import prod
from typing import TypeAlias

from edge_sdk.delta.coder import bad_delta
from edge_sdk.delta.mixing import MAX_TOLD, MAX_WIDTH, told_count

MAX_COUNT = 65_536
"""Instructions, maps, factors of a tensor, indexes of all maps together."""
MAX_DIMENSIONS = 8
MAX_EARLY_VALUES = 1 << 20
"""Of all early tensors: they stay in memory."""


class Kind(IntEnum):
    """Numbers that a tensor holds."""

    INT8 = 0
    FLOAT16 = 1
    FLOAT32 = 2
    INT32 = 3

    @property
    def itemsize(self) -> int:
        """Bytes of one number."""
        return (1, 2, 4, 4)[self]


OWN_STEP = {
    Kind.INT8: 2.0**-11,
    Kind.FLOAT16: 2.0**-16,
    Kind.FLOAT32: 2.0**-26,
    Kind.INT32: 2.0**-26,
}
"""How finely factors are told."""


@dataclass(frozen=True, slots=True)
class Copy:
    """Bytes of the base."""

    place: int
    length: int


@dataclass(frozen=True, slots=True)
class Fresh:
    """The next literals."""

    length: int


@dataclass(frozen=True, slots=True)
class Text:
    """Bytes of the base with differences to them."""

    place: int
    length: int
    first: int
    """Expected size of differences, see :func:`edge_sdk.delta.values.expectation`."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Which indexes of an axis of the base are taken."""

    size: int
    """Of the base."""
    map: int
    """Number of the map; 0 takes all of them."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """What the base's numbers are multiplied by before they are compared: one factor for each
    channel, ``factor * old / new * own``, of which each may be absent."""

    factor: float
    inner: int
    """Consecutive numbers of one channel; they take turns."""
    channels: int
    old: int = -1
    """Place in the base of one float32 per channel; -1 for none."""
    old_axis: Axis | None = None
    new: int = -1
    """Number of an early tensor of one float32 per channel; -1 for none."""
    own: tuple[int, ...] = ()
    """For each channel how much more than 1, in :data:`OWN_STEP`, or nothing."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Numbers, each the difference to what the base lets expect."""

    kind: Kind
    count: int
    first: int
    place: int = -1
    """In the base; -1 when there is nothing like it there."""
    like: int = -1
    """Number of an early tensor that stands in the base's place; -1 for none."""
    axes: tuple[Axis, ...] = ()
    """Of the base where not all of it is taken, outermost first."""
    scaling: Scaling | None = None
    early: bool = False
    """Made before all that is not, and kept: others need it."""
    rows: int = 0
    """That are mixed, see :mod:`edge_sdk.delta.mixing`; 0 for none."""

    @property
    def length(self) -> int:
        """Bytes that it gives."""
        return self.count * self.kind.itemsize

    @property
    def width(self) -> int:
        """Numbers of a mixed row, or one."""
        return self.count // self.rows if self.rows else 1


Instruction: TypeAlias = Copy | Fresh | Text | Tensor
Map: TypeAlias = tuple[int, ...]


@dataclass(slots=True)
class Program:
    """What a delta does."""

    base_size: int
    target_size: int
    lanes: int
    maps: Sequence[Map] = ()
    """Map 1 is the first: 0 stands for all indexes."""
    instructions: Sequence[Instruction] = ()
    """What they make lies behind each other, whatever is made first."""
    literals: bytes = b""
    coded: bytes | memoryview = field(default=b"", repr=False)

    @property
    def early(self) -> list[Tensor]:
        """In the order in which they are made, and numbered."""
        return [each for each in self.instructions if isinstance(each, Tensor) and each.early]


def check_program(program: Program) -> None:
    """Whether everything lies inside of the base, and exactly fills the target.

    Raises:
        ContractError: ``contract.bad-delta``.
    """
    early = program.early
    if sum(tensor.count for tensor in early) > MAX_EARLY_VALUES:
        raise bad_delta("it keeps too much in memory")
    made = borrowed = ready = 0
    for each in program.instructions:
        made += each.length
        borrowed += each.length if isinstance(each, Fresh) else 0
        if each.length < 1 or made > program.target_size:
            raise bad_delta("it writes more than it says")
        if isinstance(each, Copy | Text) and each.place + each.length > program.base_size:
            raise bad_delta("it reads beyond the end of its base")
        if isinstance(each, Tensor):
            _check_tensor(program, each, early[:ready] if each.early else early)
            ready += each.early
    if made != program.target_size or borrowed != len(program.literals):
        raise bad_delta("it writes less than it says")


def _check_tensor(program: Program, tensor: Tensor, known: Sequence[Tensor]) -> None:
    """``known`` are made before it."""
    if tensor.early and tensor.kind is not Kind.FLOAT32:
        raise bad_delta("an early tensor is none")
    if tensor.like >= 0:
        if tensor.like >= len(known) or tensor.place >= 0 or tensor.axes:
            raise bad_delta("a tensor has a base that is none")
        other = known[tensor.like]
        if (other.kind, other.count) != (tensor.kind, tensor.count):
            raise bad_delta("a tensor does not fit its base")
    if tensor.place >= 0:
        sizes = [axis.size for axis in tensor.axes] or [tensor.count]
        taken = prod(_taken(program, axis) for axis in tensor.axes) if tensor.axes else tensor.count
        end = tensor.place + prod(sizes) * tensor.kind.itemsize
        if taken != tensor.count or end > program.base_size:
            raise bad_delta("a tensor does not fit its base")
    if tensor.rows:
        _check_rows(tensor)
    if tensor.scaling is not None:
        _check_scaling(program, tensor, tensor.scaling, known)


def _check_rows(tensor: Tensor) -> None:
    width, rest = divmod(tensor.count, tensor.rows)
    if tensor.kind is not Kind.FLOAT32 or tensor.place < 0 or rest or not 0 < width <= MAX_WIDTH:
        raise bad_delta("rows of a tensor are mixed that has none")
    if told_count(tensor.rows, width) > MAX_TOLD:
        raise bad_delta("it keeps too much in memory")


def _check_scaling(
    program: Program, tensor: Tensor, scaling: Scaling, known: Sequence[Tensor]
) -> None:
    turn = scaling.inner * scaling.channels
    if (
        not turn
        or tensor.count % turn
        or scaling.channels > MAX_COUNT
        or max(tensor.place, tensor.like) < 0
    ):
        raise bad_delta("the factors of a tensor do not fit it")
    if scaling.old >= 0:
        axis = scaling.old_axis or Axis(scaling.channels, 0)
        if scaling.old + 4 * axis.size > program.base_size:
            raise bad_delta("it reads beyond the end of its base")
        if _taken(program, axis) != scaling.channels:
            raise bad_delta("the factors of a tensor do not fit it")
    if scaling.new >= 0:
        if scaling.new >= len(known):
            raise bad_delta("factors are used before they are known")
        other = known[scaling.new]
        if (other.kind, other.count) != (Kind.FLOAT32, scaling.channels):
            raise bad_delta("the factors of a tensor do not fit it")


def _taken(program: Program, axis: Axis) -> int:
    """How many indexes are taken of an axis."""
    if axis.map > len(program.maps):
        raise bad_delta("a map is missing")
    if not axis.map:
        return axis.size
    indexes = program.maps[axis.map - 1]
    if max(indexes) >= axis.size:
        raise bad_delta("a map leaves its axis")
    return len(indexes)
