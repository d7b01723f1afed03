"""Real processes for tests: started, listened to, frozen, killed; and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import IO, Any, Self

ROOT = Path(__file__).resolve().parents[2]

_POLL = 0.005
# Reads "+pid" and "-pid" lines; when the tests' process is gone, however it died, kills what is left.
_REAPER = """
import os, signal, sys
left = set()
for line in sys.stdin:
    (left.add if line[0] == "+" else left.discard)(int(line[1:]))
for pid in left:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
"""


class _Reaper:
    def __init__(self) -> None:
        self._owner = 0  # a forked child must have its own
        self._pipe: IO[bytes] | None = None
        self._lock = threading.Lock()

    def tell(self, line: str) -> None:
        with self._lock:
            if self._owner != os.getpid():
                self._owner = os.getpid()
                process = subprocess.Popen(  # its own session: Ctrl-C must not end it before us
                    [sys.executable, "-I", "-S", "-c", _REAPER],
                    stdin=subprocess.PIPE,
                    start_new_session=True,
                )
                process.returncode = (
                    0  # it outlives us on purpose: no warning that nobody waited for it
                )
                self._pipe = process.stdin
            assert self._pipe is not None
            self._pipe.write(line.encode() + b"\n")
            self._pipe.flush()


_reaper = _Reaper()


def watch(pid: int) -> None:
    """Have a process of ours killed when the tests end, however they end."""
    _reaper.tell(f"+{pid}")


def unwatch(pid: int) -> None:
    """The process has ended and was waited for."""
    _reaper.tell(f"-{pid}")


class Process:
    """A Python program as a process of its own, its output read line by line as it comes. Killed at the end of `with`.

    Args:
        script: Source text, or the path of a file. It can import `glidemq_core` and `tests.harness`.
        arguments: `sys.argv[1:]`.
        env: Added to the environment; None removes a name.
    """

    def __init__(
        self,
        script: str | Path,
        *arguments: object,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
    ) -> None:
        program = [str(script)] if isinstance(script, Path) else ["-c", inspect.cleandoc(script)]
        paths = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        merged = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **(env or {})}
        self._popen = subprocess.Popen(
            [sys.executable, "-u", *program, *(str(argument) for argument in arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={name: value for name, value in merged.items() if value is not None},
            cwd=cwd,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.pid = self._popen.pid
        watch(self.pid)
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._news = threading.Condition()
        self._taken = 0
        self._open = 2  # pipes that it may still write to
        self._readers = [
            threading.Thread(target=self._read, args=(self._popen.stdout, self.lines), daemon=True),
            threading.Thread(
                target=self._read, args=(self._popen.stderr, self.errors), daemon=True
            ),
        ]
        for reader in self._readers:
            reader.start()

    def wait_line(self, start: str = "", *, timeout: float = 20) -> str:
        """The next unread line of its output that begins with `start`; those before it count as read. Blocks."""
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                while self._taken < len(self.lines):
                    line = self.lines[self._taken]
                    self._taken += 1
                    if line.startswith(start):
                        return line
                left = deadline - time.monotonic()
                if left <= 0 or not self._open:
                    raise AssertionError(f"no line {start!r}: {self._said()}")
                self._news.wait(left)

    async def line(self, start: str = "", *, timeout: float = 20) -> str:
        """As wait_line, for an event loop."""
        return await asyncio.to_thread(self.wait_line, start, timeout=timeout)

    def json_lines(self) -> list[Any]:
        """What it has printed so far that is JSON objects, one a line."""
        return [
            json.loads(line)
            for line in list(self.lines)
            if line.startswith("{") and line.endswith("}")
        ]

    @property
    def is_running(self) -> bool:
        """Has it not ended (it may be frozen)?"""
        return self._popen.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.wait()

    def terminate(self) -> None:
        """SIGTERM; it may go on for a while."""
        self.send(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP, and wait until it stands still."""
        self.send(signal.SIGSTOP)
        wait_until(lambda: is_frozen(self.pid), 5, "the process stands still")

    def thaw(self) -> None:
        """SIGCONT."""
        self.send(signal.SIGCONT)

    def wait(self, timeout: float = 20) -> int:
        """Wait until it has ended and its output is read; answers its exit code (-9: killed). Blocks."""
        code = self._popen.wait(timeout)
        for reader, pipe in zip(
            self._readers, (self._popen.stdout, self._popen.stderr), strict=True
        ):
            reader.join(1)  # a grandchild that holds the pipe keeps its reader
            if pipe is not None and not reader.is_alive():
                pipe.close()
        unwatch(self.pid)
        return code

    async def ended(self, timeout: float = 20) -> int:
        """As wait, for an event loop."""
        return await asyncio.to_thread(self.wait, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _read(self, pipe: IO[str], lines: list[str]) -> None:
        for line in pipe:
            with self._news:
                lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._open -= 1
            self._news.notify_all()

    def _said(self) -> str:
        return "\n".join(["", "stdout:", *self.lines[-20:], "stderr:", *self.errors[-20:]])


def run_function(
    function: Callable[..., object], *arguments: object, env: Mapping[str, str | None] | None = None
) -> Process:
    """A process that imports a top-level function of an importable module and calls it, also if it is async.

    Its arguments cross as JSON. (Test modules are not importable by name: put such functions into tests/harness.)
    """
    script = (
        "import asyncio, importlib, inspect, json, sys\n"
        "made = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(*json.loads(sys.argv[3]))\n"
        "if inspect.iscoroutine(made): asyncio.run(made)\n"
    )
    return Process(script, function.__module__, function.__name__, json.dumps(arguments), env=env)


def is_frozen(pid: int) -> bool:
    """Is a process stopped (SIGSTOP)?"""
    if sys.platform != "linux":
        state = subprocess.run(
            ["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return state.stdout.strip().startswith("T")
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False


def is_alive(pid: int) -> bool:
    """Does a process run? One that is dead but was not waited for does not."""
    state = subprocess.run(
        ["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return bool(state.strip()) and not state.strip().startswith("Z")


def wait_until(predicate: Callable[[], object], timeout: float = 10, what: str = "") -> None:
    """Wait until `predicate()` is true, looking every 5 ms. Blocks: not for an event loop.

    Raises:
        AssertionError: It was not within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout} s: {what or predicate}")
        time.sleep(_POLL)


async def eventually(
    predicate: Callable[[], object | Awaitable[object]],
    timeout: float = 10,
    what: str | Callable[[], str] = "",
) -> Any:
    """Wait on the event loop until `predicate()`, which may be async, is true, looking every 5 ms; answers its value.

    Raises:
        AssertionError: It was not within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = predicate()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() >= deadline:
            told = what() if callable(what) else what
            raise AssertionError(f"not within {timeout} s: {told or predicate}; last {answer!r}")
        await asyncio.sleep(_POLL)
