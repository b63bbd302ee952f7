"""Running passes through the cache: what is known is taken, the rest is run and remembered.

Four kinds of passes are remembered: the export and quantization of one artifact (its file), its
rescue (the repaired or mixed file and what was learned), the answers of an artifact on the held-out
samples, and its latency on this kind of host for one thread count. The latter two are apart so that
another profile, which wants other thread counts, repeats only the timing; a latency older than
:data:`MAX_LATENCY_AGE_S`, or of another kind of host, is measured again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.cache import Cache, Hit, key_of
from converters.children import Job, run_jobs
from converters.keys import array_digest, file_digest, host_id, own_code, tool_versions
from converters.task import Floats

BUILD_VERSION = 1
RESCUE_VERSION = 1
ANSWER_VERSION = 1
LATENCY_VERSION = 1
REFERENCE_VERSION = 1
MAX_LATENCY_AGE_S = 7 * 24 * 3600.0

Say = Callable[[str], None]
_SILENT = ("folder", "calibration", "threads", "only", "task", "weights", "resolutions", "schemes")
"""Of a build's request: where things lie, and what other digests stand for."""


class Reuse:
    """Passes of one module, with or without a cache.

    Args:
        cache: None to run everything.
        module: digest of the user's module, see :func:`converters.keys.module_digest`.
        say: told what came from the cache.
    """

    def __init__(self, cache: Cache | None, module: str, say: Say) -> None:
        self._cache = cache
        self._module = module
        self._say = say
        self.taken = 0
        """Passes that did not run."""
        self.run = 0
        """Passes that ran."""

    def reference(self, samples: Floats, work: Callable[[], Floats], scratch: Path) -> Floats:
        """PyTorch's answers to samples of one resolution.

        Args:
            samples: what goes in.
            work: asks PyTorch.
            scratch: for a file on its way in or out of the cache.
        """
        inputs = {"module": self._module, "samples": array_digest(samples)}
        key = self._key("reference", REFERENCE_VERSION, inputs, {})
        path = scratch / f"reference-{key[:16]}.npy"
        if self._get(key, {"outputs": path}) is not None:
            self._say("PyTorch's answers: from the cache")
            found: Floats = np.load(path)
            return found
        outputs = work()
        np.save(path, outputs)
        self._put(key, "reference", None, {"outputs": path})
        return outputs

    def builds(
        self, jobs: Sequence[Job], calibration: Mapping[str, Floats], *, parallel: int
    ) -> list[list[dict[str, Any]]]:
        """Artifacts of several formats.

        Args:
            jobs: for :mod:`converters.build_worker`; ``only`` names what is wanted of each.
            calibration: samples by resolution.
            parallel: processes at a time.

        Returns:
            Per job the built items in the order of ``only``.

        Raises:
            EdgeError: as :func:`converters.children.run_jobs`.
        """
        digests = {size: array_digest(samples) for size, samples in calibration.items()}
        plans = [_BuildPlan(self, job, digests) for job in jobs]
        open_plans = [plan for plan in plans if plan.missing]
        answers = run_jobs(
            [plan.job() for plan in open_plans],
            parallel=parallel,
            on_step=lambda job, text: self._say(f"{job}: {text}"),
        )
        for plan, answer in zip(open_plans, answers, strict=True):
            plan.take_in(answer)
        return [plan.items() for plan in plans]

    def answers(self, jobs: Sequence[Job], *, parallel: int) -> list[dict[str, Any]]:
        """What :mod:`converters.verify_worker` answers for each job.

        Raises:
            EdgeError: as :func:`converters.children.run_jobs`.
        """
        samples: dict[str, str] = {}
        for path in {job.request["samples"] for job in jobs}:
            samples[path] = file_digest(Path(path))
        plans = [_AnswerPlan(self, job, samples[job.request["samples"]]) for job in jobs]
        open_plans = [plan for plan in plans if plan.missing]
        found = run_jobs(
            [plan.job() for plan in open_plans],
            parallel=parallel,
            on_done=lambda job, result: self._say(f"verified {job}"),
        )
        for plan, answer in zip(open_plans, found, strict=True):
            plan.take_in(answer)
        return [plan.answer() for plan in plans]

    def rescues(
        self, jobs: Sequence[Job], calibration: Mapping[str, Floats]
    ) -> list[dict[str, Any]]:
        """What :mod:`converters.rescue_worker` answers for each job, its files in place.

        Raises:
            EdgeError: as :func:`converters.children.run_jobs`.
        """
        keys = [self._rescue_key(job, calibration) for job in jobs]
        answers = [self._rescued(key, job) for key, job in zip(keys, jobs, strict=True)]
        missing = [index for index, answer in enumerate(answers) if answer is None]
        found = run_jobs(
            [jobs[index] for index in missing],
            parallel=1,
            on_step=lambda job, text: self._say(f"{job}: {text}"),
        )
        for index, answer in zip(missing, found, strict=True):
            place = Path(answer["path"])
            self._put(keys[index], "rescue", answer | {"path": place.name}, {"artifact": place})
            answers[index] = answer
        return [answer for answer in answers if answer is not None]

    def _rescue_key(self, job: Job, calibration: Mapping[str, Floats]) -> str:
        request = job.request
        inputs = {
            "module": self._module,
            "artifact": file_digest(Path(request["path"])),
            "calibration": array_digest(calibration[request["size"]]),
        }
        with np.load(request["held_out"]) as arrays:
            inputs |= {name: array_digest(arrays[name]) for name in arrays.files}
        unseen = (*_SILENT, "qat", "path", "held_out")
        options = {name: value for name, value in request.items() if name not in unseen}
        options["file"] = Path(request["path"]).name
        return self._key("rescue", RESCUE_VERSION, inputs, options)

    def _rescued(self, key: str, job: Job) -> dict[str, Any] | None:
        place = Path(job.request["path"])
        arrived = place.with_name(f"{place.name}.rescued")
        hit = self._get(key, {"artifact": arrived})
        if hit is None:
            return None
        target = place.with_name(hit.answer["path"])
        arrived.replace(target)
        self._say(f"{job.name}: its rescue: from the cache")
        return {**hit.answer, "path": str(target)}

    def say(self, text: str) -> None:
        """Tell the user."""
        self._say(text)

    def _key(
        self, what: str, version: int, inputs: Mapping[str, str], options: Mapping[str, Any]
    ) -> str:
        tools = tool_versions() | {"converters": own_code()}
        return key_of(what, version, tools=tools, inputs=inputs, options=options)

    def _get(
        self,
        key: str,
        targets: Mapping[str, Path] | None = None,
        max_age_s: float = math.inf,
    ) -> Hit | None:
        hit = self._cache.get(key, targets) if self._cache is not None else None
        if hit is None or hit.age_s > max_age_s:
            self.run += 1
            return None
        self.taken += 1
        return hit

    def _put(self, key: str, what: str, answer: Any, files: Mapping[str, Path]) -> None:
        if self._cache is not None:
            self._cache.put(key, what, answer, files, host=host_id())


class _BuildPlan:
    """One format: which artifacts lie there already, which the child has to build."""

    def __init__(self, reuse: Reuse, job: Job, calibration: Mapping[str, str]) -> None:
        self._reuse = reuse
        self._job = job
        self._calibration = calibration
        self._found: dict[tuple[str, str], dict[str, Any]] = {}
        self.missing: list[tuple[str, str]] = []
        for size, scheme in map(tuple, job.request["only"]):
            if not self._restore(size, scheme):
                self.missing.append((size, scheme))
        for size in sorted({size for size, scheme in self.missing if scheme != "fp32"}):
            if (size, "fp32") not in self._found and (size, "fp32") not in self.missing:
                self._restore(size, "fp32")  # spares the child the export

    def _restore(self, size: str, scheme: str) -> bool:
        path = artifact_path(self._job.request, size, scheme)
        hit = self._reuse._get(self._key(size, scheme), {"artifact": path})
        if hit is None:
            return False
        self._found[size, scheme] = hit.answer | {"path": str(path)}
        self._reuse.say(f"{self._job.name}: {scheme} {size}: from the cache")
        return True

    def job(self) -> Job:
        """The child's job, for what is missing."""
        return replace(self._job, request={**self._job.request, "only": self.missing})

    def take_in(self, built: Sequence[dict[str, Any]]) -> None:
        """Remember what the child built, the export it needed on the way included."""
        for item in built:
            size, scheme = f"{item['height']}x{item['width']}", item["scheme"]
            self._found[size, scheme] = item
            answer = {name: value for name, value in item.items() if name != "path"}
            path = {"artifact": Path(item["path"])}
            self._reuse._put(self._key(size, scheme), "build", answer, path)

    def items(self) -> list[dict[str, Any]]:
        """Everything that was asked for, in that order."""
        wanted = [(size, scheme) for size, scheme in self._job.request["only"]]
        return [self._found[key] for key in wanted if key in self._found]

    def _key(self, size: str, scheme: str) -> str:
        request = self._job.request
        qat = request.get("qat")
        inputs = {"module": self._reuse._module} | ({"qat": file_digest(Path(qat))} if qat else {})
        if scheme != "fp32":
            inputs["calibration"] = self._calibration[size]
        options = {k: v for k, v in request.items() if k not in (*_SILENT, "qat")}
        return self._reuse._key("build", BUILD_VERSION, inputs, options | {"of": [size, scheme]})


class _AnswerPlan:
    """One artifact: its answers and its latency by thread count."""

    def __init__(self, reuse: Reuse, job: Job, samples: str) -> None:
        self._reuse = reuse
        self._job = job
        self._inputs = {"artifact": file_digest(Path(job.request["path"])), "samples": samples}
        hit = reuse._get(self._answer_key(), {"outputs": Path(job.request["outputs"])})
        self._answer: dict[str, Any] | None = hit.answer if hit else None
        self._latency: dict[str, dict[str, Any]] = {}
        for threads in job.request["threads"]:
            timed = reuse._get(self._latency_key(threads), max_age_s=MAX_LATENCY_AGE_S)
            if timed is not None:
                self._latency[str(threads)] = timed.answer | {"age_s": timed.age_s}
        self.missing = [n for n in job.request["threads"] if str(n) not in self._latency]
        if self._answer is None:
            self.missing = list(job.request["threads"])
        if not self.missing:
            reuse.say(f"verified {job.name}: from the cache, {self._age()}")

    def job(self) -> Job:
        """The child's job; without the samples' answers where these are known."""
        request = {**self._job.request, "threads": self.missing}
        if self._answer is not None:
            request["outputs"] = None
        return replace(self._job, request=request)

    def take_in(self, answer: dict[str, Any]) -> None:
        """Remember what the child found."""
        if self._answer is None:
            self._answer = {k: v for k, v in answer.items() if k != "latency"}
            outputs = {"outputs": Path(self._job.request["outputs"])}
            self._reuse._put(self._answer_key(), "answers", self._answer, outputs)
        for threads, times in answer["latency"].items():
            self._latency[threads] = times
            self._reuse._put(self._latency_key(int(threads)), "latency", times, {})

    def answer(self) -> dict[str, Any]:
        """As the child would have answered."""
        return (self._answer or {}) | {"latency": self._latency}

    def _age(self) -> str:
        oldest = max(float(times.get("age_s", 0.0)) for times in self._latency.values())
        return f"latency measured {_spoken(oldest)} ago on this kind of host ({host_id()})"

    def _answer_key(self) -> str:
        request = self._job.request
        names = ("format", "runtime", "exported")
        options = {name: request.get(name) for name in names} | {"host": host_id()}
        return self._reuse._key("answers", ANSWER_VERSION, self._inputs, options)

    def _latency_key(self, threads: int) -> str:
        request = self._job.request
        options = {"runtime": request["runtime"], "threads": threads, "host": host_id()}
        options["seconds"] = request["seconds"]
        return self._reuse._key("latency", LATENCY_VERSION, self._inputs, options)


def artifact_path(request: Mapping[str, Any], size: str, scheme: str) -> Path:
    """Where a build puts an artifact."""
    return Path(request["folder"]) / f"{request['name']}-{size}-{scheme}.{request['format']}"


def _spoken(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
