from __future__ import annotations

import pytest

from tests.lua.engine import Engine, refused


def test_only_jobs_that_ask_for_readers_note_them(engine: Engine):
    engine.call(
        "job_add",
        jobs=[{"id": "a", "name": "n", "unread_ms": 1000}, {"id": "b", "name": "n"}],
        nonce="x",
    )

    assert engine.call("stream_watch", ids=["a", "b", "nobody"]) == 1
    assert engine.server.cmd("HEXISTS", f"{engine.root}:job:a", "read_at") == 1
    assert engine.server.cmd("HEXISTS", f"{engine.root}:job:b", "read_at") == 0
    assert engine.server.cmd("EXISTS", f"{engine.root}:job:nobody") == 0


@pytest.mark.parametrize("ids", ["a", ["a"] * 257])
def test_bad_arguments_are_refused(engine: Engine, ids: object):
    with refused("ARG ids "):
        engine.call("stream_watch", ids=ids)
