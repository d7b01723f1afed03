from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glidemq_core import _codec
from glidemq_core.errors import InvalidOption, PayloadTooLarge

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


class Model(pydantic.BaseModel):
    at: datetime
    name: str


@dataclass
class Point:
    x: float


class Struct(msgspec.Struct):
    x: float


@given(JSON)
def test_what_is_put_in_comes_out_equal(value: Any):
    assert _codec.loads(_codec.dumps(value, "data")) == value


def test_users_models_are_taken_as_their_json():
    text = _codec.dumps(Model(at=datetime(2026, 1, 1, tzinfo=UTC), name="x"), "data")

    assert _codec.loads(text) == {"at": "2026-01-01T00:00:00Z", "name": "x"}


@pytest.mark.parametrize("value", [Point(1.5), Struct(1.5)])
def test_dataclasses_and_structs_are_taken_as_maps(value: object):
    assert _codec.loads(_codec.dumps(value, "data")) == {"x": 1.5}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda bad: bad,
        lambda bad: [None, [bad]],
        lambda bad: {"a": {"b": (bad,)}},
        Point,
        Struct,
        lambda bad: [Point(bad)],
        lambda bad: {"x": [Struct(bad)]},
    ],
)
def test_numbers_without_a_form_are_refused_however_deep(bad: float, wrap: Any):
    with pytest.raises(InvalidOption, match="NaN"):
        _codec.dumps(wrap(bad), "data")


@pytest.mark.parametrize(
    "value", [object(), {1, object()}, lambda: 1, {"a": object()}, {"x": 1j}, "\ud800"]
)
def test_what_has_no_form_is_refused_by_name(value: object):
    with pytest.raises(InvalidOption) as caught:
        _codec.dumps(value, "jobs[2].data")

    assert caught.value.field == "jobs[2].data"
    assert "not serialisable" in str(caught.value)


def test_endless_data_is_refused():
    value: list[Any] = []
    value.append(value)

    with pytest.raises(InvalidOption, match="not serialisable"):
        _codec.dumps(value, "data")


def test_size_is_counted_in_bytes_of_json():
    assert len(_codec.dumps("x" * (_codec.MAX_PAYLOAD - 2), "data")) == _codec.MAX_PAYLOAD
    with pytest.raises(PayloadTooLarge) as caught:
        _codec.dumps("ü" * 600_000, "data")

    assert (caught.value.size, caught.value.limit) == (1_200_002, _codec.MAX_PAYLOAD)


def test_limit_may_be_another():
    with pytest.raises(PayloadTooLarge):
        _codec.dumps("xxxx", "progress", limit=5)


@pytest.mark.parametrize(
    ("text", "sound"),
    [
        ("plain", "plain"),
        ("ü日", "ü日"),
        ("a\ud83d\ude00b", "a😀b"),
        ("a\ud83d", "a\ufffd"),
        ("\ude00a", "\ufffda"),
    ],
)
def test_halves_of_characters_are_mended(text: str, sound: str):
    assert _codec.sound_text(text) == sound
    assert _codec.checked_text(text, "text") == sound
    sound.encode()


def test_only_texts_are_texts():
    with pytest.raises(InvalidOption, match="text="):
        _codec.checked_text(b"x", "text")
