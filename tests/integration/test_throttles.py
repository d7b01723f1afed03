"""Throttles through their public face: one limiter for many clients and processes."""

from __future__ import annotations

import asyncio
import time

import pytest

from glidemq_core import Breaker, InvalidOption, Ledger, Throttle, Throttled
from glidemq_core.ledger import Reservation
from glidemq_core.throttle import LimiterState
from tests.harness.processes import eventually
from tests.harness.servers import Look


@pytest.fixture
def url(any_url: str) -> str:
    """These run on every kind of server."""
    return any_url


async def wait_for_slot(
    ledger: Ledger, call: str, limits: dict[str, Throttle]
) -> tuple[Reservation, int]:
    """Do as a turned-away caller is told; answers how often it was, too."""
    refusals = 0
    while True:
        try:
            return await ledger.reserve(call, limits=limits), refusals
        except Throttled as error:
            refusals += 1
            await asyncio.sleep(error.retry_after)


async def test_clients_share_one_limiter(url: str):
    limits = {"provider/model": Throttle(rpm=600, burst=0.02)}
    async with Ledger(connection=url) as first, Ledger(connection=url) as second:
        calls = [
            ledger.try_reserve(f"{name}/{n}/1", limits=limits)
            for n in range(20)
            for name, ledger in (("a", first), ("b", second))
        ]
        begun = time.monotonic()

        admitted = [got for got in await asyncio.gather(*calls) if got]

        came_up = 10 * (time.monotonic() - begun)
        assert 12 <= len(admitted) <= 13 + came_up, "the burst, and what came up meanwhile"


async def test_refusal_says_which_limiter_and_when(url: str):
    async with Ledger(connection=url) as ledger:
        ledger.limiter("wide", Throttle(rpm=6000))
        ledger.limiter("narrow", Throttle(tpm=60, burst=0))
        await ledger.reserve("a/1/1", tokens={"input": 10}, limits=["wide", "narrow"])

        with pytest.raises(Throttled) as caught:
            await ledger.reserve("a/1/2", tokens={"input": 10}, limits=["wide", "narrow"])

        assert caught.value.limiter == "narrow"
        assert 5 < caught.value.retry_after <= 10.1


async def test_caller_who_waits_as_told_is_admitted(url: str):
    limits = {"m": Throttle(rpm=600, burst=0)}
    async with Ledger(connection=url) as ledger:
        begin = time.monotonic()

        waited = await asyncio.gather(
            *(wait_for_slot(ledger, f"c{n}/1/1", limits) for n in range(10))
        )

        assert 0.85 <= time.monotonic() - begin <= 10
        assert sum(refusals for _, refusals in waited) <= 40, (
            "they come one after the other, not all at once"
        )


async def test_state_is_readable_and_looking_changes_nothing(url: str, any_server: Look):
    async with Ledger(connection=url) as ledger:
        assert (await ledger.limiter_state("m")).axes == {}
        assert any_server.keys() == []

        ledger.limiter("m", Throttle(rpm=60, tpm=6000, concurrency=4, breaker=Breaker()))
        begun = time.monotonic()
        await ledger.reserve("a/1/1", tokens={"input": 200}, limits=["m"])
        state = await ledger.limiter_state("m")
        took = time.monotonic() - begun + 0.01

        assert isinstance(state, LimiterState)
        assert (state.axes["tpm"].limit, state.axes["tpm"].burst) == (6000, 600)
        assert 200 - 100 * took <= state.axes["tpm"].used <= 200
        assert state.axes["tpm"].remaining == 600 - state.axes["tpm"].used
        assert 2 - took <= state.axes["tpm"].reset <= 2.0
        assert (state.axes["rpm"].used, state.axes["rpm"].remaining) == (1, 5)
        assert (state.running, state.concurrency, state.cap, state.breaker) == (1, 4, 1.0, "closed")


async def test_refusals_of_the_other_side_are_seen_by_all(url: str):
    limits = {"m": Throttle(rpm=6000)}
    async with Ledger(connection=url) as first, Ledger(connection=url) as second:
        call = await first.reserve("a/1/1", limits=limits)
        await call.settle(outcome="limited", retry_after=30)

        with pytest.raises(Throttled) as caught:
            await second.reserve("b/1/1", limits=limits)

        assert 20 <= caught.value.retry_after <= 31
        state = await second.limiter_state("m")
        assert state.cap == 0.7
        assert 20 <= state.blocked <= 30


async def test_breaker_opens_for_all_and_one_probe_closes_it(url: str):
    limits = {
        name: Throttle(breaker=Breaker(calls=3, failures=0.5, open_for=seconds))
        for name, seconds in (("long", 30), ("m", 0.1))
    }
    async with Ledger(connection=url) as first, Ledger(connection=url) as second:
        calls = [await first.reserve(f"a/1/{n}", limits=limits) for n in range(3)]
        for call in calls:
            await call.settle(outcome="error")
        assert (await second.limiter_state("long")).breaker == "open"
        with pytest.raises(Throttled) as caught:
            await second.reserve("b/1/1", limits=limits)
        assert (caught.value.limiter, 20 < caught.value.retry_after <= 30) == ("long", True)

        async def probing() -> bool:
            return (await second.limiter_state("m")).breaker == "probing"

        await eventually(probing)
        limits = {"m": limits["m"]}
        tries = [
            ledger.try_reserve(f"p{n}/1/1", limits=limits)
            for n in range(10)
            for ledger in (first, second)
        ]
        probes = {probe.call: probe for probe in await asyncio.gather(*tries) if probe}

        assert len(probes) == 1
        (probe,) = probes.values()
        await probe.settle(outcome="ok")
        assert (await first.limiter_state("m")).breaker == "closed"


async def test_places_are_never_more_than_allowed(url: str):
    limits = {"m": Throttle(concurrency=5)}
    async with Ledger(connection=url) as ledger:
        running = most = done = 0
        full = asyncio.Event()

        async def call(n: int) -> None:
            nonlocal running, most, done
            place, _ = await wait_for_slot(ledger, f"c{n}/1/1", limits)
            running += 1
            most = max(most, running)
            if running == 5:
                full.set()
            await full.wait()
            running -= 1
            await place.settle()
            done += 1

        await asyncio.gather(*(call(n) for n in range(10)))

        assert (most, done) == (5, 10)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rpm": 0},
        {"tpm": 1.5},
        {"input_tpm": -1},
        {"concurrency": 0},
        {"burst": "all"},
        {"breaker": "odd"},
        {"burst": 1.1},
        {"weights": {"input": -1}},
    ],
)
def test_wrong_option_of_a_throttle_is_named(wrong: dict[str, object]):
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        Throttle(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"calls": 0}, {"failures": 0}, {"failures": 2}, {"failures": "half"}, {"failures": True}),
        *({"open_for": 0}, {"open_for": 86_401}),
    ],
    ids=str,
)
def test_wrong_option_of_a_breaker_is_named(wrong: dict[str, object]):
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        Breaker(**wrong)


async def test_name_that_was_never_given_limits_is_an_error(url: str):
    async with Ledger(connection=url) as ledger:
        with pytest.raises(InvalidOption, match="limiter"):
            await ledger.reserve("a/1/1", limits=["m"])
