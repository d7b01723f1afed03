from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glidemq_core import _keys
from glidemq_core.errors import InvalidOption


@pytest.mark.parametrize("name", ["a", "ai-2", "tenant/7", "über", "x" * 256, "a.b|c,d", "日本"])
def test_names_of_all_kinds_are_taken(name: str):
    assert _keys.check_name(name, "name") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 257,
        "a{b",
        "a}b",
        "a:b",
        "a b",
        "a\nb",
        "a\x00b",
        "a\x7f",
        "\ud800",
        "\u2028",
        "\xa0",
        1,
        None,
        b"a",
    ],
)
def test_names_that_would_break_a_key_are_refused(name: object):
    with pytest.raises(InvalidOption) as caught:
        _keys.check_name(name, "job_id")

    assert caught.value.field == "job_id"


@pytest.mark.parametrize("id", ["", "x" * 257, "a\nb", "\0", "\ud800", 1, None, b"a"])
def test_ids_that_no_key_can_end_with_are_refused(id: object):
    with pytest.raises(InvalidOption, match="budgets="):
        _keys.check_id(id, "budgets")


@pytest.mark.parametrize(
    "place", ["1", "1-", "a-1", "1-1\n", "\u0661-\u0661", "9" * 20 + "-1", 7, b"1-1"]
)
def test_what_is_no_place_in_a_stream_is_refused(place: object):
    with pytest.raises(InvalidOption, match="after="):
        _keys.check_place(place, "after")


@given(st.text(min_size=1, max_size=300))
def test_a_name_that_is_taken_stays_in_its_slot(name: str):
    try:
        _keys.check_name(name, "name")
    except InvalidOption:
        return
    root = _keys.root_of(name)

    assert root.count("{") == root.count("}") == 1
    assert _keys.job(root, name).split(":") == [*root.split(":"), "job", name]


def test_keys_of_a_queue_begin_with_its_root_and_differ():
    names = _keys.all_names(_keys.root_of("ai"))

    assert all(key.startswith("glidemq:{ai}:") for key in names.values())
    assert len(set(names.values())) == len(names)


def test_no_queue_is_a_ledger():
    assert _keys.ledger_root("main") == "glidemq:{ledger:main}"
    with pytest.raises(InvalidOption):
        _keys.check_name("ledger:main", "name")


def test_ids_are_names_of_twenty_characters_and_differ():
    ids = [_keys.new_id() for _ in range(20_000)]

    assert len(set(ids)) == len(ids)
    assert {len(id) for id in ids} == {20}
    assert _keys.check_name(ids[0], "id") == ids[0]


def test_ids_sort_by_the_time_they_were_made(monkeypatch: pytest.MonkeyPatch):
    clock = itertools.count(1_700_000_000_000_000_000, 1_000_000)
    monkeypatch.setattr(_keys.time, "time_ns", lambda: next(clock))
    make = _keys.IdMaker()

    ids = [make() for _ in range(2000)]

    assert ids == sorted(ids)


def test_child_process_makes_other_ids(monkeypatch: pytest.MonkeyPatch):
    make = _keys.IdMaker()
    parent = make()

    monkeypatch.setattr(_keys.os, "getpid", lambda: -1)

    assert make()[13:] != parent[13:]
    assert os.getpid() == -1


def test_ids_of_one_instant_are_told_apart_by_their_counter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_keys.time, "time_ns", lambda: 0)
    make = _keys.IdMaker()

    assert len({make() for _ in range(5000)}) == 5000
