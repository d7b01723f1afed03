"""What must hold after any fault: no job lost, one ending each, streams whole, no two live runs of one job."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from glidemq_core import Job, Queue, kept_text
from glidemq_core._client import Client
from glidemq_core._hub import Chunk
from glidemq_core._target import parse
from glidemq_core.fsck import fsck
from tests.harness.servers import ValkeyServer
from tests.harness.workers import WorkerProcess

_INDEXES = (
    "waiting", "suspects", "delayed", "active", "suspended", "waiting_children", "completed", "failed", "cancelled",
)  # fmt: skip
_ENDINGS = ("completed", "failed", "cancelled")


async def audit(
    server: ValkeyServer,
    queue: Queue,
    ids: Collection[str],
    workers: Iterable[WorkerProcess] = (),
    *,
    failed: Collection[str] = (),
) -> None:
    """Assert that the jobs `ids` have ended rightly: those of `failed` as failed, all others as completed.

    Checks that each is in exactly one index and has one terminal event, that its stream is whole and ends once, that its
    result is what it has streamed, that no two of its runs overlapped (frozen workers apart), that a new job runs, and
    that the queue's data holds together.
    """
    problems = [
        *_places(server, queue, ids),
        *await _endings(server, queue, ids, failed),
        *overlaps(workers),
    ]
    for id in ids:
        problems += await stream_problems(queue, id)
    assert not problems, "\n".join(problems)
    new = await queue.add("echo", "still alive")
    assert await new.result(timeout=30) == "still alive"
    client = Client(parse(server.url))
    try:
        problems = await fsck(client, queue.name)
    finally:
        await client.close()
    assert not problems, "\n".join(problems)


def _places(server: ValkeyServer, queue: Queue, ids: Collection[str]) -> list[str]:
    """Every job stands in exactly one index, that of its state; the queue has no others in hand."""
    root = f"glidemq:{{{queue.name}}}"
    where: dict[str, list[str]] = defaultdict(list)
    for index in _INDEXES:
        for member in server.cmd("ZRANGE", f"{root}:{index}", 0, -1):
            where[member.decode()].append(index)
    problems = [f"{id} is in {where[id]}" for id in ids if len(where[id]) != 1]
    strangers = set(where) - set(ids)
    problems += [f"{id} was never acknowledged but is in {where[id]}" for id in strangers]
    for id in ids:
        state = server.cmd("HGET", f"{root}:job:{id}", "state")
        if where[id] and (state is None or where[id] != [state.decode()]):
            problems.append(f"{id} says {state} but is in {where[id]}")
    return problems


async def _endings(
    server: ValkeyServer, queue: Queue, ids: Collection[str], failed: Collection[str]
) -> list[str]:
    problems: list[str] = []
    told: dict[str, Counter[str]] = defaultdict(Counter)
    for kind, id in all_events(server, queue):
        if kind in _ENDINGS:
            told[id][kind] += 1
    for id in ids:
        state = "failed" if id in failed else "completed"
        job = await queue.get(id)
        if job is None or job.state != state:
            problems.append(f"{id} should be {state}: {job}")
        if told[id] != {state: 1}:
            problems.append(f"{id} has the terminal events {dict(told[id])}")
    return problems


def all_events(server: ValkeyServer, queue: Queue) -> list[tuple[str, str]]:
    """The queue's events so far, as (type, job id)."""
    found: list[tuple[str, str]] = []
    for _, fields in server.cmd("XRANGE", f"glidemq:{{{queue.name}}}:events", "-", "+"):
        words = [field.decode() for field in fields]
        found += zip(words[::2], words[1::2], strict=True)
    return found


def overlaps(workers: Iterable[WorkerProcess]) -> list[str]:
    """Pairs of runs of one job that ran at the same time, by the workers' own notes; a killed worker's end with it."""
    spans: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
    for worker in workers:
        open_runs: dict[tuple[str, int], float] = {}
        for line in worker.events:
            key = (line.get("job", ""), line.get("run", 0))
            if line["event"] == "start":
                open_runs[key] = line["t"]
            elif line["event"] == "end" and key in open_runs:
                spans[key[0]].append((open_runs.pop(key), line["t"], key[1]))
        end = worker.ended_at if worker.ended_at is not None else float("inf")
        for (job, run), start in open_runs.items():
            spans[job].append((start, end, run))
    problems: list[str] = []
    for job, runs in spans.items():
        runs.sort()
        for (_, end, run), (start, _, next_run) in itertools.pairwise(runs):
            if start < end:
                problems.append(
                    f"{job}: run {next_run} began {end - start:.3f} s before the end of run {run}"
                )
    return problems


async def stream_problems(queue: Queue, id: str) -> list[str]:
    """What is wrong with an ended job's stream: see chunk_problems."""
    chunks = [chunk async for chunk in queue.stream(id)]
    job = await queue.get(id)
    assert job is not None
    return chunk_problems(chunks, job)


def chunk_problems(chunks: list[Chunk], job: Job) -> list[str]:
    """What is wrong with what a reader has seen: a gap, a missing or second end, a text that is not the result's."""
    return [
        f"{job.id}: {problem}"
        for problem in [*_sequence(chunks), *_end(chunks, job), *_text(chunks, job)]
    ]


def _sequence(chunks: list[Chunk]) -> list[str]:
    last: dict[int, int] = defaultdict(int)
    problems: list[str] = []
    epoch = 0
    was_told = False  # of chunks that are trimmed away
    for chunk in chunks:
        if chunk.type in ("reset", "end"):
            continue
        if chunk.type == "gap":
            was_told = True
            continue
        if chunk.seq != last[chunk.epoch] + 1 and not was_told:
            problems.append(
                f"chunk {chunk.seq} of run {chunk.epoch} follows chunk {last[chunk.epoch]}"
            )
        if chunk.epoch < epoch:
            problems.append(f"a chunk of run {chunk.epoch} follows one of run {epoch}")
        last[chunk.epoch] = chunk.seq
        epoch = chunk.epoch
        was_told = False
    return problems


def _end(chunks: list[Chunk], job: Job) -> list[str]:
    ends = [i for i, chunk in enumerate(chunks) if chunk.type == "end"]
    if ends != [len(chunks) - 1]:
        return [f"`end` is at {ends} of {len(chunks)} chunks"]
    if chunks[-1].content != job.state:
        return [f"`end` says {chunks[-1].content}, the job {job.state}"]
    return []


def _text(chunks: list[Chunk], job: Job) -> list[str]:
    result: Any = job.result
    if job.state != "completed" or not isinstance(result, dict) or "text" not in result:
        return []
    if any(chunk.type == "gap" for chunk in chunks):
        return []
    said = kept_text(chunks)
    return (
        []
        if said == result["text"]
        else [f"the stream says {said!r}, the result {result['text']!r}"]
    )
