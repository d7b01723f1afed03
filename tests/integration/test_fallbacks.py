"""Fallbacks across attempts: which errors advance to the next model, and what the job tells of it."""

import pytest

from glidemq_core import Budget, JobFailed, Ledger

MODELS = [{"model": "second"}, {"model": "third", "params": {"temperature": 0}}]


class ProviderError(Exception):
    def __init__(self, status):
        super().__init__(f"status {status}")
        self.fallback = status in (401, 429, 500)
        self.retryable = status not in (400, 401)


def failing(*statuses):
    """A handler that meets these errors one after the other, then works; and the choices that it saw."""
    left, seen = list(statuses), []

    async def handler(job):
        choice = job.current_fallback
        seen.append((job.fallback_index, choice and choice["model"]))
        if left:
            raise ProviderError(left.pop(0))
        return choice and choice["model"]

    return handler, seen


async def test_errors_that_say_so_advance_to_the_next_model(queue, work):
    handler, seen = failing(429, 500)
    async with work(handler):
        job = await queue.add("n", attempts=3, fallbacks=MODELS)
        assert await job.result(timeout=5) == "third"
    assert seen == [(0, None), (1, "second"), (2, "third")]


async def test_error_that_would_stay_with_one_model_advances_to_the_next_and_fails_at_the_last(
    queue, work
):
    handler, seen = failing(401, 401, 401)
    async with work(handler):
        job = await queue.add("n", attempts=9, fallbacks=MODELS)
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=5)
    assert (caught.value.reason, caught.value.attempt) == ("unrecoverable", 3)
    assert seen == [(0, None), (1, "second"), (2, "third")]


async def test_error_that_would_fail_everywhere_does_not_advance(queue, work):
    handler, seen = failing(429, 400)
    async with work(handler):
        job = await queue.add("n", attempts=5, fallbacks=MODELS)
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=5)
    assert (caught.value.reason, caught.value.attempt) == ("unrecoverable", 2)
    assert seen == [(0, None), (1, "second")]


async def test_other_retries_stay_with_their_model(queue, work):
    handler, seen = failing(429, 503)
    async with work(handler):
        job = await queue.add("n", attempts=3, fallbacks=MODELS)
        assert await job.result(timeout=5) == "second"
    assert [index for index, _ in seen] == [0, 1, 1]


async def test_past_the_end_it_stays_with_the_last_model(queue, work):
    handler, seen = failing(429, 429, 429, 429)
    async with work(handler):
        job = await queue.add("n", attempts=5, fallbacks=MODELS)
        assert await job.result(timeout=5) == "third"
    assert [index for index, _ in seen] == [0, 1, 2, 2, 2]


async def test_park_keeps_the_choice_and_retry_of_a_failed_job_begins_anew(queue, work):
    seen = []

    async def handler(job):
        seen.append(job.fallback_index)
        if job.attempt == 1:
            raise ProviderError(429)
        await job.sleep(0.02)
        if len(seen) < 4:
            raise ProviderError(400)
        return "done"

    async with work(handler):
        job = await queue.add("n", attempts=2, fallbacks=MODELS)
        with pytest.raises(JobFailed):
            await job.result(timeout=5)
        assert seen == [0, 1, 1]
        await queue.retry(job.id, fresh=True)
        assert await job.result(timeout=5) == "done"
    assert seen[3] == 0


async def test_hops_are_visible_on_the_job(queue, work):
    async def handler(job):
        await job.note_hops([{"model": "first", "why": "429"}, {"model": "second"}])

    async with work(handler):
        job = await queue.add("n", fallbacks=MODELS)
        await job.result(timeout=5)
    assert [hop["model"] for hop in (await job.snapshot()).hops] == ["first", "second"]
    assert (await job.snapshot()).options["fallbacks"] == MODELS


async def test_refusal_by_a_budget_uses_neither_an_attempt_nor_a_fallback(queue, work, any_url):
    seen = []

    async def handler(job):
        seen.append(job.fallback_index)
        async with job.llm_call("m", tokens={"input": 10}) as call:
            call.tokens = {"input": 10}

    async with work(handler), Ledger(connection=any_url) as ledger:
        await ledger.open_budget("b", Budget(max_total_tokens=5))
        job = await queue.add("n", attempts=5, fallbacks=MODELS, budgets=["b"])
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=5)
        ended = await job.snapshot()
        await ledger.update_budget("b", Budget(max_total_tokens=10))
        await queue.retry(job.id)
        await job.result(timeout=5)

    assert (caught.value.reason, ended.attempt, ended.run, ended.hops) == ("budget", 1, 1, ())
    assert seen == [0, 0]
