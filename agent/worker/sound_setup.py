"""What a release and this device's configuration say together about listening."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from agent.pipelines.config import PipelineConfig
from agent.sound.clips import Clips
from agent.sound.config import SOUND_KINDS
from edge_sdk.audio.samples import Floats
from edge_sdk.contracts.audio import SoundInfo, WakeWord
from edge_sdk.contracts.manifest import Manifest
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import ConfigError
from edge_sdk.suggest import did_you_mean


def words_here(sound: SoundInfo, pipeline: PipelineConfig) -> tuple[WakeWord, ...]:
    """The release's words with this device's cutoffs.

    Raises:
        ConfigError: ``config.no-such-word``.
    """
    cutoffs = pipeline.sound.cutoffs
    labels = [word.label for word in sound.words]
    for label in cutoffs:
        if label not in labels:
            raise ConfigError(
                "no-such-word",
                f"There is a cutoff for {label!r}, which this release does not listen for.",
                did_you_mean(label, labels),
            )
    return tuple(
        msgspec.structs.replace(word, cutoff=cutoffs.get(word.label, word.cutoff))
        for word in sound.words
    )


def check_match(manifest: Manifest, pipeline: PipelineConfig) -> None:
    """Hold source and release to each other: both sound, or both pictures.

    Raises:
        ConfigError: ``config.source-mismatch``.
    """
    hears = pipeline.source.kind in SOUND_KINDS
    if hears != (manifest.task.sound is not None):
        raise ConfigError(
            "source-mismatch",
            f"Release {manifest.release} {manifest.version} "
            f"{'looks at pictures' if hears else 'listens'}, and the pipeline {pipeline.name} has "
            f"a source of kind {pipeline.source.kind!r}.",
            "Roll out a release that fits, or correct kind in [pipeline.source].",
        )


def clips_of(
    pipeline: PipelineConfig, sound: SoundInfo, recall: Callable[[int, int], Floats]
) -> Clips | None:
    """The folder of clips, if one is configured.

    Args:
        pipeline: its configuration.
        sound: of the release.
        recall: gives the sound between two positions of the stream.
    """
    settings = pipeline.sound
    if not settings.clips:
        return None
    return Clips(
        Path(settings.clips),
        keep=settings.keep_clips,
        before_s=settings.before_s,
        after_s=settings.after_s,
        rate_hz=sound.features.sample_rate_hz,
        recall=recall,
        storage=DiskStorage(),
    )
