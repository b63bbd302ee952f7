"""The operating points of one release on this device, verified before they are loaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.shelf import Shelf
from edge_sdk.contracts.audio import EnhanceSpec
from edge_sdk.contracts.base import decode
from edge_sdk.contracts.manifest import Artifact, Manifest
from edge_sdk.contracts.operating_point import OperatingPoint
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import ContractError, StorageError
from edge_sdk.runtime.engine import Engine
from edge_sdk.runtime.negotiate import open_engine
from edge_sdk.suggest import did_you_mean

if TYPE_CHECKING:
    from agent.pipelines.pixels import Pixels
    from agent.pipelines.vision import VisionPipeline

MAX_MANIFEST_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Loaded:
    """A point that is ready to run."""

    index: int
    pipeline: VisionPipeline
    load_ms: float


class Points:
    """Loads the points of a ladder.

    Args:
        manifest: a verified release.
        blobs: folder of its blobs.
        profile: which ladder.
        threads: 0 for each point's own number.
        runtimes: points for other runtimes are left out; empty leaves none out.

    Raises:
        ContractError: ``contract.no-ladder``.
    """

    def __init__(
        self,
        manifest: Manifest,
        blobs: Path,
        profile: str,
        *,
        threads: int = 0,
        runtimes: Sequence[str] = (),
    ) -> None:
        self.manifest = manifest
        self._shelf = Shelf(BlobStore(blobs, DiskStorage()), manifest.derived)
        self._threads = threads
        ladder = manifest.ladders.get(profile, ())
        self.ladder = tuple(p for p in ladder if not runtimes or p.runtime in runtimes)
        if not self.ladder:
            here = f" for {' or '.join(runtimes)}" if ladder else ""
            raise ContractError(
                "no-ladder",
                f"Release {manifest.release} {manifest.version} has no ladder for the profile "
                f"{profile!r}{here}.",
                f"Convert the model for it. {did_you_mean(profile, manifest.ladders)}",
            )

    def open(
        self, index: int, before_open: Callable[[], None] = lambda: None
    ) -> tuple[OperatingPoint, Artifact, Engine]:
        """Build an artifact where it is derived, verify its bytes and load it on a runtime.

        Args:
            index: into the ladder.
            before_open: called between both; may wait for a good moment to load.

        Raises:
            EdgeError: ``contract.bad-manifest``, what
                :meth:`edge_sdk.bundle.shelf.Shelf.opened` raises, or what the runtimes say.
        """
        point = self.ladder[index]
        artifact = self.artifact(point)
        with self._shelf.opened(artifact.digest) as path:
            before_open()
            engine = open_engine(path, format=artifact.format, threads=self.threads(point))
        return point, artifact, engine

    def open_filter(self, point: OperatingPoint) -> tuple[EnhanceSpec, Artifact, Engine] | None:
        """What cleans the sound before this point hears it; None where the release has nothing.

        Raises:
            EdgeError: as :meth:`open`.
        """
        enhance = self.manifest.task.enhance
        digest = enhance.artifacts.get(point.runtime) if enhance is not None else None
        if enhance is None or digest is None:
            return None
        artifact = self._described(digest, f"The filter before point {point.id}")
        with self._shelf.opened(artifact.digest) as path:
            engine = open_engine(path, format=artifact.format, threads=1)
        return enhance.spec, artifact, engine

    def load(
        self, index: int, pixels: Pixels, before_open: Callable[[], None] = lambda: None
    ) -> Loaded:
        """A pipeline on one point; arguments as :meth:`open`.

        Raises:
            EdgeError: as :meth:`open`, or the model does not fit the pipeline.
        """
        from agent.pipelines.vision import VisionPipeline

        start = time.perf_counter()
        _, artifact, engine = self.open(index, before_open)
        try:
            pipeline = VisionPipeline(engine, artifact, self.manifest.task, pixels)
        except BaseException:
            engine.close()
            raise
        return Loaded(index, pipeline, (time.perf_counter() - start) * 1e3)

    def threads(self, point: OperatingPoint) -> int:
        """Threads a point runs on here."""
        return self._threads or point.threads

    def artifact(self, point: OperatingPoint) -> Artifact:
        """What a point runs.

        Raises:
            ContractError: ``contract.bad-manifest``.
        """
        return self._described(point.artifact, f"Point {point.id}")

    def _described(self, digest: str, who: str) -> Artifact:
        artifact = self.manifest.artifacts.get(digest)
        if artifact is None or artifact.digest != digest:
            raise ContractError(
                "bad-manifest",
                f"{who} of release {self.manifest.release} {self.manifest.version} "
                f"runs {digest[:12]}, which the release does not describe.",
                "Create the release again with this version of edge-sdk.",
            )
        return artifact

    def blob(self, digest: str) -> bytes:
        """A verified file of the release, built where it is derived.

        Raises:
            EdgeError: as :meth:`edge_sdk.bundle.shelf.Shelf.read`.
        """
        return self._shelf.read(digest)


def read_manifest(path: Path) -> Manifest:
    """A manifest that the supervisor has verified.

    Raises:
        EdgeError: ``storage.unreadable``, ``contract.malformed`` or ``contract.too-new``.
    """
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_MANIFEST_BYTES)
    except OSError as error:
        raise StorageError(
            "unreadable",
            f"Cannot read {path}: {error.strerror or error}.",
            "Check the file's permissions and the health of the disk.",
        ) from error
    return decode(data, Manifest, f"The manifest {path}")
