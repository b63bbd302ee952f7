"""Entry point of ``edge``."""

from __future__ import annotations

import importlib
import sys

from edge_sdk import __version__

NOUNS = {
    "model": "Convert, measure and inspect models.",
    "audio": "Networks that listen: wake words.",
    "profile": "Device profiles: list, show, probe.",
    "governor": "Replay what a device felt through the governor.",
    "release": "Create, sign and publish releases.",
    "server": "Run the fleet server.",
    "broker": "Run the embedded MQTT broker; certificates and rules for mosquitto.",
    "device": "Devices of a fleet.",
    "rollout": "Roll a release out to a fleet.",
    "demo": "The main job, end to end, on this machine.",
}
"""Each noun is a module ``edge_sdk.cli.NOUN`` with a click command named ``command``."""


def main() -> None:
    """Run the command line; exit codes are documented in docs/errors/."""
    try:
        import click
    except ImportError:
        sys.stderr.write(
            "error[usage.extra-missing]: The edge command needs its host packages.\n"
            "Hint: pip install 'edge-sdk[convert,server]'\n"
        )
        raise SystemExit(2) from None

    class Nouns(click.Group):
        """Imports a noun's module when the noun is used, so that ``edge --help`` is quick."""

        def list_commands(self, ctx: click.Context) -> list[str]:
            return list(NOUNS)

        def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
            if name not in NOUNS:
                return None
            module = importlib.import_module(f"edge_sdk.cli.{name}")
            command: click.Command = module.command
            return command

        def resolve_command(
            self, ctx: click.Context, args: list[str]
        ) -> tuple[str | None, click.Command | None, list[str]]:
            if args and args[0] not in NOUNS and not args[0].startswith("-"):
                from edge_sdk.suggest import did_you_mean

                ctx.fail(f"No command {args[0]!r}. {did_you_mean(args[0], NOUNS)}")
            return super().resolve_command(ctx, args)

        def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            with formatter.section("Commands"):
                formatter.write_dl(list(NOUNS.items()))

    group = Nouns(
        name="edge",
        help="From a PyTorch model to a fleet of small devices.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    click.version_option(__version__)(group)
    group()


if __name__ == "__main__":
    main()
