"""What the clients share: configuration for valkey-glide, and its errors in our words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final, Literal

from . import errors
from ._library import Library
from ._target import Target

REQUEST_TIMEOUT_MS: Final = 5000
CONNECT_TIMEOUT_MS: Final = 2000
INFLIGHT_LIMIT: Final = 20_000

_CODE: Final = re.compile(
    r"^(?:An error was signalled by the server: - )?(?:ResponseError: )?([A-Za-z]+):? ?(.*)$",
    re.DOTALL,
)
_SCRIPT: Final = re.compile(r" script: .*$", re.DOTALL)
_UNAVAILABLE: Final = frozenset(
    {"BUSY", "LOADING", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "BusyScript", "BusyLoadingError",
     "MasterDown", "ClusterDown", "TryAgain", "ReadOnly"}
)  # fmt: skip
_AUTH: Final = (
    "WRONGPASS",
    "NOAUTH",
    "AuthenticationFailed",
    "Password authentication failed",
    "NOPERM",
    "PermissionDenied",
)

Fate = Literal["unknown", "missing", "unavailable", "final"]


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
        connection_timeout=CONNECT_TIMEOUT_MS, tls_config=_tls(target, glide)
    )
    return options


def _tls(target: Target, glide: Any) -> Any:
    if not target.tls or (target.ca is None and not target.insecure_tls):
        return None
    ca = Path(target.ca).read_bytes() if target.ca else None
    return glide.TlsAdvancedConfiguration(
        use_insecure_tls=target.insecure_tls or None, root_pem_cacerts=ca
    )


def fate_of(error: BaseException) -> Fate:
    """What an error of the client means for the call: it may have been applied ("unknown"), the function is not there
    ("missing"), the server can't answer now and has not applied it ("unavailable"), or that was its answer ("final").
    """
    kind, text = type(error).__name__, str(error)
    if kind in ("TimeoutError", "ConnectionError"):
        return "unknown"
    if kind == "ClosingError":
        return "final" if any(word in text for word in _AUTH) else "unknown"
    if "Function not found" in text:
        return "missing"
    if "maximum inflight" in text:
        return "unavailable"
    found = _CODE.match(text)
    if found and found.group(1) in _UNAVAILABLE:
        return "unavailable"
    if "BrokenPipe" in text or "IoError" in text or "no connection" in text.lower():
        return "unknown"
    return "final"


def translate(error: BaseException, library: Library, target: Target) -> errors.GlideMQError:
    """A final error of the server as one of ours, by its code."""
    text = library.locate(str(error))
    if type(error).__name__ == "ClosingError" or any(word in text for word in _AUTH):
        return errors.ConnectionLost(
            f"{target} refuses this client: {text} (check user and password in the URL)"
        )
    found = _CODE.match(text)
    code, words = (found.group(1), found.group(2)) if found else ("ERR", text)
    if code in _TYPED:
        return _TYPED[code](_SCRIPT.sub("", words))
    if code == "OOM" or "OOM" in text:
        return errors.OutOfMemory(
            f"{target} is at its maxmemory: nothing was added; running jobs still finish",
            code="OOM",
        )
    return errors.ServerError(text, code=code)


def _state(words: str) -> errors.GlideMQError:
    job_id, state, wanted = words.split(" ", 2)
    return errors.WrongState(job_id, state=state, wanted=wanted)


def _arg(words: str) -> errors.GlideMQError:
    name, _, reason = words.partition(" ")
    return errors.InvalidOption(name, "<as sent>", reason)


def _budget(words: str) -> errors.GlideMQError:
    facts = json.loads(words)
    return errors.BudgetExceeded(facts.pop("budget"), **facts)


def _throttled(words: str) -> errors.GlideMQError:
    limiter, _, ms = words.rpartition(" ")
    return errors.Throttled(limiter, retry_after=int(ms) / 1000)


_TYPED: Final = {
    "ARG": _arg,
    "GONE": errors.JobNotFound,
    "STALE": errors.LeaseLost,
    "STATE": _state,
    "BUDGET": _budget,
    "THROTTLED": _throttled,
    "BACKLOGGED": errors.Backlogged,
}
"""The error codes of the Lua functions. A test greps them from lua/."""
