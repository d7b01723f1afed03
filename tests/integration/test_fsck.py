"""The consistency check finds what is wrong, and nothing where all is well."""

import pytest

from glidemq_core import Budget, Ledger, Queue, Worker, _keys
from glidemq_core._client import Client
from glidemq_core._target import parse
from glidemq_core.fsck import KEY_TABLE
from glidemq_core.fsck import fsck as fsck_through_client
from tests.harness.fsck import fsck
from tests.harness.jobs import until_state


async def write(job):
    if job.data == "park":
        await job.wait_for_signal("go")
    await job.stream_chunk("content", "hello")
    if job.data == "fail":
        await job.reset_stream("fallback", call="c")
        await job.stream_chunk("content", "hello again")
    await job.log("line")
    await job.report_usage(model="m", tokens={"input": 3}, costs={"total": "0.5"})
    if job.data == "spend":
        async with job.llm_call("m", tokens={"input": 10}):
            pass
    if job.data == "fail":
        raise ValueError("no")


async def prepare(url, name):
    """A queue with a job of each kind. Answers its root key."""
    async with Queue(name, connection=url) as queue, Ledger(connection=url) as ledger:
        await ledger.open_budget("empty", Budget(max_total_tokens=1, on_exceeded="pause"))
        async with Worker(name, write, connection=url, concurrency=3):
            for job_id, data in (("done", None), ("failed", "fail"), ("gone", None)):
                job = await queue.add("n", data, job_id=job_id, remove_on_complete=job_id == "gone")
                async for _ in job.stream():
                    pass
            parked = await queue.add("n", "park", job_id="parked")
            await until_state(queue, parked.id, "suspended")
            await queue.signal("parked", "other")
            poor = await queue.add("n", "spend", job_id="poor", budgets=["empty"])
            await until_state(queue, poor.id, "delayed")
        await queue.add("n", job_id="late", delay=60, ttl=90)
        await queue.add("n", job_id="next")
        await queue.add("n", job_id="cancelled")
        await queue.cancel("cancelled")
    return f"glidemq:{{{name}}}"


async def test_worked_on_queue_is_in_order_through_client_and_connection(
    any_server, any_url, queue_name
):
    await prepare(any_url, queue_name)
    client = Client(parse(any_url))
    try:
        found = await fsck_through_client(client, queue_name)
    finally:
        await client.close()

    assert (found, fsck(any_server, queue_name)) == ([], [])


@pytest.mark.parametrize(
    ("breakage", "problem"),
    [
        (("SET", "{root}:unheard", 1), "key unheard: not in the key table"),
        (("PEXPIRE", "{root}:meta", 100_000), "key meta: expires"),
        (("PERSIST", "{root}:job:gone"), "job gone: a tombstone that never expires"),
        (
            ("PERSIST", "{root}:job:gone:chunks"),
            "job gone: chunks of a removed job that never expire",
        ),
        (
            ("ZREM", "{root}:waiting", "next"),
            "job next: is waiting, in indexes [] in place of waiting",
        ),
        (
            ("ZADD", "{root}:active", 1, "next"),
            "job next: is waiting, in indexes ['waiting', 'active'] in place of waiting",
        ),
        (("ZADD", "{root}:waiting", 5, "nobody"), "index waiting: holds nobody, which has no hash"),
        (("ZADD", "{root}:failed", 5, "gone"), "index failed: holds gone, which is removed"),
        (
            ("HINCRBY", "{root}:job:next", "stalled", 1),
            "in indexes ['waiting'] in place of suspects",
        ),
        (("ZADD", "{root}:waiting", 5, "next"), "job next: waits at 5"),
        (("ZADD", "{root}:delayed", "inf", "late"), "job late: is delayed until inf"),
        (("ZREM", "{root}:expiring", "late"), "job late: has a ttl that nobody watches"),
        (("HDEL", "{root}:job:done", "finished_at"), "job done: is completed without finished_at"),
        (("HDEL", "{root}:job:done", "satellites"), "job done: names satellites []"),
        (("UNLINK", "{root}:job:failed:errors"), "job failed: names satellites"),
        (
            (
                "XADD",
                "{root}:job:done:chunks",
                "*",
                "type",
                "end",
                "content",
                "failed",
                "epoch",
                1,
                "seq",
                0,
            ),
            "job done: its stream has 2 ends",
        ),
        (
            (
                "XADD",
                "{root}:job:done:chunks",
                "*",
                "type",
                "content",
                "content",
                "",
                "epoch",
                1,
                "seq",
                3,
            ),
            "job done: its stream goes on after the end",
        ),
        (
            (
                "XADD",
                "{root}:job:done:chunks",
                "*",
                "type",
                "content",
                "content",
                "",
                "epoch",
                1,
                "seq",
                3,
            ),
            "job done: the chunks of epoch 1 are numbered [1, 3]",
        ),
        (
            (
                "XADD",
                "{root}:job:done:chunks",
                "*",
                "type",
                "content",
                "content",
                "",
                "epoch",
                0,
                "seq",
                1,
            ),
            "job done: the epochs of its stream are out of order",
        ),
        (("XTRIM", "{root}:job:done:chunks", "MAXLEN", 1), None),
        (("HINCRBY", "{root}:job:done:usage", "tokens:input", 1), "job done: its usage says"),
        (("HSET", "{root}:job:done:usage", "tokens:output", 1), "job done: its usage says"),
        (
            ("HSET", "{root}:job:parked:mailbox", "m:7", "{{}}"),
            "job parked: its mailbox lists messages",
        ),
        (
            ("HSET", "{root}:job:parked:steps", "signal:go#1", "{{}}"),
            "job parked: is suspended although its wait",
        ),
        (("HDEL", "{root}:job:parked", "wait_key"), "job parked: is suspended without a wait"),
        (("HSET", "{root}:job:parked", "pending", 2), "job parked: waits for 2 children"),
        (("RPUSH", "{root}:wake", 1, 1), "tokens"),
        (("HSET", "{root}:meta", "sequence", 1), "meta: sequence 1 is below the number of jobs"),
        (("SADD", "{root}:removed:7", "x"), "key removed:7: never expires"),
        (("HSET", "{root}:minute:7", "x", 1), "key minute:7: never expires"),
        (("RPUSH", "{root}:inbox:w", "x"), "key inbox:w: never expires"),
        (("HSET", "{root}:turn:w", "x", 1), "key turn:w: never expires"),
    ],
)
async def test_each_kind_of_damage_is_named(server, url, queue_name, breakage, problem):
    root = await prepare(url, queue_name)

    server.cmd(*(word.format(root=root) if isinstance(word, str) else word for word in breakage))
    found = fsck(server, queue_name)

    if problem is None:
        assert found == []
    else:
        assert any(problem in line for line in found), found


def test_key_table_knows_every_key_of_the_layout():
    names = _keys.all_names("root")
    del names["news"]  # a channel, no key

    unknown = [
        name
        for name in names.values()
        if not any(rule.fits(name.removeprefix("root:")) for rule in KEY_TABLE)
    ]
    assert unknown == []
