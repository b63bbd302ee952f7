"""mosquitto for a fleet: its configuration and its access rules, as text.

Every setting that matters to security or to updates is written out, so that a broker behaves the
same whatever its version's defaults are. Checked against a real mosquitto 2.0 in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_sdk.brokers.authority import Authority
from edge_sdk.brokers.layout import SERVER
from edge_sdk.contracts.topics import Topics
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import StorageError

CONFIG_NAME = "mosquitto.conf"
MIN_QUEUED_MESSAGES = 1000
MESSAGES_PER_DEVICE = 4
"""Twin, status, telemetry and a request: what may wait for the server at once."""
AUTOSAVE_SECONDS = 300
MESSAGE_BYTES = 2 * 1024 * 1024
"""The largest message of the product is TUF targets metadata, of which devices read 1 MiB."""

_CONFIG = """\
# Written by `edge broker mosquitto`; docs/brokers.md explains it.
per_listener_settings false
user {user}

listener {port}{bind}
cafile {folder}/ca.pem
certfile {folder}/broker.pem
keyfile {folder}/broker.key
crlfile {folder}/crl.pem

# A certificate is the only way in, and its name is user name and client id at once: nobody can
# connect as somebody else, nor throw somebody out by using his client id.
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {folder}/acl

# Retained chunks, metadata and desired states survive a restart. Each save writes all of them,
# changed or not: one every second would wear a disk out. What a crash loses the server sends again.
persistence true
persistence_location {folder}/data/
autosave_interval {autosave_s}

# Nagle's algorithm costs up to 40 ms for each small acknowledgement of a download window.
set_tcp_nodelay true
# Else mosquitto 2.0 compares, for each message of a wave, the names of all its riders with one
# another. No device subscribes to anything twice. From 2.1 on this is the default.
allow_duplicate_messages true
# What waits for one client: the server hears the twins of all devices when it connects.
max_queued_messages {queued}
max_packet_size {message_bytes}
"""


def config_text(
    folder: Path, *, port: int, bind: str = "", user: str = "mosquitto", devices: int = 1000
) -> str:
    """``mosquitto.conf``.

    Args:
        folder: where the files that it names lie, absolute.
        port: TLS listener.
        bind: address to listen on; empty for all.
        user: system user that mosquitto becomes when root starts it.
        devices: size of the fleet, for the queues.
    """
    return _CONFIG.format(
        folder=folder,
        port=port,
        bind=f" {bind}" if bind else "",
        user=user,
        queued=max(MIN_QUEUED_MESSAGES, MESSAGES_PER_DEVICE * devices),
        message_bytes=MESSAGE_BYTES,
        autosave_s=AUTOSAVE_SECONDS,
    )


def acl_text(topics: Topics) -> str:
    """The access rules; ``%u`` is the name in the client's certificate.

    The server alone writes what is retained for devices: chunks, metadata and desired states. A
    device writes its own topics and reads what is meant for it or for all.
    """
    device = "%u"
    read = (
        topics.desired(device),
        topics.time(device),
        f"{topics.tenant}/tuf/#",
        f"{topics.tenant}/b/#",
        f"{topics.tenant}/m/#",
        topics.broker(),
        topics.responses(device),
    )
    write = (
        topics.state(device),
        topics.ota(device),
        topics.telemetry(device),
        topics.request(device),
        topics.want(device),
        topics.credit(device),
        topics.ask_time(device),
        topics.results(device, "#"),
    )
    rules = [f"user {SERVER}", f"topic readwrite {topics.tenant}/#", ""]
    rules += [f"pattern read {topic}" for topic in read]
    rules += [f"pattern write {topic}" for topic in write]
    return "\n".join(rules) + "\n"


def write_mosquitto(
    authority: Authority,
    topics: Topics,
    folder: Path,
    hosts: Sequence[str],
    *,
    port: int,
    bind: str = "",
    user: str = "mosquitto",
    devices: int = 1000,
    force: bool = False,
) -> Path:
    """Write everything that a mosquitto needs into one folder; the path of its configuration.

    Args:
        authority: whose certificates count.
        topics: the tenant's topic layout.
        folder: made when missing.
        hosts: names and addresses by which clients reach the broker.
        port: as :func:`config_text`.
        bind: as :func:`config_text`.
        user: as :func:`config_text`.
        devices: as :func:`config_text`.
        force: replace an earlier configuration; retained messages stay.

    Raises:
        StorageError: ``storage.file-exists`` or a failed write.
        UsageError: ``usage.bad-host``.
    """
    path = folder / CONFIG_NAME
    if path.exists() and not force:
        raise StorageError(
            "file-exists",
            f"{path} exists already.",
            "Choose another --out, or replace it with --force; retained messages stay.",
        )
    folder = folder.absolute()
    broker = authority.issue_broker(hosts)
    config = config_text(folder, port=port, bind=bind, user=user, devices=devices)
    storage = DiskStorage()
    storage.write(folder / "broker.key", broker.key_pem, 0o600)
    storage.write(folder / "broker.pem", broker.certificate_pem)
    storage.write(folder / "ca.pem", authority.ca_pem)
    storage.write(folder / "crl.pem", authority.crl_path.read_bytes())
    storage.write(folder / "acl", acl_text(topics).encode())
    (folder / "data").mkdir(exist_ok=True, mode=0o700)
    storage.write(path, config.encode())
    return path
