"""Chunks as server-sent events."""

import asyncio
import json

import pytest

from glidemq_core import Chunk, InvalidOption, StreamGap, sse


def parse(stream: bytes):
    """Events as a browser reads them: any of the three line ends, fields by name, a blank line dispatches."""
    events, fields = [], {}
    for line in stream.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line:
            if "data" in fields:
                events.append(fields)
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
    return events


async def gather(source, **options):
    return b"".join([event async for event in sse.events(source, **options)])


async def stream_of(*chunks):
    for chunk in chunks:
        if isinstance(chunk, Exception):
            raise chunk
        yield chunk


def test_event_has_id_name_and_everything_of_the_chunk():
    chunk = Chunk("17-2", "content", "hello", 3, 9, {"index": "0"}, "j/1.1/1")

    (event,) = parse(sse.encode(chunk))

    assert event["id"] == "17-2"
    assert event["event"] == "content"
    assert json.loads(event["data"]) == {
        "type": "content",
        "content": "hello",
        "epoch": 3,
        "seq": 9,
        "call": "j/1.1/1",
        "fields": {"index": "0"},
    }


@pytest.mark.parametrize(
    "text",
    [
        "a\nb",
        "a\r\nb",
        "a\rb",
        "\n\ndata: forged\n\n",
        "x\r\rid: 9-9\r\r",
        "\u2028\u2029\x85\x0b",
        "\0",
        " lead",
        "ü😀",
    ],
)
def test_content_can_not_break_out_of_its_event(text):
    events = parse(sse.encode(Chunk("1-1", "content", text, 1, 1)))

    assert len(events) == 1
    assert events[0]["id"] == "1-1"
    assert json.loads(events[0]["data"])["content"] == text


@pytest.mark.parametrize("name", ["a\nid: 9-9", "a\r\n\r\ndata: {}", "a\rb", "a\0"])
def test_type_with_a_line_break_becomes_a_plain_message(name):
    events = parse(sse.encode(Chunk("1-1", name, "x", 1, 1)))

    assert [(event["id"], event.get("event")) for event in events] == [("1-1", None)]
    assert json.loads(events[0]["data"])["type"] == name


def test_chunk_without_an_id_leaves_the_readers_position_alone():
    (event,) = parse(sse.encode(Chunk("", "end", "gone")))

    assert "id" not in event


async def test_events_end_with_the_stream():
    body = await gather(
        stream_of(Chunk("1-1", "content", "a", 1, 1), Chunk("1-2", "end", "completed"))
    )

    assert [event["event"] for event in parse(body)] == ["content", "end"]


async def test_trimmed_chunks_are_told_as_a_gap():
    body = await gather(stream_of(StreamGap("j", after="1-1", first="5-1")))

    (event,) = parse(body)
    assert event["event"] == "gap"
    assert json.loads(event["data"])["content"] == "5-1"


async def test_silence_is_bridged_without_losing_the_next_chunk():
    goes_on = asyncio.Event()

    async def slow():
        await goes_on.wait()
        yield Chunk("1-1", "content", "late", 1, 1)

    source = sse.events(slow(), keep_alive=0.001)
    assert await anext(source) == sse.KEEP_ALIVE
    assert await anext(source) == sse.KEEP_ALIVE
    goes_on.set()
    event = await anext(source)
    while event == sse.KEEP_ALIVE:
        event = await anext(source)

    assert json.loads(parse(event)[0]["data"])["content"] == "late"
    await source.aclose()


async def test_leaving_reader_closes_the_stream():
    class Source:
        is_closed = False

        def __aiter__(self):
            return self

        async def __anext__(self):
            return Chunk("1-1", "content", "x", 1, 1)

        def close(self):
            self.is_closed = True

    source = Source()
    events = sse.events(source)
    await anext(events)

    await events.aclose()

    assert source.is_closed


@pytest.mark.parametrize("name", ["Last-Event-ID", "last-event-id", "LAST-EVENT-ID"])
def test_last_event_id_is_found_in_any_case(name):
    assert sse.last_event_id({"Accept": "*/*", name: " 17-3 "}) == "17-3"


@pytest.mark.parametrize("headers", [{}, {"Last-Event-ID": ""}])
def test_new_reader_has_no_last_event_id(headers):
    assert sse.last_event_id(headers) is None


@pytest.mark.parametrize(
    "value", ["x", "1", "1-", "-1-1", "$", "1" * 21 + "-1", "9" * 20 + "-1", "\uff11-1"]
)
def test_forged_last_event_id_is_refused(value):
    with pytest.raises(InvalidOption, match="Last-Event-ID"):
        sse.last_event_id({"Last-Event-ID": value})
