"""A call that breaks off after any of its writes is put right by its repeat: sums, reservations, limiters."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.harness.servers import ValkeyServer
from tests.lua.engine import Broken
from tests.lua.ledger_engine import MINUTE, TTL, LedgerEngine, throttle, waiter

MAX_WRITES = 60
LIMIT = throttle(tpm=(6000, 600), concurrency=3, breaker=[1, 50, 5000])

Scenario = Callable[[LedgerEngine], Callable[..., Any]]


def reserve(ledger: LedgerEngine) -> Callable[..., Any]:
    ledger.open("a", total=100)
    ledger.open("b", total=100)
    return lambda **more: ledger.reserve("j/1/1", 60, budgets=["a", "b"], limiters=[LIMIT], **more)


def reserve_after_overdue(ledger: LedgerEngine) -> Callable[..., Any]:
    again = reserve(ledger)
    for n in range(3):
        ledger.reserve(f"dead/{n}/1", 20, budgets=["a", "b"], sent=n == 0)
    ledger.advance(TTL + 1)
    return again


def refuse_and_register(ledger: LedgerEngine) -> Callable[..., Any]:
    ledger.open("b", total=10, on="pause")
    return lambda **more: ledger.reserve("w/1/1", 60, waiter=waiter("w"), **more)


def settle(ledger: LedgerEngine) -> Callable[..., Any]:
    reserve(ledger)()
    return lambda **more: ledger.settle("j/1/1", 25, started_ms=1, outcome="error", **more)


def settle_with_waiters(ledger: LedgerEngine) -> Callable[..., Any]:
    ledger.open("b", total=100, on="pause")
    ledger.reserve("j/1/1", 100)
    for n in range(3):
        ledger.reserve(f"w{n}/1/1", 30, waiter=waiter(f"w{n}", since=n))
    return lambda **more: ledger.settle("j/1/1", 25, **more)


def settle_late(ledger: LedgerEngine) -> Callable[..., Any]:
    again = settle(ledger)
    ledger.advance(TTL + 1)
    ledger.upkeep()
    return again


def settle_unreserved(ledger: LedgerEngine) -> Callable[..., Any]:
    ledger.open("b", total=10)
    return lambda **more: ledger.settle("x/1/1", 25, budgets=["b"], **more)


def lapse(ledger: LedgerEngine) -> Callable[..., Any]:
    reserve(ledger)()
    ledger.reserve("j/1/2", 10, budgets=["b"], sent=False)
    return lambda **more: ledger.packed("ledger_lapse", run="j/1", **more)


def extend(ledger: LedgerEngine) -> Callable[..., Any]:
    reserve(ledger)()
    args = {"call": "j/1/1", "tokens": {"input": 90}, "costs": {}, "ttl_ms": 2 * TTL}
    return lambda **more: ledger.packed("ledger_extend", **args, **more)


def charge(ledger: LedgerEngine) -> Callable[..., Any]:
    limit = [LIMIT["name"], json.dumps(LIMIT)]
    args = {"call": "j/1/1", "limiters": [limit], "tokens": {"input": 5}}
    return lambda **more: ledger.packed("ledger_charge", **args, **more)


def turn_window(ledger: LedgerEngine) -> Callable[..., Any]:
    now = ledger.now()
    ledger.open(total=100, on="pause", window="day", start=now - 1000, stop=now + 1000)
    ledger.settle("x/1/1", 100, budgets=["b"])
    ledger.reserve("w/1/1", 50, waiter=waiter("w"))
    ledger.advance(1100)
    return lambda **more: ledger.packed(
        "ledger_turn", id="b", start=now + 1000, stop=now + MINUTE, **more
    )


def raise_cap(ledger: LedgerEngine) -> Callable[..., Any]:
    ledger.open(total=10, on="pause")
    ledger.reserve("w/1/1", 50, waiter=waiter("w"))
    return lambda **more: ledger.open(total=100, on="pause", update=True, **more)


SCENARIOS: list[Scenario] = [
    reserve,
    reserve_after_overdue,
    refuse_and_register,
    settle,
    settle_with_waiters,
    settle_late,
    settle_unreserved,
    lapse,
    extend,
    charge,
    turn_window,
    raise_cap,
]


def made(server: ValkeyServer, name: str) -> LedgerEngine:
    ledger = LedgerEngine(server, f"ledger:{name}")
    ledger.load()
    return ledger


def facts(ledger: LedgerEngine) -> dict[str, Any]:
    """What must agree: all sums, who is awaited, what is open and what limiters hold."""
    ledger.advance(1000)
    ledger.upkeep()
    ledger.upkeep()
    sent = ledger.server.cmd("XRANGE", f"{ledger.root}:outbox", "-", "+")
    state = ledger.limiter()
    return {
        "sums": [ledger.spend(id) for id in ("a", "b") if f"budget:{id}" in ledger.names()],
        "calls": ledger.server.cmd("ZRANGE", f"{ledger.root}:calls", 0, -1),
        "waiting": ledger.server.cmd(
            "ZDIFF", 2, f"{ledger.root}:waiters:b", f"{ledger.root}:woken:b"
        ),
        "woken": sorted({job for _, fields in sent for job in fields[7].split(b"\n")}),
        "places": state and state[1],
        "failures": state and [bucket[1:] for bucket in state[0]["breaker"]["buckets"]],
    }


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_broken_call_is_put_right_by_its_repeat(server: ValkeyServer, scenario: Scenario):
    whole = made(server, "whole")
    scenario(whole)()
    expected = facts(whole)

    for n in itertools.count():
        assert n < MAX_WRITES
        ledger = made(server, f"broken-{n}")
        call = scenario(ledger)
        try:
            call(fail_after=n)
        except Broken:
            pass
        else:
            break
        call(repeat=True)

        assert facts(ledger) == expected, f"after {n} writes"
    assert n > 0, "this call writes"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_broken_call_leaves_sums_that_agree_with_its_reservations(
    server: ValkeyServer, scenario: Scenario
):
    for n in range(MAX_WRITES):
        ledger = made(server, f"broken-{n}")
        call = scenario(ledger)
        try:
            call(fail_after=n)
        except Broken:
            pass
        else:
            break
        for id in ("a", "b"):
            if page := ledger.audited(id):
                stored = {name: count for name, count in (page[2] or {}).items() if count}
                counted = {name: count for name, count in (page[4] or {}).items() if count}
                assert stored == counted, f"after {n} writes"
        ledger.advance(10 * TTL)
        for _ in range(3):
            ledger.upkeep()
        for id in ("a", "b"):
            if ledger.audited(id):
                assert ledger.spend(id)["held"] == {}, f"after {n} writes"
        assert not {"calls", "deadlines"} & ledger.names(), f"after {n} writes"
