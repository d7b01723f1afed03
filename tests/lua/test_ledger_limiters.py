"""The limiters of ledger_reserve and ledger_settle."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from typing import Any

import pytest

from tests.lua.ledger_engine import MINUTE, TTL, LedgerEngine, throttle

SLACK = 1  # ms that are lost in rounding


def told(reply: list[Any]) -> tuple[str, int]:
    """A refusal's kind and its wait in ms."""
    verdict, _, wait = reply
    return verdict, wait


def near(value: float, wanted: float, slack: float = SLACK) -> bool:
    return abs(value - wanted) <= slack


def test_burst_passes_and_the_rest_waits_as_long_as_the_rate_says(ledger: LedgerEngine):
    limit = throttle(rpm=(60, 3))

    verdicts = [ledger.limited(f"j/1/{n}", 0, limit) for n in range(5)]

    assert [verdict[0] for verdict in verdicts] == ["ok", "ok", "ok", "throttled", "throttled"]
    assert near(verdicts[3][2], 1000)
    assert near(verdicts[4][2], 2000), "callers that were turned away have slots of their own"


def test_same_refused_call_again_has_the_same_slot(ledger: LedgerEngine):
    limit = throttle(rpm=(60, 1))
    ledger.limited("j/1/1", 0, limit)

    first = told(ledger.limited("j/1/2", 0, limit))
    again = told(ledger.limited("j/1/2", 0, limit))
    other = told(ledger.limited("j/1/3", 0, limit))

    assert near(again[1], first[1])
    assert near(other[1], first[1] + 1000)


def test_caller_who_was_promised_a_slot_goes_before_those_who_come_later(ledger: LedgerEngine):
    limit = throttle(rpm=(60, 1))
    ledger.limited("j/1/1", 0, limit)
    _, wait = told(ledger.limited("early/1/1", 0, limit))
    ledger.limited("second/1/1", 0, limit)

    ledger.advance(wait + 1)

    assert ledger.limited("late/1/1", 0, limit)[0] == "throttled"
    assert ledger.limited("early/1/1", 0, limit) == ["ok"]


def test_job_keeps_its_slot_over_runs_by_its_ticket(ledger: LedgerEngine):
    limit = throttle(rpm=(60, 1))
    ledger.limited("j/1/1", 0, limit)
    _, wait = told(ledger.limited("w/1/1", 0, limit, ticket="w"))
    ledger.limited("x/1/1", 0, limit)

    ledger.advance(wait + 1)

    assert ledger.limited("w/2/1", 0, limit, ticket="w") == ["ok"]


def test_all_axes_and_limiters_are_taken_together_or_not_at_all(ledger: LedgerEngine):
    wide, narrow = throttle("wide", rpm=(60, 10), tpm=(600, 100)), throttle("narrow", tpm=(60, 10))
    ledger.limited("j/1/1", 10, wide, narrow)

    verdict, name, _ = ledger.limited("j/1/2", 10, wide, narrow)

    assert (verdict, name) == ("throttled", "narrow")
    state, _ = ledger.limiter("wide")
    assert state["axes"]["rpm"][0] <= MINUTE, "the second call was not charged"


def test_refused_budget_charges_no_limiter(ledger: LedgerEngine):
    ledger.open(total=5)

    assert ledger.reserve(input=10, limiters=[throttle(rpm=(60, 10))])[0] == "budget"

    assert ledger.limiter() is None


def test_ask_larger_than_the_burst_passes_when_nothing_is_owed(ledger: LedgerEngine):
    limit = throttle(tpm=(6000, 100))

    assert ledger.limited("j/1/1", 3000, limit) == ["ok"]

    verdict, wait = told(ledger.limited("j/1/2", 3000, limit))
    assert verdict == "throttled"
    assert near(wait, 30_000)


def test_sides_and_weights_count_apart(ledger: LedgerEngine):
    limit = throttle(input_tpm=(1000, 500), output_tpm=(1000, 500))
    limit["axes"][0]["weights"] = {"cached_input": 0}  # type: ignore[index]
    tokens = {"input": 100, "cached_input": 9999, "cache_write_5m": 7, "output": 30, "reasoning": 3}

    ledger.limited("j/1/1", 0, limit, tokens=tokens)

    state, _ = ledger.limiter()
    assert near(state["axes"]["input_tpm"][0], 107 * MINUTE, SLACK * 1000)
    assert near(state["axes"]["output_tpm"][0], 33 * MINUTE, SLACK * 1000)


def test_settle_returns_the_surplus_and_charges_the_shortfall(ledger: LedgerEngine):
    limit = throttle(tpm=(600, 1000), rpm=(600, 100))
    ledger.limited("j/1/1", 500, limit)
    ledger.limited("j/1/2", 100, limit)

    ledger.settle("j/1/1", 50)
    ledger.settle("j/1/2", 300)

    state, _ = ledger.limiter()
    assert near(state["axes"]["tpm"][0], 350 * MINUTE, SLACK * 600)
    assert near(state["axes"]["rpm"][0], 2 * MINUTE, SLACK * 600), "both were sent"


def test_release_returns_the_request_as_well(ledger: LedgerEngine):
    limit = throttle(rpm=(60, 1))
    ledger.limited("j/1/1", 0, limit)

    ledger.settle("j/1/1", unused=True)

    assert ledger.limited("j/1/2", 0, limit) == ["ok"]


def test_returned_surplus_never_grants_more_than_the_burst(ledger: LedgerEngine):
    limit = throttle(tpm=(6000, 100))
    ledger.limited("j/1/1", 5000, limit)
    ledger.advance(MINUTE)
    ledger.settle("j/1/1", 0)

    assert [ledger.limited(f"j/2/{n}", 50, limit)[0] for n in range(3)] == ["ok", "ok", "throttled"]


# -- the sliding minute ------------------------------------------------------------------------------------------------


def largest_window(admitted: list[tuple[float, int]], width: float) -> int:
    """The most that any window of this width holds."""
    best = held = first = 0
    for at, amount in admitted:
        held += amount
        while admitted[first][0] <= at - width:
            held -= admitted[first][1]
            first += 1
        best = max(best, held)
    return best


def play(
    ledger: LedgerEngine, limit: dict[str, object], seed: int, sizes: tuple[int, int]
) -> list[tuple[float, int]]:
    """Eight clients that ask as fast as they are let, over three minutes; answers (instant, tokens) admitted."""
    dice = random.Random(seed)
    begin = ledger.now()
    admitted: list[tuple[float, int]] = []
    turns = [(begin + dice.randrange(5000), client, 0, dice.randint(*sizes)) for client in range(8)]
    heapq.heapify(turns)
    while turns and turns[0][0] < begin + 3 * MINUTE:
        at, client, n, size = heapq.heappop(turns)
        ledger.advance(max(0, int(at - ledger.now())))
        call = f"c{client}/1/{n}"
        verdict = ledger.limited(call, size, limit)
        now = ledger.now()
        if verdict == ["ok"]:
            admitted.append((now, size))
            ledger.settle(call, size)
            heapq.heappush(turns, (now + dice.randrange(500), client, n + 1, dice.randint(*sizes)))
        else:
            heapq.heappush(turns, (now + verdict[2], client, n, size))
    return admitted


@pytest.mark.parametrize("seed", range(3))
def test_no_window_of_a_minute_holds_more_than_limit_and_burst(ledger: LedgerEngine, seed: int):
    limit, burst = 6000, 600

    admitted = play(ledger, throttle(tpm=(limit, burst)), seed, (10, 500))

    assert largest_window(admitted, MINUTE - SLACK) <= limit + burst
    total = sum(size for _, size in admitted)
    assert total >= 0.9 * 3 * limit, "and the limit is used"


def test_parked_callers_come_back_spaced_and_pass_at_once(ledger: LedgerEngine):
    limit = throttle(rpm=(600, 1))
    ledger.limited("first/1/1", 0, limit)
    slots = sorted((ledger.limited(f"c{n}/1/1", 0, limit)[2] + ledger.now(), n) for n in range(50))

    for at, n in slots:
        ledger.advance(max(0, at - ledger.now() + 1))
        verdict = ledger.limited(f"c{n}/1/1", 0, limit)
        if verdict != ["ok"]:  # the one before came some ms late
            assert verdict[2] <= 100
            ledger.advance(verdict[2] + 1)
            assert ledger.limited(f"c{n}/1/1", 0, limit) == ["ok"]
    gaps = [after[0] - before[0] for before, after in itertools.pairwise(slots)]
    assert min(gaps) >= 100 - SLACK
    assert near(slots[-1][0] - slots[0][0], 4900, 200)


# -- concurrency -------------------------------------------------------------------------------------------------------


def test_places_are_held_until_settled_released_or_run_out(ledger: LedgerEngine):
    limit = throttle(concurrency=3)
    for n in range(3):
        assert ledger.limited(f"j/1/{n}", 0, limit) == ["ok"]
    assert ledger.limited("j/2/0", 0, limit)[0] == "throttled"

    ledger.settle("j/1/0")
    ledger.settle("j/1/1", unused=True)
    assert ledger.limited("j/2/1", 0, limit) == ["ok"]
    assert ledger.limited("j/2/2", 0, limit) == ["ok"]
    assert ledger.limited("j/2/3", 0, limit)[0] == "throttled"

    ledger.advance(TTL + 1)
    assert ledger.limited("j/2/4", 0, limit) == ["ok"]
    assert ledger.limiter()[1] == 1


def test_callers_that_met_all_places_taken_come_back_spaced(ledger: LedgerEngine):
    limit = throttle(concurrency=2)
    for n in range(2):
        ledger.limited(f"j/1/{n}", 0, limit)
    ledger.advance(1000)

    waits = [told(ledger.limited(f"k{n}/1/1", 0, limit))[1] for n in range(4)]

    assert all(after - before > 400 for before, after in itertools.pairwise(waits))


@pytest.mark.parametrize(("conf", "longest"), [({}, 3_600_000), ({"max_pause_ms": 5000}, 5000)])
def test_other_side_that_asks_for_a_day_is_left_alone_for_the_longest_pause(
    ledger: LedgerEngine, conf: dict[str, Any], longest: int
):
    limit = throttle(rpm=(600, 600), **conf)
    ledger.limited("j/1/1", 0, limit)

    ledger.settle("j/1/1", outcome="limited", retry_after_ms=86_400_000)

    verdict, wait = told(ledger.limited("j/2/1", 0, limit))
    assert verdict == "throttled"
    assert near(wait, longest, 300)


# -- what the other side says -------------------------------------------------------------------------------------------


def test_refusal_lowers_the_limits_once_per_round_trip_and_blocks_for_the_time_asked(
    ledger: LedgerEngine,
):
    limit = throttle(rpm=(600, 600))
    for n in range(4):
        ledger.limited(f"j/1/{n}", 0, limit)
    ledger.advance(100)

    for n in range(3):
        ledger.settle(f"j/1/{n}", outcome="limited", retry_after_ms=2000)

    state, _ = ledger.limiter()
    assert state["cap"] == 700, "three refusals of calls under way at once are one"
    verdict, wait = told(ledger.limited("j/2/1", 0, limit))
    assert verdict == "throttled"
    assert 1900 <= wait <= 2100
    ledger.advance(2200)
    ledger.limited("j/2/1", 0, limit)
    ledger.advance(10)
    ledger.settle("j/2/1", outcome="limited")
    assert ledger.limiter()[0]["cap"] == 490


def test_cap_never_falls_below_a_twentieth(ledger: LedgerEngine):
    limit = throttle(rpm=(60_000, 60_000))
    for n in range(20):
        ledger.limited(f"j/1/{n}", 0, limit)
        ledger.advance(10)
        ledger.settle(f"j/1/{n}", outcome="limited")
        ledger.advance(10)

    assert ledger.limiter()[0]["cap"] == 50


@pytest.mark.parametrize("pace", [50, 500, 2000])
def test_success_raises_the_cap_again_by_a_tenth_a_second_whatever_the_rate(
    ledger: LedgerEngine, pace: int
):
    limit = throttle(rpm=(60_000, 6000))
    for n in range(7):
        ledger.limited(f"j/1/{n}", 0, limit)
        ledger.advance(10)
        ledger.settle(f"j/1/{n}", outcome="limited")
        ledger.advance(10)
    low = ledger.limiter()[0]["cap"]
    seen = []
    for n in range(34_000 // pace):
        ledger.limited(f"k/1/{n}", 0, limit)
        ledger.advance(pace)
        ledger.settle(f"k/1/{n}", outcome="ok")
        seen.append(ledger.limiter()[0]["cap"])

    assert low < 100
    assert seen == sorted(seen)
    assert seen[1000 // pace] < low * 1.5
    assert 2.3 * low < seen[10_000 // pace] < 3.3 * low
    assert seen[-1] == 1000


def test_first_success_after_a_long_silence_raises_the_cap_by_a_quarter(ledger: LedgerEngine):
    limit = throttle(rpm=(60_000, 6000))
    ledger.limited("j/1/1", 0, limit)
    ledger.settle("j/1/1", outcome="limited")
    ledger.limited("j/1/2", 0, limit)
    ledger.advance(300_000)

    ledger.settle("j/1/2", outcome="ok")

    assert ledger.limiter()[0]["cap"] == 875


@pytest.mark.parametrize("conf", [{"rpm": (6000, 20)}, {"concurrency": 20}])
def test_slots_promised_at_a_lowered_cap_are_as_close_as_without(
    ledger: LedgerEngine, conf: dict[str, Any]
):
    limit = throttle(**conf)
    for n in range(10):
        ledger.limited(f"j/1/{n}", 0, limit)
        ledger.advance(200)
        ledger.settle(f"j/1/{n}", outcome="limited")
        ledger.advance(200)

    replies = [ledger.limited(f"k{n}/1/1", 0, limit) for n in range(60)]

    waits = [told(reply)[1] for reply in replies if reply != ["ok"]]
    state, _ = ledger.limiter()
    spacing = math.ceil(state["hold"] / 20) if "concurrency" in conf else 10  # ms
    assert state["cap"] == 50
    assert near(waits[-1] - waits[0], spacing * (len(waits) - 1), 2 * SLACK)


def test_what_the_other_side_says_is_left_lowers_and_never_raises(ledger: LedgerEngine):
    limit = throttle(tpm=(6000, 1000))
    ledger.limited("j/1/1", 900, limit)
    ledger.settle("j/1/1", 900, remaining={"tpm": 5000, "rpm": 1})
    assert near(ledger.limiter()[0]["axes"]["tpm"][0] / MINUTE, 900, 10)

    ledger.limited("j/1/2", 10, limit)
    ledger.settle("j/1/2", 10, remaining={"tpm": 20})

    assert near(ledger.limiter()[0]["axes"]["tpm"][0] / MINUTE, 980, 10)
    assert ledger.limited("j/1/3", 50, limit)[0] == "throttled"


def test_limiter_that_is_not_adaptive_does_not_listen(ledger: LedgerEngine):
    limit = throttle(rpm=(600, 600), adaptive=False)
    ledger.limited("j/1/1", 0, limit)
    ledger.advance(10)

    ledger.settle("j/1/1", outcome="limited", retry_after_ms=9000)

    assert ledger.limited("j/1/2", 0, limit) == ["ok"]


# -- breaker -----------------------------------------------------------------------------------------------------------

BREAKER = [4, 50, 5000]


def end(ledger: LedgerEngine, limit: dict[str, object], call: str, outcome: str) -> None:
    assert ledger.limited(call, 0, limit) == ["ok"]
    ledger.settle(call, outcome=outcome)


def opened(ledger: LedgerEngine) -> dict[str, object]:
    limit = throttle(breaker=BREAKER)
    for n in range(4):
        end(ledger, limit, f"bad/1/{n}", "error")
    return limit


def test_breaker_opens_at_its_share_of_failures_and_tells_when_to_come_back(ledger: LedgerEngine):
    limit = throttle(breaker=BREAKER)
    for n, outcome in enumerate(["ok", "ok", "error", "limited", "none"]):
        end(ledger, limit, f"j/1/{n}", outcome)
    assert ledger.limiter()[0]["breaker"]["until_"] == 0, "a third of three is not half of four"

    end(ledger, limit, "j/1/9", "error")

    verdict, wait = told(ledger.limited("j/2/1", 0, limit))
    assert verdict == "open"
    assert near(wait, 5000)


def test_failures_older_than_ten_seconds_are_forgotten(ledger: LedgerEngine):
    limit = throttle(breaker=BREAKER)
    for n in range(3):
        end(ledger, limit, f"j/1/{n}", "error")

    ledger.advance(11_000)
    end(ledger, limit, "j/1/9", "error")

    assert ledger.limited("j/2/1", 0, limit) == ["ok"]


def test_one_probe_goes_first_and_its_success_closes_the_breaker(ledger: LedgerEngine):
    limit = opened(ledger)
    ledger.advance(5100)

    verdicts = [ledger.limited(f"p{n}/1/1", 0, limit)[0] for n in range(10)]

    assert verdicts == ["ok"] + ["open"] * 9
    ledger.settle("p0/1/1", outcome="ok")
    assert ledger.limiter()[0]["breaker"]["until_"] == 0


def test_those_who_meet_a_probe_look_again_soon_not_when_its_lease_ends(ledger: LedgerEngine):
    limit = opened(ledger)
    ledger.advance(5100)
    ledger.limited("p/1/1", 0, limit)

    verdict, wait = told(ledger.limited("q/1/1", 0, limit))

    assert verdict == "open"
    assert near(wait, 1000)


def test_failed_probe_opens_it_for_twice_as_long(ledger: LedgerEngine):
    limit = opened(ledger)
    ledger.advance(5100)
    ledger.limited("p/1/1", 0, limit)

    ledger.settle("p/1/1", outcome="error")

    verdict, wait = told(ledger.limited("q/1/1", 0, limit))
    assert verdict == "open"
    assert near(wait, 10_000)


@pytest.mark.parametrize("how", ["released", "says nothing", "died"])
def test_probe_that_tells_nothing_makes_room_for_another(ledger: LedgerEngine, how: str):
    limit = opened(ledger)
    ledger.advance(5100)
    ledger.limited("p/1/1", 0, limit)

    match how:
        case "released":
            ledger.settle("p/1/1", unused=True)
        case "says nothing":
            ledger.settle("p/1/1", outcome="none")
        case _:
            ledger.advance(TTL + 1)
            ledger.upkeep()

    assert ledger.limited("q/1/1", 0, limit) == ["ok"]
    assert ledger.limited("r/1/1", 0, limit)[0] == "open"


def test_calls_from_before_it_opened_do_not_close_it(ledger: LedgerEngine):
    limit = throttle(breaker=BREAKER)
    ledger.limited("old/1/1", 0, limit)
    for n in range(4):
        end(ledger, limit, f"bad/1/{n}", "error")

    ledger.settle("old/1/1", outcome="ok")

    assert ledger.limited("j/1/1", 0, limit)[0] == "open"


# -- keys --------------------------------------------------------------------------------------------------------------


def test_idle_limiters_leave_no_key_without_an_expiry(ledger: LedgerEngine):
    limit = throttle(rpm=(60, 1), tpm=(6000, 100), concurrency=2, breaker=BREAKER)
    ledger.limited("j/1/1", 50, limit)
    ledger.limited("j/1/2", 50, limit)
    ledger.settle("j/1/1", 70, outcome="limited", retry_after_ms=5000)
    for _ in range(3):
        ledger.limiter()

    eternal = {name for name in ledger.names() if ledger.ttl(name) == -1}

    assert eternal == set()


def test_looking_at_a_limiter_that_is_not_there_makes_none(ledger: LedgerEngine):
    assert ledger.limiter() is None
    assert ledger.names() == set()
