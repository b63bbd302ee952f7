"""From a wake word of another project to a conversion folder."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from converters.foreign.listens import Listens
from converters.foreign.micro import read_micro
from converters.importing.run import Imported, ImportOptions, import_model


def read_wakeword(source: Path, companions: Path | None, labels: tuple[str, ...] = ()) -> Listens:
    """A microWakeWord (``.json``), or an openWakeWord (``.onnx``) with its two companions.

    Args:
        source: the file that names or is the word's network.
        companions: folder of the files that all openWakeWords share; None for a microWakeWord.
        labels: of an openWakeWord's scores.

    Raises:
        ConversionError: ``conversion.bad-wakeword``, ``conversion.hidden-state``,
            ``conversion.unreadable-model``.
    """
    if companions is None:
        return read_micro(source)
    from converters.foreign.openwake import read_openwake

    return read_openwake(source, companions, labels)


def import_wakeword(
    listens: Listens,
    profiles: Sequence[str],
    out: Path,
    *,
    options: ImportOptions,
    progress: Callable[[str], None] = lambda text: None,
) -> Imported:
    """:func:`converters.importing.import_model` of its streaming network, with how it listens.

    Raises:
        ConversionError, ProfileError, GateError, StorageError: nothing is written then.
    """
    described = dataclasses.replace(
        options.described,
        name=options.described.name or listens.name,
        labels=None,
        states=listens.states,
        sound=listens.sound,
    )
    chosen = dataclasses.replace(options, described=described)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / f"{listens.name}.{listens.format}"
        model.write_bytes(listens.data)
        return import_model(model, profiles, out, options=chosen, progress=progress)
