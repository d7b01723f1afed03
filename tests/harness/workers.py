"""Worker processes for tests, forked quickly from one nursery (tests/harness/worker_main.py)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from glidemq_core import Queue
from glidemq_core.job import State
from tests.harness.processes import ROOT, eventually, is_frozen, wait_until
from tests.harness.servers import ValkeyServer


class WorkerProcess:
    """One worker; its times are monotonic seconds, the same clock in all processes."""

    def __init__(self, pid: int, journal: Path, log: Path) -> None:
        self.pid = pid
        self.log = log
        self.ended = threading.Event()
        self.ended_at: float | None = None
        self.exit_code: int | None = None
        self._journal = journal

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it has noted so far; a last line cut by a kill is left out."""
        if not self._journal.exists():
            return []
        return [json.loads(line) for line in self._journal.read_bytes().split(b"\n")[:-1]]

    def noted(self, event: str, **facts: object) -> list[dict[str, Any]]:
        """Its notes of one kind, with these facts."""
        wanted = {"event": event, **facts}
        return [line for line in self.events if wanted.items() <= line.items()]

    @property
    def is_busy(self) -> bool:
        """Does it run jobs, by its notes?"""
        return not self.ended.is_set() and len(self.noted("start")) > len(self.noted("end"))

    async def until(
        self, event: str, *, count: int = 1, timeout: float = 20, **facts: object
    ) -> dict[str, Any]:
        """Wait for the `count`-th note of a kind; answers it."""

        def found() -> list[dict[str, Any]]:
            return self.noted(event, **facts)[count - 1 :]

        return (await eventually(found, timeout, lambda: f"{event} {facts}: {self.said()}"))[0]

    async def until_ended(self, timeout: float = 20) -> int:
        """Wait for its end; answers its exit code (-9: killed)."""
        await eventually(
            self.ended.is_set, timeout, lambda: f"the end of {self.pid}: {self.said()}"
        )
        assert self.exit_code is not None
        return self.exit_code

    def kill(self) -> None:
        """SIGKILL; gone when this returns."""
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(self.pid, signal.SIGKILL)
            assert self.ended.wait(10)

    def terminate(self) -> None:
        """SIGTERM, taken by the process when this returns: of two that are pending, one would be lost."""
        os.kill(self.pid, signal.SIGTERM)
        wait_until(lambda: not _is_pending(self.pid, signal.SIGTERM), what="the signal is taken")

    def freeze(self) -> None:
        """SIGSTOP; standing still when this returns."""
        os.kill(self.pid, signal.SIGSTOP)
        wait_until(lambda: is_frozen(self.pid), what="the worker stands still")

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def said(self) -> str:
        """The end of its log, for a message."""
        return self.log.read_text()[-3000:] if self.log.exists() else "(no log)"


class Workers:
    """Starts workers of one queue; a context manager that ends them all."""

    def __init__(self, url: str, queue: str, folder: Path) -> None:
        self.all: list[WorkerProcess] = []
        self.folder = folder
        self._url = url
        self._queue = queue
        self._by_pid: dict[int, WorkerProcess] = {}
        self._born: list[int] = []
        self._news = threading.Condition()
        self._nursery = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "harness" / "worker_main.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"},
            text=True,
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def start(
        self,
        *,
        url: str | None = None,
        env: Mapping[str, str] | None = None,
        request_timeout_ms: int | None = None,
        queue: str | None = None,
        **worker: object,
    ) -> WorkerProcess:
        """Start one. `worker`: arguments of Worker; `url`: not that of all."""
        number = len(self.all)
        journal, log = (self.folder / f"worker-{number}.{kind}" for kind in ("jsonl", "log"))
        order: dict[str, object] = {
            "url": url or self._url,
            "queue": queue or self._queue,
            "journal": str(journal),
            "log": str(log),
            "env": dict(env or {}),
            "worker": worker,
        }
        if request_timeout_ms is not None:
            order["request_timeout_ms"] = request_timeout_ms
        assert self._nursery.stdin is not None
        with self._news:
            self._nursery.stdin.write(json.dumps(order) + "\n")
            self._nursery.stdin.flush()
            assert self._news.wait_for(lambda: len(self._born) > number, 20), (
                "the nursery does not answer"
            )
            process = WorkerProcess(self._born[number], journal, log)
            self._by_pid[process.pid] = process
            self.all.append(process)
            self._news.notify_all()
        return process

    def close(self) -> None:
        """Kill what is left."""
        for process in self.all:
            process.kill()
        for pipe in (self._nursery.stdin, self._nursery.stdout):
            assert pipe is not None
            if pipe is self._nursery.stdout:
                self._nursery.wait(10)
                self._listener.join(10)
            pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self) -> None:
        assert self._nursery.stdout is not None
        for line in self._nursery.stdout:
            facts = json.loads(line)
            with self._news:
                if "born" in facts:
                    self._born.append(facts["born"])
                    self._news.notify_all()
                    # Its entry is made by `start`, which waits for this.
                    self._news.wait_for(lambda pid=facts["born"]: pid in self._by_pid, 5)
                    continue
                process = self._by_pid[facts["ended"]]
                process.exit_code, process.ended_at = facts["code"], facts["t"]
                process.ended.set()


async def until_started(server: ValkeyServer, queue: str, ids: Iterable[str]) -> None:
    """Wait until the server knows that the current runs of these jobs have started: now their loss is a stall."""

    def all_known() -> bool:
        keys = [f"glidemq:{{{queue}}}:job:{id}" for id in ids]
        facts = [server.cmd("HMGET", key, "run", "started_run") for key in keys]
        return all(run is not None and run == started for run, started in facts)

    await eventually(all_known, what="the starts are known")


async def until_count(queue: Queue, state: State, count: int, *, timeout: float = 20) -> None:
    """Wait until so many jobs, or more, are in a state; each look is a call, so there are few."""

    async def is_so() -> bool:
        await asyncio.sleep(0.1)
        return (await queue.counts())[state] >= count

    await eventually(is_so, timeout, f"{count} {state}")


async def until_lost(server: ValkeyServer, queue: str, id: str) -> None:
    """Wait until a job's lease has run out: from now on it is taken back by whoever calls."""

    def is_lost() -> bool:
        deadline = server.cmd("ZSCORE", f"glidemq:{{{queue}}}:active", id)
        seconds, micros = server.cmd("TIME")
        return float(deadline) < int(seconds) * 1000 + int(micros) // 1000

    await eventually(is_lost, what="the lease has run out")


def _is_pending(pid: int, number: signal.Signals) -> bool:
    """Does a signal wait to be taken? Where this can't be asked, a moment is given."""
    status = Path(f"/proc/{pid}/status")
    if sys.platform != "linux":
        time.sleep(0.1)
        return False
    if not status.exists():
        return False
    lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
    pending = int(lines["ShdPnd"], 16) | int(lines["SigPnd"], 16)
    return bool(pending >> (number - 1) & 1)
