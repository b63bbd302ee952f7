"""Device profiles: one TOML file per board, every field described."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from edge_sdk.contracts.base import Config
from edge_sdk.contracts.operating_point import RuntimeName

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1, le=10_000_000)]


class CpuCluster(Config, kw_only=True):
    """Identical cores that share a clock."""

    uarch: Annotated[str, Meta(description="Microarchitecture, e.g. cortex-a76.")]
    cores: Count
    mhz: Count
    features: tuple[str, ...] = ()
    """Instruction-set features that matter to kernels: dotprod, i8mm, fp16, vnni."""


class Memory(Config, kw_only=True):
    """Main memory."""

    variants_mib: tuple[Count, ...]
    usable_share: Annotated[float, Meta(gt=0, le=1)]
    """Share of the smallest variant that a model process may plan with."""
    bandwidth_gb_s: Positive | None = None
    source: str


class Constraints(Config, kw_only=True):
    """What a graph must be for an accelerator to take it, through one runtime."""

    runtime: str
    """Delegate, provider or compiler, e.g. ``litert-qnn``."""
    format: Literal["tflite", "onnx"]
    ops: tuple[str, ...]
    """Operators it takes, by the names of the format. Names ending in ``*`` match a prefix."""
    dtypes: tuple[str, ...]
    """numpy names of the activation types it computes in."""
    static_shapes: bool = True
    """Every dimension must be known when the model is compiled."""
    max_rank: Annotated[int, Meta(ge=1, le=8)] = 4
    batch_one: bool = False
    """The first dimension of the inputs must be 1."""
    layout: Literal["NHWC", "NCHW", "any"] = "any"
    """Layout of four-dimensional inputs."""
    weight_granularity: tuple[Literal["per-tensor", "per-channel"], ...] = (
        "per-tensor",
        "per-channel",
    )
    """Of quantized weights."""
    hybrid: bool = False
    """It takes integer weights with float activations (dynamic int8, weight-only int8)."""
    max_partitions: Count | None = None
    """Parts of the graph that the compiler takes; the rest stays on the CPU."""
    max_model_mib: Positive | None = None
    transfer_gb_s: Positive | None = None
    """Between host and accelerator; None: the main memory they share."""
    source: str


class Accelerator(Config, kw_only=True):
    """A unit beside the CPU."""

    kind: Literal["gpu", "npu", "tpu", "dsp"]
    name: str
    tops_int8: Positive | None = None
    runtimes: tuple[str, ...] = ()
    constraints: tuple[Constraints, ...] = ()
    """Empty: nothing is known, and a lint says so."""
    source: str


class RuntimeSupport(Config, kw_only=True):
    """A runtime that is known to work on the board."""

    name: RuntimeName
    min_version: str
    schemes: tuple[str, ...]
    """Quantization schemes that pay there, in order of preference."""
    cpu_fallback: bool = True
    """Whether the CPU runs what no accelerator takes. False: a graph that no accelerator of its
    format takes whole does not run, which sizing treats as a hard limit."""


class Thermal(Config, kw_only=True):
    """Temperatures at which the board starts to slow down and stops."""

    throttle_celsius: Positive
    critical_celsius: Positive
    source: str


class Detection(Config, kw_only=True):
    """How the board is recognised."""

    device_tree_model: str = ""
    """Substring of /proc/device-tree/model."""
    machine: tuple[str, ...] = ()
    """``uname -m`` values; used when there is no device tree."""
    cpu_features: tuple[str, ...] = ()
    """What the CPU must have besides the machine type, by the names of ``cpu.features``. Of the
    profiles that match, the one that asks for most is taken."""
    android_soc: str = ""
    """Value of ro.soc.model."""


class CostRow(Config, kw_only=True):
    """Coefficients of the latency model for one way of running a network.

    ``latency = sum over fused layers of max(compute, traffic / bandwidth) + overhead``, where the
    traffic counts weights and activations at the precision's own element size.
    """

    runtime: str
    """Runtime the row was fitted on, which may differ from the one that will run."""
    precision: Literal["fp32", "fp16", "int8"]
    unit: Literal["cpu", "gpu", "npu"]
    threads: Count
    power_mode: str = ""
    dense_gmac_s: Positive
    depthwise_gmac_s: Positive
    bandwidth_gb_s: Positive
    pointwise_gmac_s: Positive | None = None
    """Of 1x1 convolutions and matrix products; None: as ``dense_gmac_s``."""
    overhead_us: Annotated[float, Meta(ge=0)]
    models: Count
    """Number of models in the fit."""
    error_percent: Positive
    """Leave-one-out mean absolute percentage error on the fitted models."""
    worst_percent: Positive | None = None
    """Largest absolute error of a network left out. A row whose mean error exceeds 20 % is coarse,
    and its band is this wide."""
    transfer_percent: dict[str, Annotated[float, Meta(ge=0)]] = field(default_factory=dict)
    """By each other runtime the row may stand in for: the further error of doing so (and of using
    a related board's row), which widens the predicted band."""
    device: str = ""
    """Board the row was measured on, where it is not this one."""
    source: str


class ReferenceLatency(Config, kw_only=True):
    """A published measurement, to check the model against."""

    model: str
    runtime: str
    precision: str
    unit: str
    threads: int | None = None
    ms: Positive
    source: str


class DeviceProfile(Config, kw_only=True):
    """A board and what may be expected of it."""

    schema: int = 1
    id: str
    title: str
    family: Literal["raspberry-pi", "jetson", "android", "x86"]
    soc: str
    machine: str
    """``uname -m`` of its operating system."""
    cpu: tuple[CpuCluster, ...]
    cpu_source: str = ""
    """Where cores, clocks and features come from."""
    memory: Memory
    runtimes: tuple[RuntimeSupport, ...]
    """In order of preference."""
    detect: Detection
    thermal: Thermal | None = None
    accelerators: tuple[Accelerator, ...] = ()
    default_threads: Count = 1
    power_modes: tuple[str, ...] = ()
    wheel_tags: tuple[str, ...] = ()
    transports: tuple[Literal["serial", "ssh", "adb", "mqtt"], ...] = ("mqtt",)
    static_shapes: bool = False
    """The accelerator needs shapes fixed at conversion."""
    max_model_mib: Positive | None = None
    cost: tuple[CostRow, ...] = ()
    """Empty for an uncalibrated profile: no point estimate is given."""
    reference: tuple[ReferenceLatency, ...] = ()
    notes: str = ""
