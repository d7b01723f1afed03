"""What the clients share: connections of valkey-glide as we want them, and its errors in our words.

Only this module and `_sync_client` import valkey-glide, at the first connection: it takes a third of a second.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

from . import _tls, errors
from ._library import Library
from ._target import Target

REQUEST_TIMEOUT_MS: Final = 5000
CONNECT_TIMEOUT_MS: Final = 2000
INFLIGHT_LIMIT: Final = 20_000

_SIGNALLED: Final = "An error was signalled by the server: - "
_CODE: Final = re.compile(r"^(?:ResponseError: )?([A-Za-z]+):? ?(.*)$", re.DOTALL)
# What the interpreter adds to an error that a function raises: where it was raised.
_SCRIPT: Final = re.compile(r" script: (?:\S+, )?on @\S+\.$")
# MISCONF: it can't write its data to disk; NOREPLICAS: too few replicas. Both refuse a function before it runs.
_UNAVAILABLE: Final = frozenset(
    {"BUSY", "LOADING", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "MISCONF", "NOREPLICAS", "BusyLoadingError",
     "MasterDown", "ClusterDown", "TryAgain"}
)  # fmt: skip
_CONNECTING: Final = (
    "connect failed",
    "Failed to create initial connections",
    "No primary node found",
)
_LOST: Final = ("BrokenPipe", "IoError", "FatalReceiveError", "ConnectionNotFound", "no connection")
_AUTH: Final = ("WRONGPASS", "NOAUTH", "AuthenticationFailed", "Password authentication failed")
_DENIED: Final = ("NOPERM", "PermissionDenied", "ACL failure in script")

Fate = Literal["unknown", "missing", "moved", "unavailable", "unreachable", "final"]


def package() -> Any:
    """The package valkey-glide."""
    import glide

    return glide


async def create(target: Target, on_message: Callable[[Any, Any], None] | None = None) -> Any:
    """A new connection, made when it is first used; with `on_message` it can subscribe."""
    glide = package()
    # The client logs to stdout by itself; our own warnings say what matters.
    glide.Logger.set_logger_config(glide.LogLevel.OFF)
    options = node_options(target, glide)
    if target.cluster:
        cluster = glide.GlideClusterClientConfiguration
        if on_message:
            options["pubsub_subscriptions"] = cluster.PubSubSubscriptions({}, on_message, None)
        return await glide.GlideClusterClient.create(cluster(**options))
    single = glide.GlideClientConfiguration
    if on_message:
        options["pubsub_subscriptions"] = single.PubSubSubscriptions({}, on_message, None)
    return await glide.GlideClient.create(single(**options))


def route(key: str) -> Any:
    """The way to the primary of a key's slot."""
    glide = package()
    return glide.SlotKeyRoute(glide.SlotType.PRIMARY, key)


def node_options(target: Target, glide: Any) -> dict[str, Any]:
    """Keyword arguments for a client configuration; `glide` is the async or the sync package."""
    node = glide.NodeAddress
    nodes = (
        [node(unix_socket_path=target.socket)]
        if target.socket
        else [node(host, port) for host, port in target.addresses]
    )
    options: dict[str, Any] = {
        "addresses": nodes,
        "use_tls": target.tls,
        "request_timeout": REQUEST_TIMEOUT_MS,
        "inflight_requests_limit": INFLIGHT_LIMIT,
        "lazy_connect": True,
        "client_info_tag": "glidemq",
    }
    if target.password is not None or target.username is not None:
        options["credentials"] = glide.ServerCredentials(
            password=target.password or "", username=target.username
        )
    if not target.cluster and target.database:
        options["database_id"] = target.database
    advanced = (
        glide.AdvancedGlideClusterClientConfiguration
        if target.cluster
        else glide.AdvancedGlideClientConfiguration
    )
    options["advanced_config"] = advanced(
        connection_timeout=CONNECT_TIMEOUT_MS, tls_config=_tls_config(target, glide)
    )
    return options


def _tls_config(target: Target, glide: Any) -> Any:
    if not (target.insecure_tls or target.ca or target.cert):
        return None
    _tls.context(target)  # with a bad file the client would only run into a time-out
    return glide.TlsAdvancedConfiguration(
        use_insecure_tls=target.insecure_tls or None,
        root_pem_cacerts=Path(target.ca).read_bytes() if target.ca else None,
        client_cert_path=target.cert,
        client_key_path=target.key,
    )


def fate_of(error: BaseException) -> Fate:
    """What an error of the client means for the call.

    "unknown": there is no reply; it may have been applied. Not applied, but worth another try: "missing" (the function is
    not there), "moved" (this server has become a replica), "unavailable" (the server can't answer now), "unreachable" (no
    connection could be made). "final": that was the server's answer.
    """
    kind, text = type(error).__name__, str(error)
    if any(word in text for word in _CONNECTING):
        return "final" if any(word in text for word in (*_AUTH, *_DENIED)) else "unreachable"
    if kind in ("TimeoutError", "ConnectionError", "ClosingError"):
        return "final" if any(word in text for word in _AUTH) else "unknown"
    if "Function not found" in text:
        return "missing"
    if "maximum inflight" in text:
        return "unavailable"
    code = _parted(text)[0]
    if code in ("ReadOnly", "READONLY"):
        return "moved"
    if code in _UNAVAILABLE:
        return "unavailable"
    if code not in _TYPED and any(word in text for word in _LOST):
        return "unknown"
    return "final"


def translate(error: BaseException, library: Library, target: Target) -> errors.GlideMQError:
    """A final error of the server as one of ours, by its code."""
    text = str(error)
    code, words = _parted(text)
    if code in _TYPED:
        return _TYPED[code](_SCRIPT.sub("", words))
    if code == "OOM" or "OOM command not allowed" in text:
        return errors.OutOfMemory(
            f"{target} is at its maxmemory: nothing was added; running jobs still finish",
            code="OOM",
        )
    if type(error).__name__ == "ClosingError" or any(word in text for word in _AUTH):
        return errors.ConnectionLost(
            f"{target} refuses this client: {_short(text)} (check user and password in the URL)"
        )
    if any(word in text for word in _DENIED):
        return errors.ConnectionLost(
            f"{target} denies this user something that is needed: {_short(text)} (see ACL SETUSER)"
        )
    if "No topology views found" in text:
        return errors.ServerUnsuitable(
            f"{target} does not answer as a cluster; if it is a single server, leave out `cluster=true`"
        )
    return errors.ServerError(library.locate(_short(text)), code=code)


def lost(
    error: BaseException, target: Target, *, is_unknown: bool, id: str | None
) -> errors.ConnectionLost:
    """What is raised when a call's time is up and this was the last thing heard."""
    if fate_of(error) != "unreachable":
        message = f"no reply from {target} ({type(error).__name__}: {_short(str(error))})"
    elif target.tls:
        message = f"{target} can't be reached with TLS: {_short(str(error))} (a port without TLS shows as a time-out, too)"
    else:
        message = f"{target} can't be reached: {_short(str(error))} (a TLS port needs valkeys://)"
    return errors.ConnectionLost(message, outcome="unknown" if is_unknown else "not_sent", id=id)


def _parted(text: str) -> tuple[str, str]:
    """Code and words of an error. The client reshapes "CODE words" to "CODE: words" and some codes to names of its own."""
    found = _CODE.match(text.removeprefix(_SIGNALLED))
    return (found.group(1), found.group(2)) if found else ("ERR", text)


def _short(text: str) -> str:
    return text.removeprefix(_SIGNALLED).removeprefix("ResponseError: ").strip()


def _state(words: str) -> errors.GlideMQError:
    job_id, state, wanted = words.split(" ", 2)
    return errors.WrongState(job_id, state=state, wanted=wanted)


def _arg(words: str) -> errors.GlideMQError:
    name, _, reason = words.partition(" ")
    return errors.InvalidOption(name, "<as sent>", reason)


_TYPED: Final = {
    "ARG": _arg,
    "GONE": errors.JobNotFound,
    "STALE": errors.LeaseLost,
    "STATE": _state,
    "BACKLOGGED": errors.Backlogged,
}
"""The error codes of the Lua functions (a ledger refuses by its answer, not by an error)."""
