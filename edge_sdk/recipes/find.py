"""Finding a recipe: the host's half.

Tensors of the target are looked up among those of the base (equal bytes first, then the same name,
the same position, then any of the same rank) and what lies between them is matched as text. The
result is tried before it is returned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeGuard

from edge_sdk.errors import ContractError
from edge_sdk.recipes.blocks import as_array, exact_blocks, near_block
from edge_sdk.recipes.build import build
from edge_sdk.recipes.gaps import GapIndex, Span
from edge_sdk.recipes.parts import Part, find_parts
from edge_sdk.recipes.program import Block, Instruction, Literal, Scaled, encode_recipe, open_recipe

MAX_CANDIDATES = 64
"""Tensors of the base that one tensor of the target is compared with."""
LIKELY_CANDIDATES = 3
"""Of these, the first may also be found in pieces."""
STRANGE_SHARE = 0.9
"""A target of which more than this is nowhere in the base is given up before it is packed."""


class Base:
    """A file that others may be built from; read once, used for many.

    Args:
        data: its bytes.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.parts = find_parts(data)
        self._names = {part.name: part for part in self.parts}
        self._contents = {_digest(data, part): part for part in self.parts}
        self._gaps = GapIndex(data, _gaps(self.parts, len(data)))

    def recipe(self, target: bytes) -> bytes | None:
        """A recipe that makes ``target`` from this base, or None when they share next to nothing.

        It may be larger than the target; the caller compares.
        """
        writer = _Writer()
        self._cover(target, writer)
        if writer.strange > STRANGE_SHARE * len(target):
            return None
        try:
            data = encode_recipe(len(self.data), writer.instructions, bytes(writer.literals))
            made = bytearray(len(target))
            build(open_recipe(data, len(self.data), len(target)), self.data, made)
        except ContractError:
            return None  # larger than a recipe may be
        return data if made == target else None

    def _cover(self, target: bytes, writer: _Writer) -> None:
        parts, end = find_parts(target), 0
        for index, part in enumerate(parts):
            found = self._tensor(target, part, index)
            if found is None:
                continue  # part of the stretch that follows
            self._text(target, (end, part.offset), writer)
            blocks, corrections = found
            for block in blocks:
                writer.block(block)
            writer.literals += corrections
            end = part.offset + part.length
        self._text(target, (end, len(target)), writer)

    def _tensor(
        self, target: bytes, part: Part, index: int
    ) -> tuple[Sequence[Block | Scaled], bytes] | None:
        wanted = as_array(target, part)
        candidates = list(self._candidates(target, part, index))
        for rank, candidate in enumerate(candidates):
            whole, pieces = as_array(self.data, candidate), rank < LIKELY_CANDIDATES
            blocks = exact_blocks(candidate, whole, wanted, pieces=pieces)
            if blocks is not None:
                return blocks, b""
        for candidate in candidates[:1]:
            near = near_block(candidate, as_array(self.data, candidate), wanted)
            if near is not None:
                return [near[0]], near[1]
        return None

    def _candidates(self, target: bytes, part: Part, index: int) -> Iterator[Part]:
        same = self._contents.get(_digest(target, part))
        named = self._names.get(part.name)
        placed = self.parts[index] if index < len(self.parts) else None
        alike = (
            other
            for other in self.parts
            if len(other.shape) == len(part.shape) and other.itemsize == part.itemsize
        )
        seen: set[int] = set()
        for candidate in (same, named, placed, *alike):
            if candidate is None or candidate.offset in seen or len(seen) >= MAX_CANDIDATES:
                continue
            if candidate.itemsize == part.itemsize:
                seen.add(candidate.offset)
                yield candidate

    def _text(self, target: bytes, span: Span, writer: _Writer) -> None:
        at, end = span
        for start, place, length in self._gaps.matches(target, span):
            writer.literal(target[at:start])
            writer.block(Block(place, ((0, length),)))
            at = start + length
        writer.literal(target[at:end])


class _Writer:
    """Collects instructions, joining plain copies that continue each other."""

    def __init__(self) -> None:
        self.instructions: list[Instruction] = []
        self.literals = bytearray()
        self.strange = 0
        """Bytes that have nothing to do with the base."""

    def literal(self, data: bytes) -> None:
        """Bytes that the base does not have."""
        if data:
            self.instructions.append(Literal(len(data)))
            self.literals += data
            self.strange += len(data)

    def block(self, block: Block | Scaled) -> None:
        """A piece of the base."""
        last = self.instructions[-1] if self.instructions else None
        if _plain(block) and _plain(last) and last.end == block.offset:
            self.instructions[-1] = Block(last.offset, ((0, last.length + block.length),))
        else:
            self.instructions.append(block)


def _plain(instruction: Instruction | None) -> TypeGuard[Block]:
    """Whether it copies one range of bytes."""
    if not isinstance(instruction, Block):
        return False
    return not instruction.dims and len(instruction.segments) == 1


def _digest(data: bytes, part: Part) -> bytes:
    return hashlib.sha256(data[part.offset : part.offset + part.length]).digest()


def _gaps(parts: Iterable[Part], size: int) -> Iterator[Span]:
    end = 0
    for part in parts:
        if part.offset > end:
            yield end, part.offset
        end = part.offset + part.length
    if size > end:
        yield end, size
