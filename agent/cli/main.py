"""Entry point of ``edge-agent``: run, doctor, status, pin, pause, resume, compile."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.cli.output import Output
from edge_sdk import __version__
from edge_sdk.errors import EdgeError

DEFAULT_CONFIG = Path("/etc/edge-agent/agent.toml")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit codes are those of :mod:`edge_sdk.errors`."""
    options = _parser().parse_args(arguments)
    output = Output(options.json)
    try:
        code = _COMMANDS[options.command](options, output)
    except EdgeError as error:
        output.error(error)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    raise SystemExit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-agent", description="Runs models on this device and keeps them up to date."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("run", "Run the agent in the foreground until it is told to stop."),
        ("doctor", "Check configuration, runtimes, broker, disk and trust, one line each."),
        ("status", "Ask the running agent what it is doing."),
        ("pause", "Hold downloads of updates back until `resume`, or the agent starts anew."),
        ("resume", "Let downloads of updates go on with what is missing."),
        ("pin", "Hold one operating point until told otherwise or the agent starts anew."),
        ("compile", "Spare workers 2 MiB each; once after every installation, by who installed."),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "-c", "--config", type=Path, default=DEFAULT_CONFIG, help="agent.toml (%(default)s)"
        )
        command.add_argument(
            "--json",
            action="store_true",
            help="Print one JSON document; `run` prints it once it runs.",
        )
        if name == "pin":
            command.add_argument(
                "point", help="Id or number of the point (0 is the most accurate), or 'auto'."
            )
            command.add_argument(
                "--pipeline", default="", metavar="NAME", help="One of several; all without it."
            )
        if name == "run":
            command.add_argument("-v", "--verbose", action="store_true", help="Log details.")
    return parser


def _run(options: argparse.Namespace, output: Output) -> int:
    from agent.run import run_agent

    def announce(device_id: str, profile: str) -> None:
        output.line(f"edge-agent {__version__}: {device_id} ({profile}) runs; Ctrl-C stops it.")
        if output.as_json:
            started = {"device_id": device_id, "profile": profile, "version": __version__}
            output.finish(started, [f"edge-agent status --config {options.config}"])

    return run_agent(options.config, verbose=options.verbose, announce=announce)


def _doctor(options: argparse.Namespace, output: Output) -> int:
    from agent.doctor import examine

    checks = examine(options.config)
    for check in checks:
        output.line(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.detail}")
        if check.hint:
            output.line(f"      Hint: {check.hint}")
    healthy = all(check.ok for check in checks)
    step = "edge-agent run" if healthy else "edge-agent doctor"
    output.finish(
        [check.as_dict() for check in checks],
        [f"{step} --config {options.config}"],
        ok=healthy,
    )
    return 0 if healthy else 1


def _status(options: argparse.Namespace, output: Output) -> int:
    from agent.config import load_config
    from agent.run import process_environment
    from agent.status import read_status

    config = load_config(options.config, process_environment())
    status = read_status(Path(config.runtime_dir))
    _show(output, status, "")
    output.finish(status, [f"edge device show {status.get('device_id', '')}"])
    return 0


def _show(output: Output, document: Mapping[str, Any], indent: str) -> None:
    """Plain values first, then each inner document under its name."""
    plain = {key: value for key, value in document.items() if not _is_section(value)}
    output.pairs({f"{indent}{key}": value for key, value in plain.items()})
    for key, value in document.items():
        if _is_section(value):
            output.line(f"{indent}{key}:")
            _show(output, value, indent + "  ")


def _is_section(value: object) -> bool:
    """Whether it gets lines of its own; a flat one of a few values stays on one."""
    return isinstance(value, dict) and bool(value) and set(value) != {"value", "leave", "enter"}


def _pin(options: argparse.Namespace, output: Output) -> int:
    from agent.config import load_config
    from agent.run import process_environment
    from agent.status import Request, ask

    config = load_config(options.config, process_environment())
    point = None if options.point == "auto" else options.point
    request = Request(pin=point, pipeline=options.pipeline)
    status = ask(Path(config.runtime_dir), request)
    several = status.get("pipelines")
    for name, one in (several or {"": status}).items():
        pinned = one.get("governor", {}).get("pin") is not None
        text = "Held until `pin auto`." if pinned else "The governor moves again."
        output.line(f"{name + ': ' if name else ''}{one.get('point', '')}: {text}")
    governors = {name: one.get("governor", {}) for name, one in (several or {}).items()}
    output.finish(
        governors or status.get("governor", {}), [f"edge-agent status --config {options.config}"]
    )
    return 0


def _pause(options: argparse.Namespace, output: Output) -> int:
    from agent.config import load_config
    from agent.run import process_environment
    from agent.status import Request, ask

    config = load_config(options.config, process_environment())
    status = ask(Path(config.runtime_dir), Request(paused=options.command == "pause"))
    paused = bool(status.get("paused"))
    output.line("Downloads wait until `resume`." if paused else "Downloads may run.")
    output.finish({"paused": paused}, [f"edge-agent status --config {options.config}"])
    return 0


def _compile(options: argparse.Namespace, output: Output) -> int:
    from agent.worker.lean import compile_workers

    output.line("Compiling what workers import ...")
    compile_workers()
    output.line("Workers that start from now on take 2 MiB less.")
    output.finish({"compiled": True}, [f"edge-agent run --config {options.config}"])
    return 0


_COMMANDS: dict[str, Callable[[argparse.Namespace, Output], int]] = {
    "run": _run,
    "doctor": _doctor,
    "status": _status,
    "pin": _pin,
    "pause": _pause,
    "resume": _pause,
    "compile": _compile,
}


if __name__ == "__main__":
    main(sys.argv[1:])
