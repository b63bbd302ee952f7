"""How contracts are encoded and decoded."""

from __future__ import annotations

import re
from typing import Any, Literal, TypeVar, dataclass_transform, get_origin

import msgspec

from edge_sdk.errors import ConfigError, ContractError
from edge_sdk.suggest import did_you_mean

SCHEMA = 1
"""Version of every top-level wire document written by this release."""

_UNKNOWN = re.compile(r"unknown field `(?P<field>[^`]*)`(?: - at `(?P<path>[^`]*)`)?")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """Base of messages and documents: unknown fields are accepted."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what a person writes by hand: unknown keys are errors."""


T = TypeVar("T")


def encode(value: Wire) -> bytes:
    """Compact JSON, fields in declaration order, mappings sorted by key."""
    return msgspec.json.encode(value, order="deterministic")


def decode(data: bytes, kind: type[T], what: str) -> T:
    """Decode a wire document.

    Args:
        data: JSON text.
        kind: the contract to decode to.
        what: the document's name in the error message.

    Raises:
        ContractError: ``contract.malformed`` or ``contract.too-new``.
    """
    try:
        value = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(
            "malformed",
            f"{what} is not a valid {kind.__name__}: {error}.",
            "It may be truncated, or written by another program; fetch or build it again.",
        ) from error
    schema = getattr(value, "schema", SCHEMA)
    if schema > SCHEMA:
        raise ContractError(
            "too-new",
            f"{what} has schema {schema}; this version reads up to {SCHEMA}.",
            "Update edge-sdk on this machine.",
        )
    return value


def convert_config(data: Any, kind: type[T], where: str) -> T:
    """Turn parsed TOML into a :class:`Config`.

    Raises:
        ConfigError: ``config.unknown-key`` with a suggestion, or ``config.invalid``.
    """
    try:
        return msgspec.convert(data, type=kind)
    except msgspec.ValidationError as error:
        match = _UNKNOWN.search(str(error))
        if match is None:
            raise ConfigError("invalid", f"{where}: {error}.", _advice(str(error), kind)) from error
        path = (match["path"] or "$").removeprefix("$").removeprefix(".")
        known = _fields_at(kind, path)
        raise ConfigError(
            "unknown-key",
            f"{where}: unknown key {match['field']!r} in {path or 'the file'}.",
            did_you_mean(match["field"], known),
        ) from error


def _advice(message: str, kind: Any) -> str:
    """What to write instead of an invalid value."""
    missing = re.search(r"required field `([^`]*)`", message)
    if missing:
        return f"Add the key {missing[1]!r}."
    choice = re.search(r"Invalid enum value '([^']*)' - at `\$\.?([^`]*)`", message)
    if choice:
        *parents, last = choice[2].split(".")
        for part in re.findall(r"[A-Za-z_]\w*|\[[^\]]*\]", ".".join(parents)):
            kind = _descend(kind, part)
        return did_you_mean(choice[1], _choices(_descend(kind, last)))
    return "Compare the value with the reference in docs/."


def _choices(kind: Any) -> list[str]:
    """The strings a literal type allows, looking through annotations and unions."""
    arguments = getattr(kind, "__args__", ())
    if get_origin(kind) is Literal:
        return [str(argument) for argument in arguments]
    return [choice for argument in arguments for choice in _choices(argument)]


def _fields_at(kind: Any, path: str) -> list[str]:
    """Names of the fields that are legal at a msgspec error path such as ``cpu[...].mhz``."""
    for part in re.findall(r"[A-Za-z_]\w*|\[[^\]]*\]", path):
        kind = _descend(kind, part)
    struct = _struct_in(kind)
    if struct is None:
        return []
    return [field.encode_name for field in msgspec.structs.fields(struct)]


def _descend(kind: Any, part: str) -> Any:
    struct = _struct_in(kind)
    if part.startswith("["):
        arguments = getattr(kind, "__args__", ())
        return (
            arguments[-1] if arguments and arguments[-1] is not ... else next(iter(arguments), None)
        )
    if struct is None:
        return None
    return next((f.type for f in msgspec.structs.fields(struct) if f.encode_name == part), None)


def _struct_in(kind: Any) -> Any:
    """The struct a type annotation holds, looking through optional and union types."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    for argument in getattr(kind, "__args__", ()):
        found = _struct_in(argument)
        if found is not None:
            return found
    return None
