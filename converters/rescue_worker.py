"""Child process: repairs an artifact that lost too much, or mixes its precision until it holds.

First the module is repaired (equalization, then bias correction), exported and quantized again;
each is kept only when the file's answers get measurably better. If the gate is still missed, the
layers are scored one by one and the worst kept in float32, more at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from converters.answers import answers_of
from converters.blame import as_inputs
from converters.build_worker import tools
from converters.children import child_main
from converters.inspect import check_claim, inspect_model
from converters.loading import LoadedTask, load_task
from converters.measure import accuracy_of, sqnr_db
from converters.module import build_module, check_examples
from converters.packing import unpack
from converters.repair import correct_biases, equalize
from converters.results import LayerScore, Repair
from converters.schemes import SUPPORTED, mixed_name, parse_scheme
from converters.sensitivity import analyse, keep_steps
from converters.settings import Settings
from converters.task import Floats
from edge_sdk.errors import ConversionError

MAX_SAMPLES = 64
"""Calibration samples that repairs are compared on."""
LEAST_GAIN_DB = 0.1


@dataclass(frozen=True, slots=True)
class _State:
    """A quantized file and how well it does."""

    module: nn.Module
    source: Path
    path: Path
    sqnr_db: float
    accuracy: float


def rescue(request: dict[str, Any], step: Callable[[str], None]) -> dict[str, Any]:
    """Make one artifact hold the gate, as far as that is possible.

    Args:
        request: of :mod:`converters.build_worker` (``task``, ``width``, ``weights``, ``format``,
            ``calibration``, ``settings``, ``threads``), and ``size``, ``scheme``, ``path`` of the
            artifact, ``held_out`` (``.npz`` with ``inputs``, ``labels``, ``reference``,
            ``accuracy``), ``max_drop``, ``repair`` and ``mixed`` (whether each may be tried).
        step: told what is being tried.

    Returns:
        ``path`` and ``scheme`` of the artifact that now counts (a repaired one replaces the file;
        a mixed one lies beside it), ``repairs``, ``scores`` and ``kept``.
    """
    torch.set_num_threads(request["threads"])
    with TemporaryDirectory(dir=Path(request["calibration"]).parent) as scratch:
        return _Rescue(request, Path(scratch), step).run()


class _Rescue:
    def __init__(self, request: dict[str, Any], scratch: Path, step: Callable[[str], None]) -> None:
        self._request = request
        self._scratch = scratch
        self._step = step
        self._scheme: str = request["scheme"]
        self._settings = Settings.of(request["settings"])
        self._task: LoadedTask = load_task(request["task"], width=request["width"])
        self._export, self._quantize = tools(request["format"])
        weights = request["weights"]
        self._module = build_module(self._task, Path(weights) if weights else None)
        height, width = map(int, request["size"].split("x"))
        self._example = as_inputs(check_examples(self._task, self._module, height, width))
        with np.load(request["calibration"]) as arrays:
            self._samples: Floats = arrays[request["size"]]
        with np.load(request["held_out"]) as arrays:
            self._held_out = {name: arrays[name] for name in arrays.files}
        self._expected = self._pytorch(self._samples[:MAX_SAMPLES])

    def run(self) -> dict[str, Any]:
        """Repair, then mix; see :func:`rescue`."""
        source = self._exported("plain", self._module)
        state = self._state(self._module, source, Path(self._request["path"]))
        repairs: list[Repair] = []
        if self._request["repair"]:
            state, repairs = self._repaired(state)
            if any(repair.applied for repair in repairs):
                Path(self._request["path"]).write_bytes(state.path.read_bytes())
        scores: list[LayerScore] = []
        kept: tuple[str, ...] = ()
        path, scheme = Path(self._request["path"]), self._scheme
        if not self._holds(state.accuracy):
            scores = self._scores(state)
            if self._request["mixed"] and mixed_scheme(self._scheme):
                found = self._mixed(state, scores)
                if found is not None:
                    kept, path = found
                    scheme = mixed_name(self._scheme)
        return {
            "path": str(path),
            "scheme": scheme,
            "repairs": [dataclasses.asdict(repair) for repair in repairs],
            "scores": [dataclasses.asdict(score) for score in scores],
            "kept": list(kept),
        }

    def _repaired(self, state: _State) -> tuple[_State, list[Repair]]:
        repairs = []
        kinds: tuple[Literal["equalization", "bias correction"], ...]
        kinds = ("equalization", "bias correction")
        for kind in kinds:
            self._step(f"{kind} for {self._scheme}")
            module, layers = self._changed(kind, state.module)
            if not layers:
                continue
            source = self._exported(kind.split()[0], module)
            target = source.with_name(f"{source.stem}-int{source.suffix}")
            self._quantize(source, self._scheme, self._samples, target, self._settings)
            check_claim(inspect_model(target), parse_scheme(self._scheme), target)
            after = self._state(module, source, target)
            applied = pays(state.sqnr_db, after.sqnr_db, state.accuracy, after.accuracy)
            repairs.append(
                Repair(
                    kind=kind,
                    format=self._request["format"],
                    size=self._request["size"],
                    scheme=self._scheme,
                    layers=layers,
                    before_db=state.sqnr_db,
                    after_db=after.sqnr_db,
                    before_accuracy=state.accuracy,
                    after_accuracy=after.accuracy,
                    applied=applied,
                )
            )
            state = after if applied else state
        return state, repairs

    def _changed(self, kind: str, module: nn.Module) -> tuple[nn.Module, int]:
        if kind == "equalization":
            return equalize(module, self._example)
        arrays = unpack(self._samples, [tuple(tensor.shape) for tensor in self._example])
        inputs = [
            torch.from_numpy(array).to(tensor.dtype)
            for array, tensor in zip(arrays, self._example, strict=True)
        ]
        try:
            return correct_biases(module, inputs, granularity=self._settings.granularity)
        except (RuntimeError, ValueError, IndexError):
            return module, 0  # a module that takes single samples only

    def _scores(self, state: _State) -> list[LayerScore]:
        return analyse(
            state.source,
            self._scheme,
            self._samples,
            self._quantize,
            settings=self._settings,
            ranges=self._ranges(state.source),
            scratch=self._scratch,
            step=self._step,
        )

    def _mixed(
        self, state: _State, scores: list[LayerScore]
    ) -> tuple[tuple[str, ...], Path] | None:
        """The first mixture that holds, written beside the artifact; None when none does."""
        scheme = mixed_name(self._scheme)
        place = Path(self._request["path"])
        target = place.with_name(place.name.replace(self._scheme, scheme))
        ranges = self._ranges(state.source)
        for keep in keep_steps(scores):
            self._step(f"keep {len(keep)} of {len(scores)} layers in float32")
            trial = self._scratch / target.name
            settings = dataclasses.replace(self._settings, keep=keep)
            self._quantize(state.source, scheme, self._samples, trial, settings, ranges)
            if not self._holds(self._accuracy(trial)):
                continue
            try:
                check_claim(inspect_model(trial), parse_scheme(scheme), trial)
            except ConversionError:
                return None  # it holds, but nothing in it is quantized any more
            target.write_bytes(trial.read_bytes())
            return keep, target
        return None

    def _ranges(self, source: Path) -> dict[str, tuple[float, float]] | None:
        if parse_scheme(self._scheme).mode != "static":
            return None
        if self._request["format"] == "onnx":
            from converters.onnx_quantize import onnx_ranges

            return onnx_ranges(source, self._samples, self._settings)
        from converters.tflite_quantize import tflite_ranges

        return tflite_ranges(source, self._samples, self._settings)

    def _exported(self, name: str, module: nn.Module) -> Path:
        path = self._scratch / f"{name}.{self._request['format']}"
        self._export(module, self._example, path)
        return path

    def _state(self, module: nn.Module, source: Path, path: Path) -> _State:
        outputs, widths = answers_of(path, self._samples[:MAX_SAMPLES])
        noise = sqnr_db(outputs, self._expected, widths)
        return _State(module, source, path, noise, self._accuracy(path))

    def _accuracy(self, path: Path) -> float:
        outputs, widths = answers_of(path, self._held_out["inputs"])
        reference, labels = self._held_out["reference"], self._held_out["labels"]
        return accuracy_of(self._task, outputs, reference, labels, widths)

    def _holds(self, accuracy: float) -> bool:
        drop = float(self._held_out["accuracy"]) - accuracy
        return round(drop, 9) <= float(self._request["max_drop"])

    def _pytorch(self, samples: Floats) -> Floats:
        from converters.module import reference_outputs

        return reference_outputs(self._task, self._module, samples, self._example)


def pays(before_db: float, after_db: float, before: float, after: float) -> bool:
    """Whether a repair is worth keeping: one of noise and accuracy is better, neither worse."""
    quieter, louder = after_db > before_db + LEAST_GAIN_DB, after_db < before_db - LEAST_GAIN_DB
    return (quieter and after >= before) or (after > before and not louder)


def mixed_scheme(scheme: str) -> bool:
    """Whether a scheme has a mixed form that is built."""
    kind = parse_scheme(scheme)
    return kind.mode == "static" and not kind.mixed and scheme in SUPPORTED


if __name__ == "__main__":
    child_main(rescue)
