"""A content-addressed store of what passes produced: the same work is never done twice.

A pass (an export, a quantization, a verification) is named by a key: the digest of its name and
version, of the versions of the tools, of its inputs and of its options. What it produced lies in
two places below the cache's folder::

    blobs/SHA256        each file, named by its own digest
    keys/KEY.json       which files belong to the pass, and its answer; written last

Every write replaces a file atomically, and the entry of the key comes last, so that a power cut
leaves either nothing or the whole of it. Reading needs no lock: every file is compared with its
digest on the way out, and an entry that is damaged or incomplete is deleted and counts as missing.
Writers and the eviction take turns by a lock on a file. A cache that cannot be written never
stops a conversion.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from edge_sdk.contracts.base import Wire, decode, encode
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import ContractError, StorageError, UsageError

FORMAT = "v1"
"""Subfolder; another layout gets another one."""
DEFAULT_MAX_BYTES = 8 * 1024**3
LOCK_TIMEOUT_S = 60.0
_CHUNK = 1 << 20

Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class Entry(Wire, kw_only=True):
    """``keys/KEY.json``."""

    key: str
    what: str
    """Name of the pass, for people."""
    created: float
    """Seconds since 1970 on the clock of the host that did the work."""
    host: str
    """:func:`converters.keys.host_id` of that host."""
    files: dict[str, Digest]
    """Name within the pass to the digest of its content."""
    answer: str
    """JSON: what the pass answered besides its files."""
    check: str
    """Digest of everything above: a damaged entry must not tell lies about good files."""


@dataclass(frozen=True, slots=True)
class Hit:
    """What the cache knew."""

    answer: Any
    age_s: float
    host: str


def key_of(
    what: str,
    version: int,
    *,
    tools: Mapping[str, str],
    inputs: Mapping[str, str],
    options: Mapping[str, Any],
) -> str:
    """The key of a pass: 64 hex digits.

    Args:
        what: name of the pass.
        version: raised whenever the pass's own code answers differently from before.
        tools: versions of the libraries that do the work.
        inputs: digests of what goes in.
        options: everything else that shapes the answer; plain JSON data.
    """
    parts = [what, version, dict(tools), dict(inputs), dict(options)]
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def default_folder(environment: Mapping[str, str] | None = None) -> Path:
    """The XDG cache folder of this user, e.g. ``~/.cache/edge-sdk/convert``."""
    found = os.environ if environment is None else environment
    base = found.get("XDG_CACHE_HOME", "")
    root = Path(base) if Path(base).is_absolute() else Path("~/.cache").expanduser()
    return root / "edge-sdk" / "convert"


class Cache:
    """Answers of earlier passes.

    Args:
        folder: where they lie; created when the first is stored.
        max_bytes: of all files together; the least recently used go first.
        storage: does the durable writes.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        storage: DiskStorage | None = None,
        clock: Any = time.time,
    ) -> None:
        if folder.exists() and not folder.is_dir():
            raise UsageError(
                "cache-unusable",
                f"{folder} is not a folder.",
                "Give a folder with --cache, or work without one: --no-cache.",
            )
        self.folder = folder / FORMAT
        self._max_bytes = max_bytes
        self._storage = storage or DiskStorage()
        self._clock = clock

    def get(self, key: str, targets: Mapping[str, Path] | None = None) -> Hit | None:
        """What a pass produced, or None when it has to run.

        Args:
            key: of the pass.
            targets: where to put its files, by their names within the pass.

        Returns:
            None too when anything about the entry is wrong; it is deleted then and no target
            was touched that is not whole.
        """
        path = self._key_path(key)
        entry = self._read(path)
        if entry is None:
            return None
        for name, target in (targets or {}).items():
            if name not in entry.files or not self._restore(entry.files[name], target):
                self._forget(path)
                return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return Hit(json.loads(entry.answer), max(0.0, self._clock() - entry.created), entry.host)

    def put(
        self, key: str, what: str, answer: Any, files: Mapping[str, Path], *, host: str
    ) -> bool:
        """Remember what a pass produced.

        Returns:
            Whether it is stored. A full disk or a folder that cannot be written loses nothing
            but the saving.
        """
        try:
            if sum(path.stat().st_size for path in files.values()) > self._max_bytes:
                return False
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock():
                digests = {name: self._store(path) for name, path in files.items()}
                entry = Entry(
                    key=key,
                    what=what,
                    created=self._clock(),
                    host=host,
                    files=digests,
                    answer=json.dumps(answer),
                    check="",
                )
                self._storage.write(self._key_path(key), encode(_checked(entry)))
                self._evict()
        except (OSError, StorageError, TimeoutError):
            return False
        return True

    def size_bytes(self) -> int:
        """Of all stored files."""
        return sum(size for _, size in self._files("blobs"))

    def _key_path(self, key: str) -> Path:
        return self.folder / "keys" / f"{key}.json"

    def _blob_path(self, digest: str) -> Path:
        return self.folder / "blobs" / digest

    def _read(self, path: Path) -> Entry | None:
        try:
            entry = decode(path.read_bytes(), Entry, str(path))
        except FileNotFoundError:
            return None
        except (OSError, ContractError):
            self._forget(path)
            return None
        if entry.check != _checked(entry).check or entry.key != path.stem:
            self._forget(path)
            return None
        return entry

    def _restore(self, digest: str, target: Path) -> bool:
        """Copy a blob out, proving its digest; the target appears whole or not at all."""
        temporary = target.with_name(f"{target.name}.{os.getpid()}.part")
        seen = hashlib.sha256()
        try:
            with self._blob_path(digest).open("rb") as source, temporary.open("wb") as copy:
                while piece := source.read(_CHUNK):
                    seen.update(piece)
                    copy.write(piece)
            if seen.hexdigest() == digest:
                temporary.replace(target)
                return True
            self._forget(self._blob_path(digest))
        except FileNotFoundError:
            pass  # evicted meanwhile
        finally:
            temporary.unlink(missing_ok=True)
        return False

    def _store(self, path: Path) -> str:
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        blob = self._blob_path(digest)
        if not blob.is_file() or blob.stat().st_size != len(data):
            self._storage.write(blob, data)
        return digest

    def _forget(self, path: Path) -> None:
        with contextlib.suppress(OSError, StorageError):
            self._storage.remove(path)

    def _evict(self) -> None:
        """Drop the least recently used entries until the rest fits; called under the lock."""
        sizes = {path.name: size for path, size in self._files("blobs")}
        if sum(sizes.values()) <= self._max_bytes:
            return
        kept: set[str] = set()
        full = False
        for path in sorted((path for path, _ in self._files("keys")), key=_used, reverse=True):
            entry = self._read(path)
            if entry is None:
                continue
            wanted = kept | (set(entry.files.values()) & sizes.keys())
            full = full or sum(sizes[name] for name in wanted) > self._max_bytes
            if full:
                self._forget(path)
            else:
                kept = wanted
        for name in sizes.keys() - kept:
            self._forget(self._blob_path(name))

    def _files(self, kind: str) -> list[tuple[Path, int]]:
        """Finished files of one kind with their sizes."""
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder / kind) as entries:
            for item in entries:
                with contextlib.suppress(FileNotFoundError):
                    found.append((Path(item.path), item.stat().st_size))
        return found

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One writer at a time, whichever process it is in; the kernel frees a dead one's lock."""
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise TimeoutError("the cache's lock") from None
                    time.sleep(0.02)
            yield
        finally:
            os.close(handle)


def _checked(entry: Entry) -> Entry:
    body = encode(msgspec.structs.replace(entry, check=""))
    return msgspec.structs.replace(entry, check=hashlib.sha256(body).hexdigest())


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
