"""Fits the coefficients of the latency model to measured networks; pure, and numpy only.

The model is a roofline with typed costs. Its parameters are logarithms, so that rates stay
positive, and its residuals are logarithms of predicted over measured, so that a relative error
counts the same on a small network as on a large one. Few networks cannot tell all parameters
apart: each row is therefore drawn towards a prior (shrinkage; Gelman et al., "Bayesian Data
Analysis", ch. 5), which says nothing about the device's overall speed. Large residuals count
linearly instead of squared (pseudo-Huber), and the minimum is found by Levenberg and Marquardt's
damped Gauss-Newton steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from device_profiles.latency import LayerCost, LayerKind

Array = npt.NDArray[np.float64]

RATE_KINDS: tuple[LayerKind, ...] = ("pointwise", "winograd", "dense", "depthwise", "ragged")
PARAMETERS = (*RATE_KINDS, "bandwidth", "scalar", "transform", "overhead")
"""Logarithms of: GMAC/s by kind of layer; GB/s of traffic, of scalar operators (softmax,
permutation), of Winograd's transforms; microseconds per layer."""
COUNT = len(PARAMETERS)
BANDWIDTH, SCALAR, TRANSFORM, OVERHEAD = range(len(RATE_KINDS), COUNT)
SPEED: Array = np.array([1.0] * (COUNT - 1) + [-1.0])
"""The direction in which a device is simply faster."""
START: Array = np.array([2.0, 2.5, 1.5, 0.5, 1.5, 1.5, -1.0, 0.5, 2.0])
"""A small Arm core: where a fit without a better prior starts."""
WEAK, FIRM = 0.02, 0.1
"""Weights of the prior per parameter, against 1 per squared unit of log error of a network."""
ROBUST = 0.3
"""Log error from which a residual counts linearly."""
MOST_STEPS = 60

_RATE_OF: dict[LayerKind, int] = {kind: index for index, kind in enumerate(RATE_KINDS)}


@dataclass(frozen=True)
class Network:
    """A network's layers as arrays."""

    rate: npt.NDArray[np.intp]
    """Index of each layer's rate."""
    macs: Array
    bytes: Array
    scalar: npt.NDArray[np.bool_]
    winograd: npt.NDArray[np.bool_]
    moved: Array
    """Bytes of activations only, which Winograd's transforms go over."""


def network_of(layers: Sequence[LayerCost]) -> Network:
    """Arrays from layers; ``moved`` defaults to all of a layer's bytes."""
    sizes = np.array([layer.bytes for layer in layers], float)
    moved = np.array([layer.moved or layer.bytes for layer in layers], float)
    return Network(
        rate=np.array([_RATE_OF.get(layer.kind, 0) for layer in layers], np.intp),
        macs=np.array([layer.macs for layer in layers], float),
        bytes=sizes,
        scalar=np.array([layer.kind == "scalar" for layer in layers]),
        winograd=np.array([layer.kind == "winograd" for layer in layers]),
        moved=moved,
    )


def predict_ms(theta: Array, network: Network) -> float:
    """Milliseconds of a network.

    Args:
        theta: logarithms in the order of :data:`PARAMETERS`.
        network: its layers.
    """
    return _predict(theta, network)[0]


def _predict(theta: Array, net: Network) -> tuple[float, Array]:
    """Milliseconds, and the gradient of their logarithm."""
    compute = net.macs / (np.exp(theta[net.rate]) * 1e9)
    lane = np.where(net.scalar, theta[SCALAR], theta[BANDWIDTH])
    traffic = net.bytes / (np.exp(lane) * 1e9)
    transform = np.where(net.winograd, net.moved / (np.exp(theta[TRANSFORM]) * 1e9), 0.0)
    overhead = len(net.macs) * np.exp(theta[OVERHEAD]) * 1e-6
    bound = compute >= traffic
    total = np.where(bound, compute, traffic).sum() + transform.sum() + overhead
    slope = np.zeros(COUNT)
    np.subtract.at(slope, net.rate[bound], compute[bound])
    slope[BANDWIDTH] = -traffic[~bound & ~net.scalar].sum()
    slope[SCALAR] = -traffic[~bound & net.scalar].sum()
    slope[TRANSFORM] = -transform.sum()
    slope[OVERHEAD] = overhead
    return float(total) * 1e3, slope / total


def fit(
    networks: Mapping[str, Network],
    measured_ms: Mapping[str, float],
    prior: Array = START,
    weight: float = WEAK,
    start: Array | None = None,
) -> Array:
    """The most plausible parameters.

    Args:
        networks: by name; those without a measurement are left aside.
        measured_ms: by name; names without a network are left aside.
        prior: expected logarithms, up to an overall speed.
        weight: of the prior, per parameter.
        start: where to begin, instead of the prior at the measured speed.

    Returns:
        Logarithms in the order of :data:`PARAMETERS`.

    Raises:
        ValueError: nothing is measured, or a measurement is not above zero.
    """
    names = [name for name in measured_ms if name in networks]
    if not names or any(not measured_ms[name] > 0 for name in names):
        raise ValueError("a fit needs measurements above zero")
    nets = [networks[name] for name in names]
    target = np.log([measured_ms[name] for name in names])
    pull = np.eye(COUNT) * weight
    along = pull @ SPEED
    pull = pull - np.outer(along, along) / (SPEED @ along)
    theta = prior.copy() if start is None else start.copy()
    if start is None:
        guess = np.log([predict_ms(theta, net) for net in nets])
        theta = theta + SPEED * float(np.median(guess - target))
    return _descend(theta, nets, target, prior, pull)


def _descend(
    theta: Array, nets: Sequence[Network], target: Array, prior: Array, pull: Array
) -> Array:
    def evaluate(at: Array) -> tuple[float, Array, Array]:
        pairs = [_predict(at, net) for net in nets]
        residual = np.log([ms for ms, _ in pairs]) - target
        rough = 2 * ROBUST**2 * (np.sqrt(1 + (residual / ROBUST) ** 2) - 1)
        cost = float(rough.sum() + (at - prior) @ pull @ (at - prior))
        return cost, residual, np.array([slope for _, slope in pairs])

    damping = 1e-3
    cost, residual, slopes = evaluate(theta)
    for _ in range(MOST_STEPS):
        weights = 1 / np.sqrt(1 + (residual / ROBUST) ** 2)
        hessian = slopes.T @ (slopes * weights[:, None]) + pull
        gradient = slopes.T @ (weights * residual) + pull @ (theta - prior)
        ridge = damping * np.diag(np.diag(hessian) + 1e-6)
        step = np.clip(np.linalg.lstsq(hessian + ridge, -gradient, rcond=None)[0], -1.0, 1.0)
        new_cost, new_residual, new_slopes = evaluate(theta + step)
        if new_cost < cost:
            gained, cost = cost - new_cost, new_cost
            theta, residual, slopes = theta + step, new_residual, new_slopes
            damping = max(damping / 3, 1e-6)
            if gained < 1e-7:
                break
        else:
            damping *= 4
            if damping > 1e6:
                break
    return theta


def leave_one_out(
    networks: Mapping[str, Network],
    measured_ms: Mapping[str, float],
    prior: Array = START,
    weight: float = WEAK,
) -> dict[str, float]:
    """Signed relative error of each network, predicted by a fit that never saw it.

    Args:
        networks: by name.
        measured_ms: by name; at least two networks.
        prior: see :func:`fit`; it must not have seen the networks either.
        weight: of the prior.
    """
    names = [name for name in measured_ms if name in networks]
    errors = {}
    for name in names:
        others = {other: measured_ms[other] for other in names if other != name}
        theta = fit(networks, others, prior, weight)
        errors[name] = predict_ms(theta, networks[name]) / measured_ms[name] - 1
    return errors


def mape_percent(errors: Mapping[str, float]) -> float:
    """Mean absolute percentage error."""
    return 100 * sum(abs(error) for error in errors.values()) / len(errors)


def centred(theta: Array) -> Array:
    """The parameters without the device's overall speed."""
    removed: Array = theta - SPEED * float(theta @ SPEED) / float(SPEED @ SPEED)
    return removed
