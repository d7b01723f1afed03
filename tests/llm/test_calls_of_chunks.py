"""Which model call a chunk is of: readers are told for each, wherever they begin, though the wire says it rarely."""

from __future__ import annotations

import asyncio
import json

import pytest

from glidemq_core import Worker, kept_text, sse
from glidemq_core._chunk import MARK_EACH, Naming
from glidemq_llm import wrap
from tests.harness.provider import Behaviour

LONG = Behaviour(tokens=2 * MARK_EACH + 9, input=10)
SHORT = Behaviour(tokens=5, input=10)


@pytest.fixture
async def chunks(clients, model, queue, url):
    """What a job has streamed: of its own, and of calls one after the other and at the same time. Also the job's id."""
    wrapped = wrap(clients["openai"])

    async def ask(behaviour):
        prompt = [{"role": "user", "content": behaviour.as_prompt()}]
        stream = await wrapped.chat.completions.create(model=model, messages=prompt, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def handler(job):
        await job.stream_chunk("content", "first ")
        await ask(LONG)
        await job.stream_chunk("content", "then ", mood="good")
        await ask(SHORT)
        await asyncio.gather(ask(LONG), ask(SHORT))
        await job.stream_chunk("content", "last")

    async with Worker(queue.name, handler, connection=url):
        job = await queue.add("job")
        found = [chunk async for chunk in job.stream()]
        assert (await job.snapshot()).state == "completed"
    return job.id, found


def calls(found):
    return [chunk.call for chunk in found]


async def test_each_chunk_of_a_call_says_so_and_no_other(chunks):
    id, found = chunks
    written = {f"{id}/1.1/{n}": [] for n in range(1, 5)} | {"": []}
    for chunk in found:
        written[chunk.call].append(chunk)

    own = [chunk.content for chunk in written.pop("")]
    assert own == ["first ", "then ", "last", "completed"]
    for part in written.values():
        types = [chunk.type for chunk in part]
        assert (types[0], types[-2:]) == ("start", ["usage", "done"])
        assert set(types[1:-2]) == {"content"}
    long, short = "".join(LONG.words), "".join(SHORT.words)
    said = [kept_text(part) for part in written.values()]
    assert said[:2] == [long, short]
    assert sorted(said[2:]) == sorted([long, short])


async def test_reader_that_goes_on_anywhere_is_told_the_same(chunks, queue):
    id, found = chunks
    for number, seen in enumerate(found[:-1]):
        rest = await queue.read_stream(id, after=seen.id, limit=1000)
        assert calls(rest) == calls(found[number + 1 :]), seen

    middle = found[MARK_EACH // 2]
    async with queue.stream(id, after=middle.id) as live:
        assert calls([chunk async for chunk in live]) == calls(found[MARK_EACH // 2 + 1 :])


async def test_reader_that_waits_in_the_midst_of_a_call_is_told_it(
    clients, provider, model, queue, url
):
    wrapped = wrap(clients["openai"])
    provider.plan(model, Behaviour(tokens=6, faults={3: f"gate:{model}"}))

    async def handler(_job):
        stream = await wrapped.chat.completions.create(model=model, messages=[], stream=True)
        return [chunk async for chunk in stream] and None

    async with Worker(queue.name, handler, connection=url):
        job = await queue.add("job")
        seen = []
        async with job.stream() as before:
            while len([chunk for chunk in seen if chunk.type == "content"]) < 3:
                seen.append(await anext(before))
        resumed = queue.stream(job.id, after=seen[-1].id)
        waiting = asyncio.ensure_future(anext(resumed))
        once = asyncio.ensure_future(queue.read_stream(job.id, after=seen[-1].id, block=10))
        await asyncio.to_thread(provider.wait, "gate")
        provider.open(model)
        first, (also, *_) = await waiting, await once
        rest = [chunk async for chunk in resumed]

    call = f"{job.id}/1.1/1"
    assert (first.type, first.call, also.call) == ("content", call, call)
    assert calls(rest) == [call] * 4 + [""]


async def test_browser_is_told_the_call_of_each_chunk(chunks, queue):
    id, found = chunks
    events = [event async for event in sse.events(queue.stream(id))]

    told = [json.loads(event.split(b"data: ")[1]).get("call", "") for event in events]
    assert told == calls(found)


async def test_wire_names_the_call_of_a_chunk_in_sixty_four(chunks, queue, server):
    """Naming each would cost the server as much as the text does."""
    id, found = chunks
    entries = server.cmd("XRANGE", f"glidemq:{{{queue.name}}}:job:{id}:chunks", "-", "+")

    alone = [
        entry[1][9]
        for entry, chunk in zip(entries, found, strict=True)
        if chunk.call == f"{id}/1.1/1" and chunk.type == "content"
    ]

    assert sum(id.encode() in fields for fields in alone) == len(alone) // MARK_EACH == 2
    assert not any("_call" in (chunk.fields or {}) for chunk in found)


async def test_reader_of_what_a_trimmed_stream_still_has_is_told_once_it_is_named(
    chunks, queue, server
):
    id, found = chunks
    key = f"glidemq:{{{queue.name}}}:job:{id}:chunks"
    assert server.cmd("XTRIM", key, "MAXLEN", len(found) - 20) > 0

    left = await queue.read_stream(id, limit=1000)

    named = next(i for i, chunk in enumerate(left) if chunk.call)
    assert named < MARK_EACH
    assert calls(left)[named:] == calls(found)[20 + named :]


def test_mark_leaves_no_trace_in_a_chunk_without_fields():
    entry = [b"type", b"content", b"content", b"a", b"epoch", b"1", b"seq", b"%d" % MARK_EACH]

    (chunk,) = Naming().chunks([(b"1-0", [*entry, b"fields", b'{"_call":"x"}'])])

    assert (chunk.call, chunk.fields) == ("x", None)
