"""Which server to speak to: a checked connection URL."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from .errors import InvalidOption

_SCHEMES: Final = {"valkey": False, "redis": False, "valkeys": True, "rediss": True, "unix": False}
_PARAMETERS: Final = {"cluster", "allow_eviction", "insecure_tls", "ca", "cert", "key"}
_PORT: Final = 6379


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server, or a cluster by some of its nodes.

    Attributes:
        addresses: (host, port) pairs; empty where `socket` is given.
        socket: Path of a unix socket.
        insecure_tls: Trust whatever certificate the server has.
        ca: Path of a file with the certificates that TLS trusts; default: the system's.
        cert: Path of a file with the client's own certificate (and what leads up to its authority).
        key: Path of a file with its private key, not encrypted.
        allow_eviction: Use the server although it may evict keys.
    """

    addresses: tuple[tuple[str, int], ...] = ()
    socket: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: bool = False
    insecure_tls: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    cluster: bool = False
    allow_eviction: bool = False

    def __str__(self) -> str:
        where = self.socket or ",".join(f"{host}:{port}" for host, port in self.addresses)
        return f"{'cluster ' if self.cluster else ''}{where}"


def parse(url: str) -> Target:
    """Read a URL: `valkey://[user[:password]@]host[:port][,host[:port]...][/database][?cluster=true]`.

    `valkeys://` is TLS; `redis://` and `rediss://` mean the same; `unix:///path/to.sock` is a unix socket. Parameters:
    `cluster`, `allow_eviction`, `insecure_tls` (true or false), and paths of files in PEM form: `ca`, the certificates to
    trust in place of the system's; `cert` and `key`, the client's own certificate.

    Raises:
        InvalidOption: It can't be read; the message does not repeat its password.
    """
    try:
        parts = urlsplit(url)
        query = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise _wrong(url, str(error)) from None
    if parts.scheme not in _SCHEMES:
        raise _wrong(url, f"the scheme is not one of {', '.join(_SCHEMES)}")
    unknown = set(query) - _PARAMETERS
    if unknown:
        raise _wrong(url, f"unknown parameters {', '.join(sorted(unknown))}")
    cluster, allow_eviction, insecure_tls = (
        _flag(url, query, name) for name in ("cluster", "allow_eviction", "insecure_tls")
    )
    ca, cert, key = (query.get(name, [""])[0] or None for name in ("ca", "cert", "key"))
    if (ca or cert or key or insecure_tls) and not _SCHEMES[parts.scheme]:
        raise _wrong(url, "ca, cert, key and insecure_tls are for TLS: valkeys://")
    if bool(cert) != bool(key):
        raise _wrong(url, "cert and key go together")
    user, _, place = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    if parts.scheme == "unix":
        if not parts.path or place:
            raise _wrong(url, "a unix URL is unix:///path/to.sock")
        return Target(
            socket=unquote(parts.path),
            username=unquote(name) or None,
            password=unquote(password) or None,
            cluster=cluster,
            allow_eviction=allow_eviction,
        )
    database = _database(url, parts.path)
    if database and cluster:
        raise _wrong(url, "a cluster has only database 0")
    return Target(
        addresses=_addresses(url, place),
        username=unquote(name) or None,
        password=unquote(password) or None,
        database=database,
        tls=_SCHEMES[parts.scheme],
        ca=ca,
        cert=cert,
        key=key,
        cluster=cluster,
        allow_eviction=allow_eviction,
        insecure_tls=insecure_tls,
    )


def resolve(connection: str | Target | None) -> Target:
    """The server meant by a `connection=` argument: a URL, or None for `GLIDEMQ_URL`, else the embedded server."""
    if isinstance(connection, Target):
        return connection
    url = connection if connection is not None else os.environ.get("GLIDEMQ_URL")
    if url is None or url == "":
        from .embedded import ensure_running

        url = ensure_running()
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance] checked for untyped callers
        raise InvalidOption("connection", url, "not a URL")
    return parse(url)


def _addresses(url: str, place: str) -> tuple[tuple[str, int], ...]:
    found: list[tuple[str, int]] = []
    for node in place.split(","):
        try:
            parts = urlsplit(f"//{node}")
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise _wrong(url, str(error)) from None
        if not host:
            raise _wrong(url, "a host is missing")
        found.append((host, port or _PORT))
    return tuple(found)


def _database(url: str, path: str) -> int:
    text = path.strip("/")
    if text and not text.isdecimal():
        raise _wrong(url, "the database is not a number")
    return int(text or 0)


def _flag(url: str, query: dict[str, list[str]], name: str) -> bool:
    value = query.get(name, ["false"])[0].lower()
    if value not in ("true", "false", "1", "0"):
        raise _wrong(url, f"{name} is not true or false")
    return value in ("true", "1")


def _wrong(url: str, reason: str) -> InvalidOption:
    scheme, _, rest = url.partition("://")
    shown = f"{scheme}://...@{rest.rpartition('@')[2]}" if "@" in rest else url
    return InvalidOption("connection", shown, reason)
