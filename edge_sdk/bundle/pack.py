"""Deciding which files of a release travel whole and which as recipes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.bundle.blobs import blob_ref
from edge_sdk.bundle.needs import choose_blobs
from edge_sdk.contracts.manifest import BlobRef, Derivation

if TYPE_CHECKING:
    from edge_sdk.recipes.find import Base

MOST_SHARE = 0.75
"""A recipe replaces its file only below this share of the file's bytes: it ties it to a base."""
LIKE_SHARE = 0.3
"""A file with no recipe as small as this is offered as a base itself before it is derived."""
GOOD_SHARE = 0.05
"""No better base is looked for once a recipe is this small."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that a release may contain."""

    path: Path
    ref: BlobRef
    kind: str
    """Only files of one kind are built from each other."""


@dataclass(slots=True)
class Packing:
    """What to ship."""

    whole: list[SourceFile] = field(default_factory=list)
    recipes: dict[str, bytes] = field(default_factory=dict)
    """By digest."""
    derived: dict[str, Derivation] = field(default_factory=dict)


def pack(
    files: Mapping[str, SourceFile],
    ladders: Iterable[Iterable[str]],
    notify: Callable[[str], None],
) -> Packing:
    """Find recipes, and ship whole what some device would otherwise fetch at a loss.

    Args:
        files: by digest.
        ladders: for each profile, the digests its devices need.
        notify: told the name of each file as its recipe is found.
    """
    wanted = [list(ladder) for ladder in ladders]
    asked = Counter(digest for ladder in wanted for digest in set(ladder))
    derived, recipes = _find_recipes(files, asked, notify)
    sizes = {digest: file.ref.size_bytes for digest, file in files.items()}
    sizes |= {digest: len(data) for digest, data in recipes.items()}
    shipped = {digest for ladder in wanted for digest in choose_blobs(ladder, sizes, derived)}
    packing = Packing()
    for digest, file in files.items():
        known = derived.get(digest)
        if known is not None and (known.recipe in shipped or digest not in shipped):
            packing.derived[digest] = known
            packing.recipes[known.recipe] = recipes[known.recipe]
        if known is None or digest in shipped:
            packing.whole.append(file)
    return packing


def _find_recipes(
    files: Mapping[str, SourceFile], asked: Counter[str], notify: Callable[[str], None]
) -> tuple[dict[str, Derivation], dict[str, bytes]]:
    kinds: defaultdict[str, list[SourceFile]] = defaultdict(list)
    for file in files.values():
        kinds[file.kind].append(file)
    derived: dict[str, Derivation] = {}
    recipes: dict[str, bytes] = {}
    for alike in kinds.values():
        alike.sort(key=lambda file: _order(file, asked[file.ref.digest]))
        for found in _within(alike):
            ref = blob_ref(found.recipe)
            recipes[ref.digest] = found.recipe
            derived[found.file.ref.digest] = Derivation(
                base=found.base.ref.digest,
                recipe=ref.digest,
                size_bytes=found.file.ref.size_bytes,
            )
            notify(f"recipe for {found.file.path.name}")
    return derived, recipes


def _order(file: SourceFile, asked: int) -> tuple[bool, int, int, str]:
    """The largest come first and become bases, and only then what no device asks for."""
    return not asked, -file.ref.size_bytes, -asked, file.path.name


@dataclass(frozen=True, slots=True)
class _Found:
    """The smallest recipe for a file."""

    file: SourceFile
    base: SourceFile
    recipe: bytes

    @property
    def share(self) -> float:
        return len(self.recipe) / max(self.file.ref.size_bytes, 1)


def _within(files: list[SourceFile]) -> Iterator[_Found]:
    """The files that are worth a recipe, from among those before them."""
    # Imported here because it needs numpy, which commands that pack nothing do without.
    from edge_sdk.recipes.find import Base

    bases: list[tuple[SourceFile, Base]] = []
    lesser: list[_Found] = []
    used: set[str] = set()
    for file in files:
        data = file.path.read_bytes()
        best = _smallest(file, data, bases)
        if best is not None and best.share <= LIKE_SHARE:
            used.add(best.base.ref.digest)
            yield best
            continue
        bases.append((file, Base(data)))
        lesser += [best] if best is not None else []
    gone: set[str] = set()
    for found in sorted(lesser, key=lambda each: each.share):
        own, other = found.file.ref.digest, found.base.ref.digest
        if found.share <= MOST_SHARE and own not in used and other not in gone:
            used.add(other)
            gone.add(own)
            yield found


def _smallest(
    file: SourceFile, data: bytes, bases: Iterable[tuple[SourceFile, Base]]
) -> _Found | None:
    best = None
    for source, base in bases:
        recipe = base.recipe(data)
        if recipe is not None and (best is None or len(recipe) < len(best.recipe)):
            best = _Found(file, source, recipe)
            if best.share <= GOOD_SHARE:
                break
    return best
