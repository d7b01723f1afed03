"""Reports of usage that no ledger would take, and errors of the oddest kind: told, booked nowhere, and no slot is lost."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest

from glidemq_core import Budget, InvalidOption, JobFailed, Ledger

MANY = {f"c{n}": 1 for n in range(65)}
ODD: list[dict[str, Any]] = [
    {"tokens": {"input": 10**9 + 1}},
    {"tokens": {"x" * 65: 1}},
    {"tokens": {"ü" * 33: 1}},
    {"tokens": {"": 1}},
    {"tokens": {5: 1}},
    {"tokens": {"\ud800": 1}},
    {"tokens": MANY},
    {"tokens": None},
    {"costs": {"total": "4503600"}},
    {"costs": {"x" * 65: 1}},
    {"costs": MANY},
    {"costs": 5},
    {"call": ""},
    {"call": 5},
    {"model": ""},
    {"provider": 5},
    {"status": "odd"},
    {"outcome": "odd"},
    {"retry_after": "x"},
    {"retry_after": -1},
    {"retry_after": math.nan},
    {"remaining": 5},
    {"remaining": {"rpm": 10**13}},
    {"remaining": {"\ud800": 1}},
]


async def test_report_that_no_ledger_takes_is_refused_before_its_job_books_it(queue, work, any_url):
    told = []

    async def handler(job):
        for odd in ODD:
            with pytest.raises(InvalidOption) as caught:
                await job.report_usage(**{"model": "m", "tokens": {"input": 1}} | odd)
            told.append(caught.value.field.partition("[")[0])
        await job.report_usage(
            model="m",
            tokens={"input": 10**9, "x" * 64: 1},
            costs={"total": "4503599"},
            retry_after=math.inf,
        )

    async with work(handler), Ledger(connection=any_url) as ledger:
        await ledger.open_budget("b", Budget(max_total_tokens=10**12))
        job = await queue.add("j", budgets=["b"])
        await job.result(timeout=10)
        ended, budget = await job.snapshot(), await ledger.budget("b")

    assert told == [next(iter(odd)) for odd in ODD]
    assert ended.usage.total_tokens == budget.total_tokens == 10**9 + 1
    assert ended.usage.total_cost == budget.total_cost == 4503599


async def test_call_that_two_handlers_call_the_same_counts_for_each_job(queue, work, any_url):
    async def handler(job):
        await job.reserve("draft", tokens={"input": 5})
        booked = [
            await job.report_usage(model="m", tokens={"input": 5}, call=call)
            for call in ("draft", "draft", "final")
        ]
        await job.reserve("none", tokens={"input": 9})
        await job.release("none")
        return booked

    async with work(handler), Ledger(connection=any_url) as ledger:
        await ledger.open_budget("b", Budget(max_total_tokens=100))
        jobs = [await queue.add("j", budgets=["b"]) for _ in range(2)]
        assert [await job.result(timeout=10) for job in jobs] == [[True, False, True]] * 2
        budget = await ledger.budget("b")

    assert (budget.total_tokens, budget.reserved) == (20, {})


async def test_budget_that_is_named_twice_counts_once(queue, work, any_url):
    async def handler(job):
        async with job.llm_call("m", tokens={"input": 5}) as call:
            call.tokens = {"input": 5}

    async with work(handler), Ledger(connection=any_url) as ledger:
        await ledger.open_budget("b", Budget(max_total_tokens=100))
        await (await queue.add("j", budgets=["b", "b"])).result(timeout=10)
        assert (await ledger.budget("b")).total_tokens == 5


class Huge(Exception):
    retry_after = 10**400


class Broken(Exception):
    @property
    def retry_after(self):
        raise RuntimeError("not even that")


async def test_end_that_can_not_be_told_fails_its_job_and_keeps_no_slot(queue, work):
    async def handler(job):
        if job.data == "deep":
            return functools.reduce(lambda inner, _: [inner], range(5000), [])
        if job.data:
            raise Broken if job.data == "broken" else Huge
        return "alive"

    async with work(handler, concurrency=1):
        huge = await queue.add("j", "huge", attempts=2)
        broken = await queue.add("j", "broken", attempts=2)
        assert await (await queue.add("j")).result(timeout=10) == "alive"
        with pytest.raises(JobFailed, match="result=<list>"):
            await (await queue.add("j", "deep")).result(timeout=10)
        states = [(await job.snapshot()).state for job in (huge, broken)]

    assert states == ["delayed", "failed"]
