from __future__ import annotations

import pytest

from tests.lua.engine import Claim, Engine, refused

CHILDREN = [["x", '{"id":"1"}'], ["y", '{"id":"2"}']]
ADD = [["q", '{"id":"1"}'], ["q", '{"id":"2"}']]


def _adopt(engine: Engine, claim: Claim, **more: object) -> list[bytes]:
    return engine.call(
        "child_expect",
        **{"parent": "a", "token": claim.token, "children": CHILDREN, "add": ADD, **more},
    )


def _sent(engine: Engine) -> list[list[bytes]]:
    return [fields for _, fields, *_ in engine.call("outbox_read", limit=100)]


def test_children_of_a_new_flow_are_registered(engine: Engine):
    engine.add("a", pending=2)
    before = engine.names()

    assert engine.call("child_expect", parent="a", children=CHILDREN) == [
        b'{"id":"1"}',
        b'{"id":"2"}',
    ]

    pending, flat = engine.call("job_children", id="a")
    assert (pending, flat[::2]) == (2, [b"x", b"y"])
    assert engine.names() - before == {"job:a:children"}
    assert engine.job("a")["satellites"] == "children"


def test_children_of_a_running_parent_are_counted_and_sent_off(engine: Engine):
    claim = engine.active()

    _adopt(engine, claim)

    assert engine.job("a")["pending"] == "2"
    assert _sent(engine)[0][:6] == [b"kind", b"add", b"queue", b"q", b"job", b'{"id":"1"}']


def test_child_registered_before_stands_and_is_not_sent_again(engine: Engine):
    claim = engine.active()
    _adopt(engine, claim)
    before = engine.dump()

    standing = _adopt(engine, claim, children=[["x", '{"id":"3"}'], ["y", '{"id":"4"}']])

    assert standing == [b'{"id":"1"}', b'{"id":"2"}']
    assert engine.dump() == before


def test_next_run_adopts_only_what_is_new(engine: Engine):
    claim = engine.active()
    _adopt(engine, claim, children=CHILDREN[:1], add=ADD[:1])
    engine.finish(claim, "retry", None, {"delay_ms": 0})

    _adopt(engine, engine.claim())

    assert engine.job("a")["pending"] == "2"
    assert len(_sent(engine)) == 2


def test_stale_and_unknown_parents_are_refused_without_a_trace(engine: Engine):
    claim = engine.active()
    engine.finish(claim)
    before = engine.dump()

    with refused("STALE a"):
        _adopt(engine, claim)
    with refused("GONE b"):
        engine.call("child_expect", parent="b", children=CHILDREN)
    assert engine.dump() == before


def test_child_that_comes_from_outside_is_counted_and_refused_once_the_parent_has_ended(
    engine: Engine,
):
    engine.add("a", pending=1)
    engine.call("child_expect", parent="a", children=CHILDREN[:1])

    standing = engine.call("child_expect", parent="a", children=CHILDREN, add=ADD)

    assert standing == [b'{"id":"1"}', b'{"id":"2"}']
    assert engine.job("a")["pending"] == "2"
    assert len(_sent(engine)) == 1
    engine.ended("b", "completed")
    before = engine.dump()
    with refused("STATE b completed not ended"):
        engine.call("child_expect", parent="b", children=CHILDREN[:1], add=ADD[:1])
    with refused("ARG add "):
        engine.call("child_expect", parent="a", children=CHILDREN, add=ADD[:1])
    assert engine.dump() == before


@pytest.mark.parametrize(
    "args",
    [
        {"parent": 1},
        {"children": "x"},
        {"children": [["x"]]},
        {"children": [["x", 1]]},
        {"children": [["x", "{}"]] * 501},
        {"add": [["q", "{}"]]},
        {"add": [["q"], ["q"]]},
        {"token": 7},
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    engine: Engine, args: dict[str, object]
):
    claim = engine.active()
    before = engine.dump()

    with refused(f"ARG {next(iter(args))} "):
        _adopt(engine, claim, **args)
    assert engine.dump() == before
