"""The report: complete as HTML and JSON, and whole when optional parts were not measured."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec import structs

from converters.convert import Outcome
from converters.fusion import Fusion, Steps, steps_in
from converters.importing import ImportOptions, import_model
from converters.ladder import Ladder
from converters.report import write_report
from converters.report.page import band
from converters.report.plot import ladder_plot, latency, sensitivity_plot
from converters.results import LayerScore, Repair, Sensitivity
from device_profiles.loader import load_profile
from tests.fakes.models import write_onnx

PNG = b"\x89PNG"
SCORES = (LayerScore("stem.conv", "Conv", 11.5), LayerScore("head", "Gemm", 42.0))


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A real import; its files still lie where the report looks for them."""
    folder = tmp_path_factory.mktemp("report")
    source = write_onnx(folder / "m.onnx", layers=2)
    options = ImportOptions(schemes=("wfp16",))
    found = import_model(
        source, ["snapdragon-8-gen3", "x86-generic"], folder / "out", options=options
    ).outcome
    lying = [replace(m, path=found.out / "artifacts" / m.path.name) for m in found.measured]
    return replace(found, measured=tuple(lying))


def rendered(outcome: Outcome, folder: Path) -> tuple[str, dict]:
    write_report(outcome, folder / "report.html")
    return (folder / "report.html").read_text(), json.loads((folder / "report.json").read_text())


def test_without_optional_parts_there_are_no_empty_sections(
    outcome: Outcome, tmp_path: Path
) -> None:
    html, data = rendered(outcome, tmp_path)
    for title in ("Sensitivity", "Repairs", "Fusion"):
        assert f"<h2>{title}</h2>" not in html
    assert data["sensitivities"] == data["repairs"] == data["warnings"] == []
    assert data["fusion"] is None
    assert 'class="warning"' not in html


def test_json_and_page_tell_the_same(outcome: Outcome, tmp_path: Path) -> None:
    html, data = rendered(outcome, tmp_path)
    assert [row["digest"] for row in data["artifacts"]] == [m.digest for m in outcome.measured]
    for row in data["artifacts"]:
        assert row["file"].partition("/")[2] in html and row["digest"] in html
        assert (outcome.out / row["file"]).stat().st_size == row["bytes"]
    assert set(data["ladders"]) == set(outcome.ladders)
    assert data["provenance"] == outcome.conversion.provenance
    assert "agreement of the imported file" in html, "no claim about PyTorch, which never ran"


def test_each_device_has_a_line_at_a_glance(outcome: Outcome, tmp_path: Path) -> None:
    html, _ = rendered(outcome, tmp_path)
    lines = html.partition("<h2>At a glance</h2>")[2].partition("</table>")[0].splitlines()
    for name, ladder in outcome.ladders.items():
        (line,) = [text for text in lines if f'href="#{name}"' in text]
        assert f'id="{name}"' in html, "the link leads to the device's ladder"
        fastest = min(ladder.points, key=latency)
        assert f"{fastest.height_px}x{fastest.width_px} {fastest.scheme}" in line
        assert band(fastest) in line
        assert re.search(r"<td>\d+\.\dx</td>", line)


def test_the_noisiest_static_file_is_shown_layer_by_layer(tiny_conversion: Outcome) -> None:
    html = (tiny_conversion.out / "report.html").read_text()
    section = html.partition("<h2>Sensitivity</h2>")[2].partition("</section>")[0]
    assert "static_wi8_ai8" in section
    assert re.search(r"Worst: \S+.* \(-?\d+\.\d dB\)", section)
    assert "data:image/png;base64," in section


def test_sensitivity_repairs_and_warnings_are_shown(outcome: Outcome, tmp_path: Path) -> None:
    full = replace(
        outcome,
        sensitivities=(Sensitivity("onnx", "8x8", "static_wi8_ai8", SCORES, ("stem.conv",)),),
        repairs=(
            Repair("bias correction", "onnx", "8x8", "static_wi8_ai8", 3, 20, 28, 0.9, 0.95, True),
        ),
        warnings=("Slow <there>.",),
    )
    html, data = rendered(full, tmp_path)
    assert "stem.conv (11.5 dB)" in html and "Kept in float32: stem.conv" in html
    assert "20.0 → 28.0" in html and "Slow &lt;there&gt;." in html
    assert html.count("data:image/png;base64,") == len(full.ladders) + 1
    assert data["sensitivities"][0]["layers"][1] == {"name": "head", "op": "Gemm", "sqnr_db": 42.0}
    assert data["repairs"][0]["applied"] is True


def test_fusion_is_shown_where_it_was_counted(outcome: Outcome, tmp_path: Path) -> None:
    folded, before = steps_in(outcome.measured[0].path), Steps(9, 2, 2, 5)
    fields = {name: getattr(outcome, name) for name in outcome.__slots__}
    fusion = Fusion(before, {"onnx": folded}, {"a.onnx": ("input: padded <somehow>",)})
    counted = SimpleNamespace(**fields | {"fusion": fusion})
    html, data = rendered(counted, tmp_path)  # type: ignore[arg-type]
    assert "<li>a.onnx: input: padded &lt;somehow&gt;</li>" in html
    assert data["fusion"]["rewrites"] == {"a.onnx": ["input: padded <somehow>"]}
    assert "<h2>Fusion</h2>" in html and "the module" in html
    assert data["fusion"]["before"]["norms"] == 2
    assert data["fusion"]["after"]["onnx"]["weighted"] == folded.weighted == 2


def test_lint_rows_come_from_the_profiles_accelerators(outcome: Outcome, tmp_path: Path) -> None:
    html, data = rendered(outcome, tmp_path)
    expected = {
        (profile.id, unit.name)
        for profile in outcome.profiles.values()
        for unit in profile.accelerators
        for limits in unit.constraints
        if limits.format == "onnx"
    }
    assert {(row["profile"], row["accelerator"]) for row in data["lint"]} == expected
    assert ("<h2>Accelerators</h2>" in html) == bool(expected)


def test_a_missing_file_costs_its_lint_and_nothing_else(outcome: Outcome, tmp_path: Path) -> None:
    gone = tuple(replace(m, path=tmp_path / "gone" / m.path.name) for m in outcome.measured)
    html, data = rendered(replace(outcome, measured=gone), tmp_path)
    assert "<h2>Provenance</h2>" in html
    assert data["lint"], "a row that says why is there"
    for row in data["lint"]:
        assert not row["clean"] and "not linted: " in row["findings"][0]
        assert "There is no file" in row["findings"][0]
    assert "not linted: " in html


def test_an_accelerator_without_an_operator_list_is_said_to_be_unchecked(
    outcome: Outcome, tmp_path: Path
) -> None:
    profiles = {"tensor-g4": load_profile("tensor-g4")}
    html, data = rendered(replace(outcome, profiles=profiles, ladders={}), tmp_path)
    (row,) = data["lint"]
    assert row["findings"] == ["not linted: no operator list is known"]
    assert row["findings"][0] in html


def test_plots_are_images_and_markers_grow_with_the_file(outcome: Outcome) -> None:
    profile, point = load_profile("x86-generic"), outcome.ladders["x86-generic"].points[0]
    other = structs.replace(point, id="other", artifact="other", host_latency_ms=0.1)
    ladder = Ladder("onnxruntime", (point, other), (point, other))
    plain = ladder_plot(profile, ladder, {point.artifact: 1000, "other": 500})
    assert plain.startswith(PNG)
    assert ladder_plot(profile, ladder, {point.artifact: 1000, "other": 900}) != plain
    assert ladder_plot(profile, ladder, {}).startswith(PNG)
    assert sensitivity_plot([("a" * 90, -3.0), ("b", 200.0)], frozenset("b")).startswith(PNG)
