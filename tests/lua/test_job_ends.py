from __future__ import annotations

import pytest

from tests.lua.engine import Engine, error_text, refused


def test_endings_are_answered_in_the_order_asked(engine: Engine):
    assert engine.finish(engine.active("done"), "completed", '"r"') == "o"
    engine.ended("bad", "failed")
    engine.ended("gone", "completed", keep_completed="0:")
    engine.add("open")
    engine.call("job_cancel", id="open")
    engine.add("waits")
    before = engine.dump()

    rows = engine.call("job_ends", ids=["waits", "bad", "nobody", "done", "open", "gone"])

    assert rows == [
        [b""],
        [b"failed", b"", error_text().encode(), b"error", b"1"],
        [b"gone"],
        [b"completed", b'"r"', b"", b"", b"1"],
        [b"cancelled", b"", b"", b"cancelled", b"1"],
        [b"completed", b"", b"", b"", b"1"],
    ]
    assert engine.dump() == before


@pytest.mark.parametrize("ids", ["a", [1], ["a"] * 257])
def test_bad_arguments_are_refused(engine: Engine, ids: object):
    with refused("ARG ids "):
        engine.call("job_ends", ids=ids)
