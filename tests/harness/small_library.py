"""A function library of a few lines, for tests of the way to the server."""

from __future__ import annotations

from pathlib import Path

from glidemq_core._library import Library, bundle

FILES = {
    "lib/layout.lua": """
local layout = {}
function layout.key(root, name)
  return root .. ':' .. name
end
return layout
""",
    "functions/source.lua": """
local build = require('lib.build')
local function source()
  return { build.protocol, build.revision, build.hash, build.kind }
end
return { run = source, flags = { 'no-writes' } }
""",
    # Counts each id once, however often the call is repeated.
    "functions/count.lua": """
local layout = require('lib.layout')
local function count(keys, args)
  local map = cmsgpack.unpack(args[1])
  if redis.call('SADD', layout.key(keys[1], 'ids'), map.id) == 1 then
    redis.call('INCR', layout.key(keys[1], 'count'))
  end
  if map['repeat'] then
    redis.call('INCR', layout.key(keys[1], 'repeats'))
  end
  return map.id
end
return { run = count }
""",
    "functions/fail.lua": """
local function fail(_, args)
  error(redis.error_reply(cmsgpack.unpack(args[1]).text))
end
return { run = fail, flags = { 'allow-oom' } }
""",
    "functions/stumble.lua": """
-- An error nobody foresaw, in line 5.
local function stumble(_, args)
  local map = cmsgpack.unpack(args[1])
  return map.nothing.there
end
return { run = stumble }
""",
}


def small_library(
    folder: Path, version: str = "9.1", more: dict[str, str] | None = None
) -> Library:
    """Bundle it; `more` are further files."""
    root = folder / f"lua-{version}"
    for path, text in {"VERSION": f"{version}\n", **FILES, **(more or {})}.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.removeprefix("\n"))
    return bundle(directory=root)
