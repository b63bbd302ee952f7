"""Makes the demo's keys and four releases with the commands a person would type."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_sdk.contracts.base import decode
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.demo.damage import damage_conversion
from edge_sdk.demo.shell import Shell

RELEASE = "digits"
PROFILES = ("rpi4", "rpi5", "jetson-orin-nano", "snapdragon-8-gen3", "x86-generic")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a version comes about."""

    version: str
    task: str
    """Class in the example's task file."""
    seed: int
    epochs: int


FIRST = Recipe("1", "Digits", seed=1, epochs=4)
SECOND = Recipe("2", "Digits", seed=2, epochs=7)
MISLABELLED = Recipe("4", "DigitsMislabelled", seed=4, epochs=4)


class ReleaseFactory:
    """Trains, converts, packs, signs.

    Args:
        folder: everything lies below it.
        task_file: the example's task file.
        fleet_profiles: profiles of the devices that really run; later versions are built for
            these alone.
    """

    def __init__(self, folder: Path, task_file: Path, fleet_profiles: tuple[str, ...]) -> None:
        self._folder = folder
        self._task_file = task_file
        self._fleet_profiles = fleet_profiles
        self._keys = folder / "keys"
        self.trust = self._keys / "trust.json"
        """What devices are provisioned with."""

    def make_keys(self, data: Path, shell: Shell) -> None:
        """Make the server's own keys and the publisher's offline keys, and the first root."""
        shell.run("server", "keys", "--data", str(data))
        shell.run("release", "key", "init", str(self._keys), "--server-keys", str(data))

    def train(self, recipe: Recipe, shell: Shell) -> None:
        """Train and keep the weights."""
        shell.show(
            *("model", "train", f"{self._task_file}:{recipe.task}"),
            *("--seed", str(recipe.seed), "--epochs", str(recipe.epochs)),
            *("-o", str(self._weights(recipe))),
        )

    def convert(self, recipe: Recipe, shell: Shell, *, every_profile: bool) -> Conversion:
        """Convert for all demo profiles, or for those of the fleet."""
        profiles = PROFILES if every_profile else self._fleet_profiles
        out = self.conversion(recipe.version)
        shell.show(
            *("model", "convert", f"{self._task_file}:{recipe.task}"),
            *("--weights", str(self._weights(recipe)), "-o", str(out), "--force"),
            *(word for profile in profiles for word in ("--profile", profile)),
        )
        path = out / "conversion.json"
        return decode(path.read_bytes(), Conversion, str(path))

    def damage(self, source: Recipe, version: str) -> None:
        """A conversion whose weights went bad after its golden vectors were made."""
        damage_conversion(self.conversion(source.version), self.conversion(version))

    def pack(self, version: str, shell: Shell) -> None:
        """Make the release folder, unsigned."""
        shell.run(
            *("release", "create", str(self.conversion(version)), "-o", str(self.folder(version))),
            *("--name", RELEASE, "--version", version, "--sequence", version),
        )

    def sign(self, version: str, shell: Shell) -> None:
        """Name the release in the publisher's targets."""
        shell.run("release", "sign", str(self.folder(version)), "--keys", str(self._keys))

    def folder(self, version: str) -> Path:
        """The release folder of a version."""
        return self._folder / "releases" / f"{RELEASE}-{version}"

    def conversion(self, version: str) -> Path:
        """The conversion folder of a version."""
        return self._folder / "conversions" / version

    def _weights(self, recipe: Recipe) -> Path:
        return self._folder / "weights" / f"{recipe.version}.pt"
