"""Sums of usage over spans of time, queues and models; and what events tell of each call."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from glidemq_core import InvalidOption, Queue, Worker
from glidemq_core.usage import span_of
from tests.integration.test_cli import glidemq

NOW = 28_000_000  # minutes; 40 minutes into an hour


async def tell(job: Any) -> None:
    await job.report_usage(
        model=job.data, tokens={"input": 7}, costs={"total": "0.000000001"}, details={"a": "b"}
    )


async def test_summary_adds_up_queues_and_models(queue, work, any_url):
    async with (
        Queue(f"{queue.name}-2", connection=any_url) as other,
        work(tell),
        Worker(other.name, tell, connection=any_url),
    ):
        jobs = [await one.add("j", model) for one in (queue, other) for model in ("a", "b", "a")]
        await asyncio.gather(*(job.result(timeout=10) for job in jobs))
        total = await queue.usage_summary(queues=[other.name])
        only = await queue.usage_summary(queues=[other.name], models=["a"])

    assert (total.total_tokens, total.calls, total.costs) == (42, 6, {"total": Decimal("6e-9")})
    assert {name: one.calls for name, one in total.models.items()} == {"a": 4, "b": 2}
    assert {name: one.calls for name, one in total.queues.items()} == {queue.name: 3, other.name: 3}
    assert (only.calls, list(only.models)) == (4, ["a"])


async def test_summary_counts_a_span_and_whole_hours_of_older_ones(queue, work):
    async with work(tell):
        await (await queue.add("j", "a")).result(timeout=10)
    now = datetime.now(UTC)

    async def calls(**span: Any) -> int:
        return (await queue.usage_summary(**span)).calls

    assert await calls(start=now - timedelta(minutes=5)) == 1
    assert await calls(start=now - timedelta(days=30)) == 1
    assert await calls(start=now - timedelta(days=30), end=now - timedelta(hours=1)) == 0
    assert await calls(window=timedelta(days=7)) == 1


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ({}, (NOW - 59, NOW, False)),
        ({"window": 60}, (NOW, NOW, False)),
        ({"window": timedelta(days=1)}, (NOW - 1439, NOW, False)),
        ({"window": timedelta(days=1, minutes=1)}, ((NOW - 1440) // 60, NOW // 60, True)),
        ({"start": NOW - 5}, (NOW - 5, NOW, False)),
        ({"start": NOW - 5, "end": NOW - 2}, (NOW - 5, NOW - 3, False)),
        ({"start": NOW - 5, "end": NOW + 99}, (NOW - 5, NOW, False)),
        ({"start": NOW - 3000, "end": NOW - 2}, ((NOW - 3000) // 60, (NOW - 3) // 60, True)),
    ],
)
def test_spans_are_minutes_of_the_last_day_and_hours_before(span, expected):
    given = {"window": None, "start": None, "end": None} | {
        name: datetime.fromtimestamp(value * 60, UTC) if name != "window" else value
        for name, value in span.items()
    }

    found = span_of(NOW, **given)

    assert (found.first, found.last, found.hours) == expected
    assert sum(page["last"] - page["first"] + 1 for page in found.pages()) == (
        found.last - found.first + 1
    )


def test_span_that_reaches_too_far_back_is_named():
    with pytest.raises(InvalidOption, match="window"):
        span_of(NOW, window=timedelta(days=32), start=None, end=None)


async def test_event_of_usage_tells_model_tokens_and_costs(queue, work):
    seen = []

    async def listen():
        async for event in queue.events(after=""):
            seen.append(event)
            if event.type == "completed":
                return

    async with work(tell):
        job = await queue.add("j", "a")
        await job.result(timeout=10)
        await asyncio.wait_for(listen(), 10)

    (usage,) = [event for event in seen if event.type == "usage"]
    assert usage.job_id == job.id
    assert usage.details["model"] == "a"
    assert usage.details["tokens"] == {"input": 7}
    assert Decimal(usage.details["costs"]["total"]) == Decimal("1e-9")
    assert (usage.details["run"], usage.details["attempt"]) == (1, 1)
    assert "details" not in usage.details
    assert [event.details for event in seen if event.type != "usage"] == [{}] * (len(seen) - 1)


async def test_command_prints_the_sums_of_several_queues(url):
    names = ("one", "two")
    for name in names:
        async with Queue(name, connection=url) as queue, Worker(name, tell, connection=url):
            await (await queue.add("j", name)).result(timeout=10)

    both = glidemq(url, "usage", *names, "--last", "7200")
    one = glidemq(url, "usage", *names, "--model", "two")
    old = glidemq(url, "usage", "one", "--start", "2020-01-01")

    assert msgspec.json.decode(both.stdout)["calls"] == 2
    assert list(msgspec.json.decode(one.stdout)["models"]) == ["two"]
    assert (old.returncode, "31 days" in old.stderr) == (1, True)


@pytest.mark.parametrize(
    "wrong",
    [{"queues": "other"}, {"queues": None}, {"models": "gpt"}, {"models": 7}, {"start": "today"}],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_wrong_option_of_a_summary_is_named(url: str, wrong: dict[str, Any]):
    async with Queue("spans-wrong", connection=url) as queue:
        with pytest.raises(InvalidOption, match=next(iter(wrong))):
            await queue.usage_summary(**wrong)
