"""Passphrases of private keys: from a file, the environment, or the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from edge_sdk.bundle.signing import SigningKey

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(path_type=Path, dir_okay=False)
DEFAULT_VARIABLE = "EDGE_KEY_PASSPHRASE"
ATTEMPTS = 3
"""A mistyped passphrase is asked for again this often."""


def passphrase_options(function: F) -> F:
    """Add where the passphrase of the offline keys comes from."""
    for option in (
        click.option("--passphrase-file", type=FILE, help="File that holds the passphrase."),
        click.option(
            "--passphrase-env",
            default=DEFAULT_VARIABLE,
            show_default=True,
            help="Environment variable that holds it; asked for when neither is there.",
        ),
    ):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True)
class Passphrases:
    """Where passphrases come from.

    Args:
        file: holds one, if given.
        variable: of the environment, that may hold one.
    """

    file: Path | None = None
    variable: str = DEFAULT_VARIABLE

    def given(self) -> bytes:
        """What the file or the environment holds; empty when neither is there.

        Raises:
            TrustError: ``trust.no-passphrase``: the file cannot be read, or is empty.
        """
        from edge_sdk.errors import TrustError

        if self.file is None:
            return os.environ.get(self.variable, "").encode()
        try:
            found, problem = self.file.read_bytes().strip(), "it is empty"
        except OSError as error:
            found, problem = b"", error.strerror or str(error)
        if not found:
            raise TrustError(
                "no-passphrase",
                f"The passphrase file {self.file} cannot be used: {problem}.",
                "Correct the path or the file.",
            )
        return found

    def new(self, what: str) -> bytes:
        """A passphrase for something new; typed twice when it is not given.

        Raises:
            TrustError: ``trust.passphrase-needed``: there is no terminal to ask on.
        """
        return self.given() or self._ask(f"New passphrase for {what}", confirm=True)

    def load(self, path: Path) -> SigningKey:
        """A private key; its passphrase is asked for, several times, when it has one.

        Raises:
            TrustError: as :func:`edge_sdk.bundle.signing.load_key`.
        """
        from edge_sdk.bundle.signing import load_key
        from edge_sdk.errors import TrustError

        given = self.given()
        try:
            return load_key(path, given or None)
        except TrustError as error:
            if error.slug != "passphrase-needed":
                raise
        for _ in range(ATTEMPTS - 1):
            try:
                return load_key(path, self._ask(f"Passphrase of {path}"))
            except TrustError as error:
                if error.slug != "wrong-passphrase":
                    raise
                click.echo("That does not open it.", err=True)
        return load_key(path, self._ask(f"Passphrase of {path}"))

    def _ask(self, what: str, *, confirm: bool = False) -> bytes:
        from edge_sdk.errors import TrustError

        if not is_terminal():
            raise TrustError(
                "passphrase-needed",
                f"{what}: there is no terminal to ask on.",
                f"Give it with --passphrase-file, or in the variable {self.variable}.",
            )
        entered: str = click.prompt(what, hide_input=True, confirmation_prompt=confirm, err=True)
        return entered.encode()


def is_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty()
