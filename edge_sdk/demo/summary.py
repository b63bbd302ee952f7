"""The demo's closing words, and its page."""

from __future__ import annotations

import base64
from pathlib import Path

from edge_sdk.cli.output import Output
from edge_sdk.demo.story import Proof

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>edge-sdk demo</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse }
td, th { padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top }
td:not(:last-child) { white-space: nowrap }
th { border-bottom: 2px solid #ccc } td { border-bottom: 1px solid #eee }
img { max-width: 100% } .committed { color: #2a7f3f } .rejected, .rolled_back { color: #b3261e }
</style></head><body>
<h1>What the demo showed</h1>
<p>{{ proof.conversion.artifacts | length }} artifacts for
{{ proof.conversion.ladders | length }} device profiles, four rollouts to three agents,
{{ '%.0f' | format(proof.seconds) }} s in all.
<a href="conversions/1/report.html">The conversion's report</a> has accuracies, sizes and latency
bands.</p>
<h2>Rollouts</h2>
<table><tr><th>version</th>{% for name in devices %}<th>{{ name }}</th>{% endfor %}</tr>
{% for rollout in proof.rollouts %}<tr><td>{{ rollout.version }}</td>
{% for name in devices %}<td class="{{ rollout.devices[name] }}">
{{ rollout.devices[name] | replace('_', ' ') }}</td>{% endfor %}</tr>{% endfor %}</table>
<p>A burglar with every key of the server then ordered a release of their own. Refused:
{% for name, code in proof.refused | dictsort %}
{{ name }} ({{ code }}){{ '.' if loop.last else ', ' }}{% endfor %}</p>
<h2>Accuracy on the labelled stream</h2>
<table><tr><th>device</th>{% for version in versions %}<th>v{{ version }}</th>{% endfor %}</tr>
{% for name in devices %}<tr><td>{{ name }}</td>{% for version in versions %}
<td>{{ '%.4f' | format(proof.accuracy[name][version]) }}</td>{% endfor %}</tr>{% endfor %}</table>
<h2>The governor under pressure</h2>
<img alt="pressure and ladder position over time" src="data:image/png;base64,{{ plot }}">
<h2>Timeline</h2>
<table><tr><th>s</th><th>device</th><th>version</th><th>phase</th><th></th></tr>
{% for m in proof.timeline %}<tr><td>{{ '%.1f' | format(m.at_s) }}</td><td>{{ m.device }}</td>
<td>{{ m.version }}</td><td class="{{ m.phase.value }}">{{ m.phase.value | replace('_', ' ') }}</td>
<td>{{ m.detail }}</td></tr>{% endfor %}</table>
</body></html>
"""


def write_report(folder: Path, proof: Proof) -> Path:
    """Write ``report.html``, self-contained except for the link to the conversion's own report."""
    from jinja2 import Environment

    devices = sorted(proof.accuracy)
    versions = sorted({version for by_version in proof.accuracy.values() for version in by_version})
    plot = base64.b64encode((folder / "governor.png").read_bytes()).decode()
    page = Environment(autoescape=True).from_string(PAGE)
    path = folder / "report.html"
    path.write_text(page.render(proof=proof, devices=devices, versions=versions, plot=plot))
    return path


def tell_summary(output: Output, folder: Path, report: Path, proof: Proof) -> None:
    """What was proven, with the figures, and where things lie."""
    conversion = proof.conversion
    outcomes = {rollout["version"]: rollout["devices"] for rollout in proof.rollouts}
    output.line()
    output.line(f"8. Proven in {proof.seconds:.0f} s", style="bold")
    if conversion is not None:
        output.line(
            f"  one PyTorch model became {len(conversion.artifacts)} verified artifacts for "
            f"{len(conversion.ladders)} device profiles"
        )
    for version, devices in outcomes.items():
        ends = ", ".join(f"{name} {phase}" for name, phase in sorted(devices.items()))
        output.line(f"  version {version}: {ends}")
    codes = ", ".join(sorted(set(proof.refused.values())))
    output.line(f"  a burglar's order: refused by {len(proof.refused)} devices ({codes})")
    for name, by_version in sorted(proof.accuracy.items()):
        scores = ", ".join(f"v{version} {value:.4f}" for version, value in by_version.items())
        output.line(f"  {name}: accuracy on the stream {scores}")
    rungs = len(set(proof.ladder_visited))
    output.line(f"  the governor used {rungs} operating points and came back to the first")
    output.line()
    output.line(f"  report     {report}")
    output.line(f"  conversion {folder / 'conversions' / '1' / 'report.html'}")
    output.line(f"  artifacts  {folder / 'conversions' / '1' / 'artifacts'}")
    output.line(f"  governor   {folder / 'governor.png'}")
