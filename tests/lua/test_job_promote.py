from __future__ import annotations

from tests.lua.engine import Engine, error_text, refused


def _promote(engine: Engine, **more: object) -> int:
    return engine.call("job_promote", id="a", **more)


def test_delayed_job_waits_at_its_place(engine: Engine):
    engine.add("a", delay_ms=5000)
    engine.add("b")
    before = engine.names()

    assert _promote(engine) == 1

    assert engine.index("waiting") == ["a", "b"]
    assert engine.index("delayed") == []
    assert engine.names() == before - {"delayed"}
    assert engine.events()[-1] == ("waiting", "a")


def test_job_that_was_lost_before_becomes_a_suspect(engine: Engine):
    engine.start(engine.active())
    for _ in range(2):
        engine.advance(2000)
        engine.turn("w2")
    claim = engine.claim("w2")
    engine.finish(claim, "retry", None, {"delay_ms": 5000, "error": error_text()}, worker="w2")

    _promote(engine)

    assert engine.where("a") == ["suspects"]


def test_promotion_leaves_a_token_for_an_idle_worker(engine: Engine):
    engine.add("a", delay_ms=5000)
    engine.server.cmd("DEL", f"{engine.root}:wake")

    _promote(engine)

    assert engine.server.cmd("LLEN", f"{engine.root}:wake") == 1


def test_second_promotion_is_refused_but_a_repeat_of_the_first_is_not(engine: Engine):
    engine.add("a", delay_ms=5000)
    _promote(engine, nonce="x")
    before = engine.dump()

    assert _promote(engine, nonce="x", repeat=True) == 1
    with refused("STATE a waiting delayed"):
        _promote(engine, nonce="y", repeat=True)
    with refused("STATE a waiting delayed"):
        _promote(engine)

    assert engine.dump() == before


def test_unknown_job_is_gone(engine: Engine):
    with refused("GONE a"):
        _promote(engine)
    with refused("ARG id "):
        engine.call("job_promote", id=3)
