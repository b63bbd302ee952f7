"""From configuration to a running source."""

from __future__ import annotations

from pathlib import Path

from agent.pipelines.config import SourceConfig
from agent.sources.base import Reader
from agent.sources.camera import CameraReader
from agent.sources.feed import Feed
from agent.sources.frames import FramesReader
from agent.sources.labels import read_labels
from agent.sources.video import VideoReader


def build_reader(config: SourceConfig) -> Reader:
    """The reader a configuration asks for, not yet open.

    Raises:
        SourceError: ``source.extra-missing``.
    """
    if config.kind == "camera":
        return CameraReader(config)
    if config.kind == "video":
        return VideoReader(Path(config.path))
    return FramesReader(Path(config.path))


def build_feed(config: SourceConfig) -> Feed:
    """A feed, not yet started.

    Raises:
        SourceError: ``source.extra-missing``, ``source.missing-file`` or ``source.bad-labels``.
    """
    return Feed(
        build_reader(config),
        labels=read_labels(Path(config.labels)) if config.labels else None,
        fps=config.fps,
        loop=config.loop,
    )
