"""Where a release's blobs can also be had by HTTP: a base URL in the signed manifest.

Each blob is an object named by its digest below that URL, as ``aws s3 sync`` or any web server puts
it. Who runs the mirror needs no trust: every chunk is held to its hash in the manifest.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from edge_sdk.errors import ConfigError

MAX_URL_CHARACTERS = 1024
SCHEMES = ("http", "https")


def check_mirror(url: str) -> str:
    """The base URL without a slash at its end.

    Raises:
        ConfigError: ``config.bad-mirror``.
    """
    problem = _problem(url)
    if problem:
        raise ConfigError(
            "bad-mirror",
            f"{url[:200]!r} cannot be a mirror: {problem}.",
            "Give the address below which the blobs lie, such as https://HOST/BUCKET/PREFIX.",
        )
    return url.rstrip("/")


def blob_url(base: str, digest: str) -> str:
    """Where a blob lies on a mirror."""
    return f"{base.rstrip('/')}/{digest}"


def _problem(url: str) -> str:
    if len(url) > MAX_URL_CHARACTERS:
        return f"it has more than {MAX_URL_CHARACTERS} characters"
    if not url.isascii() or not url.isprintable() or " " in url:
        return "it holds characters that must be escaped"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme not in SCHEMES or not parts.hostname or port == 0:
        return "it is no http:// or https:// address"
    if "@" in parts.netloc:
        return "it holds a user name, which every device and the broker would see"
    if "?" in url or "#" in url:
        return "it has a query or a fragment, behind which no blob can be named"
    return ""
