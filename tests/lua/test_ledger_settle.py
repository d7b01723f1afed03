from __future__ import annotations

import pytest

from tests.lua.engine import Refused
from tests.lua.ledger_engine import DAY, QUEUE, TTL, LedgerEngine, waiter


def test_settle_replaces_what_was_reserved(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve(input=60, costs={"total": 700})

    code = ledger.settle(tokens={"input": 5, "output": 20}, costs={"total": 512})

    assert code == "settled"
    assert ledger.spend() == {
        "used": {"total_tokens": 25_000, "tokens.input": 5, "tokens.output": 20, "cost.total": 512},
        "held": {},
        "loose": {},
    }


def test_second_settle_does_nothing(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve(input=60)
    ledger.settle(input=25)
    before = ledger.dump()

    assert ledger.settle(input=99) == "already"
    assert ledger.settle(unused=True) == "already"

    assert ledger.dump() == before


def test_more_than_was_reserved_counts_in_full(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve(input=100)

    ledger.settle(input=130)

    assert ledger.used() == 130
    assert ledger.reserve("j/1/2", 0)[0] == "budget"


def test_reported_zero_stays_zero(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve(input=60)

    assert ledger.settle(input=0) == "settled"

    assert (ledger.used(), ledger.held()) == (0, 0)
    assert ledger.settle(input=60) == "already"


def test_release_gives_everything_back_and_leaves_no_trace_in_the_sums(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve(input=60)

    assert ledger.settle(unused=True) == "settled"

    assert ledger.spend() == {"used": {}, "held": {}, "loose": {}}


def test_release_of_a_call_nobody_knows_is_nothing(ledger: LedgerEngine):
    ledger.open(total=100)

    assert ledger.settle("x/1/1", unused=True, budgets=["b"]) == "already"
    assert "call:x/1/1" not in ledger.names()


def test_sent_call_that_ran_out_is_unverified_until_its_settle_comes(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve(input=60)
    ledger.advance(TTL + 1)
    ledger.upkeep()
    assert ledger.spend() == {
        "used": {"total_tokens": 60_000, "tokens.input": 60},
        "held": {},
        "loose": {"total_tokens": 60_000, "tokens.input": 60},
    }

    assert ledger.settle(tokens={"output": 7}) == "late"

    assert ledger.spend() == {
        "used": {"total_tokens": 7_000, "tokens.output": 7},
        "held": {},
        "loose": {},
    }
    assert ledger.settle(input=50) == "already"
    assert ledger.kinds() == ["open", "unverified", "late"]


def test_unsent_call_that_ran_out_vanishes_but_its_settle_counts(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve(input=60, sent=False)
    ledger.advance(TTL + 1)
    ledger.upkeep()
    assert ledger.spend() == {"used": {}, "held": {}, "loose": {}}

    assert ledger.settle(input=12) == "late"

    assert ledger.used() == 12
    assert ledger.settle(input=12) == "already"


def test_release_of_a_call_that_became_unverified_takes_it_back(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve(input=60)
    ledger.advance(TTL + 1)
    ledger.upkeep()

    assert ledger.settle(unused=True) == "late"

    assert ledger.spend() == {"used": {}, "held": {}, "loose": {}}


def test_use_nobody_reserved_counts_once(ledger: LedgerEngine):
    ledger.open("a", total=10)
    ledger.open("b", total=10)

    assert ledger.settle("x/1/1", 11, budgets=["a", "b", "gone"]) == "booked"
    assert ledger.settle("x/1/1", 11, budgets=["a", "b"]) == "already"

    assert [ledger.used("a"), ledger.used("b")] == [11, 11]


def test_settle_a_day_after_its_run_began_is_logged_and_not_added(ledger: LedgerEngine):
    ledger.open(total=100)
    started = ledger.now()
    ledger.reserve(input=60)
    ledger.settle(input=20)
    ledger.advance(DAY + 1000)
    ledger.server.cmd("UNLINK", f"{ledger.root}:call:j/1/1")  # as its day is over

    code = ledger.settle(input=20, budgets=["b"], started_ms=started)

    assert code == "refused"
    assert ledger.used() == 20
    assert ledger.kinds() == ["open", "settle", "late_refused"]


def test_marker_of_a_settled_call_lives_a_day(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve(input=60)
    assert ledger.ttl("call:j/1/1") == -1, "an open one stays until it ends"

    ledger.settle(input=20)

    assert DAY - 10_000 < ledger.ttl("call:j/1/1") <= DAY


def test_reservation_settles_into_the_window_it_was_made_in(ledger: LedgerEngine):
    now = ledger.now()
    ledger.open(total=100, window="day", start=now - 1000, stop=now + 1000)
    ledger.reserve(input=60)
    ledger.advance(2000)
    ledger.packed("ledger_turn", id="b", start=now + 1000, stop=now + DAY)
    assert (ledger.used(), ledger.held()) == (0, 0)

    assert ledger.settle(input=25) == "settled"

    assert (ledger.used(), ledger.held()) == (0, 0), "the new window owes nothing to the old one"
    last = ledger.history()[-1]
    assert (last["window"], last["total_tokens"]) == (now - 1000, [25_000, 25_000])
    assert ledger.ttl(f"spend:b:{now - 1000}") > 0, "the sums of an ended window go some day"


def test_unreserved_use_after_the_window_asks_for_the_next_one(ledger: LedgerEngine):
    now = ledger.now()
    ledger.open(total=100, window="month", start=now - 1000, stop=now + 1000)
    ledger.advance(2000)

    code, _, at, windows = ledger.settled("x/1/1", 5, budgets=["b"])

    assert (code, windows) == ("renew", [["b", "month", "UTC"]])
    assert at >= now + 2000
    assert ledger.used() == 0


def test_room_wakes_waiters_in_order_and_only_as_many_as_fit(ledger: LedgerEngine):
    ledger.open(total=100, on="pause")
    ledger.reserve("x/1/1", 100)
    for n, asked in enumerate([40, 30, 50, 10]):
        ledger.advance(5)
        assert ledger.reserve(f"w{n}/1/1", asked, waiter=waiter(f"w{n}"))[0] == "budget"

    code, wakes = ledger.settled("x/1/1", 20)

    assert code == "settled"
    assert [wake[1:] for wake in wakes] == [[QUEUE, "b", 1, "w0\nw1"]], (
        "the third does not fit, the fourth comes later"
    )


def test_woken_jobs_count_until_they_reserve_or_stay_away(ledger: LedgerEngine):
    ledger.open(total=100, on="pause")
    ledger.reserve("x/1/1", 50)
    ledger.reserve("y/1/1", 50)
    for n in range(3):
        ledger.advance(5)
        ledger.reserve(f"w{n}/1/1", 50, waiter=waiter(f"w{n}"))

    assert [wake[4] for wake in ledger.settled("x/1/1", 0)[1]] == ["w0"]
    assert [wake[4] for wake in ledger.settled("y/1/1", 1)[1]] == [], (
        "the rest is expected by w0, and one is used"
    )
    ledger.advance(6000)  # w0 never came
    ledger.upkeep()

    sent = ledger.server.cmd("XRANGE", f"{ledger.root}:outbox", "-", "+")
    assert [fields[7] for _, fields in sent] == [b"w0", b"w1"]


def test_waiter_that_asks_for_more_than_the_whole_cap_holds_up_nobody(ledger: LedgerEngine):
    ledger.open(total=100, on="pause")
    ledger.reserve("x/1/1", 100)
    ledger.reserve("big/1/1", 101, waiter=waiter("big"))
    ledger.advance(5)
    ledger.reserve("small/1/1", 10, waiter=waiter("small"))

    _, wakes = ledger.settled("x/1/1", 20)

    assert [wake[4] for wake in wakes] == ["small"]


def test_alert_is_told_once_per_level_and_window(ledger: LedgerEngine):
    ledger.open(total=100)

    for n, tokens in enumerate([49, 1, 20, 15, 15, 30]):
        ledger.settle(f"x/1/{n}", tokens, budgets=["b"])

    alerts = [(entry["percent"], entry["used"]) for entry in ledger.history("")]
    assert alerts == [("50", "50000"), ("80", "85000"), ("100", "100000")]


def test_categories_beyond_the_bound_are_counted_together(ledger: LedgerEngine):
    ledger.open(total=10**6)

    for n in range(4):
        ledger.settle(f"x/1/{n}", tokens={f"c{n}-{m}": 1 for m in range(60)}, budgets=["b"])

    used = ledger.spend()["used"]
    assert len(used) <= 131
    assert used["total_tokens"] == 240_000
    assert sum(count for name, count in used.items() if name.startswith("tokens.")) == 240


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokens": {"input": -1}},
        {"started_ms": "x"},
        {"started_ms": -1},
        {"retry_after_ms": -1},
        {"remaining": 3},
    ],
)
def test_wrong_argument_is_refused_before_anything_is_written(
    ledger: LedgerEngine, wrong: dict[str, object]
):
    ledger.open(total=10)
    ledger.reserve(input=5)
    before = ledger.dump()

    with pytest.raises(Refused, match="ARG"):
        ledger.settle(**wrong)

    assert ledger.dump() == before


def test_settle_that_names_no_beginning_of_its_run_is_of_now(ledger: LedgerEngine):
    ledger.open(total=100)
    args = {"tokens": {"input": 5}, "costs": {}, "budgets": ["b"]}

    assert ledger.packed("ledger_settle", call="j/1/1", **args)[0] == "booked"
    assert ledger.used() == 5
