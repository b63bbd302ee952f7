"""Following a recipe: the device's half, which knows no file format.

Blocks are copied by numpy, which holds the interpreter lock only between copies: a frame that is
being decided on another thread hardly notices.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.recipes.program import Block, Literal, Recipe, bad_recipe

Bytes: TypeAlias = npt.NDArray[np.uint8]
Buffer: TypeAlias = bytes | bytearray | memoryview


def build(recipe: Recipe, base: Buffer, target: Buffer) -> None:
    """Write what a recipe makes.

    Args:
        recipe: as :func:`edge_sdk.recipes.program.open_recipe` gives it.
        base: of :attr:`Recipe.base_size` bytes.
        target: writable, of :attr:`Recipe.target_size` bytes.

    Raises:
        ContractError: ``contract.bad-recipe``; ``target`` then holds anything.
    """
    source = np.frombuffer(base, np.uint8)
    out = np.frombuffer(target, np.uint8)
    if (source.size, out.size) != (recipe.base_size, recipe.target_size):
        raise bad_recipe("its base or its target has another size")
    literals = np.frombuffer(recipe.literals, np.uint8)
    at = borrowed = 0
    for instruction in recipe.instructions():
        length = instruction.length
        piece = out[at : at + length]
        at += length
        if isinstance(instruction, Block):
            _copy(source, instruction, piece)
            continue
        fresh = literals[borrowed : borrowed + length]
        borrowed += length
        if isinstance(instruction, Literal):
            piece[:] = fresh
        else:
            _copy(source, instruction.block, piece)
            scaled = scale(piece, instruction.inner, instruction.multipliers)
            np.add(scaled, fresh, out=piece)


def scale(values: Bytes, inner: int, multipliers: tuple[int, ...]) -> Bytes:
    """Signed bytes times their multipliers, rounded and clipped; whole numbers throughout.

    Args:
        values: flat; signed bytes in uint8.
        inner: consecutive bytes with one multiplier.
        multipliers: in 1/65536, at most :data:`edge_sdk.recipes.program.MAX_MULTIPLIER`.

    Returns:
        As many bytes.
    """
    factors = np.array(multipliers, np.int32)[:, None]
    products = values.view(np.int8).reshape(-1, len(multipliers), inner) * factors
    products += 1 << 15
    products >>= 16
    np.clip(products, -128, 127, out=products)
    return products.astype(np.int8).view(np.uint8).reshape(-1)


def _copy(source: Bytes, block: Block, piece: Bytes) -> None:
    counts = tuple(count for count, _ in block.dims)
    strides = tuple(stride for _, stride in block.dims)
    rows = piece.reshape((*counts, block.row_bytes))
    start, column = block.offset, 0
    try:
        for skip, length in block.segments:
            start += skip
            view: Bytes = np.ndarray((*counts, length), np.uint8, source, start, (*strides, 1))
            rows[..., column : column + length] = view
            start += length
            column += length
    except (ValueError, TypeError, OverflowError) as error:
        raise bad_recipe(f"a block cannot be laid out ({error})") from error
