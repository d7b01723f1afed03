"""Budgets through their public face, under concurrency, over processes that die, and over time."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from glidemq_core import Budget, BudgetExceeded, InvalidOption, Ledger
from glidemq_core.budget import window_bounds
from tests.harness.servers import Look

CALLS = 200
FIT = 37
TOKENS = {"input": 600, "output": 400}


@pytest.fixture
def url(any_url: str) -> str:
    """These run on every kind of server."""
    return any_url


async def race(ledgers: list[Ledger], budgets: list[str], run: int) -> Counter[str]:
    """Many calls at once from several clients; answers what became of them."""

    async def one(n: int) -> str:
        try:
            await ledgers[n % len(ledgers)].reserve(
                f"j{n}/{run}/1", tokens=TOKENS, costs={"total": "0.001"}, budgets=budgets
            )
        except BudgetExceeded:
            return "refused"
        return "admitted"

    return Counter(await asyncio.gather(*(one(n) for n in range(CALLS))))


@pytest.mark.parametrize("count", [1, 3])
async def test_exactly_those_that_fit_are_admitted_in_twenty_runs_of_twenty(url: str, count: int):
    async with Ledger(connection=url) as first, Ledger(connection=url) as second:
        for run in range(20):
            names = [f"b{run}-{n}" for n in range(count)]
            for n, name in enumerate(names):
                # Each of the budgets is the narrow one in some run; money is as exact as tokens.
                narrow = (
                    Budget(max_total_cost="0.037") if run % 2 else Budget(max_total_tokens=37_999)
                )
                await first.open_budget(
                    name, narrow if run % count == n else Budget(max_total_cost=9)
                )

            found = await race([first, second], names, run)

            assert found == {"admitted": FIT, "refused": CALLS - FIT}
            for name in names:
                state = await first.budget(name)
                assert state is not None
                assert state.reserved["cost.total"] == FIT * Decimal("0.001")


async def test_error_names_the_budget_the_cap_and_all_figures(url: str):
    async with Ledger(connection=url) as ledger:
        await ledger.open_budget(
            "tenant", Budget(max_total_tokens=1000, token_weights={"output": 2.5})
        )
        reservation = await ledger.reserve("a/1/1", tokens={"input": 100}, budgets=["tenant"])
        await reservation.settle(tokens={"input": 120})
        await ledger.reserve("a/1/2", tokens={"output": 200}, budgets=["tenant"])

        with pytest.raises(BudgetExceeded) as caught:
            await ledger.reserve("a/1/3", tokens={"output": 200}, budgets=["tenant"])

        error = caught.value
        assert (error.budget, error.cap) == ("tenant", "total_tokens")
        assert (error.limit, error.used, error.reserved, error.asked) == (1000, 120, 500, 500)


async def test_error_of_a_cap_on_money_tells_money(url: str):
    async with Ledger(connection=url) as ledger:
        await ledger.open_budget("b", Budget(max_total_cost="0.30"))
        await ledger.reserve("a/1/1", costs={"total": "0.1000001"}, budgets=["b"])

        with pytest.raises(
            BudgetExceeded, match=r"cost.total of 0.3 leaves 0.1999999, asked for 0.25 "
        ) as caught:
            await ledger.reserve("a/1/2", costs={"total": "0.25"}, budgets=["b"])

        assert caught.value.reserved == Decimal("0.1000001")


async def test_reservation_is_settled_released_and_extended(url: str):
    async with Ledger(connection=url) as ledger:
        await ledger.open_budget("b", Budget(max_total_cost="1.00", max_total_tokens=5000))
        first = await ledger.reserve(
            "a/1/1", costs={"total": "0.10"}, tokens={"output": 100}, budgets=["b"]
        )
        second = await ledger.reserve("a/1/2", costs={"total": "0.50"}, budgets=["b"])

        await first.extend(costs={"total": "0.30"}, tokens={"output": 300})
        with pytest.raises(BudgetExceeded):
            await first.extend(costs={"total": "0.51"}, tokens={"output": 400})
        await second.release()
        await first.extend(costs={"total": "0.51"}, tokens={"output": 400})
        assert (
            await first.settle(costs={"total": "0.123456789"}, tokens={"output": 77}) == "settled"
        )
        assert await first.settle(costs={"total": "9"}) == "already"

        state = await ledger.budget("b")
        assert state is not None
        assert state.total_cost == Decimal("0.123456789")
        assert state.total_tokens == 77
        assert not state.reserved
        assert state.remaining["cost.total"] == Decimal("0.876543211")
        with pytest.raises(InvalidOption):
            await first.extend(costs={"total": "0.9"})


async def test_agent_asks_before_it_spawns(url: str):
    async with Ledger(connection=url) as ledger:
        await ledger.open_budget("agents", Budget(max_total_tokens=1000))

        got = [
            await ledger.try_reserve(f"plan/1/{n}", tokens={"input": 300}, budgets=["agents"])
            for n in range(5)
        ]

        assert [reservation is not None for reservation in got] == [True, True, True, False, False]


async def test_open_budget_is_kept_and_update_changes_it(url: str):
    async with Ledger(connection=url) as ledger:
        await ledger.open_budget("b", Budget(max_total_tokens=10))
        await ledger.settle("x/1/1", tokens={"input": 8}, budgets=["b"])

        kept = await ledger.open_budget("b", Budget(max_total_tokens=99))
        updated = await ledger.update_budget("b", Budget(max_total_tokens=99, on_exceeded="pause"))

        assert kept.remaining == {"total_tokens": 2}
        assert (updated.remaining, updated.on_exceeded) == ({"total_tokens": 91}, "pause")
        with pytest.raises(InvalidOption):
            await ledger.update_budget("nope", Budget())
        assert await ledger.budget("nope") is None


async def test_unknown_budget_is_an_error_that_names_it(url: str):
    async with Ledger(connection=url) as ledger:
        with pytest.raises(InvalidOption, match="nope"):
            await ledger.reserve("a/1/1", tokens={"input": 1}, budgets=["nope"])


async def test_alerts_and_history_tell_what_happened(url: str):
    async with Ledger(connection=url) as ledger:
        await ledger.open_budget("b", Budget(max_total_tokens=100))
        for n, tokens in enumerate([50, 30, 20]):
            await ledger.settle(
                f"x/1/{n}", tokens={"input": tokens}, budgets=["b"], note="complete"
            )

        alerts = await ledger.alerts()
        history = await ledger.history("b", limit=2)
        older = await ledger.history("b", before=history[-1].id)

        assert [(alert.budget, alert.cap, alert.percent) for alert in alerts] == [
            ("b", "total_tokens", 100),
            ("b", "total_tokens", 80),
            ("b", "total_tokens", 50),
        ]
        assert [(entry.call, entry.after["tokens.input"]) for entry in history] == [
            ("x/1/2", 100),
            ("x/1/1", 80),
        ]
        assert [entry.kind for entry in older] == ["unreserved", "open"]
        assert history[0].note == "complete"


# -- processes that die ------------------------------------------------------------------------------------------------

SPENDER = """
import asyncio, sys
from glidemq_core import Ledger

async def main(url, name):
    async with Ledger(connection=url) as ledger:
        n = 0
        while True:
            n += 1
            call = f"{name}/1/{n}"
            reservation = await ledger.reserve(
                call, tokens={"input": 10}, costs={"total": "0.000000007"}, budgets=["b"], ttl=1, sent=n % 2 == 0)
            print("reserved", call, flush=True)
            await asyncio.sleep(0.001)
            await reservation.settle(tokens={"input": n % 10}, costs={"total": "0.000000003"})
            print("settled", call, n % 10, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def spend(url: str, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SPENDER, url, name], stdout=subprocess.PIPE, text=True
    )


async def settled_down(ledger: Ledger) -> None:
    """Wait until no reservation is left."""
    async with asyncio.timeout(20):
        while True:
            await ledger.try_reserve(
                f"peek/{time.monotonic_ns()}/1", ttl=0.001
            )  # ends what is overdue
            state = await ledger.budget("b")
            assert state is not None
            if not state.reserved and (await ledger.audit("b")).open_calls == 0:
                return
            await asyncio.sleep(0.05)


async def test_killed_spenders_leave_nothing_reserved_and_only_flagged_surplus(url: str):
    async with Ledger(connection=url) as ledger:
        await ledger.open_budget("b", Budget(max_total_tokens=10**9))
        spenders = [spend(url, f"s{n}") for n in range(3)]
        lines = [[spender.stdout.readline() for _ in range(41)] for spender in spenders]
        for spender in spenders:
            os.kill(spender.pid, signal.SIGKILL)
        rest = [spender.communicate()[0].splitlines() for spender in spenders]
        logs = [line.split() for line in itertools.chain(*lines, *rest)]

        await settled_down(ledger)

        told = {line[1]: int(line[2]) for line in logs if line[0] == "settled" and len(line) == 3}
        entries = await ledger.history("b", limit=1000)
        booked = {entry.call: entry.changes["tokens.input"] for entry in entries if entry.changes}
        silent = booked.keys() - told.keys()
        assert len(told) >= 60
        assert told.items() <= booked.items(), "what was settled counts, to the token"
        assert len(silent) <= 3, "at most the call that each process died in"
        state = await ledger.budget("b")
        assert state is not None
        assert state.used["tokens.input"] == sum(booked.values())
        flagged = sum(
            entry.changes["tokens.input"] for entry in entries if entry.kind == "unverified"
        )
        assert state.caps["tokens.input"].unverified == flagged
        assert (await ledger.audit("b")).problems == ()


RACER = """
import asyncio, sys
from glidemq_core import BudgetExceeded, Ledger

async def main(url, name):
    async with Ledger(connection=url) as ledger:
        print("ready", flush=True)
        sys.stdin.readline()

        async def one(n):
            try:
                await ledger.reserve(f"{name}-{n}/1/1", tokens={"input": 1000}, budgets=["a", "b", "c"])
            except BudgetExceeded:
                return
            print("admitted", flush=True)

        while True:
            await asyncio.gather(*(one(n) for n in range(50)))

asyncio.run(main(*sys.argv[1:]))
"""


def race_and_kill(url: str, seed: int) -> int:
    """Let processes race for one budget and kill them one by one; answers how many admissions they told of."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, url, f"r{n}"], **pipes) for n in range(4)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    dice = random.Random(seed)
    for racer in racers:
        time.sleep(dice.random() / 20)
        racer.kill()
    return sum(racer.communicate()[0].count("admitted") for racer in racers)


@pytest.mark.parametrize("seed", range(3))
async def test_killed_racers_never_get_more_than_the_cap(url: str, seed: int):
    async with Ledger(connection=url) as ledger:
        for id in ("a", "b", "c"):
            await ledger.open_budget(id, Budget(max_total_tokens=FIT * 1000))

        told = await asyncio.to_thread(race_and_kill, url, seed)

        reserved = set()
        for id in ("a", "b", "c"):
            state = await ledger.budget(id)
            assert state is not None
            reserved.add(state.reserved.get("total_tokens", 0) / 1000)
            assert (await ledger.audit(id)).problems == ()
        (count,) = reserved
        assert told <= count <= FIT


async def test_audit_of_a_busy_budget_finds_its_sums_in_order(url: str):
    async with Ledger(connection=url) as ledger:
        await ledger.open_budget("b", Budget(max_total_tokens=10**6))
        for n in range(30):
            reservation = await ledger.reserve(
                f"j/{n}/1", tokens={"input": n}, costs={"total": n}, budgets=["b"]
            )
            match n % 3:
                case 0:
                    await reservation.settle(
                        tokens={"input": 2 * n, "reasoning": 1}, costs={"total": 1}
                    )
                case 1:
                    await reservation.release()
                case _:
                    pass

        report = await ledger.audit("b")

        assert report.problems == ()
        assert (report.open_calls, report.entries) == (10, 11)


async def test_audit_tells_sums_that_are_wrong(any_server: Look, url: str):
    async with Ledger(connection=url) as ledger:
        await ledger.open_budget("b", Budget(max_total_tokens=10**6))
        await ledger.reserve("j/1/1", tokens={"input": 5}, budgets=["b"])
        await ledger.settle("x/1/1", tokens={"input": 7}, budgets=["b"])
        before = any_server.cmd("GET", "glidemq:{ledger:main}:spend:b:0")
        await ledger.settle("x/1/2", tokens={"input": 7}, budgets=["b"])
        await ledger.reserve("j/1/2", tokens={"input": 5}, budgets=["b"])

        any_server.cmd("SET", "glidemq:{ledger:main}:spend:b:0", before)

        problems = (await ledger.audit("b")).problems
        assert "reserved tokens.input: 5 stored, 10 counted" in problems
        assert "used tokens.input: 7 stored, 14 by its entries" not in problems, (
            "one entry may be ahead of the sums"
        )
        await ledger.settle("x/1/3", tokens={"input": 1}, budgets=["b"])
        await ledger.settle("x/1/4", tokens={"input": 1}, budgets=["b"])
        any_server.cmd("SET", "glidemq:{ledger:main}:spend:b:0", before)
        assert "used tokens.input: 7 stored, 9 by its entries" in (await ledger.audit("b")).problems


# -- windows -----------------------------------------------------------------------------------------------------------


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("window", "zone", "now", "start", "end"),
    [
        (
            "day",
            "UTC",
            "2026-03-01T00:00:00+00:00",
            "2026-03-01T00:00:00+00:00",
            "2026-03-02T00:00:00+00:00",
        ),
        (
            "day",
            "UTC",
            "2026-02-28T23:59:59.999+00:00",
            "2026-02-28T00:00:00+00:00",
            "2026-03-01T00:00:00+00:00",
        ),
        (
            "month",
            "UTC",
            "2026-12-31T23:00:00+00:00",
            "2026-12-01T00:00:00+00:00",
            "2027-01-01T00:00:00+00:00",
        ),
        # Berlin is an hour ahead in winter: its day has begun already.
        (
            "day",
            "Europe/Berlin",
            "2026-01-31T23:30:00+00:00",
            "2026-02-01T00:00:00+01:00",
            "2026-02-02T00:00:00+01:00",
        ),
        (
            "month",
            "Europe/Berlin",
            "2026-01-31T23:30:00+00:00",
            "2026-02-01T00:00:00+01:00",
            "2026-03-01T00:00:00+01:00",
        ),
        # The days of the clock changes have 23 and 25 hours.
        (
            "day",
            "Europe/Berlin",
            "2026-03-29T12:00:00+02:00",
            "2026-03-29T00:00:00+01:00",
            "2026-03-30T00:00:00+02:00",
        ),
        (
            "day",
            "Europe/Berlin",
            "2026-10-25T12:00:00+01:00",
            "2026-10-25T00:00:00+02:00",
            "2026-10-26T00:00:00+01:00",
        ),
        (
            "month",
            "America/New_York",
            "2026-03-31T23:00:00-04:00",
            "2026-03-01T00:00:00-05:00",
            "2026-04-01T00:00:00-04:00",
        ),
    ],
)
def test_windows_follow_the_calendar_of_their_zone(
    window: str, zone: str, now: str, start: str, end: str
):
    assert window_bounds(window, zone, ms(now)) == (ms(start), ms(end))


@pytest.mark.parametrize("zone", ["America/Sao_Paulo", "Asia/Beirut", "Africa/Cairo"])
def test_windows_leave_no_gap_where_midnight_does_not_exist(zone: str):
    at = ms("2018-01-01T12:00:00+00:00")
    while at < ms("2018-12-31T00:00:00+00:00"):
        start, end = window_bounds("day", zone, at)
        assert start <= at < end
        assert window_bounds("day", zone, end)[0] == end
        at = end


async def test_ended_window_turns_by_itself_and_old_reservations_stay_in_it(
    url: str, monkeypatch: pytest.MonkeyPatch
):
    """The first window ends in a second, so that the test need not wait for midnight."""
    begin = round(time.time() * 1000)
    end = begin + 1000
    monkeypatch.setattr(
        "glidemq_core._ledger.window_bounds",
        lambda _w, _z, now: (begin, end) if now < end else (end, end + 60_000),
    )
    async with Ledger(connection=url) as ledger:
        await ledger.open_budget("b", Budget(max_total_tokens=100, window="day"))
        old = await ledger.reserve("a/1/1", tokens={"input": 90}, budgets=["b"])
        first = await ledger.budget("b")
        assert first is not None
        with pytest.raises(BudgetExceeded):
            await ledger.reserve("a/1/2", tokens={"input": 90}, budgets=["b"])

        assert first.window_end is not None
        await asyncio.sleep(max(0.0, (first.window_end - datetime.now(UTC)).total_seconds()) + 0.01)
        new = await ledger.reserve("a/1/2", tokens={"input": 90}, budgets=["b"])
        await old.settle(tokens={"input": 80})
        await new.settle(tokens={"input": 5})

        entries = {entry.call: entry for entry in await ledger.history("b") if entry.call}
        assert entries["a/1/1"].window_start == first.window_start
        assert entries["a/1/2"].after["tokens.input"] == 5, (
            "the new window owes nothing to the old one"
        )


# -- options -----------------------------------------------------------------------------------------------------------
