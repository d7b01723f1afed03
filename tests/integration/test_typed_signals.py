"""Signals whose data have a type: of msgspec, dataclasses, pydantic or typing."""

from __future__ import annotations

import dataclasses
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from glidemq_core import InvalidOption, JobFailed, SignalMismatch
from tests.harness.jobs import until_state


class Approval(msgspec.Struct):
    ok: bool
    limits: list[int] = []


@dataclasses.dataclass
class Plain:
    ok: bool
    limits: list[int] = dataclasses.field(default_factory=list)


class Model(pydantic.BaseModel):
    ok: bool
    limits: list[int] = []


class Keys(TypedDict):
    ok: bool
    limits: list[int]


@pytest.mark.parametrize("type_", [Approval, Plain, Model, Keys])
async def test_data_arrive_as_the_type_that_was_waited_for(queue, work, type_):
    async def handler(job):
        answer = (await job.wait_for_signal("go", type=type_)).data
        assert type_ is Keys or isinstance(answer, type_)
        return answer

    async with work(handler):
        job = await queue.add("n")
        await job.signal("go", type_(ok=True, limits=[3]), type=type_)
        assert await job.result(timeout=5) == {"ok": True, "limits": [3]}


@pytest.mark.parametrize("type_", [Approval, Plain, Model, Keys])
@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"ok": "perhaps", "limits": []}, "data.ok"),
        ({"ok": True, "limits": [1, "x"]}, "data.limits[1]"),
    ],
)
async def test_data_that_do_not_fit_are_not_sent(queue, type_: Any, data: Any, field: str):
    job = await queue.add("n")

    with pytest.raises(InvalidOption) as caught:
        await queue.signal(job.id, "go", data, type=type_)

    assert caught.value.field == field
    assert await queue.signal(job.id, "go", {"ok": True, "limits": []}, signal_id="x", type=type_)


async def test_handler_is_told_of_data_that_do_not_fit_and_may_wait_again(queue, work):
    async def handler(job):
        refused = []
        while True:
            try:
                return [refused, (await job.wait_for_signal("go", type=Approval)).data.ok]
            except SignalMismatch as error:
                refused.append([error.field, error.signal_id])

    async with work(handler):
        job = await queue.add("n")
        await queue.signal(job.id, "go", {"ok": "perhaps"}, signal_id="x")
        await until_state(queue, job.id, "suspended")
        await job.signal("go", {"ok": True})
        assert await job.result(timeout=5) == [[["data.ok", "x"]], True]


async def test_job_that_does_not_catch_it_fails_at_once_and_names_the_field(queue, work):
    async def handler(job):
        await job.wait_for_signal("go", type=Model)

    async with work(handler):
        job = await queue.add("n", attempts=3)
        await job.signal("go", {"limits": "none"})
        with pytest.raises(JobFailed, match=r"'go'.*data\.ok") as caught:
            await job.result(timeout=5)
    assert (caught.value.reason, caught.value.attempt) == ("unrecoverable", 1)
