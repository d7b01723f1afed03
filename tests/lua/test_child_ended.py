from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lua.engine import Engine, refused


def _end(engine: Engine, key: str, state: str = "completed", **more: object) -> int:
    args = {
        "parent": "a",
        "key": key,
        "policy": "fail",
        "state": state,
        "end": f'{{"state":"{state}"}}',
        **more,
    }
    return engine.call("child_ended", **args)


def test_last_child_releases_the_parent_at_its_place(engine: Engine):
    engine.add("a", pending=2)
    place = float(engine.job("a")["place"])
    before = engine.names()

    assert [_end(engine, "x"), _end(engine, "y")] == [1, 1]

    assert engine.where("a") == ["waiting"]
    assert engine.score("waiting", "a") == place
    assert engine.names() - before == {"waiting", "job:a:children", "wake"} - before
    assert engine.call("job_children", id="a")[0] == 0


def test_first_child_does_not(engine: Engine):
    engine.add("a", pending=2)

    _end(engine, "x")

    assert engine.where("a") == ["waiting_children"]


def test_child_counts_once(engine: Engine):
    engine.add("a", pending=2)
    _end(engine, "x", usage={"tokens:input": 3})
    before = engine.dump()

    assert _end(engine, "x", "failed", usage={"tokens:input": 3}) == 0

    assert engine.dump() == before


def test_usage_of_children_adds_up_on_the_parent(engine: Engine):
    engine.add("a", pending=2)
    for key in "xy":
        _end(engine, key, usage={"tokens:input": 3, "costs:total": 5})

    flat = engine.call("job_get", id="a")[1]
    usage = dict(zip(flat[::2], flat[1::2], strict=True))
    assert (usage[b"flow_tokens:input"], usage[b"flow_costs:total"]) == (b"6", b"10")


def test_failed_child_fails_the_parent_that_waits(engine: Engine):
    engine.add("a", pending=2)

    _end(engine, "x", "failed")

    assert engine.where("a") == ["failed"]
    assert engine.job("a")["reason"] == "child_failed"


@pytest.mark.parametrize("policy", ["ignore", "collect"])
def test_failed_child_does_not_where_the_policy_says_so(engine: Engine, policy: str):
    engine.add("a", pending=1)

    _end(engine, "x", "failed", policy=policy)

    assert engine.where("a") == ["waiting"]


def test_failed_child_fails_a_running_parent_when_it_comes_to_wait(engine: Engine):
    claim = engine.active()
    engine.call(
        "child_expect", parent="a", token=claim.token, children=[["x", "{}"]], add=[["q", "{}"]]
    )

    _end(engine, "x", "failed")
    assert engine.where("a") == ["active"]
    engine.finish(claim, "waiting_children", None, {})

    assert engine.where("a") == ["failed"]


def test_end_that_comes_before_the_parent_waits_is_counted(engine: Engine):
    claim = engine.active()
    engine.call(
        "child_expect", parent="a", token=claim.token, children=[["x", "{}"]], add=[["q", "{}"]]
    )
    _end(engine, "x")

    engine.finish(claim, "waiting_children", None, {})

    assert engine.where("a") == ["waiting"]


def _told(engine: Engine) -> list[dict[str, Any]]:
    """The entries of the outbox, in order."""
    found = []
    for _, flat, *_ in engine.call("outbox_read", limit=100):
        texts = [part.decode() for part in flat]
        found.append(dict(zip(texts[::2], texts[1::2], strict=True)))
    return found


def _failed_parent(engine: Engine) -> None:
    """It has failed by a child, and another has not ended."""
    parents = '[{"queue":"up","id":"top","key":"a","policy":"fail"}]'
    engine.add("a", pending=2, parent=parents)
    _end(engine, "x", "failed", error='{"class":"E","message":"no"}', usage={"tokens:input": 5})
    assert engine.where("a") == ["failed"]


def test_child_that_ends_after_its_parent_counts_in_the_sums_of_the_flow(engine: Engine):
    _failed_parent(engine)

    more = {"usage": {"tokens:input": 7, "costs:total": 9}}
    assert [_end(engine, "y", **more), _end(engine, "y", **more)] == [1, 0]

    assert engine.where("a") == ["failed"]
    used = engine.dump()["job:a:usage"]
    assert (used[b"flow_tokens:input"], used[b"flow_costs:total"]) == (b"12", b"9")
    assert engine.call("job_children", id="a")[0] == 0
    told = [entry for entry in _told(engine) if entry["kind"] == "late"]
    assert [json.loads(entry["usage"]) for entry in told] == [
        {"tokens:input": "7", "costs:total": "9"}
    ]


@pytest.mark.parametrize("state", ["failed", "waiting_children"])
def test_late_use_counts_once_by_its_name_and_goes_on_to_those_above(engine: Engine, state: str):
    if state == "failed":
        _failed_parent(engine)
    else:
        engine.add("a", pending=2)
    more = {"parent": "a", "late": "n", "usage": {"tokens:output": 3}}

    said = [engine.call("child_ended", **more) for _ in range(2)]
    said.append(engine.call("child_ended", **{**more, "late": "m"}))

    assert said == [1, 0, 1]
    assert engine.dump()["job:a:usage"][b"flow_tokens:output"] == b"6"
    names = [entry["name"] for entry in _told(engine) if entry["kind"] == "late"]
    assert names == (["n", "m"] if state == "failed" else [])
    assert engine.call("job_children", id="a")[0] == (1 if state == "failed" else 2)


def test_ended_and_unknown_parents_are_left_alone(engine: Engine):
    engine.ended("a")
    before = engine.dump()

    assert _end(engine, "x") == 0
    assert engine.call("child_ended", parent="nobody", key="x", state="completed", end="{}") == 0

    assert engine.dump() == before


@pytest.mark.parametrize(
    "args", [{"parent": 1}, {"key": 1}, {"state": None}, {"end": {}}, {"policy": 1}, {"usage": 1}]
)
def test_bad_arguments_are_refused_before_anything_is_written(
    engine: Engine, args: dict[str, object]
):
    engine.add("a", pending=1)
    before = engine.dump()

    with refused(f"ARG {next(iter(args))} "):
        engine.call(
            "child_ended", **{"parent": "a", "key": "x", "state": "completed", "end": "{}", **args}
        )
    assert engine.dump() == before
