"""Children that running jobs add."""

import pytest

from glidemq_core import FlowJob, FlowProducer, InvalidOption


async def test_child_with_the_key_of_one_of_the_flow_is_refused(queue, work, any_url):
    async def boss(job):
        if job.name == "leaf":
            return None
        with pytest.raises(InvalidOption) as caught:
            await job.add_child("leaf", key="first")
        return [caught.value.field, caught.value.value]

    async with work(boss), FlowProducer(any_url) as flows:
        flow = FlowJob(
            name="boss",
            queue=queue.name,
            children=[FlowJob(name="leaf", queue=queue.name, key="first")],
        )
        handle = await flows.add(flow)
        assert await queue.result(handle.id, timeout=10) == ["key", "first"]
    assert (await queue.counts())["completed"] == 2
