"""GlideMQ, driven with the sub-commands that README.md describes. One process per role."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time

from glidemq_core import NewJob, Queue, Worker

FILLER = "x" * 140
CHUNK = " token"


def payload(number: int, at: float = 0.0) -> dict[str, object]:
    return {"number": number, "at": at, "user": "someone@example.test", "filler": FILLER}


def say(value: object) -> None:
    print(json.dumps(value), flush=True)


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def stdin_ends() -> None:
    await asyncio.to_thread(sys.stdin.read)


async def fill(url: str, count: int) -> None:
    async with Queue("bench", connection=url) as queue:
        for start in range(0, count, 1000):
            stop = min(count, start + 1000)
            await queue.add_many([NewJob(name="noop", data=payload(i)) for i in range(start, stop)])


async def drain(url: str, concurrency: int, count: int, keep: int, work: float) -> None:
    done = 0
    first = used = 0.0
    finished = asyncio.Event()

    async def handler(_job: object) -> None:
        nonlocal done, first, used
        if not first:
            first, used = time.monotonic(), cpu()
        if work:
            await asyncio.sleep(work)
        done += 1
        if done == count:
            say({"seconds": time.monotonic() - first, "cpu_us": (cpu() - used) / count * 1e6})
            finished.set()

    async with Worker(
        "bench", handler, connection=url, concurrency=concurrency, remove_on_complete=keep
    ):
        await finished.wait()
        await stdin_ends()


async def add_for(queue: Queue, seconds: float, in_flight: int) -> float:
    start = time.monotonic()
    added = 0

    async def loop() -> None:
        nonlocal added
        while time.monotonic() < start + seconds:
            await queue.add("noop", payload(added))
            added += 1

    await asyncio.gather(*(loop() for _ in range(in_flight)))
    return added / (time.monotonic() - start)


async def enqueue(url: str, seconds: float) -> None:
    async with Queue("bench", connection=url) as queue:
        await add_for(queue, 0.3, 50)
        serial = await add_for(queue, seconds, 1)
        in_flight = await add_for(queue, seconds, 50)
        start = time.monotonic()
        for batch in range(0, 10_000, 1000):
            await queue.add_many(
                [NewJob(name="noop", data=payload(batch + i)) for i in range(1000)]
            )
        bulk = 10_000 / (time.monotonic() - start)
    say({"serial": serial, "in_flight": in_flight, "bulk": bulk})


async def listen(url: str, concurrency: int, count: int) -> None:
    latencies: list[float] = []

    async def handler(job: object) -> None:
        now = time.monotonic()
        if at := job.data["at"]:
            latencies.append((now - at) * 1000)
        if len(latencies) == count:
            say({"latencies": latencies})

    async with Worker("bench", handler, connection=url, concurrency=concurrency):
        say({"ready": True})
        await stdin_ends()


async def pace(url: str, count: int, gap: float) -> None:
    async with Queue("bench", connection=url) as queue:
        for number in range(20):
            await queue.add("noop", payload(number))
            await asyncio.sleep(gap)
        due = time.monotonic()
        for number in range(count):
            await queue.add("noop", payload(number, time.monotonic()))
            due += gap
            await asyncio.sleep(max(0.0, due - time.monotonic()))


async def append(url: str, streams: int, chunks: int) -> None:
    """Append as fast as it goes: `chunks` by each of `streams` running jobs, ten at a time, as events of a provider come."""
    start = used = 0.0

    async def handler(job: object) -> None:
        nonlocal start, used
        if not start:
            start, used = time.monotonic(), cpu()
        for number in range(chunks):
            await job.stream_chunk("content", CHUNK)
            if number % 10 == 0:
                await asyncio.sleep(0)

    async with Queue("bench", connection=url) as queue:
        ids = [f"stream-{i}" for i in range(streams)]
        await queue.add_many([NewJob(name="append", job_id=id) for id in ids])
        async with Worker("bench", handler, connection=url, concurrency=streams):
            await asyncio.gather(*(queue.result(id, timeout=120) for id in ids))
            total = streams * chunks
            seconds = time.monotonic() - start
            say({"rate": total / seconds, "cpu_us": (cpu() - used) / total * 1e6})


async def write(url: str, streams: int, rate: float, seconds: float) -> None:
    """Append stamped chunks at a steady rate, spread over all streams."""
    gap = streams / rate

    async def handler(job: object) -> None:
        number = int(job.id.removeprefix("stream-"))
        due = time.monotonic() + 1 + gap * number / streams
        for _ in range(round(seconds / gap)):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await job.stream_chunk("content", f"{time.monotonic():.6f}")
            due += gap

    async with Queue("bench", connection=url) as queue:
        ids = [f"stream-{i}" for i in range(streams)]
        await queue.add_many([NewJob(name="write", job_id=id) for id in ids])
        async with Worker("bench", handler, connection=url, concurrency=streams):
            say({"ready": True})
            await stdin_ends()


async def read(url: str, streams: int) -> None:
    """Follow all streams to their end and report how late each chunk was."""
    latencies: list[float] = []
    async with Queue("bench", connection=url) as queue:

        async def follow(id: str) -> None:
            async for chunk in queue.stream(id):
                if chunk.type == "content":
                    latencies.append((time.monotonic() - float(chunk.content)) * 1000)

        used = cpu()
        await asyncio.gather(*(follow(f"stream-{i}") for i in range(streams)))
        say({"latencies": latencies, "cpu_us": (cpu() - used) / len(latencies) * 1e6})


async def hold(url: str, count: int) -> None:
    """Run `count` jobs that go on until the input ends; 0 is an idle worker."""
    running = 0
    ended = asyncio.Event()

    async def handler(_job: object) -> None:
        nonlocal running
        running += 1
        if running == count:
            say({"running": running})
        await ended.wait()

    async with Queue("bench", connection=url) as queue:
        await queue.add_many([NewJob(name="hold") for _ in range(count)])
        async with Worker("bench", handler, connection=url, concurrency=max(1, count)):
            if not count:
                say({"running": 0})
            await stdin_ends()
            ended.set()


COMMANDS = {
    "fill": (fill, (int,)),
    "drain": (drain, (int, int, int, float)),
    "enqueue": (enqueue, (float,)),
    "listen": (listen, (int, int)),
    "pace": (pace, (int, float)),
    "append": (append, (int, int)),
    "write": (write, (int, float, float)),
    "read": (read, (int,)),
    "hold": (hold, (int,)),
}


def main() -> None:
    name, url, *rest = sys.argv[1:]
    command, types = COMMANDS[name]
    arguments = [convert(text) for convert, text in zip(types, rest, strict=True)]
    asyncio.run(command(url, *arguments))


if __name__ == "__main__":
    main()
