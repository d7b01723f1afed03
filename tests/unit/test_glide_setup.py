"""How errors of the client are told apart. The classes are stand-ins: only their names and texts count."""

from __future__ import annotations

import pytest

from glidemq_core import _glide_setup as setup
from glidemq_core import _library, _target, errors

TARGET = _target.parse("valkey://user:secret@127.0.0.1:1")
SIGNALLED = "An error was signalled by the server: - "


def _error(kind: str, text: str) -> Exception:
    return type(kind, (Exception,), {})(text)


def _translate(text: str, kind: str = "RequestError") -> errors.GlideMQError:
    return setup.translate(_error(kind, text), _library.bundle(), TARGET)


@pytest.mark.parametrize(
    ("kind", "text", "fate"),
    [
        ("TimeoutError", "timed out", "unknown"),
        ("ConnectionError", "broken", "unknown"),
        ("ClosingError", "closed", "unknown"),
        ("ClosingError", "WRONGPASS invalid username-password pair", "final"),
        ("RequestError", "BrokenPipe", "unknown"),
        ("RequestError", "FatalReceiveError", "unknown"),
        ("ClosingError", "Failed to create initial connections: refused", "unreachable"),
        (
            "ClosingError",
            "Failed to create initial connections: NOAUTH Authentication required",
            "final",
        ),
        ("RequestError", f"{SIGNALLED}ResponseError: Function not found", "missing"),
        ("RequestError", "reached maximum inflight requests", "unavailable"),
        (
            "RequestError",
            f"{SIGNALLED}ReadOnly: You can't write against a read only replica.",
            "moved",
        ),
        ("RequestError", f"{SIGNALLED}BUSY: Redis is busy running a script", "unavailable"),
        ("RequestError", f"{SIGNALLED}BusyLoadingError: loading", "unavailable"),
        ("RequestError", f"{SIGNALLED}MISCONF: can't write to disk", "unavailable"),
        ("RequestError", f"{SIGNALLED}TryAgain: slot moves", "unavailable"),
        ("RequestError", f"{SIGNALLED}GONE: a", "final"),
        ("RequestError", f"{SIGNALLED}ARG: name holds no connection", "final"),
        ("RequestError", "WRONGTYPE: Operation against a key", "final"),
    ],
)
def test_fate_of_a_call(kind: str, text: str, fate: str):
    assert setup.fate_of(_error(kind, text)) == fate


@pytest.mark.parametrize(
    ("text", "kind", "facts"),
    [
        ("GONE: a", errors.JobNotFound, {"job_id": "a"}),
        ("GONE: a script: on @user_function:12.", errors.JobNotFound, {"job_id": "a"}),
        ("GONE: a script: f, on @user_function:12.", errors.JobNotFound, {"job_id": "a"}),
        ("STALE: a", errors.LeaseLost, {"job_id": "a"}),
        (
            "STATE: a active not running: cancel it first",
            errors.WrongState,
            {"state": "active", "wanted": "not running: cancel it first"},
        ),
        (
            "ARG: want not an integer in range",
            errors.InvalidOption,
            {"field": "want", "reason": "not an integer in range"},
        ),
        ("BACKLOGGED: the outbox is full", errors.Backlogged, {}),
        (
            "OOM command not allowed when used memory > 'maxmemory'.",
            errors.OutOfMemory,
            {"code": "OOM"},
        ),
        ("WRONGTYPE: Operation against a key", errors.ServerError, {"code": "WRONGTYPE"}),
    ],
)
def test_final_error_becomes_one_of_ours(
    text: str, kind: type[Exception], facts: dict[str, object]
):
    found = _translate(SIGNALLED + text)

    assert type(found) is kind
    assert {name: getattr(found, name) for name in facts} == facts


@pytest.mark.parametrize(
    "text",
    [
        "WRONGPASS: invalid username-password pair",
        "NOPERM: User x has no permissions",
        "NOAUTH: Authentication required.",
    ],
)
def test_refused_client_is_told_what_to_look_at(text: str):
    found = _translate(text)

    assert isinstance(found, errors.ConnectionLost)
    assert "127.0.0.1" in str(found)
    assert "secret" not in str(found)


def test_error_of_the_interpreter_names_the_file():
    first, path = _library.bundle().lines[3]

    found = _translate(
        f"{SIGNALLED}ResponseError: user_function:{first + 1}: attempt to index a nil value"
    )

    assert f"lua/{path}:2" in str(found)


@pytest.mark.parametrize("is_unknown", [True, False])
def test_lost_call_says_whether_it_may_have_been_applied(is_unknown: bool):
    lost = setup.lost(_error("TimeoutError", "timed out"), TARGET, is_unknown=is_unknown, id="a")

    assert (lost.outcome, lost.id) == ("unknown" if is_unknown else "not_sent", "a")
    assert "no reply from 127.0.0.1:1" in str(lost)


def test_unreachable_server_is_told_apart_from_a_silent_one():
    error = _error("ClosingError", "Failed to create initial connections: refused")

    assert "can't be reached" in str(setup.lost(error, TARGET, is_unknown=False, id=None))
