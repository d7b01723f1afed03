"""Payloads as JSON text. What JSON has comes out equal; the rest comes out as its JSON form (tuples and sets as lists,
dates and bytes as text, keys as text) or is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from .errors import InvalidOption, PayloadTooLarge

MAX_PAYLOAD: Final = 1_048_576
_decoder = msgspec.json.Decoder()


def dumps(value: object, field: str, *, limit: int = MAX_PAYLOAD) -> str:
    """Serialise a payload.

    Users' own models (anything with `model_dump`) are taken as their JSON form.

    Raises:
        InvalidOption: It has a part that JSON has no form for (NaN and infinities included).
        PayloadTooLarge: Its JSON is over `limit` bytes.
    """
    try:
        raw = _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidOption(field, value, f"not serialisable as JSON: {error}") from error
    if len(raw) > limit:
        raise PayloadTooLarge(field, size=len(raw), limit=limit)
    # The encoder writes NaN and infinities as null: only then is it worth looking for them.
    if b"null" in raw and _has_nan(value):
        raise InvalidOption(field, value, "NaN and infinities have no form in JSON")
    return raw.decode()


def sound_text(text: str) -> str:
    """A text as UTF-8 can carry it: halves of surrogate pairs, as split model output has them, become U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def loads(text: str | bytes) -> Any:
    """The payload of a JSON text."""
    return _decoder.decode(text)


def as_type(value: object, type: Any, field: str) -> Any:
    """A decoded payload as a value of `type`: a class of msgspec, dataclasses, pydantic, or what typing can say.

    Raises:
        InvalidOption: It does not fit; the field says where.
    """
    validate = getattr(type, "model_validate", None)
    try:
        return validate(value) if callable(validate) else msgspec.convert(value, type)
    except (ValueError, msgspec.ValidationError) as error:
        where, reason = _misfit(error)
        raise InvalidOption(field + where, value, reason) from error


def _misfit(error: Exception) -> tuple[str, str]:
    """Where a payload does not fit its type (".name[3]"), and why."""
    details = getattr(error, "errors", None)
    if callable(details):  # pydantic's
        first = cast("list[dict[str, Any]]", details())[0]
        where = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]
        )
        return where, str(first["msg"])
    reason, _, path = str(error).partition(" - at `$")
    return path.rstrip("`"), reason


def _foreign(value: object) -> object:
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"objects of type {type(value).__qualname__} are not supported")
    return dump(mode="json")


_encoder = msgspec.json.Encoder(enc_hook=_foreign)


def _has_nan(value: object) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(_has_nan(item) for item in cast("Mapping[object, object]", value).values())
    if isinstance(value, list | tuple | set | frozenset):
        return any(_has_nan(item) for item in cast("Iterable[object]", value))
    if hasattr(value, "__dataclass_fields__") or isinstance(value, msgspec.Struct):
        return _has_nan(msgspec.to_builtins(value))
    return False


def checked_text(value: object, field: str) -> str:
    """A text that can be sent; model output cut in the middle of a character is mended."""
    if not isinstance(value, str):
        raise InvalidOption(field, value, "not a text")
    return sound_text(value)


def texts_of(flat: Sequence[bytes]) -> dict[str, str]:
    """A mapping from a flat reply [name, value, name, value, ...]."""
    return {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}
