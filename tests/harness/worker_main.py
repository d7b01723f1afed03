"""Workers as processes of their own, for tests that kill and freeze them (see tests/harness/workers.py).

Run as a script it is a nursery: for every line of JSON on its stdin it forks a worker, so that one starts within a tenth
of a second, and tells on its stdout when it has started and ended. When its stdin closes, it kills what is left.

A worker appends JSON lines to a file of its own: {t: monotonic seconds, event, job, name, attempt, run, ...}. What it
does with a job is chosen by the job's name; see HANDLERS.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRESS_EVERY = 0.01


class Journal:
    """A file of JSON lines; each is on its way before the next statement runs, so that a kill loses none."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def note(self, event: str, job: Any = None, **facts: object) -> None:
        line: dict[str, object] = {"t": time.monotonic(), "event": event}
        if job is not None:
            line |= {"job": job.id, "name": job.name, "attempt": job.attempt, "run": job.run}
        os.write(self._file, json.dumps(line | facts).encode() + b"\n")


def noted(journal: Journal, handler: Any) -> Any:
    """The handler with its start and its end in the journal."""

    async def run(job: Any) -> object:
        journal.note("start", job)
        try:
            value = await handler(job, journal)
        except BaseException as error:
            journal.note("end", job, how=type(error).__name__)
            raise
        journal.note("end", job, how="returned")
        return value

    return run


async def echo(job: Any, _: Journal) -> object:
    return job.data


async def stream(job: Any, _: Journal) -> object:
    """{chunks, pause}: answers the text it has streamed."""
    said = ""
    for i in range(job.data["chunks"]):
        piece = f"{i}/{job.run} "
        await job.stream_chunk("content", piece)
        said += piece
        await asyncio.sleep(job.data["pause"])
    return {"text": said}


async def write(job: Any, _: Journal) -> object:
    """Uses every call that a handler has, each once or more."""
    said = ""
    for i in range(job.data.get("rounds", 3)):
        piece = f"{i} "
        await job.stream_chunk("content", piece)
        said += piece
        await job.progress(i)
        await job.log(f"round {i} of run {job.run}")
        await job.report_usage(model="m", tokens={"input": 3, "output": 4}, costs={"total": "0.5"})
        await asyncio.sleep(job.data.get("pause", 0.01))
    return {"text": said}


async def gate(job: Any, journal: Journal) -> object:
    """{gate, chunks?, usage?}: streams, waits until the file `gate.RUN` is there; says what a stopped run may write."""
    opened = Path(f"{job.data['gate']}.{job.run}")
    said = f"from {job.run} "
    if job.data.get("chunks"):
        await job.stream_chunk("content", said)
    if job.data.get("usage"):
        await job.report_usage(model="m", tokens={"input": 10, "output": 5})
    journal.note("waiting", job)
    try:
        while not opened.exists():  # noqa: ASYNC110, ASYNC240 another process opens the gate
            await asyncio.sleep(PROGRESS_EVERY)
    except asyncio.CancelledError:
        await after_stop(job, journal)
        raise
    if not job.data.get("chunks"):
        return {"run": job.run}
    await job.stream_chunk("content", "done")
    return {"text": said + "done", "run": job.run}


async def after_stop(job: Any, journal: Journal) -> None:
    """What a run that was stopped can still write. Usage, since that money is gone."""
    from glidemq_core import LeaseLost

    try:
        await job.progress("a stopped run")
    except LeaseLost:
        journal.note("refused", job)
    else:
        journal.note("accepted", job)
    if job.data.get("usage"):
        await job.report_usage(model="m", tokens={"input": 100, "output": 50})
        journal.note("booked", job)


async def spin(job: Any, journal: Journal) -> object:
    """{seconds}: blocks the event loop."""
    journal.note("blocking", job)
    time.sleep(job.data["seconds"])  # noqa: ASYNC251 that is the point
    journal.note("unblocked", job)
    return {"run": job.run}


async def wait(job: Any, _: Journal) -> object:
    """{seconds}: a cooperative job."""
    await asyncio.sleep(job.data["seconds"])
    return {"run": job.run}


async def stubborn(job: Any, journal: Journal) -> object:
    """{gate}: takes no notice of being cancelled."""
    while not Path(job.data["gate"]).exists():  # noqa: ASYNC240 as in gate
        try:
            await asyncio.sleep(PROGRESS_EVERY)
        except asyncio.CancelledError:
            journal.note("ignored", job)
    return {"run": job.run}


async def salvage(job: Any, journal: Journal) -> object:
    """A paid step that says two words and hangs; a later run keeps them."""

    async def says() -> None:
        journal.note("asked", job)
        for word in ("two ", "words"):
            await job.stream_chunk("content", word)
        await asyncio.Event().wait()

    return await job.step("s", says, paid=True, on_begun="salvage", salvage=lambda text: text)


async def crash(_: Any, __: Journal) -> object:
    """Kills its process, as a job does that makes it run out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    return None


HANDLERS = {
    f.__name__: f for f in (echo, stream, write, gate, spin, wait, stubborn, salvage, crash)
}


def thread_handler(journal: Journal) -> Any:
    """{gate}: a sync handler, which reports progress while it waits."""

    def thread(job: Any) -> object:
        journal.note("start", job)
        while not Path(job.data["gate"]).exists():
            job.progress(1)
            time.sleep(PROGRESS_EVERY)
        journal.note("end", job, how="returned")
        return {"run": job.run}

    return thread


def paying(journal: Journal, port: int) -> dict[str, Any]:
    """Handlers that make one paid call: `spend`; `spend_gated`, which waits for {gate} when it has the answer.

    `spend_limited` has one place at a time, by a limit that its job does not name. `step` makes it in a step, and waits for {gate} {where}: "inside" of the step, or "after" it.
    """
    from glidemq_core import Throttle
    from tests.harness.money import spender

    async def hold(job: Any) -> None:
        journal.note("answered", job)
        while not Path(job.data["gate"]).exists():  # noqa: ASYNC110, ASYNC240 as in gate
            await asyncio.sleep(PROGRESS_EVERY)

    async def reserved(job: Any, _: Journal) -> object:
        if not Path(job.data["gate"]).exists():  # noqa: ASYNC240 as in gate
            await job.reserve(job.next_call_id(), tokens={"input": 10}, timeout=600)
            await hold(job)
        return job.run

    async def step(job: Any, _: Journal) -> object:
        async def draft() -> int:
            spent = await spender(port, key=f"{job.id}/draft")(job)
            if job.data["where"] == "inside":
                await hold(job)
            return spent

        spent = await job.step("draft", draft, paid=True)
        if job.data["where"] == "after":
            await hold(job)
        return spent

    def plain(handler: Any) -> Any:
        return noted(journal, lambda job, _: handler(job))

    spends = {"spend": plain(spender(port)), "spend_gated": plain(spender(port, then=hold))}
    return spends | {
        "reserve_gated": noted(journal, reserved),
        "step": noted(journal, step),
        "spend_limited": plain(spender(port, limits={"p": Throttle(concurrency=1)})),
    }


def agent(journal: Journal, port: int) -> Any:
    """A chat job whose model may call `look(n)`."""
    from openai import AsyncOpenAI

    from glidemq_llm import agent_handler

    async def look(job: Any, n: int) -> int:
        journal.note("looked", job, n=n)
        return n

    client = AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="-")
    return agent_handler({"openai": client}, [look])


def limited_chat(port: int) -> Any:
    """A chat job whose model has one place, by the settings of the wrapped client alone."""
    from openai import AsyncOpenAI

    from glidemq_core import Throttle
    from glidemq_llm import MeterSettings, chat_handler

    client = AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="-")
    settings = MeterSettings(limits={"openai": Throttle(concurrency=1)})
    return chat_handler({"openai": client}, settings=settings)


def later(make: Callable[..., Any], *arguments: object) -> Any:
    """A handler that is made for its first job: an SDK's import takes longer than most tests."""
    made = functools.cache(lambda: make(*arguments))

    async def handle(job: Any) -> object:
        return await made()(job)

    return handle


async def work(settings: dict[str, Any]) -> None:
    """One worker, until it is told to stop."""
    from glidemq_core import Worker, _glide_setup

    _glide_setup.REQUEST_TIMEOUT_MS = settings.get(
        "request_timeout_ms", _glide_setup.REQUEST_TIMEOUT_MS
    )  # type: ignore[misc]
    journal = Journal(settings["journal"])
    handlers = {name: noted(journal, handler) for name, handler in HANDLERS.items()}
    handlers["thread"] = thread_handler(journal)
    if "FAKE_PROVIDER_PORT" in os.environ:
        port = int(os.environ["FAKE_PROVIDER_PORT"])
        handlers |= paying(journal, port)
        handlers |= {
            "agent": later(agent, journal, port),
            "limited_chat": later(limited_chat, port),
        }
    worker = Worker(settings["queue"], handlers, connection=settings["url"], **settings["worker"])
    journal.note("up", worker=worker.name)
    await worker.run()
    journal.note("down")


def grow_up(line: str) -> None:
    """In the forked child: become a worker, and never return."""
    settings = json.loads(line)
    os.environ.update(settings["env"])
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(settings["log"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    for old, new in ((0, null), (1, null), (2, log)):
        os.dup2(new, old)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        asyncio.run(work(settings))
    except BaseException:
        logging.getLogger("worker").exception("the worker has ended with an error")
        os._exit(1)
    os._exit(0)


def nursery() -> None:
    """Fork workers as they are asked for; report their ends."""
    import glide  # noqa: F401 imported once here, shared by all children
    import glide_sync  # noqa: F401
    import msgspec  # noqa: F401

    alive: set[int] = set()
    read, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    try:
        while True:
            ready, _, _ = select.select([sys.stdin, read], [], [])
            if read in ready:
                os.read(read, 4096)
                report_ends(alive)
            if sys.stdin in ready and not bear(sys.stdin.readline(), alive):
                return
    finally:
        for pid in alive:
            os.kill(pid, signal.SIGKILL)


def bear(line: str, alive: set[int]) -> bool:
    """Fork one worker; False at the end of the input."""
    if not line:
        return False
    pid = os.fork()
    if pid == 0:
        grow_up(line)
    alive.add(pid)
    tell({"born": pid})
    return True


def report_ends(alive: set[int]) -> None:
    for pid in list(alive):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            alive.discard(pid)
            tell({"ended": pid, "code": os.waitstatus_to_exitcode(status), "t": time.monotonic()})


def tell(facts: dict[str, object]) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    nursery()
