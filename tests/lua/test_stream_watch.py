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


def test_job_goes_on_until_its_readers_have_had_time_to_tell_again(engine: Engine):
    engine.call("job_add", jobs=[{"id": "a", "name": "n", "unread_ms": 1000}], nonce="x")
    (claim,) = engine.turn(want=1, lease_ms=600_000).claims
    beat = {"worker": "w1", "leases": [["a", claim.token]]}

    cancelled = [engine.packed("job_beat", **beat, started=[["a", claim.token, 0]])[1]]
    for wait in (900, 200):
        engine.advance(wait)
        engine.call("stream_watch", ids=["a"])
    for wait in (4_000, 1_500, 1_000):
        engine.advance(wait)
        cancelled.append(engine.packed("job_beat", **beat)[1])

    assert cancelled == [[], [], [], ["a"]]


@pytest.mark.parametrize("ids", ["a", ["a"] * 257])
def test_bad_arguments_are_refused(engine: Engine, ids: object):
    with refused("ARG ids "):
        engine.call("stream_watch", ids=ids)
