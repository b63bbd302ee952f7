"""Child process of a survey: one format, task by task (see :mod:`converters.survey.run`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.children import child_main
from converters.data import calibration_set, evaluation_set
from converters.inspect import check_claim, inspect_model
from converters.loading import load_task
from converters.measure import accuracy_of, compare_generic, is_wrong, sqnr_db
from converters.packing import widths_of
from converters.results import RUNTIME_OF
from converters.schemes import parse_scheme
from converters.survey.cell import MIN_SQNR_DB, Cell
from converters.verify_worker import verify
from converters.wiring import module_shapes, named_feeds
from edge_sdk.errors import ConversionError, EdgeError


def go(request: dict[str, Any], step: Callable[[str], None]) -> int:
    """Fill the cells of one format; returns how many.

    Args:
        request: ``tasks`` (name to reference), ``format``, ``schemes``, ``folder``, ``seconds``.
        step: told each task.
    """
    import torch

    torch.set_num_threads(1)
    count = 0
    for name, ref in request["tasks"].items():
        cells = [_Slot(request, name, scheme) for scheme in request["schemes"]]
        if all(cell.path.exists() for cell in cells):
            continue
        step(name)
        count += len(cells)
        for cell in cells:
            cell.mark.touch()
        try:
            work = _Work(request, name, ref)
        except EdgeError as error:
            for cell in cells:
                cell.refuse(error)
            continue
        for cell in cells:
            cell.mark.unlink()
        for cell in cells:
            cell.fill(work)
    return count


class _Slot:
    """Where one cell is written."""

    def __init__(self, request: dict[str, Any], task: str, scheme: str) -> None:
        self.blank = Cell(task, request["format"], scheme)
        self.path = Path(request["folder"]) / f"{task}.{request['format']}.{scheme}.json"
        self.mark = self.path.with_suffix(".begun")
        """Tells the parent what was in hand at a crash."""

    def fill(self, work: _Work) -> None:
        """Build and verify."""
        if self.path.exists():
            return
        self.mark.touch()
        try:
            self._write(work.cell(self.blank))
        except EdgeError as error:
            self.refuse(error)
        self.mark.unlink(missing_ok=True)

    def refuse(self, error: EdgeError) -> None:
        """Record why there is no such file."""
        self._write(replace(self.blank, code=error.code, cause=error.cause, hint=error.hint))

    def _write(self, cell: Cell) -> None:
        self.path.write_text(json.dumps(cell.as_dict()))
        self.mark.unlink(missing_ok=True)


class _Work:
    """One task in one format: the float file is exported once."""

    def __init__(self, request: dict[str, Any], name: str, ref: str) -> None:
        from converters.build_worker import tools
        from converters.module import build_module, check_examples, reference_outputs

        self._request = request
        self._kind: str = request["format"]
        self._stem = Path(request["folder"]) / name
        self.task = load_task(ref)
        size = self.task.resolutions[0]
        export, self._quantize = tools(self._kind)
        module = build_module(self.task, None)
        example = check_examples(self.task, module, *size)
        self._samples = evaluation_set(self.task, *size)
        self._wanted = reference_outputs(self.task, module, self._samples.inputs, example)
        calibration = calibration_set(self.task, *size)
        self._float = self._path("fp32")
        export(module, example, self._float)
        np.save(self._path("samples").with_suffix(".npy"), self._samples.inputs)
        specs = inspect_model(self._float).inputs
        self._calibration = named_feeds(calibration, specs, self._kind)

    def cell(self, blank: Cell) -> Cell:
        """The verified cell.

        Raises:
            EdgeError: why there is none.
        """
        path = self._path(blank.scheme)
        if blank.scheme != "fp32":
            self._quantize(self._float, blank.scheme, self._calibration, path)
        check_claim(inspect_model(path), parse_scheme(blank.scheme), path)
        answer, outputs = self._run(path)
        widths = widths_of(module_shapes(answer["specs"]))
        comparison = compare_generic(outputs, self._wanted, widths, self.task.tolerance)
        noise = sqnr_db(outputs, self._wanted, widths)
        if is_wrong(blank.scheme, comparison, self._wanted) or noise < MIN_SQNR_DB:
            raise ConversionError(
                "wrong-output",
                f"{path.name} has {noise:.1f} dB of signal to noise against PyTorch.",
                "Leave this scheme out (--schemes), or keep the worst layers in float.",
            )
        accuracy = accuracy_of(self.task, outputs, self._wanted, self._samples.labels, widths)
        size = path.stat().st_size
        return replace(
            blank,
            sqnr_db=noise,
            agreement=accuracy,
            size_bytes=size,
            size_ratio=size / self._float.stat().st_size,
            latency_ms=answer["latency"]["1"]["median_ms"],
        )

    def _run(self, path: Path) -> tuple[dict[str, Any], Any]:
        import msgspec

        from edge_sdk.contracts.operating_point import TensorSpec

        outputs = path.with_name(f"{path.name}.outputs.npy")
        answer = verify(
            {
                "path": str(path),
                "format": self._kind,
                "runtime": RUNTIME_OF[self._kind],
                "threads": [1],
                "seconds": self._request["seconds"],
                "exported": True,
                "samples": str(self._path("samples").with_suffix(".npy")),
                "outputs": str(outputs),
            },
            lambda text: None,
        )
        specs = [msgspec.convert(spec, type=TensorSpec) for spec in answer["outputs"]]
        return answer | {"specs": specs}, np.load(outputs)

    def _path(self, scheme: str) -> Path:
        return self._stem.with_name(f"{self._stem.name}-{scheme}.{self._kind}")


if __name__ == "__main__":
    child_main(go)
