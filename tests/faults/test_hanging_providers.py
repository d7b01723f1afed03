"""Streams that stop coming, and streams that cost too much: closed at the provider, booked, and readers are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from glidemq_core import Budget, BudgetExceeded, Chunk, JobFailed, Queue, Worker, kept_text
from glidemq_core._paid import PaidCalls
from glidemq_core.ledger import Ledger
from glidemq_llm import MeterSettings, Pricing, chat_handler, wrap
from tests.harness.aftermath import Aftermath
from tests.harness.provider import Behaviour, Provider

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("aftermath")]

DATA = {"model": "m", "messages": [{"role": "user", "content": "say it"}], "max_tokens": 400}
AHEAD = 140  # of the tokens of a stream whose budget has room for 120
PRICING = Pricing(overrides={"*": {"input": 1, "output": 2}})


@pytest.fixture
async def client(provider: Provider) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=provider.openai_url, api_key="-", max_retries=0) as client:
        yield client


@pytest.fixture
def refused_at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When workers of this process were told that a slice is refused."""
    extend, told = PaidCalls.extend, []

    async def noted(self: PaidCalls, *args: Any, **options: Any) -> None:
        try:
            await extend(self, *args, **options)
        except BudgetExceeded:
            told.append(time.monotonic())
            raise

    monkeypatch.setattr(PaidCalls, "extend", noted)
    return told


def answers_in_a_thread(base_url: str, settings: MeterSettings) -> Any:
    """A sync handler with a sync client."""

    def handler(job: Any) -> None:
        with OpenAI(base_url=base_url, api_key="-", max_retries=0) as client:
            wrapped = wrap(client, settings=settings)
            for _ in wrapped.chat.completions.create(**job.data, stream=True):
                pass

    return handler


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_stream_whose_next_slice_is_refused_is_closed_and_its_reader_sees_why(  # noqa: PLR0917
    queue: Queue,
    ledger: Ledger,
    url: str,
    provider: Provider,
    client: AsyncOpenAI,
    aftermath: Aftermath,
    refused_at: list[float],
    kind: str,
):
    # The provider goes no further than that, however long nobody reads.
    provider.usually(Behaviour(text=" ".join(["and"] * 400), pace=0.005, faults={AHEAD: "hang"}))
    settings = MeterSettings(pricing=PRICING, slice=16)
    handler = chat_handler({"openai": client}, settings=settings)
    if kind == "thread":
        handler = answers_in_a_thread(provider.openai_url, settings)

    took: list[float] = []
    async with Worker(queue.name, handler, connection=url):
        while not took or (
            took[-1] > 0.1 and len(took) < 5
        ):  # a machine that stutters may try again
            name = f"b{len(took)}"
            aftermath.unread += AHEAD - 16
            await ledger.open_budget(name, Budget(max_total_tokens=120))
            job = await queue.add("chat", DATA, budgets=[name], attempts=3)
            chunks = [chunk async for chunk in job.stream()]
            with pytest.raises(JobFailed) as caught:
                await job.result(timeout=30)
            assert caught.value.reason == "budget"
            call = await ended_call(provider, len(took))
            check_refused_stream(chunks, name, call)
            took.append(call.ended - refused_at[-1])
            state = await ledger.budget(name)
            assert state is not None
            read = sum(chunk.type == "content" for chunk in chunks)
            assert (state.reserved, (await ledger.audit(name)).problems) == ({}, ())
            assert read <= state.total_tokens <= 120

    assert min(took) <= 0.1, took


async def ended_call(provider: Provider, number: int) -> Any:
    """A call that its caller has left, once the provider has seen it."""
    await asyncio.to_thread(provider.wait, "end", count=number + 1)
    call = provider.calls()[number]
    assert call.outcome == "caller left"
    return call


def check_refused_stream(chunks: list[Chunk], budget: str, call: Any) -> None:
    """The reader has seen what came, why it ended, and its end."""
    errors = [chunk for chunk in chunks if chunk.type == "error"]
    assert len(errors) == 1
    assert f"'{budget}'" in errors[0].content
    assert (chunks[-1].type, chunks[-1].content) == ("end", "failed")
    assert 16 <= sum(chunk.type == "content" for chunk in chunks) <= call.output <= AHEAD


async def test_deltas_of_many_tokens_use_up_their_slices_sooner(  # noqa: PLR0917
    queue: Queue,
    ledger: Ledger,
    url: str,
    provider: Provider,
    client: AsyncOpenAI,
    aftermath: Aftermath,
):
    aftermath.overshoot = True  # by what comes while the next slice is asked for
    await ledger.open_budget("b", Budget(max_total_tokens=120))
    delta = "and-then-again-" * 4  # 12 tokens or so, and no space: one delta
    provider.usually(Behaviour(text=" ".join([delta] * 100), pace=0.005, faults={60: "hang"}))
    settings = MeterSettings(pricing=PRICING, slice=16)

    handler = chat_handler({"openai": client}, settings=settings)
    async with Worker(queue.name, handler, connection=url):
        job = await queue.add("chat", DATA, budgets=["b"])
        with pytest.raises(JobFailed):
            await job.result(timeout=30)
        chunks = [chunk async for chunk in job.stream()]

    # Counted as one token each, they would have gone on to where the provider hangs.
    assert "".join(chunk.content for chunk in chunks).count(delta) <= 30


@pytest.mark.parametrize(
    ("place", "read"), [(-1, 0), (0, 0), (3, 3), (6, 6)], ids=["headers", "first", "middle", "last"]
)
async def test_stream_that_hangs_is_given_up_booked_and_begun_again(  # noqa: PLR0917
    queue: Queue,
    ledger: Ledger,
    url: str,
    provider: Provider,
    client: AsyncOpenAI,
    aftermath: Aftermath,
    place: int,
    read: int,
):
    await ledger.open_budget("b", Budget(max_total_tokens=10_000))
    provider.plan("m", Behaviour(tokens=6, faults={place: "hang"}), Behaviour(tokens=6))
    settings = MeterSettings(pricing=PRICING, first_event_timeout=1, idle_timeout=1)
    chunks: list[Chunk] = []

    async with Worker(
        queue.name, chat_handler({"openai": client}, settings=settings), connection=url
    ):
        job = await queue.add("chat", DATA, budgets=["b"], attempts=2, backoff=0.01)
        chunks = [chunk async for chunk in job.stream()]
        result: Any = await job.result(timeout=30)

    aftermath.saw(job.id, chunks)
    assert result["text"] == kept_text(chunks) == "t0 t1 t2 t3 t4 t5 "
    first = [c for c in chunks if c.type == "content" and c.epoch == chunks[0].epoch]
    if read:
        assert len(first) == read
        assert "reset" in [chunk.type for chunk in chunks]
    await asyncio.to_thread(provider.wait, "end", count=2)
    hung, whole = provider.calls()
    assert (hung.outcome, whole.outcome) == ("caller left", "complete")
    snapshot = await job.snapshot()
    assert snapshot is not None
    assert snapshot.attempt == 2
    guessed, sure = sorted(snapshot.usage.calls, key=lambda call: call["attempt"])
    assert sure["status"] == "complete"
    assert guessed["status"] in ("missing", "partial")
    guess = guessed["tokens"]
    assert guess["input"] >= hung.input
    assert guess.get("output", 0) >= read
    state = await ledger.budget("b")
    assert state is not None
    assert state.reserved == {}
    assert state.total_tokens == snapshot.usage.total_tokens
    assert (await ledger.audit("b")).problems == ()
