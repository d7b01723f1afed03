from __future__ import annotations

import pytest

from tests.lua.engine import LEASE, Claim, Engine, error_text, outcome, refused


def _pass(engine: Engine, ms: int, worker: str = "w9") -> None:
    """Let time go by in a queue that is alive."""
    while ms > 0:
        engine.advance(min(ms, 2000))
        ms -= 2000
        engine.call("job_beat", worker=worker, leases=[])


# -- claims --------------------------------------------------------------------------------------------------------


def test_claim_carries_what_a_run_needs(engine: Engine):
    engine.add("a", data='{"x":1}', options='{"attempts":2}', lock_ms=7000)

    claim = engine.claim("w1")

    job = engine.job("a")
    assert (claim.id, claim.run, claim.attempt, claim.name, claim.lease_ms) == (
        "a",
        1,
        1,
        "job",
        7000,
    )
    assert (claim.data, claim.options, claim.is_suspect) == (b'{"x":1}', '{"attempts":2}', False)
    assert claim.created_at == int(job["created_at"])
    assert (job["state"], job["owner"], job["token"], job["run"]) == (
        "active",
        "w1",
        claim.token,
        "1",
    )
    assert engine.where("a") == ["active"]
    assert abs(engine.score("active", "a") - engine.now() - 7000) < 500


def test_claims_follow_the_line_and_stop_at_what_was_wanted(engine: Engine):
    engine.add("b", "c", "d")
    engine.add("a", priority=1)

    assert engine.turn(want=2).ids == ["a", "b"]
    assert engine.turn("w2", want=9).ids == ["c", "d"]
    assert engine.turn(want=0).claims == []


def test_every_turn_has_a_token_of_its_own(engine: Engine):
    engine.add("a", "b")

    first, second = engine.claim("w1"), engine.claim("w2")

    assert first.token != second.token
    assert first.token.endswith("-n1")


def test_turn_says_whether_more_can_start(engine: Engine):
    engine.add("a", "b")

    assert [engine.turn(want=1).more, engine.turn(want=1).more] == [1, 0]
    assert engine.server.cmd("LLEN", f"{engine.root}:wake") == 1


def test_turn_says_when_something_is_due(engine: Engine):
    assert engine.turn(want=1).next_ms == -1
    engine.add("a", delay_ms=5000)

    assert 4000 < engine.turn(want=1).next_ms <= 5000


def test_index_entry_without_a_job_is_swept(engine: Engine):
    engine.add("a", "b")
    engine.server.cmd("UNLINK", f"{engine.root}:job:a")

    assert engine.turn(want=2).ids == ["b"]
    assert engine.index("waiting") == []


def test_job_whose_ttl_ran_out_fails_in_place_of_a_claim(engine: Engine):
    engine.add("a", ttl_ms=100)
    engine.advance(150)

    assert engine.turn(want=1).claims == []
    assert engine.where("a") == ["failed"]
    assert engine.job("a")["reason"] == "expired"


def test_ttl_ends_with_the_first_start(engine: Engine):
    claim = engine.active("a", ttl_ms=500)
    engine.finish(claim, "retry", None, {"delay_ms": 0})
    _pass(engine, 3000)

    assert engine.turn(want=1).ids == ["a"]


# -- outcomes ------------------------------------------------------------------------------------------------------


def test_completed_job_keeps_its_result(engine: Engine):
    claim = engine.active()
    before = engine.names()

    assert engine.finish(claim, "completed", '{"x":1}') == "o"

    job = engine.job("a")
    assert (job["state"], job["result"]) == ("completed", '{"x":1}')
    assert int(job["finished_at"]) == engine.score("completed", "a")
    assert int(job["finished_at"]) - int(job["started_at"]) == 5
    assert engine.names() == before - {"active"} | {"completed"}
    assert engine.events() == [("added", "a"), ("active", "a"), ("completed", "a")]


def test_failed_job_keeps_reason_and_errors(engine: Engine):
    engine.finish(engine.active(), "failed", None, {"reason": "timeout", "error": error_text()})

    job = engine.job("a")
    assert (job["state"], job["reason"], job["error"]) == ("failed", "timeout", error_text())
    assert engine.server.cmd("LRANGE", f"{engine.root}:job:a:errors", 0, -1) == [
        error_text().encode()
    ]


def test_retry_counts_the_attempt_and_waits_its_delay(engine: Engine):
    engine.finish(engine.active(), "retry", None, {"delay_ms": 3000, "error": error_text()})

    job = engine.job("a")
    assert (engine.where("a"), job["attempt"], job["why"]) == (["delayed"], "2", "retry")
    assert abs(engine.score("delayed", "a") - engine.now() - 3000) < 500
    _pass(engine, 4000)
    claim = engine.claim()
    assert (claim.attempt, claim.run) == (2, 2)


def test_errors_are_kept_of_the_last_twenty_attempts(engine: Engine):
    engine.add("a")
    for attempt in range(1, 23):
        engine.finish(engine.claim(), "retry", None, {"delay_ms": 0, "error": error_text(attempt)})

    errors = engine.server.cmd("LRANGE", f"{engine.root}:job:a:errors", 0, -1)
    assert errors == [error_text(attempt).encode() for attempt in range(3, 23)]


@pytest.mark.parametrize("kind", ["delayed", "released"])
def test_job_that_is_handed_back_keeps_its_attempt_and_its_place(engine: Engine, kind: str):
    engine.add("a", "b")
    place = engine.score("waiting", "a")
    claim = engine.claim()

    engine.finish(claim, kind, None, {"delay_ms": 0, "why": "x"})

    assert engine.score("waiting", "a") == place
    assert engine.job("a").get("attempt", "1") == "1"
    assert engine.job("a")["run"] == ("1" if kind == "delayed" else "0")
    assert engine.claim().id == "a"


@pytest.mark.parametrize(
    ("options", "kind"),
    [({"keep_completed": "0:"}, "completed"), ({"keep_failed": "0:"}, "failed")],
)
def test_job_that_is_not_kept_leaves_a_tombstone(
    engine: Engine, options: dict[str, str], kind: str
):
    before = engine.names()
    claim = engine.active("a", data="1", **options)
    engine.call("stream_append", parts=[["a", claim.token, 1, 1, [["content", "x"]]]])
    engine.call("job_update", id="a", token=claim.token, n=1, log=["x"])

    engine.finish(claim, kind, '"r"', {"reason": "error", "error": error_text()})

    job = engine.job("a")
    assert (job["state"], job["removed"]) == (kind, "1")
    assert "data" not in job
    assert engine.where("a") == []
    left = {name for name in engine.names() - before if name.startswith("job:")}
    assert left == {"job:a", "job:a:chunks"}
    assert all(0 < engine.ttl(name) <= 60_000 for name in left)


def test_workers_setting_holds_where_the_job_says_nothing(engine: Engine):
    for id, options in (("a", {}), ("b", {}), ("c", {"keep_completed": "5:"})):
        claim = engine.active(id, **options)
        engine.turn(done=[outcome(claim)], keep_completed="1:")

    assert engine.index("completed") == ["b", "c"]
    assert "job:a" not in engine.names()


def test_age_of_retention_is_kept(engine: Engine):
    engine.finish(engine.active("a", keep_completed=":5000"))
    engine.finish(engine.active("b"))
    _pass(engine, 6000)

    engine.turn()

    assert engine.index("completed") == ["b"]
    assert "job:a" not in engine.names()
    assert engine.index("expiring") == []


@pytest.mark.parametrize(("state", "days"), [("completed", 1), ("failed", 7)])
def test_ended_jobs_go_after_their_default_age(engine: Engine, state: str, days: int):
    engine.ended("a", state)
    engine.advance(days * 86_400_000 - 60_000)
    engine.turn()
    assert engine.where("a") == [state]
    engine.advance(120_000)

    engine.turn()

    assert not {name for name in engine.names() if name.startswith("job:")}


def test_outcome_of_another_token_is_stale_and_leaves_no_trace(engine: Engine):
    claim = engine.active()
    before = engine.dump()

    codes = engine.turn("w2", done=[["a", "9-forged", "completed", 1, '"x"']]).codes

    after = engine.dump()
    assert codes == "s"
    assert {name: after[name] for name in ("job:a", "active", "events")} == {
        name: before[name] for name in ("job:a", "active", "events")
    }
    assert engine.finish(claim) == "o"


def test_outcome_again_in_a_later_turn_was_applied_already(engine: Engine):
    claim = engine.active()
    engine.finish(claim, "completed", '"first"')

    assert engine.finish(claim, "failed", None, {"reason": "error"}) == "a"

    assert engine.job("a")["result"] == '"first"'


def test_outcome_of_an_unknown_job_is_gone(engine: Engine):
    assert engine.turn(done=[["nobody", "1-n", "completed", 1]]).codes == "g"


def test_one_job_twice_in_a_turn_is_applied_once(engine: Engine):
    claim = engine.active()

    assert engine.turn(done=[outcome(claim), outcome(claim, "cancelled")]).codes == "or"
    assert engine.where("a") == ["completed"]


@pytest.mark.parametrize(
    "bad",
    [
        ["kind"],
        ["completed", "x"],
        ["completed", 1.5],
        ["completed", 1, 7],
        ["completed", 1, "x", "y"],
        ["failed", 1],
        ["failed", 1, None, {}],
        ["failed", 1, None, {"reason": 1}],
        ["failed", 1, None, {"reason": "x", "error": {}}],
        ["retry", 1, None, {}],
        ["retry", 1, None, {"delay_ms": -1}],
        ["retry", 1, None, {"delay_ms": "x"}],
        ["delayed", 1, None, {"delay_ms": 0}],
        ["delayed", 1, None, {"why": 3, "delay_ms": 0}],
        ["delayed", 1, None, {"why": "x", "on": 7}],
        ["completed", 1, None, {"tail": "x"}],
        ["completed", 1, None, {"tail": [1, [["content"]]]}],
        ["completed", 1, None, {"tail": ["x", []]}],
    ],
)
def test_outcome_that_makes_no_sense_is_refused_and_its_neighbours_are_applied(
    engine: Engine, bad: list[object]
):
    engine.add("a", "b")
    first, second = engine.turn(want=2).claims

    codes = engine.turn(done=[["a", first.token, *bad], 7, outcome(second)]).codes

    assert codes == "rro"
    assert (engine.where("a"), engine.where("b")) == (["active"], ["completed"])


def test_tail_of_the_stream_travels_with_the_outcome(engine: Engine):
    claim = engine.active()
    engine.call("stream_append", parts=[["a", claim.token, 1, 1, [["content", "1"]]]])

    tail = [1, [["content", "1"], ["content", "2"], ["content", "3", '{"x":1}']]]
    engine.finish(claim, "completed", None, {"tail": tail})

    chunks = [(chunk["type"], chunk["content"], chunk["seq"]) for chunk in engine.chunks("a")]
    assert chunks == [
        ("content", "1", "1"),
        ("content", "2", "2"),
        ("content", "3", "3"),
        ("end", "completed", "0"),
    ]


# -- repeats -------------------------------------------------------------------------------------------------------


def test_repeated_turn_is_answered_as_the_first_time(engine: Engine):
    engine.add("a", "b", "c", data="1")
    claim = engine.claim()
    args = {"number": 7, "want": 1, "done": [outcome(claim)]}
    first = engine.turn(**args)
    before = engine.dump()

    again = engine.turn(**args, repeat=True)

    assert (again.codes, again.token, again.claims) == (first.codes, first.token, first.claims)
    assert engine.dump() == before


def test_repeated_turn_does_not_hand_out_what_somebody_else_has_by_now(engine: Engine):
    engine.add("a", "b")
    assert engine.turn(number=7, want=2).ids == ["a", "b"]
    engine.finish(Claim("a", 1, 1, "", 0, 0, 0, False, "", "", 0, engine.job("a")["token"], b""))
    _pass(engine, 3000)
    assert engine.turn("w2", want=5).ids == ["b"]

    assert engine.turn(number=7, want=2, repeat=True).claims == []


def test_turn_older_than_the_memory_is_refused(engine: Engine):
    for number in range(1, 10):
        engine.turn(number=number)

    with refused("ARG turn "):
        engine.turn(number=1)
    assert engine.turn(number=2).codes == ""


def test_memory_of_turns_is_bounded_and_expires(engine: Engine):
    for number in range(1, 30):
        engine.turn(number=number)

    assert engine.server.cmd("HLEN", f"{engine.root}:turn:w1") == 9
    assert 0 < engine.ttl("turn:w1") <= 600_000


# -- lost leases ---------------------------------------------------------------------------------------------------


def test_lost_lease_of_a_started_run_counts_as_stalled(engine: Engine):
    engine.start(engine.active())
    _pass(engine, LEASE + 1000)

    engine.turn("w2")

    job = engine.job("a")
    assert (engine.where("a"), job["stalled"], job["run"]) == (["suspects"], "1", "1")
    assert engine.events()[-1] == ("stalled", "a")


def test_lost_lease_of_a_claim_that_never_started_does_not(engine: Engine):
    place = 0.0
    for times in (1, 2):
        claim = engine.active() if times == 1 else engine.claim("w3")
        place = place or claim.place
        _pass(engine, LEASE + 1000)
        engine.turn("w2")

    job = engine.job("a")
    assert "stalled" not in job
    assert (job["lost"], job["run"]) == ("2", "0")
    assert engine.where("a") == ["suspects"]
    assert engine.score("suspects", "a") == place


def test_stalled_once_too_often_fails(engine: Engine):
    engine.add("a")
    for _ in range(2):
        engine.start(engine.claim("w1", max_stalled=1))
        _pass(engine, LEASE + 1000)
        engine.turn("w2", max_stalled=1)

    job = engine.job("a")
    assert (engine.where("a"), job["reason"], job["stalled"]) == (["failed"], "stalled", "2")


def test_worker_has_one_suspect_at_a_time(engine: Engine):
    engine.add("a", "b")
    for claim in engine.turn(want=2).claims:
        engine.start(claim)
    _pass(engine, LEASE + 1000)
    engine.turn("w2")
    engine.add("c")

    assert engine.turn("w2", want=5).ids == ["a", "c"]
    assert engine.turn("w2", want=5, suspects=1).ids == []
    assert engine.turn("w3", want=5).ids == ["b"]


def test_nothing_is_taken_back_after_everybody_stood_still(engine: Engine):
    engine.active()
    engine.advance(60_000)

    engine.turn("w2", want=1)
    assert engine.where("a") == ["active"]

    _pass(engine, 2 * LEASE)
    assert engine.turn("w2", want=1).ids == ["a"]


def test_nothing_is_taken_back_when_the_clock_jumps_back_and_forth(engine: Engine):
    engine.advance(100_000)
    engine.active()
    engine.advance(-50_000)
    engine.turn("w2")
    engine.advance(52_000)

    engine.turn("w2")

    assert engine.where("a") == ["active"]


def test_deadline_that_a_jump_of_the_clock_left_in_the_future_is_pulled_back(engine: Engine):
    engine.advance(3_600_000)
    engine.active("a")
    engine.active("b", lock_ms=70_000)
    engine.advance(-3_600_000)

    engine.turn("w2")

    assert abs(engine.score("active", "a") - engine.now() - LEASE) < 500
    assert abs(engine.score("active", "b") - engine.now() - 70_000) < 500
    _pass(engine, 14_000)
    assert engine.turn("w2", want=1).ids == ["a"]


def test_late_outcome_of_a_lost_run_is_stale(engine: Engine):
    claim = engine.active()
    _pass(engine, LEASE + 1000)
    engine.turn("w2")

    assert engine.finish(claim) == "s"
    assert engine.where("a") == ["waiting"]


def test_due_job_is_promoted_to_its_place(engine: Engine):
    engine.add("a", delay_ms=100)
    engine.add("b")
    engine.advance(200)

    assert engine.turn(want=2).ids == ["a", "b"]


def test_started_in_a_turn_counts_like_a_beat(engine: Engine):
    claim = engine.active()

    engine.turn(started=[["a", claim.token, 40]])

    assert engine.job("a")["started_run"] == "1"


@pytest.mark.parametrize(
    "args",
    [
        {"worker": None},
        {"turn": 0},
        {"turn": 1.5},
        {"nonce": 1},
        {"want": -1},
        {"want": 257},
        {"lease_ms": 0},
        {"suspects": -1},
        {"max_stalled": "x"},
        {"done": "x"},
        {"done": [[]] * 257},
        {"started": [["a", "t"]]},
        {"started": [1]},
        {"keep_completed": 1},
        {"keep_failed": []},
        {"dead_letter": 1},
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    engine: Engine, args: dict[str, object]
):
    engine.add("a")
    before = engine.dump()
    good = {
        "worker": "w1",
        "turn": 1,
        "nonce": "n",
        "want": 1,
        "lease_ms": 1,
        "suspects": 0,
        "max_stalled": 1,
    }

    with refused(f"ARG {next(iter(args))} "):
        engine.call("turn", **{**good, **args})
    assert engine.dump() == before
