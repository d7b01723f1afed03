from __future__ import annotations

from tests.lua.engine import LIBRARY, Engine


def test_library_says_what_it_is(engine: Engine):
    reply = engine.server.cmd("FCALL_RO", f"{LIBRARY.prefix}source", 0)

    assert reply == [LIBRARY.protocol, LIBRARY.revision, LIBRARY.hash.encode(), b"test"]
    assert engine.names() == set()
