"""The demo's processes: the model server and the workers, all ended with the demo."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass, field
from typing import Self

from glidemq_llm.demo.model_server import model_file

START_TIMEOUT = 60.0  # seconds; a cold disk may take long to read the model
END_TIMEOUT = 5.0  # seconds; a worker whose jobs are over ends in a fraction of one


@dataclass(slots=True)
class WorkerProcess:
    """One worker process, and the jobs it said it started."""

    name: str
    process: Process
    jobs: set[str] = field(default_factory=set[str])

    def kill(self) -> None:
        """End it the hard way (SIGKILL): it can hand nothing back."""
        self.process.kill()


class Processes:
    """Starts child processes and sees to their end, whatever ends the demo."""

    def __init__(self) -> None:
        self._processes: list[Process] = []
        # What the children complain about; shown only when one does not start.
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 closed in __aexit__
        self._watchers = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._watchers.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        try:
            for process in self._processes:
                assert process.stdin
                process.stdin.close()
            for process in self._processes:
                await _end(process)
        finally:
            for process in self._processes:
                if process.returncode is None:
                    process.kill()
            self._complaints.close()
        await self._watchers.__aexit__(None, None, None)

    async def model_server(self, slots: int) -> str:
        """Start the local model and return its URL."""
        model_file()  # its absence is told here, in one line
        process = await self._start("glidemq_llm.demo.model_server", "0", str(slots), "attached")
        line = await self._line(process, "ready ")
        self._watchers.create_task(_discard(process))
        return line.removeprefix("ready ")

    async def worker(self, name: str, queue: str, environment: dict[str, str]) -> WorkerProcess:
        """Start a worker process and wait until it takes jobs."""
        process = await self._start("glidemq_llm.demo.worker", queue, environment=environment)
        await self._line(process, "ready")
        worker = WorkerProcess(name, process)
        self._watchers.create_task(_note_jobs(worker))
        return worker

    async def _line(self, process: Process, prefix: str) -> str:
        assert process.stdout
        async with asyncio.timeout(START_TIMEOUT):
            while line := (await process.stdout.readline()).decode():
                if line.startswith(prefix):
                    return line.strip()
        code = await process.wait()
        self._complaints.seek(0)
        last = self._complaints.read().decode(errors="replace").strip().splitlines()[-5:]
        raise RuntimeError(
            "\n".join([f"a process of the demo ended with {code} before it was ready:", *last])
        )

    async def _start(
        self, module: str, *arguments: str, environment: dict[str, str] | None = None
    ) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            # An open pipe ties the child to us: when the demo is gone, it reads the end and leaves.
            stdin=PIPE,
            stdout=PIPE,
            stderr=self._complaints,
            env=os.environ | (environment or {}),
            # Ctrl-C is the demo's own affair; it stops its children in order.
            start_new_session=True,
        )
        self._processes.append(process)
        return process


async def _discard(process: Process) -> None:
    assert process.stdout
    while await process.stdout.readline():
        pass


async def _note_jobs(worker: WorkerProcess) -> None:
    assert worker.process.stdout
    while line := await worker.process.stdout.readline():
        worker.jobs.add(json.loads(line)["job"])


async def _end(process: Process) -> None:
    try:
        async with asyncio.timeout(END_TIMEOUT):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
