"""What the governor may do, as a person configures it.

Each signal has two levels that overlap: above ``enter`` it asks for a cheaper point, below
``leave`` it allows a better one, and in between it holds still. The gap is the hysteresis.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, structs

from edge_sdk.contracts.base import Config
from edge_sdk.contracts.profile import Thermal
from edge_sdk.errors import ConfigError

Seconds = Annotated[float, Meta(ge=0, le=86_400)]

THROTTLE_MARGIN_CELSIUS = 3.0
"""A profile's throttle point minus this is where stepping down starts."""

HYSTERESIS_CELSIUS = 8.0


class Band(Config, kw_only=True):
    """Two levels of one signal."""

    enter: Annotated[float, Meta(description="Above this the signal asks to step down.")]
    leave: Annotated[float, Meta(description="Below this the signal allows to step up.")]

    def __post_init__(self) -> None:
        if not self.leave < self.enter:
            raise ValueError(f"leave ({self.leave:g}) must be below enter ({self.enter:g})")

    def excess(self, value: float) -> float:
        """How deep ``value`` is in the band: 0 at ``leave``, 1 at ``enter``, unbounded."""
        return (value - self.leave) / (self.enter - self.leave)


class GovernorPolicy(Config, kw_only=True):
    """Section ``[governor]`` of the agent's configuration."""

    enabled: Annotated[
        bool, Meta(description="False keeps the most accurate point, whatever the device feels.")
    ] = True
    pin: Annotated[
        int | None,
        Meta(description="Stay at this rung (0 is the most accurate); clamped to the ladder."),
    ] = None
    accuracy_floor: Annotated[
        float,
        Meta(ge=0, le=1, description="Never choose a point measured below this accuracy, 0..1."),
    ] = 0.0
    cpu_pressure_percent: Annotated[
        Band,
        Meta(description="PSI: share of time in which a runnable task had to wait for a core."),
    ] = Band(enter=40.0, leave=15.0)
    memory_pressure_percent: Annotated[
        Band, Meta(description="PSI: share of time in which a task waited for memory.")
    ] = Band(enter=10.0, leave=2.0)
    memory_used_percent: Annotated[
        Band, Meta(description="Memory that is not available without swapping, of all.")
    ] = Band(enter=92.0, leave=85.0)
    temperature_celsius: Annotated[
        Band | UnsetType,
        Meta(description="Processor temperature; unset means from the device profile."),
    ] = UNSET
    critical_celsius: Annotated[
        float | UnsetType,
        Meta(description="At once to the cheapest point; unset means from the device profile."),
    ] = UNSET
    worker_rss_mib: Annotated[
        Band | None,
        Meta(description="Resident memory of the process that runs the model; unset for no limit."),
    ] = None
    deadline_miss_share: Annotated[
        Band, Meta(description="Frames dropped or later than the pipeline's objective, 0..1.")
    ] = Band(enter=0.10, leave=0.02)
    queue_frames: Annotated[
        Band, Meta(description="Frames that wait for the model; at most four do.")
    ] = Band(enter=3.0, leave=1.5)
    headroom: Annotated[
        float,
        Meta(
            ge=0,
            le=0.5,
            description="Share of the processor and of the latency objective to keep free; "
            "0 for none.",
        ),
    ] = 0.2
    energy_saver: Annotated[
        Literal["off", "low-battery", "on-battery", "always"],
        Meta(description="When to prefer the cheapest point that keeps the accuracy floor."),
    ] = "low-battery"
    battery_used_percent: Annotated[
        Band, Meta(description="Charge that is gone; what low-battery means for energy_saver.")
    ] = Band(enter=80.0, leave=70.0)
    time_constant_s: Annotated[
        Seconds, Meta(description="Time constant of the first-order filter on every signal.")
    ] = 2.0
    dwell_down_s: Annotated[
        Seconds, Meta(description="A signal must stay above enter this long per step down.")
    ] = 3.0
    dwell_urgent_s: Annotated[
        Seconds,
        Meta(description="The same while frames are very late, where that is shorter."),
    ] = 1.0
    dwell_jump_s: Annotated[
        Seconds,
        Meta(
            description="After very late frames for this long, at once to the first point that "
            "is expected to be in time."
        ),
    ] = 0.2
    dwell_up_s: Annotated[
        Seconds, Meta(description="All signals must stay below leave this long per step up.")
    ] = 15.0
    probe_s: Annotated[
        Seconds,
        Meta(
            description="After this long a better point is tried although it is not expected to "
            "keep the headroom; expectations can be wrong."
        ),
    ] = 180.0

    def __post_init__(self) -> None:
        if isinstance(self.pin, int) and self.pin < 0:
            raise ValueError(f"pin ({self.pin}) must be 0 or more")


GENERIC_THERMAL = Thermal(
    throttle_celsius=85.0, critical_celsius=95.0, source="common limit of embedded processors"
)


def fitted(policy: GovernorPolicy, thermal: Thermal | None) -> GovernorPolicy:
    """The policy with its unset temperatures filled in.

    Args:
        policy: as configured.
        thermal: the device profile's throttle points; None uses :data:`GENERIC_THERMAL`.

    Raises:
        ConfigError: ``config.governor-temperature`` when the critical temperature lies within the
            band, so that the jump to the cheapest point would come before the first step.
    """
    source = thermal or GENERIC_THERMAL
    band, critical = policy.temperature_celsius, policy.critical_celsius
    if isinstance(critical, UnsetType):
        critical = source.critical_celsius
    if isinstance(band, UnsetType):
        enter = min(source.throttle_celsius, critical) - THROTTLE_MARGIN_CELSIUS
        band = Band(enter=enter, leave=enter - HYSTERESIS_CELSIUS)
    if critical <= band.enter:
        raise ConfigError(
            "governor-temperature",
            f"[governor] critical_celsius ({critical:g}) is not above temperature_celsius.enter "
            f"({band.enter:g}).",
            "Raise critical_celsius or lower temperature_celsius.enter and leave.",
        )
    return structs.replace(policy, temperature_celsius=band, critical_celsius=critical)
