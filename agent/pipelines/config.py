"""What of an agent's configuration concerns one pipeline; all that its worker is told of it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from agent.sound.config import SoundConfig
from edge_sdk.contracts.base import Config


class SourceConfig(Config, kw_only=True):
    """Where frames or sound come from."""

    kind: Annotated[
        Literal["video", "camera", "frames", "microphone", "alsa", "sound", "pipe", "wyoming"],
        Meta(
            description="Pictures: an encoded file, a camera, or an .npz of raw frames. Sound: a "
            "microphone through PortAudio or ALSA, a file, a pipe of raw samples, or clients of "
            "the Wyoming protocol."
        ),
    ]
    path: Annotated[
        str, Meta(description="The file of a video, frames or sound source, or the pipe.")
    ] = ""
    device: Annotated[
        int | str,
        Meta(
            description="A camera: index, /dev/videoN, or a GStreamer pipeline (holds a '!'). A "
            "microphone: part of its name or its number, ALSA's name; 0 for the default one. For "
            "wyoming tcp://HOST:PORT to listen on."
        ),
    ] = 0
    rate_hz: Annotated[
        int, Meta(ge=8000, le=192000, description="Asked of a microphone; stated of a pipe.")
    ] = 16000
    channels: Annotated[int, Meta(ge=1, le=64, description="Likewise.")] = 1
    encoding: Annotated[
        Literal["u8", "s16", "s24", "s32", "f32"], Meta(description="Likewise; little endian.")
    ] = "s16"
    channel: Annotated[
        int, Meta(ge=-1, le=63, description="Which channel is heard; -1 for the mean of all.")
    ] = -1
    realtime: Annotated[
        bool, Meta(description="A sound file plays as a microphone would hear it.")
    ] = False
    labels: Annotated[
        str, Meta(description='Labels of the frames, as JSON {"labels": [...]}; optional.')
    ] = ""
    fps: Annotated[
        float, Meta(ge=0, le=1000, description="Frames per second; 0 as fast as they come.")
    ] = 0.0
    loop: Annotated[bool, Meta(description="Start a file again at its end.")] = False
    width_px: Annotated[
        int, Meta(ge=0, le=16384, description="Width asked of a camera; 0 leaves it alone.")
    ] = 0
    height_px: Annotated[
        int, Meta(ge=0, le=16384, description="Height asked of a camera; 0 leaves it alone.")
    ] = 0


class PublishConfig(Config, kw_only=True):
    """How results leave the device."""

    batch: Annotated[int, Meta(ge=1, le=1000, description="Decisions per message at most.")] = 32
    max_interval_s: Annotated[
        float, Meta(gt=0, le=60, description="A decision waits no longer than this.")
    ] = 1.0


class PipelineConfig(Config, kw_only=True):
    """One stream of frames or sound and what is done with it."""

    name: Annotated[str, Meta(description="Name in topics and telemetry.")] = "camera"
    priority: Annotated[
        int,
        Meta(
            ge=0,
            le=100,
            description="Among several: under pressure the lowest steps down first, the highest "
            "rises first; equal ones move independently.",
        ),
    ] = 0
    source: SourceConfig
    sound: SoundConfig = SoundConfig()
    publish: PublishConfig = PublishConfig()
    objective_ms: Annotated[
        float, Meta(ge=0, description="A frame slower than this counts as late; 0 for none.")
    ] = 0.0
