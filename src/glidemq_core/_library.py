"""The server's function library: joined from the files in lua/, loaded where it is missing or older.

Every file is an ordinary Lua module. The bundle wraps each as a loader behind a local `require` and registers the modules
of `functions/` as `glidemq_<protocol>_<file name>`. A line table leads from an error's line back to the file.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final, Literal

from .errors import LibraryError

_HERE: Final = Path(__file__).resolve()
_LINE: Final = re.compile(r"user_function:(\d+)")
# Without this the server's error would name no file: while a library loads, Lua has no error() to call.
_ENDING: Final = re.compile(r"^return \{[^}]*\brun\b", re.MULTILINE)
_SOURCE: Final = re.compile(r"^revision (\d+) ([0-9a-f]+) (release|test)$")

Kind = Literal["release", "test"]


@dataclass(frozen=True, slots=True)
class Library:
    """A bundle ready to be loaded.

    Attributes:
        text: The Lua source. `lines`: per file its first line in the text, in order.
        is_checkout: It was read from a repository, not from an installed package: its text may change at one revision.
    """

    text: str
    protocol: int
    revision: int
    hash: str
    kind: Kind
    lines: tuple[tuple[int, str], ...]
    is_checkout: bool

    @property
    def name(self) -> str:
        """The library's name on the server."""
        return f"glidemq_{self.protocol}"

    @property
    def prefix(self) -> str:
        """What the names of its functions begin with."""
        return f"glidemq_{self.protocol}_"

    def should_replace(self, description: str | None) -> bool:
        """Is the library that the server has (by its description, None: none) to be replaced by this one?

        A higher revision is never replaced. At the same revision the text differs only between development builds.
        """
        if description is None:
            return True
        found = _SOURCE.match(description)
        if found is None:
            return True
        revision, hash_ = int(found.group(1)), found.group(2)
        if revision != self.revision:
            return revision < self.revision
        return hash_ != self.hash and self.is_checkout

    def locate(self, message: str) -> str:
        """The message with each line of the bundle as a line of its file."""

        def in_file(match: re.Match[str]) -> str:
            line = int(match.group(1))
            for first, path in reversed(self.lines):
                if line >= first:
                    return f"lua/{path}:{line - first + 1}" if path else match.group()
            return match.group()

        return _LINE.sub(in_file, message)


def lua_directory() -> Path:
    """Where the Lua files are: the repository's lua/, or inside the installed package."""
    checkout = _HERE.parents[2] / "lua"
    if (checkout / "VERSION").is_file():
        return checkout
    packaged = Path(str(resources.files("glidemq_core") / "_lua"))
    if not (packaged / "VERSION").is_file():
        raise LibraryError(
            f"the Lua files of glidemq_core are missing (looked in {checkout} and {packaged})"
        )
    return packaged


@functools.cache
def bundle(kind: Kind = "release", directory: Path | None = None) -> Library:
    """Join the Lua files into one library.

    Args:
        kind: "test" puts a shim in front: a call's `fail_after` makes it break after its n-th write, its `clock_ms`
            is the time.
    """
    root = directory or lua_directory()
    protocol, revision = (int(part) for part in (root / "VERSION").read_text().strip().split("."))
    files = [*sorted((root / "lib").glob("*.lua")), *sorted((root / "functions").glob("*.lua"))]
    texts = {f"{path.parent.name}/{path.name}": path.read_text("utf-8") for path in files}
    digest = hashlib.sha256("\0".join([kind, *texts, *texts.values()]).encode()).hexdigest()[:16]
    writer = _Writer(f"glidemq_{protocol}")
    writer.add(_prelude(kind))
    writer.add(
        f"loaders['lib.build'] = function() return {{ protocol = {protocol}, revision = {revision}, "
        f"hash = '{digest}', kind = '{kind}' }} end"
    )
    for path, text in texts.items():
        writer.add(f"loaders['{path[:-4].replace('/', '.')}'] = function()")
        writer.add_file(path, text)
        writer.add("end")
    writer.end_files()
    for path, text in texts.items():
        if path.startswith("functions/"):
            name = path.removeprefix("functions/")[:-4]
            if not _ENDING.search(text):
                raise LibraryError(f"lua/{path} does not end in `return {{ run = ... }}`")
            about = f"revision {revision} {digest} {kind}" if name == "source" else ""
            writer.add(f"register('glidemq_{protocol}_{name}', 'functions.{name}', '{about}')")
    return Library(
        text=writer.text(),
        protocol=protocol,
        revision=revision,
        hash=digest,
        kind=kind,
        lines=tuple(writer.lines),
        is_checkout=(root.parent / "pyproject.toml").is_file(),
    )


class _Writer:
    """Collects the text and remembers where each file begins."""

    def __init__(self, name: str) -> None:
        self._parts = [f"#!lua name={name}"]  # must be the very first line
        self._count = 1
        self.lines: list[tuple[int, str]] = []

    def add(self, text: str) -> None:
        self._parts.append(text)
        self._count += text.count("\n") + 1

    def add_file(self, path: str, text: str) -> None:
        self.lines.append((self._count + 1, path))
        self.add(text)

    def end_files(self) -> None:
        """What follows is of no file."""
        self.lines.append((self._count + 1, ""))

    def text(self) -> str:
        return "\n".join(self._parts) + "\n"


_GLOBALS: Final = (
    "cjson cmsgpack error ipairs math next pairs pcall redis string table tonumber type unpack"
).split()


def _prelude(kind: Kind) -> str:
    """What all modules see: `require`, and the globals they use as locals.

    A function of a library finds a global through a metatable, at several times the cost of a local. While the library
    loads most of them do not exist yet: the first call of a function fetches them.
    """
    names = ", ".join(name for name in _GLOBALS if name != "redis" or kind == "release")
    return f"""\
local register_function = redis.register_function
{_TEST_SHIM if kind == "test" else "local function begin() end"}
local function globals() return {names} end
local {names}
local function enter(args)
  if not pairs then
    {names} = globals()
  end
  begin(args)
end
{_REQUIRE}"""


_REQUIRE: Final = """\
local loaders, loaded = {}, {}
local function require(name)
  if not loaded[name] then
    loaded[name] = { loaders[name]() }
  end
  return loaded[name][1]
end
local function register(name, module, about)
  local entry = require(module)
  local run = entry.run
  register_function{
    function_name = name, flags = entry.flags, description = about,
    callback = function(keys, args)
      enter(args)
      return run(keys, args)
    end,
  }
end"""

_WRITES: Final = """
HSET HDEL HSETNX HINCRBY ZADD ZREM ZPOPMIN ZREMRANGEBYRANK ZREMRANGEBYSCORE SET MSET DEL UNLINK PEXPIRE EXPIRE RPUSH
LPUSH LPOP RPOP LTRIM LREM XADD XTRIM XDEL SADD SREM INCR INCRBY MSET PUBLISH SPUBLISH"""
WRITES: Final = frozenset(_WRITES.split())
"""The commands that write; a test build can break a call off after any number of them."""

# The modules see this `redis` in place of the server's. While a library loads there is no `string`, no `ipairs`
# and of `redis` only `register_function`: the global is another one later.
_TEST_SHIM: Final = """\
local writes, fail_after, clock_ms = 0, nil, nil
local function real_call(...) return redis.call(...) end
local function real_error(text) return redis.error_reply(text) end
local WRITES = {@writes@}
local redis = {
  error_reply = real_error,
  call = function(command, ...)
    if WRITES[command] then
      if fail_after and writes >= fail_after then
        error('FAILPOINT')
      end
      writes = writes + 1
    end
    local reply = real_call(command, ...)
    if command == 'TIME' and clock_ms then
      return { string.format('%.0f', math.floor(clock_ms / 1000)), string.format('%.0f', (clock_ms % 1000) * 1000) }
    end
    return reply
  end,
}
local function begin(args)
  local map = args[1] and cmsgpack.unpack(args[1])
  map = type(map) == 'table' and map or {}
  writes, fail_after, clock_ms = 0, map.fail_after, map.clock_ms
end""".replace("@writes@", ", ".join(f"{name} = true" for name in sorted(WRITES)))
