"""Flows: jobs that wait for other jobs. A tree of parents and children, and a graph.

    python cookbook/07_flow.py

It prints:

    tree: tides: 2 facts, 1 source was down
    used by the whole tree: 30 tokens
    graph: page of (text on tides, picture of tides)
"""

import asyncio

from glidemq_core import FlowJob, FlowProducer, JobFailed, Queue, Worker


async def search(job):
    await job.report_usage(model="m", tokens={"input": 8, "output": 2})
    if job.data == "broken":
        raise ConnectionError("the source is down")
    return f"a fact from {job.data}"


async def write(job):
    # The handler of a parent starts when its children have ended; their endings are there by key.
    facts, missing = 0, 0
    for end in (await job.wait_for_children()).values():
        try:
            facts += bool(end.result)
        except JobFailed:  # what `result` of a child that failed raises
            missing += 1
    return f"{job.data}: {facts} facts, {missing} source was down"


async def topic(job):
    return job.data


async def illustrate(job):
    ends = await job.wait_for_children()
    return f"{job.data} {ends['topic'].result}"


async def lay_out(job):
    ends = await job.wait_for_children()
    return f"page of ({ends['text'].result}, {ends['picture'].result})"


async def tree(producer: FlowProducer, queue: Queue) -> None:
    sources = ["books", "papers", "broken"]
    flow = await producer.add(
        FlowJob(
            name="write",
            queue="flows",
            data="tides",
            on_child_failure="collect",  # go on without it; the default "fail" would fail the parent, too
            children=[FlowJob(name="search", queue="flows", data=source) for source in sources],
        )
    )
    print("tree:", await queue.result(flow.id, timeout=30))
    usage = await queue.flow_usage(flow.id)  # with what failed jobs have used: that money is gone
    print("used by the whole tree:", usage.total_tokens, "tokens")


async def graph(producer: FlowProducer, queue: Queue) -> None:
    jobs = {
        "topic": FlowJob(name="topic", queue="flows", data="tides"),
        "text": FlowJob(name="illustrate", queue="flows", data="text on"),
        "picture": FlowJob(name="illustrate", queue="flows", data="picture of"),
        "page": FlowJob(name="lay_out", queue="flows"),
    }
    waits_for = {"text": ["topic"], "picture": ["topic"], "page": ["text", "picture"]}
    handles = await producer.add_dag(jobs, waits_for)
    print("graph:", await queue.result(handles["page"].id, timeout=30))


async def main() -> None:
    handlers = {
        "search": search,
        "write": write,
        "topic": topic,
        "illustrate": illustrate,
        "lay_out": lay_out,
    }
    async with (
        Queue(
            "flows"
        ) as queue,  # the jobs of a flow may be in different queues, with different workers
        FlowProducer() as producer,
        Worker("flows", handlers, concurrency=4),
    ):
        await tree(producer, queue)
        await graph(producer, queue)


if __name__ == "__main__":
    asyncio.run(main())
