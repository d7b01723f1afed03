"""Journals in the reply of a turn: small ones come with their jobs, others have to be asked for."""

from __future__ import annotations

import pytest

from tests.lua.engine import Engine, outcome

KIB = 1024


def _with_steps(engine: Engine, jobs: dict[str, list[str]]) -> None:
    """Waiting jobs that remember these steps."""
    engine.add(*jobs)
    claims = engine.turn(want=len(jobs)).claims
    for claim in claims:
        for n, entry in enumerate(jobs[claim.id], 1):
            key = f"step:x#{n}"
            engine.call("job_step", id=claim.id, token=claim.token, key=key, entry=entry)
    engine.turn(done=[outcome(claim, "released") for claim in claims])


def _text(bytes: int) -> str:
    return f'"{"x" * (bytes - 2)}"'


def _asked(engine: Engine, id: str) -> dict[str, str]:
    flat = [part.decode() for part in engine.call("job_journal", id=id)]
    return dict(zip(flat[::2], flat[1::2], strict=True))


def test_claim_brings_what_its_job_remembers_begun_and_ended(engine: Engine):
    claim = engine.active("a", data="1")
    engine.call("job_step", id="a", token=claim.token, key="step:x#1", entry='"ü"')
    engine.call("job_step", id="a", token=claim.token, key="step:y#1", started="2")
    engine.finish(claim, "released")

    again = engine.claim()

    assert again.journal == {"step:x#1": '"ü"', "?step:y#1": "2"} == _asked(engine, "a")


def test_each_job_of_a_turn_gets_its_own(engine: Engine):
    _with_steps(engine, {"a": ["1", "2"], "c": ["3"]})
    engine.add("b", "d", data='"of b and d"')

    claims = {claim.id: claim for claim in engine.turn(want=9).claims}

    assert {id: claim.journal for id, claim in claims.items()} == {
        "a": {"step:x#1": "1", "step:x#2": "2"},
        "b": None,
        "c": {"step:x#1": "3"},
        "d": None,
    }
    assert [claims[id].has_journal for id in "abcd"] == [True, False, True, False]
    assert [claims[id].data for id in "abcd"] == [b"", b'"of b and d"', b"", b'"of b and d"']


@pytest.mark.parametrize(
    ("entries", "comes"),
    [
        ([_text(62 * KIB)], True),
        ([_text(64 * KIB)], False),
        (["1"] * 100, True),
        (["1"] * 128, False),
        ([_text(20 * KIB)] * 3, True),
        ([_text(20 * KIB)] * 4, False),
    ],
    ids=[
        "a long entry",
        "too long",
        "many entries",
        "too many",
        "some of both",
        "too much of both",
    ],
)
def test_large_journal_has_to_be_asked_for(engine: Engine, entries: list[str], comes: bool):
    _with_steps(engine, {"a": entries})

    claim = engine.claim()

    assert claim.has_journal
    assert (claim.journal is not None) == comes
    assert len(_asked(engine, "a")) == len(entries)


def test_journals_of_a_turn_are_bounded_together(engine: Engine):
    ids = [f"{n:02}" for n in range(24)]
    _with_steps(engine, {id: [_text(50 * KIB)] for id in ids})

    claims = engine.turn(want=24).claims

    assert [claim.id for claim in claims] == ids
    brought = [claim for claim in claims if claim.journal is not None]
    assert len(brought) == 20  # a mebibyte
    assert all(claim.has_journal for claim in claims)


def test_repeated_turn_brings_the_journals_again(engine: Engine):
    _with_steps(engine, {"a": ["1"], "b": [_text(64 * KIB)]})
    first = engine.turn(number=7, want=2)

    again = engine.turn(number=7, want=2, repeat=True)

    assert again.claims == first.claims
    assert [claim.journal for claim in again.claims] == [{"step:x#1": "1"}, None]


def test_repeated_turn_brings_only_the_journals_of_what_it_still_holds(engine: Engine):
    _with_steps(engine, {"a": ["1"], "b": ["2"]})
    first = engine.turn(number=7, want=2)
    engine.finish(next(claim for claim in first.claims if claim.id == "a"))

    (again,) = engine.turn(number=7, want=2, repeat=True).claims

    assert (again.id, again.journal) == ("b", {"step:x#1": "2"})
