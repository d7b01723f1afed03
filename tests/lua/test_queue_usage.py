from __future__ import annotations

import pytest

from tests.lua.engine import Engine, refused, report


def test_minutes_are_answered_after_the_minute_of_now(engine: Engine):
    engine.active()
    first = engine.now() // 60_000
    engine.call("job_usage", id="a", **report("1"))
    engine.advance(120_000)
    engine.call("job_usage", id="a", **report("2"))
    before = engine.dump()

    now, *rows = engine.call("queue_usage", first=first - 5, last=first + 5)

    assert now - first in (2, 3)
    assert [minute for minute, _ in rows][-1] - rows[0][0] == 2
    assert all(b"tokens:m\ninput" in fields for _, fields in rows)
    assert engine.dump() == before


def test_hours_hold_the_same_and_are_kept_for_a_month(engine: Engine):
    engine.active()
    engine.call("job_usage", id="a", **report("1"))
    engine.call("job_usage", id="a", **report("2"))
    hour = engine.now() // 3_600_000

    now, *rows = engine.call("queue_usage", first=hour - 1, last=hour + 1, hours=True)

    assert now in (hour, hour + 1)
    counted = {
        fields[i]: int(fields[i + 1]) for _, fields in rows for i in range(0, len(fields), 2)
    }
    assert counted[b"calls:m\n"] == 2
    kept = [engine.ttl(name) for name in engine.names() if name.startswith("hour:")]
    assert min(kept) > 31 * 86_400_000


def test_span_is_bounded(engine: Engine):
    engine.active()
    engine.call("job_usage", id="a", **report())
    now = engine.now() // 60_000

    assert engine.call("queue_usage", first=now - 200, last=now + 1)[1:] == []
    assert len(engine.call("queue_usage", first=0, last=0)) == 1


@pytest.mark.parametrize("args", [{"first": -1}, {"last": 1.5}, {"first": "x"}])
def test_bad_arguments_are_refused(engine: Engine, args: dict[str, object]):
    with refused(f"ARG {next(iter(args))} "):
        engine.call("queue_usage", **{"first": 0, "last": 0, **args})
