"""What of an agent's configuration concerns sound alone."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from edge_sdk.contracts.base import Config

SOUND_KINDS = frozenset({"microphone", "alsa", "sound", "pipe", "wyoming"})
DEVICES = frozenset({"camera", "microphone", "alsa", "wyoming"})
"""Sources without a path."""
STDIN = "-"


class SoundConfig(Config, kw_only=True):
    """How this device listens."""

    cutoffs: Annotated[
        dict[str, Annotated[float, Meta(gt=0, le=1)]],
        Meta(description="By word, in place of the release's own."),
    ] = msgspec.field(default_factory=dict)
    most_per_hour: Annotated[
        int,
        Meta(
            ge=0,
            le=3600,
            description="A word that is heard more often is taken for a mistake: its cutoff rises "
            "until an hour is quiet. 0 leaves it alone.",
        ),
    ] = 0
    enhance: Annotated[
        bool,
        Meta(description="The release's filter, where it has one, takes noise out of the sound."),
    ] = True
    gate: Annotated[
        bool, Meta(description="Only sound that is louder than the room reaches the network.")
    ] = False
    verify: Annotated[
        bool,
        Meta(description="The most accurate point must confirm what a cheaper one hears."),
    ] = False
    clips: Annotated[
        str, Meta(description="Folder for the sound around the last words heard; empty for none.")
    ] = ""
    keep_clips: Annotated[int, Meta(ge=1, le=10000, description="Clips kept at most.")] = 100
    before_s: Annotated[
        float, Meta(ge=0, le=5, description="Of a clip, before the end of the word.")
    ] = 2.0
    after_s: Annotated[float, Meta(ge=0, le=2, description="Of a clip, after it.")] = 0.5
