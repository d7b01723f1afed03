"""Reading other people's objects: dicts, pydantic models of any SDK, plain objects, protobuf
messages.

Everything that looks into a response goes through here, so that no SDK has to be imported and a
decoded JSON body reads like the SDK's own object.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Final, cast

from glidemq_core._codec import sound_text

EMPTY: Mapping[str, Any] = {}

# A hundred million. No call has used as much; a figure beyond is a mistake, and sums of such might not fit into a ledger.
LARGEST_COUNT: Final = 10**8


def fields(value: object) -> Mapping[str, Any]:
    """The fields of a dict or object, without copying in the usual cases; empty for anything else.

    Attribute access is avoided on purpose: a missing attribute of a pydantic model costs a
    microsecond, a missing key thirty nanoseconds, and streams ask for many fields that are mostly
    absent.
    """
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    extra: Mapping[str, Any] | None = getattr(value, "__pydantic_extra__", EMPTY)
    if extra is not EMPTY:
        if extra and isinstance(value, type):  # a model's class instead of a model
            return EMPTY
        return {**value.__dict__, **extra} if extra else value.__dict__
    return _other(value)


def _other(value: object) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return cast("Mapping[str, Any]", value)
    own: dict[str, Any] | None = getattr(value, "__dict__", None)
    if own is not None:
        return own
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    list_fields: Callable[[], Iterable[tuple[Any, Any]]] | None = getattr(value, "ListFields", None)
    if callable(list_fields):  # a protobuf message (the xAI SDK)
        return {descriptor.name: item for descriptor, item in list_fields()}
    names: tuple[str, ...] = getattr(value, "__struct_fields__", ())  # msgspec
    return {name: getattr(value, name) for name in names}


def plain(value: object, depth: int = 8) -> Any:
    """A copy of a value as dicts, lists and scalars, so that it can be merged, kept and encoded."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Enum):
        return cast("object", value.value)
    if isinstance(value, str):
        return value
    if depth == 0 or isinstance(value, (bytes, bytearray)):
        return None
    if isinstance(value, type):
        return _described(value)
    if isinstance(value, (list, tuple)):
        return [plain(item, depth - 1) for item in cast("Iterable[object]", value)]
    items = fields(value)
    return {
        str(key): plain(item, depth - 1)
        for key, item in items.items()
        if not str(key).startswith("_")
    }


def _described(kind: type) -> Any:
    """What is sent of a class that is given as the format of an answer: a pydantic model's schema."""
    schema: Callable[[], Any] | None = getattr(kind, "model_json_schema", None)
    try:
        return schema() if schema is not None else kind.__name__
    except Exception:  # noqa: BLE001 pydantic has no schema of some fields; the SDK will say so
        return kind.__name__


def number(value: object) -> int | None:
    """A count as an int; None for null, negatives, booleans, fractions, the absurdly large, and
    anything that is not a number.
    """
    found = whole(value)
    return found if found is not None and 0 <= found <= LARGEST_COUNT else None


def whole(value: object) -> int | None:
    """A whole number of any size as an int; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if isinstance(value, int) or value.is_integer() else None


def first_number(source: Mapping[str, Any], *names: str) -> int:
    """The first of the named counts that is above zero, else 0."""
    for name in names:
        found = number(source.get(name))
        if found:
            return found
    return 0


def text(value: object) -> str | None:
    """A non-empty string (an enum's value counts), fit for UTF-8; else None."""
    if isinstance(value, Enum):
        value = cast("object", value.value)
    return sound_text(value) if isinstance(value, str) and value else None


def items(value: object) -> list[Any]:
    """A list or tuple as a list; empty for anything else."""
    return list(cast("Iterable[Any]", value)) if isinstance(value, (list, tuple)) else []
