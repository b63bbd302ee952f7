"""The report's optional sections: each is empty when what it shows was not measured."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from converters.report.plot import sensitivity_plot
from edge_sdk.errors import EdgeError

if TYPE_CHECKING:
    from converters.convert import Outcome
    from converters.results import Measured
    from edge_sdk.contracts.profile import DeviceProfile

SHOWN_FINDINGS = 5


def sensitivities(outcome: Outcome) -> list[dict[str, Any]]:
    """Per-layer sensitivity of each artifact that was analysed, with its plot."""
    found = []
    for item in getattr(outcome, "sensitivities", ()):
        scores = [(layer.name, layer.sqnr_db) for layer in item.layers]
        if not scores:
            continue
        image = sensitivity_plot(scores, frozenset(item.kept))
        found.append(
            {
                "title": f"{item.scheme} {item.size}, {item.format}",
                "kept": list(item.kept),
                "worst": [f"{name} ({db:.1f} dB)" for name, db in scores[:3]],
                "image": base64.b64encode(image).decode(),
            }
        )
    return found


def layer_noises(outcome: Outcome) -> list[dict[str, Any]]:
    """Noise by layer of the noisiest static file, where no layer was scored alone.

    Files whose activations stay float have no layer to compare.
    """
    full = next(iter(outcome.reference), "")
    static = [m for m in outcome.measured if m.size == full and "static" in m.scheme]
    if getattr(outcome, "sensitivities", ()) or not static:
        return []
    worst = min(static, key=lambda item: item.sqnr_db)
    scores = _layer_scores(outcome, worst)
    if not scores:
        return []
    image = sensitivity_plot(scores, frozenset(), what="signal to noise behind this layer, dB")
    return [
        {
            "title": f"{worst.scheme} {worst.size}, {worst.format}",
            "worst": [f"{name} ({db:.1f} dB)" for name, db in scores[:3]],
            "image": base64.b64encode(image).decode(),
        }
    ]


def _layer_scores(outcome: Outcome, item: Measured) -> list[tuple[str, float]]:
    from converters.layer_noise import layer_noise
    from converters.layer_pairs import golden_samples

    wanted = (item.format, item.size, "fp32")
    floats = [o.path for o in outcome.measured if (o.format, o.size, o.scheme) == wanted]
    exported = "imported-from" not in outcome.conversion.provenance
    try:
        samples = golden_samples(item.golden, outcome.conversion.artifacts[item.digest])
        found = layer_noise(item.path, floats[0], samples, exported=exported) if floats else []
    except (EdgeError, OSError):
        return []  # a report without this picture is better than no report
    return [(layer.name, layer.sqnr_db) for layer in found]


def repairs(outcome: Outcome) -> list[dict[str, str]]:
    """What was tried to win accuracy back."""
    return [
        {
            "kind": item.kind,
            "artifact": f"{item.scheme} {item.size}, {item.format}",
            "layers": str(item.layers),
            "sqnr": f"{item.before_db:.1f} → {item.after_db:.1f}",
            "accuracy": f"{item.before_accuracy * 100:.2f} → {item.after_accuracy * 100:.2f}",
            "applied": "kept" if item.applied else "undone",
        }
        for item in getattr(outcome, "repairs", ())
    ]


def fusions(outcome: Outcome) -> list[dict[str, str]]:
    """Steps of the module and operators of each format's float file, where they were counted."""
    fusion = getattr(outcome, "fusion", None)
    if fusion is None:
        return []
    counted = {"the module": fusion.before} | dict(fusion.after)
    return [
        {"in": name} | {key: str(value) for key, value in steps.as_dict().items()}
        for name, steps in counted.items()
    ]


def rewrites(outcome: Outcome) -> list[str]:
    """What was written differently for a runtime's kernels, a sentence per place."""
    fusion = getattr(outcome, "fusion", None)
    if fusion is None:
        return []
    return [f"{name}: {text}" for name, done in fusion.rewrites.items() for text in done]


def lint_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """Each artifact of full resolution against each accelerator of the outcome's profiles."""
    full = next(iter(outcome.reference), "")
    rows = []
    for profile in outcome.profiles.values():
        if any(unit.constraints for unit in profile.accelerators):
            for item in outcome.measured:
                rows += _linted(item, profile) if item.size == full else []
        elif profile.accelerators:
            rows.append(_not_linted("every file", profile, "no operator list is known"))
    return rows


def _linted(item: Measured, profile: DeviceProfile) -> list[dict[str, Any]]:
    try:
        from converters.linting.run import lint_file

        found = lint_file(item.path, profile)
    except (EdgeError, ImportError, OSError) as error:
        # A report with this row alone unknown is better than no report.
        return [_not_linted(item.path.name, profile, getattr(error, "cause", "") or str(error))]
    return [
        {
            "profile": profile.id,
            "accelerator": one.accelerator,
            "runtime": one.lint.runtime,
            "file": item.path.name,
            "clean": one.lint.clean,
            "nodes": one.nodes,
            "fallback": len(one.lint.fallback),
            "partitions": one.lint.partitions,
            "cost": _cost(one),
            "findings": [
                f"{finding.module or finding.node or 'whole model'}: {finding.why}"
                for finding in one.lint.findings[:SHOWN_FINDINGS]
            ],
            "more": max(0, len(one.lint.findings) - SHOWN_FINDINGS),
        }
        for one in found
    ]


def _not_linted(file: str, profile: DeviceProfile, why: str) -> dict[str, Any]:
    """The row of a file whose lint did not run."""
    units = ", ".join(unit.name for unit in profile.accelerators)
    known: dict[str, Any] = {"profile": profile.id, "accelerator": units, "runtime": "not linted"}
    unknown = dict.fromkeys(("nodes", "fallback", "partitions", "cost"), "–")
    return {
        **known,
        **unknown,
        "file": file,
        "clean": False,
        "findings": [f"not linted: {why}"],
        "more": 0,
    }


def _cost(one: Any) -> str:
    if not one.lint.fallback:
        return "–"
    if one.cpu is None:
        return "unknown"
    return f"{one.cpu.low_ms:.2f} – {one.cpu.high_ms:.2f}"
