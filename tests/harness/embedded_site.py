"""A folder with an embedded server, and real processes that use it."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

from glidemq_core import embedded
from glidemq_core._supervisor import call, read_state
from tests.harness.processes import wait_until, watch

USER = """
import sys
from glidemq_core.embedded import ensure_running
print(ensure_running(), flush=True)
for line in sys.stdin:
    print(ensure_running(), flush=True)
"""
FORKED_USER = """
import os, sys
from glidemq_core.embedded import ensure_running
url = ensure_running()
if os.fork() == 0:
    print(url, flush=True)
    sys.stdin.readline()
"""


class Site:
    """A folder with an embedded server, and the processes that use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.users: list[subprocess.Popen[str]] = []

    def begin(self, script: str = USER, **environment: str) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if name != "GLIDEMQ_URL"}
        user = subprocess.Popen(
            [sys.executable, "-c", script],
            env=kept | {"GLIDEMQ_DIR": str(self.folder)} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        watch(user.pid)
        self.users.append(user)
        return user

    def user(self, script: str = USER, **environment: str) -> tuple[subprocess.Popen[str], str]:
        """A running user and the first line it says: the URL."""
        user = self.begin(script, **environment)
        return user, said(user)

    @property
    def status(self) -> embedded.EmbeddedStatus:
        return embedded.status(self.folder)

    @property
    def server(self) -> psutil.Process:
        assert self.status.server is not None
        return psutil.Process(self.status.server)

    @property
    def supervisor_pid(self) -> int:
        """Also while one starts."""
        state = read_state(self.folder)
        assert state is not None
        return state["supervisor"]

    def ask(self, command: str) -> str:
        assert self.status.url is not None
        return call(self.status.url.removeprefix("unix://"), command.encode(), limit=5).decode()

    def wait_until_down(self, server: psutil.Process) -> None:
        wait_until(lambda: not is_alive(server) and not self.status.running, 10, "the server's end")

    def close(self) -> None:
        for user in self.users:
            user.kill()
            user.wait()
            for pipe in (user.stdin, user.stdout):
                assert pipe is not None
                pipe.close()
        embedded.stop(self.folder)


def said(user: subprocess.Popen[str]) -> str:
    assert user.stdout is not None
    return user.stdout.readline().strip()


def asked_again(user: subprocess.Popen[str]) -> str:
    assert user.stdin is not None
    user.stdin.write("again\n")
    user.stdin.flush()
    return said(user)


def leave(user: subprocess.Popen[str]) -> None:
    user.communicate()
    assert user.returncode == 0


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def servers_in(folder: Path) -> list[int]:
    found = []
    for process in psutil.process_iter(["name", "cmdline", "status"]):
        about = process.info
        words = about["cmdline"] or []
        if "valkey" in (about["name"] or "") and about["status"] != psutil.STATUS_ZOMBIE:
            found += (
                [process.pid]
                if any(str(folder) in word for word in words) or in_folder(process, folder)
                else []
            )
    return found


def in_folder(process: psutil.Process, folder: Path) -> bool:
    """A running server has replaced its command line; it works in its folder."""
    try:
        return Path(process.cwd()) == folder
    except psutil.Error:
        return False
