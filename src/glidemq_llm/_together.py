"""Model calls of one run that answer at the same time: from then on the chunks of each say on the wire whose they are."""

from __future__ import annotations

from typing import Protocol


class Call(Protocol):
    """A call that writes chunks."""

    call_id: str
    has_company: bool


_open: dict[str, list[Call]] = {}  # by run


def begin(call: Call) -> None:
    """It begins to write. One that had company keeps its name on its chunks to its end: so a chunk without a name always
    belongs to the `start` before it.
    """
    others = _open.setdefault(_run(call), [])
    others.append(call)
    if len(others) > 1:
        for one in others:
            one.has_company = True


def end(call: Call) -> None:
    """It writes no more."""
    others = _open.get(_run(call), [])
    if call in others:
        others.remove(call)
        if not others:
            _open.pop(_run(call), None)


def _run(call: Call) -> str:
    return call.call_id.rpartition("/")[0]
