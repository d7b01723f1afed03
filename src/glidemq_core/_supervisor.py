"""The small process that keeps one folder's embedded server: starts it, restarts it, stops it after its last user.

It runs as a script of its own, by path and with the standard library alone, so that it is up in about 30 ms. What
holds a role holds a file lock in the folder; the kernel drops it however the holder dies:

    start.lock       whoever joins, stops or shuts down: one at a time
    members.lock     shared by every process that uses the server; exclusively locked = nobody is left
    supervisor.lock  this process
    server.lock      the server itself, through a descriptor it inherits: never two servers on the same data

`state.json` says where the server of the living supervisor is.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Literal, TypedDict

_POLL = 0.003
_STOP_LIMIT = 10.0
_RESTARTS = 5
_RESTARTS_WITHIN = 60.0
_PR_SET_PDEATHSIG = 1
_LOG_BYTES = 1_000_000

Event = Literal["alone", "died", "told to stop"]


class State(TypedDict):
    """Where a folder's server is.

    Attributes:
        supervisor, server: Process ids.
        socket: Path of the server's unix socket.
    """

    supervisor: int
    server: int
    socket: str


def open_lock(path: Path) -> int:
    """A descriptor to lock with; closed on exec, so only copies made on purpose keep the lock."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(descriptor: int) -> bool:
    """Lock exclusively if that is possible at once."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Whether somebody holds this lock. Ask only while holding start.lock: asking takes it for a moment."""
    descriptor = open_lock(path)
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


def read_state(folder: Path) -> State | None:
    """The last state written, true only while supervisor.lock is held."""
    try:
        return json.loads((folder / "state.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def answers(socket_path: str, *, limit: float = 1.0) -> bool:
    """Whether a server that has loaded its data listens there."""
    return call(socket_path, b"PING", limit=limit).startswith(b"+PONG")


def call(socket_path: str, command: bytes, *, limit: float) -> bytes:
    """The start of the reply to a one-word command; empty if nobody is there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(limit)
        try:
            link.connect(socket_path)
            link.sendall(command + b"\r\n")
            return link.recv(100)
        except OSError:
            return b""


class Supervisor:
    """Keeps one server until nobody uses it.

    Args:
        folder: Of the data, the locks and the logs.
        socket_path: Where the server listens.
        binary: The server program.
    """

    def __init__(self, folder: Path, socket_path: str, binary: str) -> None:
        self._folder = folder
        self._socket_path = socket_path
        self._binary = binary
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._server: subprocess.Popen[bytes] | None = None
        self._server_lock = open_lock(folder / "server.lock")
        self._supervisor_lock = open_lock(folder / "supervisor.lock")
        self._members = open_lock(folder / "members.lock")
        self._deaths: list[float] = []

    def claim(self) -> bool:
        """Become the folder's supervisor; False if another one is."""
        # Somebody who only asks whether the lock is held has it for a moment.
        for _ in range(20):
            if try_lock(self._supervisor_lock):
                # From here on the state names us, not a process that is gone; a server left over stays in it.
                former = read_state(self._folder)
                self._write_state(
                    former or {"supervisor": 0, "server": 0, "socket": self._socket_path}
                )
                return True
            time.sleep(_POLL)
        return False

    def listen(self) -> None:
        """Take notice of signals from now on."""
        # The starting thread may have had them blocked.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGCHLD, self._on_signal)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            RuntimeError: It ended instead.
        """
        self._end_orphan()
        self._server = _spawn(self._command(), keep=self._server_lock)
        # Ours from here on is the server's copy alone: the lock says whether *the server* lives.
        os.close(self._server_lock)
        self._server_lock = -1
        self._write_state(
            {"supervisor": 0, "server": self._server.pid, "socket": self._socket_path}
        )
        while not answers(self._socket_path):
            if self._server.poll() is not None:
                raise RuntimeError(f"the server ended with code {self._server.returncode}")
            time.sleep(_POLL)

    def run(self) -> None:
        """Until nobody is left, or somebody says stop, or the server can't be kept up."""
        self._watch_members()
        while True:
            event = self._events.get()
            if event == "told to stop":
                return self.stop()
            if event == "died":
                if self._has_died() and not self._restart():
                    return None
            elif self._is_last_gone():
                return self.stop()
            else:
                self._watch_members()

    def stop(self) -> None:
        """End the server; it writes what it has first."""
        server = self._server
        if server is None or server.poll() is not None:
            return
        server.terminate()
        try:
            server.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            _log("the server did not stop; killing it")
            server.kill()
            server.wait()
        _log("the server has stopped")

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._events.put("died" if number == signal.SIGCHLD else "told to stop")

    def _command(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": self._socket_path,
            "unixsocketperm": "600",
            "dir": str(self._folder),
            "logfile": str(self._folder / "server.log"),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",
            "maxmemory-policy": "noeviction",
            # A job's hash stays in the compact form, which takes about half the memory.
            "hash-max-listpack-value": "2048",
            "hash-max-listpack-entries": "64",
        }
        return [
            self._binary,
            *(part for name, value in settings.items() for part in (f"--{name}", value)),
        ]

    def _end_orphan(self) -> None:
        """A server whose supervisor was killed may still hold the data: let it end first."""
        deadline = time.monotonic() + _STOP_LIMIT
        if self._server_lock < 0:
            self._server_lock = open_lock(self._folder / "server.lock")
        while not try_lock(self._server_lock):
            state = read_state(self._folder)
            if state is not None:
                call(state["socket"], b"SHUTDOWN", limit=_STOP_LIMIT)
            if time.monotonic() > deadline:
                raise RuntimeError("a server left over from before does not stop")
            time.sleep(_POLL)

    def _write_state(self, state: State) -> None:
        draft = self._folder / "state.json.new"
        draft.write_text(json.dumps(state | {"supervisor": os.getpid()}))
        draft.replace(self._folder / "state.json")

    def _watch_members(self) -> None:
        def wait() -> None:
            fcntl.flock(self._members, fcntl.LOCK_EX)
            fcntl.flock(self._members, fcntl.LOCK_UN)
            self._events.put("alone")

        threading.Thread(target=wait, daemon=True).start()

    def _is_last_gone(self) -> bool:
        """True if nobody is left and, as we keep start.lock from here on, nobody can join."""
        start = open_lock(self._folder / "start.lock")
        # Never wait for start.lock: its holder may be waiting for us to restart the server.
        if try_lock(start):
            if try_lock(self._members):
                return True
        else:
            time.sleep(_POLL)
        os.close(start)
        return False

    def _has_died(self) -> bool:
        return self._server is not None and self._server.poll() is not None

    def _restart(self) -> bool:
        now = time.monotonic()
        self._deaths = [*(at for at in self._deaths if now - at < _RESTARTS_WITHIN), now]
        _log("the server has died")
        while len(self._deaths) <= _RESTARTS:
            try:
                self.start()
            except RuntimeError as error:
                _log(f"restart: {error}")
                self._deaths.append(time.monotonic())
            else:
                _log("the server runs again")
                return True
        _log(f"more than {_RESTARTS} restarts within {_RESTARTS_WITHIN:g} s; giving up")
        return False


def _spawn(command: Sequence[str], *, keep: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        stderr=sys.stderr,
        pass_fds=(keep,),
        # Runs between fork and exec: the only other thread sits in flock() and holds no lock of the interpreter's.
        preexec_fn=_end_with_parent(),  # noqa: PLW1509
    )


def _end_with_parent() -> Callable[[], None] | None:
    """What a new process calls to get SIGTERM when its parent dies; None where the platform has nothing like it."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def end_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return end_with_parent


def _log(message: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), message, file=sys.stderr, flush=True)  # noqa: T201 to its own log file


def _put_away(log: Path) -> None:
    """Begin a new log if this one is long; every start adds some 3 kB."""
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_suffix(".log.old"))


def _report(descriptor: int, message: str) -> None:
    """Tell the process that started us how it went; it may have died meanwhile."""
    try:
        os.write(descriptor, message.encode())
    except BrokenPipeError:
        pass
    os.close(descriptor)


def main(folder: str, socket_path: str, binary: str, report: str) -> None:
    """Be the supervisor of a folder. `report`: a pipe that gets "ready", "taken" or what went wrong."""
    os.umask(0o077)
    # A grandchild of the starting process: nobody has to collect our exit code.
    if os.fork():
        os._exit(0)
    supervisor = Supervisor(Path(folder), socket_path, binary)
    if not supervisor.claim():
        return _report(int(report), "taken")
    supervisor.listen()
    _put_away(Path(folder) / "server.log")
    try:
        supervisor.start()
    except (OSError, RuntimeError) as error:
        _log(f"start: {error}")
        return _report(int(report), str(error))
    _report(int(report), "ready")
    supervisor.run()
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
