"""Why a deployment can end badly, as errors with a code, a cause and a hint.

They are reported, not raised: the update ends and the committed release goes on serving.
"""

from __future__ import annotations

from edge_sdk.errors import ContractError, GateError, LinkError, StorageError, TrustError

_LOOK = "Look at the device's logs, fix the model, and publish it as a new release."


def replayed(counter: int, seen: int) -> TrustError:
    """An outdated desired state."""
    return TrustError(
        "replayed",
        f"The desired state's counter is {counter}; {seen} has been seen.",
        "If the fleet server was restored from a backup, let it issue a higher counter.",
    )


def superseded(by: str) -> TrustError:
    """A newer desired state took the place of a running update."""
    return TrustError(
        "superseded", f"Deployment {by} took its place.", "Nothing; follow the newer deployment."
    )


def known_bad() -> TrustError:
    """A release that has failed here before."""
    return TrustError(
        "known-bad",
        "This release has failed on this device before.",
        "Publish a corrected release; the same one is not tried twice.",
    )


def damaged(detail: str) -> TrustError:
    """Blobs read back wrong again and again."""
    return TrustError("blob-damaged", detail, "Check the health of the device's disk.")


def golden_failed(detail: str) -> GateError:
    """The golden test does not hold."""
    return GateError("golden-failed", detail, _LOOK)


def crash_loop(detail: str) -> GateError:
    """The release crashes, or takes the agent down."""
    return GateError("crash-loop", detail, _LOOK)


def unproven(detail: str) -> GateError:
    """The trial has no verdict in time."""
    return GateError(
        "unproven", detail, "Check that the stream delivers frames, or allow a longer trial."
    )


def inaccurate(detail: str) -> GateError:
    """The sequential test finds the release worse than the baseline."""
    return GateError("accuracy", detail, "Compare its evaluation with the stream it meets.")


def broken(detail: str) -> GateError:
    """The release is far below the baseline."""
    return GateError("accuracy-floor", detail, _LOOK)


def erroneous(detail: str) -> GateError:
    """Too many frames fail."""
    return GateError("error-rate", detail, _LOOK)


def slow(detail: str) -> GateError:
    """The release is much slower than the one before."""
    return GateError("latency", detail, "Convert with a tighter latency budget for this profile.")


def degraded(detail: str) -> GateError:
    """The committed release does worse than on trial."""
    return GateError("degraded", detail, _LOOK)


def contract_changed(detail: str) -> ContractError:
    """Whoever relies on labels or preprocessing has not been asked."""
    return ContractError(
        "changed",
        detail,
        "If those who use its results are ready for that, create the rollout with --new-contract.",
    )


def disk_full(detail: str) -> StorageError:
    """There is no room for the release or its state."""
    return StorageError("disk-full", detail, "Free some space and create the rollout again.")


def battery_low(detail: str) -> StorageError:
    """The battery stayed low."""
    return StorageError("battery-low", detail, "Charge the device and create the rollout again.")


def memory_short(detail: str) -> StorageError:
    """Memory stayed short."""
    return StorageError(
        "memory-short",
        detail,
        "Free memory on the device, or lower min_headroom_percent in [update], and create the"
        " rollout again.",
    )


def withdrawn() -> LinkError:
    """The desired state disappeared while its update was under way."""
    return LinkError(
        "withdrawn",
        "The desired state was withdrawn before the update had ended.",
        "Nothing if the rollout was ended; else create it again.",
    )


def stalled(detail: str) -> LinkError:
    """Nothing came for too long."""
    return LinkError(
        "download-stalled", detail, "Check the fleet server, and that it has the release."
    )
