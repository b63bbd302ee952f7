"""``slim.json``: which channels each width keeps, beside the weights file it describes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch

from converters.slim.groups import Entry, Group, Held
from converters.slim.network import SlimNetwork, width_key
from converters.slim.settings import Settings
from converters.usercode import first_line
from edge_sdk.contracts.base import SCHEMA, Wire, decode
from edge_sdk.durable import DiskStorage, Storage
from edge_sdk.errors import ContractError, TaskError

_FORMAT = "edge-slim-1"
MAX_BYTES = 256 * 1024**2


class Places(Wire, kw_only=True):
    """Where a group's channels lie along one axis of one tensor."""

    tensor: str
    axis: int
    reads: bool = False
    """The layer sums over this axis."""
    positions: tuple[tuple[int, ...], ...] = ()
    """By channel, the most important first: indexes along the axis."""


class Counted(Wire, kw_only=True):
    """A number in a module that counts a group's channels."""

    module: str
    attribute: str
    each: int


class ChannelGroup(Wire, kw_only=True):
    """Channels that may be dropped from the last one on."""

    name: str
    places: tuple[Places, ...]
    counted: tuple[Counted, ...] = ()
    normalised: bool = False
    link: str = ""


class Width(Wire, kw_only=True):
    """One width."""

    width: float
    kept: dict[str, int]
    """Channels by group; empty for the full width."""
    macs: int
    """Multiply-accumulates of the layers with weights, at the full resolution."""
    accuracy: float
    """PyTorch's on the held-out set (agreement with the wide network for a generic task)."""
    depths: dict[str, int] = msgspec.field(default_factory=dict)
    """Blocks by stage, kernel sides by convolution and the resolution (``32x32``) it was chosen
    at; of sub-networks that ``edge model search`` found."""
    kernels: dict[str, int] = msgspec.field(default_factory=dict)
    size: str = ""


class Kept(Wire, kw_only=True):
    """Channels that stay at every width."""

    name: str
    channels: int
    reason: str


class Slim(Wire, kw_only=True):
    """The document."""

    schema: int = SCHEMA
    task: str
    weights: str
    """File beside this one."""
    weights_sha256: str
    shared: bool
    """Narrower matrices and kernels are cut from the widest ones."""
    importance: str
    round_to: int
    widths: tuple[Width, ...]
    """The full one first."""
    groups: tuple[ChannelGroup, ...]
    held: tuple[Kept, ...] = ()


def describe(
    network: SlimNetwork,
    settings: Settings,
    held: tuple[Held, ...],
    *,
    task: str,
    round_to: int,
    macs: dict[float, float],
    accuracy: dict[str, float],
) -> Slim:
    """The document of a network, without the name and digest of its weights."""
    widths = tuple(
        Width(
            width=width,
            kept=network.kept.get(width, {}),
            macs=round(macs[width]),
            accuracy=accuracy[width_key(width)],
        )
        for width in network.widths
    )
    return Slim(
        task=task,
        weights="",
        weights_sha256="",
        shared=network.shared,
        importance=settings.importance,
        round_to=round_to,
        widths=widths,
        groups=describe_groups(network.groups),
        held=tuple(Kept(name=h.name, channels=h.channels, reason=h.reason) for h in held),
    )


def describe_groups(groups: Iterable[Group]) -> tuple[ChannelGroup, ...]:
    """Groups as the document holds them."""
    return tuple(map(_written, groups))


class HasState(Protocol):
    """Tensors by width."""

    def state(self) -> dict[str, dict[str, torch.Tensor]]: ...


def write(slim: Slim, network: HasState, path: Path, storage: Storage | None = None) -> Path:
    """Write the weights, then the document that names them; an older pair stays until then.

    The weights' name holds their digest, so that a power cut never leaves a document beside
    weights of another run.

    Returns:
        The weights file.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, "state": network.state()}, buffer)
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    disk = storage or DiskStorage()
    weights = path.with_name(f"{path.stem}-{digest[:12]}.pt")
    older = _older_weights(path)
    disk.write(weights, data)
    document = msgspec.structs.replace(slim, weights=weights.name, weights_sha256=digest)
    disk.write(path, msgspec.json.encode(document, order="deterministic"))
    if older is not None and older != weights:
        disk.remove(older)
    return weights


def read(path: Path) -> Slim:
    """A document.

    Raises:
        TaskError: ``task.bad-slim``.
        ContractError: ``contract.malformed``, ``contract.too-new``.
    """
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise bad_slim(path, "is missing or too large")
    slim = decode(path.read_bytes(), Slim, str(path))
    if Path(slim.weights).name != slim.weights or not slim.weights:
        raise bad_slim(path, f"names {slim.weights!r} as its weights, which is not beside it")
    for group in slim.groups:
        counts = {len(places.positions) for places in group.places}
        if len(counts) != 1 or counts == {0}:
            raise bad_slim(path, f"has a group {group.name} without places")
    return slim


def read_state(slim: Slim, path: Path) -> dict[str, Any]:
    """The tensors that a document names, by width.

    Only tensors are unpickled (``weights_only``): the file cannot run code.

    Raises:
        TaskError: ``task.bad-slim``.
    """
    file = path.with_name(slim.weights)
    if not file.is_file():
        raise bad_slim(path, f"names {file.name}, which is not beside it")
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != slim.weights_sha256:
        raise bad_slim(path, f"belongs to other weights than {file.name} now holds")
    try:
        document: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if document["format"] != _FORMAT:
            raise ValueError(f"its format is {document['format']!r}")
        return dict(document["state"])
    except Exception as error:
        raise bad_slim(path, f"has unreadable weights: {first_line(error)}") from error


def groups_of(slim: Slim) -> tuple[Group, ...]:
    """The document's groups as the rest of this package knows them."""
    return tuple(
        Group(
            name=group.name,
            entries=tuple(Entry(p.tensor, p.axis, p.reads, p.positions) for p in group.places),
            normalised=group.normalised,
            attributes=tuple((c.module, c.attribute, c.each) for c in group.counted),
            link=group.link,
        )
        for group in slim.groups
    )


def bad_slim(path: Path, what: str) -> TaskError:
    """The error for a document that cannot be used."""
    return TaskError("bad-slim", f"{path} {what}.", "Run edge model slim again.")


def _older_weights(path: Path) -> Path | None:
    try:
        return path.with_name(read(path).weights)
    except (TaskError, ContractError):  # whatever lies there is about to be replaced
        return None


def _written(group: Group) -> ChannelGroup:
    return ChannelGroup(
        name=group.name,
        places=tuple(
            Places(tensor=e.tensor, axis=e.axis, reads=e.reads, positions=e.positions)
            for e in group.entries
        ),
        counted=tuple(Counted(module=m, attribute=a, each=n) for m, a, n in group.attributes),
        normalised=group.normalised,
        link=group.link,
    )
