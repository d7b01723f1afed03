"""What an exception of any provider library means: retry, fall back, wait, or stop.

The order of trust: our own errors, the vendor's code in the body, the words of the message, the
HTTP status, the name of the class. Nothing is imported to find out; exceptions are read like any
other foreign object.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any, cast

from glidemq_core import errors as core
from glidemq_llm import errors as own
from glidemq_llm._error_codes import (
    ANSWERED,
    CLASSES,
    FALLBACK,
    GENERAL_CODES,
    MESSAGES,
    NEVER_SENT,
    RETRYABLE,
    STATUS,
    TELLING_CLASSES,
    USUAL_STATUS,
    VENDOR_MODULES,
    ErrorCategory,
    code_category,
)
from glidemq_llm._read import fields, items, text
from glidemq_llm.limits import parse_duration, parse_rate_limits, parse_retry_after

_C = ErrorCategory
_IN_WORDS = re.compile(
    r"(?:try again|retry) (?:in|after) (\d[\d.hms]*)\s*(seconds?|minutes?|ms)?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorInfo:
    """What an error means.

    Attributes:
        category: What went wrong.
        retryable: Whether the same call may succeed later.
        fallback: Whether to go to the next model by default. For `context_window` only a larger one
            helps; for `content_filter` and `refusal` the user must opt in, so it is False there.
        retry_after: Seconds the vendor asks to wait, as stated; None if it does not say. It may be
            hours.
        billed: Whether the call may have cost something although it failed: book its estimate.
        in_stream: Whether it arrived inside a stream that had begun with status 200.
        code: The vendor's own word for it.
        status: The HTTP status, or for an error inside a stream the one its code usually has.
    """

    category: ErrorCategory
    retryable: bool
    fallback: bool
    retry_after: float | None = None
    billed: bool = False
    in_stream: bool = False
    code: str | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What can be read off an exception."""

    names: tuple[str, ...]
    cause_names: tuple[str, ...]
    module: str
    message: str
    status: int | None
    codes: tuple[str, ...]
    headers: object
    body: object


def classify_error(exc: BaseException) -> ErrorInfo:
    """Say what an exception means, whichever library raised it."""
    if isinstance(exc, BaseExceptionGroup):
        return classify_error(cast("BaseExceptionGroup[BaseException]", exc).exceptions[0])
    if isinstance(exc, core.GlideMQError):
        return _own_error(exc)
    if isinstance(exc, asyncio.CancelledError):
        return _info(_C.CANCELLED, billed=True)
    facts = _facts(exc)
    category = _category(facts)
    in_stream = _is_in_stream(facts, category)
    status = (
        facts.status
        if facts.status not in (None, 200)
        else USUAL_STATUS.get(category)
        if in_stream
        else None
    )
    return _info(
        category,
        retry_after=_retry_after(facts, category),
        billed=_may_be_billed(facts, category, in_stream=in_stream),
        in_stream=in_stream,
        code=next(
            (code for code in facts.codes if not code.isdigit()), next(iter(facts.codes), None)
        ),
        status=status,
    )


def _info(
    category: ErrorCategory,
    *,
    retryable: bool | None = None,
    fallback: bool | None = None,
    retry_after: float | None = None,
    billed: bool = False,
    in_stream: bool = False,
    code: str | None = None,
    status: int | None = None,
) -> ErrorInfo:
    return ErrorInfo(
        category=category,
        retryable=category in RETRYABLE if retryable is None else retryable,
        fallback=category in FALLBACK if fallback is None else fallback,
        retry_after=retry_after,
        billed=billed,
        in_stream=in_stream,
        code=code,
        status=status,
    )


def _own_error(exc: core.GlideMQError) -> ErrorInfo:
    match exc:
        case core.BudgetExceeded():
            return _info(_C.BUDGET, code=exc.cap)
        case core.Throttled():
            return _info(_C.BUDGET, retryable=True, retry_after=exc.retry_after, code="throttled")
        case core.CostUnknown():
            # Nothing was sent, and the next model may have a price.
            return _info(_C.BUDGET, code="unpriced", fallback=isinstance(exc, own.UnpricedModel))
        case own.StreamInterrupted():
            return _info(_C.STREAM_INTERRUPTED, billed=True, in_stream=True)
        case own.StreamFailed() | own.AnswerUnreadable():
            code = exc.code if isinstance(exc, own.StreamFailed) else None
            return _info(_failure(code, exc.reason), billed=True, in_stream=True, code=code)
        case own.FallbacksExhausted():
            return _info(_C.UNAVAILABLE, retryable=exc.retryable, retry_after=exc.retry_after)
        case core.JobTimeout():
            return _info(_C.TIMEOUT, billed=True)
        case core.LeaseLost() | core.JobCancelled():
            return _info(_C.CANCELLED, billed=True)
        case core.ConnectionLost():
            # Our own server, not the provider: the next model would not help.
            return _info(_C.BUG, retryable=True)
        case _:
            return _info(_C.BUG)


def _failure(code: str | None, reason: str) -> ErrorCategory:
    """What a stream says of its failure: its code, which may be an HTTP status, or else its words."""
    if code is None:
        by_words = (category for pattern, category in MESSAGES if pattern.search(reason[:4000]))
        return next(by_words, _C.SERVER)
    status = int(code) if code.isdecimal() and len(code) == 3 else None
    return code_category(code) or _by_status(status) or _C.SERVER


def _facts(exc: BaseException) -> _Facts:
    body = _body(exc)
    return _Facts(
        names=_names(exc),
        cause_names=_names_behind(exc),
        module=_package(exc),
        message=_message(exc, body),
        status=_status(exc, body),
        codes=tuple(dict.fromkeys(_codes(exc, body))),
        headers=_headers(exc),
        body=body,
    )


def _names(exc: BaseException | None) -> tuple[str, ...]:
    """The names of the class and its bases, the most specific first."""
    if exc is None:
        return ()
    names = tuple(base.__name__ for base in type(exc).__mro__)
    return ("APIResponseValidationError", *names) if _is_of_answer(exc) else names


def _is_of_answer(exc: BaseException) -> bool:
    """Whether pydantic has refused what a model answered, and not what it was asked with: some SDKs check both, and call
    the one a response; openai and anthropic check answers only (`parse`).
    """
    if type(exc).__name__ != "ValidationError":
        return False
    modules = (str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(exc.__traceback__))
    return str(_attribute(exc, "title")).endswith("Response") or any(
        module.startswith(("openai.", "anthropic.")) for module in modules
    )


def _names_behind(exc: BaseException) -> tuple[str, ...]:
    """Those of what an error was made of: one step back, but LiteLLM puts the SDK's own error further behind."""
    names: tuple[str, ...] = ()
    cause = exc.__cause__ or exc.__context__
    for _ in range(5 if _package(exc) == "litellm" else 1):
        names += _names(cause)
        cause = (cause.__cause__ or cause.__context__) if cause else None
    return names


def _package(exc: BaseException) -> str:
    return type(exc).__module__.partition(".")[0]


def _attribute(exc: object, name: str) -> Any:
    """An attribute of a foreign exception; None where reading it fails, as some properties do."""
    try:
        return getattr(exc, name, None)
    except (AttributeError, RuntimeError, ValueError, KeyError):
        return None


def _body(exc: BaseException) -> object:
    """The decoded error body, wherever the library keeps it."""
    for name in ("body", "details", "error", "raw_response_text"):
        value = _attribute(exc, name)
        if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
            try:
                value = json.loads(value)
            except ValueError:
                continue
        if isinstance(value, (dict, list)):
            listed = items(cast("object", value))
            return listed[0] if listed else cast("object", value)
    response = _attribute(exc, "response")
    return cast("object", response) if isinstance(response, dict) else None


def _error_objects(body: object) -> Iterator[Mapping[str, Any]]:
    """The error object and those nested in it, the most telling first (a wrapper's own words come
    last).
    """
    top = fields(body)
    inner = [fields(top.get(key)) for key in ("error", "Error", "response")]
    for holder in (*inner, top):
        nested = fields(holder.get("error"))
        yield fields(holder.get("innererror") or holder.get("inner_error"))
        yield fields(fields(holder.get("details")) or {})
        yield nested
        yield holder


def _codes(exc: BaseException, body: object) -> Iterator[str]:
    """Every word that may be a code, from the most specific."""
    names = ("error_code", "reason", "code", "Code", "type", "status")
    for error in _error_objects(body):
        for name in names:
            word = _word(error.get(name))
            if word and word != "error":
                yield word
        for detail in map(fields, items(error.get("details"))):  # Google: a list of typed details
            reason = _word(detail.get("reason"))
            if reason:
                yield reason
    for name in ("error_code", "code", "type", "status"):
        value = _attribute(exc, name)
        if callable(value) and type(exc).__module__.startswith("grpc"):
            value = getattr(value(), "name", None)
        word = _word(value)
        if word:
            yield word


def _word(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    word = str(value).strip()
    return word if word and len(word) <= 80 and " " not in word else None


def _message(exc: BaseException, body: object) -> str:
    words = [str(exc)]
    for error in _error_objects(body):
        words += [
            str(error[key])
            for key in ("message", "Message", "error")
            if isinstance(error.get(key), str)
        ]
        raw = fields(error.get("metadata")).get("raw")  # OpenRouter: what the upstream said
        if isinstance(raw, str):
            words.append(raw)
    return " ".join(words)[:4000]


def _status(exc: BaseException, body: object) -> int | None:
    candidates = [
        _attribute(exc, "status_code"),
        _attribute(_attribute(exc, "response"), "status_code"),
    ]
    candidates += [
        _attribute(exc, "code"),
        _attribute(exc, "http_status"),
        _attribute(exc, "status"),
    ]
    candidates.append(fields(fields(body).get("ResponseMetadata")).get("HTTPStatusCode"))
    for error in _error_objects(body):
        candidates += [error.get("status_code"), error.get("code")]
    for value in candidates:
        is_written = isinstance(value, str) and value.isdigit()
        status = int(value) if is_written or (isinstance(value, int) and value is not True) else 0
        if 200 <= status <= 599:
            return status
    return None


def _headers(exc: BaseException) -> object:
    # LiteLLM keeps the vendor's headers apart: those of `response` are made up.
    own_headers = _attribute(exc, "litellm_response_headers")
    if own_headers:
        return cast("object", own_headers)
    behind = _refusal_behind(exc)
    for holder in (_attribute(exc, "response"), _attribute(exc, "raw_response"), exc, behind):
        headers = _attribute(holder, "headers")
        if headers:
            return cast("object", headers)
    meta = fields(fields(_attribute(exc, "response")).get("ResponseMetadata"))
    return meta.get("HTTPHeaders") or {}


def _refusal_behind(exc: BaseException) -> object:
    """The response that an SDK has made its error of, where it keeps nothing else of it (Ollama)."""
    cause = exc.__cause__ or exc.__context__
    if cause is None or type(cause).__name__ != "HTTPStatusError":
        return None
    response = _attribute(cause, "response")
    is_same = _attribute(response, "status_code") == _attribute(exc, "status_code")
    return cast("object", response) if is_same else None


def _category(facts: _Facts) -> ErrorCategory:
    """The first that has an answer, from the most to the least telling."""
    specific = _by_codes(code for code in facts.codes if not _is_general(code))
    general = _by_codes(code for code in facts.codes if _is_general(code))
    by_name = _by_class(facts)
    answers = (
        _google_quota(facts),
        specific,
        _by_words(facts),
        # boto3's name for anything that goes wrong in a stream: the code tells what.
        general if "EventStreamError" in facts.names else None,
        by_name if by_name in TELLING_CLASSES else None,
        _by_status(facts.status),
        general,
        by_name,
        _C.SERVER if facts.module in VENDOR_MODULES else _C.BUG,
    )
    return next(answer for answer in answers if answer is not None)


def _by_codes(codes: Iterable[str]) -> ErrorCategory | None:
    return next(filter(None, map(code_category, codes)), None)


def _is_general(code: str) -> bool:
    return code.lower() in GENERAL_CODES or (code.isdigit() and len(code) == 3)


def _google_quota(facts: _Facts) -> ErrorCategory | None:
    """Google has one code for a minute's limit and for a spent day; what was violated tells them
    apart.
    """
    details = [
        fields(d) for error in _error_objects(facts.body) for d in items(error.get("details"))
    ]
    violated = [str(fields(v).get("quotaId")) for d in details for v in items(d.get("violations"))]
    if any("perday" in quota.lower() for quota in violated):
        return _C.QUOTA
    has_delay = any("retryDelay" in detail for detail in details)
    return _C.RATE_LIMIT if facts.status == 429 and (has_delay or violated) else None


def _by_words(facts: _Facts) -> ErrorCategory | None:
    """What the message says; asked only of errors of vendors, not of any text that has such words
    in it.
    """
    if facts.status is None and not facts.codes and facts.module not in VENDOR_MODULES:
        return None
    is_refused = facts.status is not None and 400 <= facts.status < 500 and facts.status != 429
    for pattern, category in MESSAGES:
        if is_refused and category is _C.OVERLOADED:
            continue  # a refused request may well talk about overloading
        if pattern.search(facts.message):
            return category
    return None


def _by_status(status: int | None) -> ErrorCategory | None:
    if status is None or status < 400:
        return None
    return STATUS.get(status, _C.SERVER if status >= 500 else _C.INVALID_REQUEST)


def _by_class(facts: _Facts) -> ErrorCategory | None:
    """The class, and for an SDK's wrapper what it wraps: a cut stream looks like any failed
    connection.
    """
    named = next((CLASSES[name] for name in facts.names if name in CLASSES), None)
    wrapped = next((CLASSES[name] for name in facts.cause_names if name in CLASSES), None)
    found = wrapped if named is _C.CONNECTION and wrapped is _C.STREAM_INTERRUPTED else named
    if found is _C.STREAM_INTERRUPTED and "without sending a response" in facts.message:
        return _C.CONNECTION  # closed before there was a stream
    return found


def _is_in_stream(facts: _Facts, category: ErrorCategory) -> bool:
    """Whether the answer had begun: status 200 (Anthropic), or a bare API error with a body
    (OpenAI).
    """
    if facts.names[0] == "APIResponseValidationError":
        return False
    is_bare = facts.names[0] == "APIError" and facts.body is not None and facts.status is None
    return (
        facts.status == 200
        or is_bare
        or category is _C.STREAM_INTERRUPTED
        or "EventStreamError" in facts.names
    )


def _may_be_billed(facts: _Facts, category: ErrorCategory, *, in_stream: bool) -> bool:
    """Whether the vendor can have begun to work; a request that it has refused is free."""
    if not NEVER_SENT.isdisjoint((*facts.names, *facts.cause_names)):
        return False
    if category is _C.TIMEOUT:
        # Some give their own timeouts this status; of a vendor it says that no request had come.
        is_own = facts.module == "botocore" or (
            facts.module == "litellm" and "HTTPStatusError" not in facts.cause_names
        )
        return facts.status != 408 or is_own
    if facts.module == "litellm" and "APIConnectionError" in facts.cause_names:
        return True  # it calls a lost connection a 500
    return (
        in_stream
        or category in (_C.CONNECTION, _C.REFUSAL)
        or bool(ANSWERED.intersection(facts.names))
    )


def _retry_after(facts: _Facts, category: ErrorCategory) -> float | None:
    if category not in RETRYABLE and category is not _C.QUOTA:
        return None
    stated = parse_retry_after(facts.headers)
    if stated is None:
        stated = _in_body(facts.body)
    if stated is None:
        found = _IN_WORDS.search(facts.message)
        stated = parse_duration(_with_unit(found[1], found[2])) if found else None
    if stated is None and category is _C.RATE_LIMIT:
        spent = [
            axis.reset_seconds
            for axis in parse_rate_limits(facts.headers).axes.values()
            if axis.remaining == 0
        ]
        stated = max((seconds for seconds in spent if seconds is not None), default=None)
    return stated


def _with_unit(amount: str, unit: str | None) -> str:
    amount = amount.rstrip(".")
    if unit and amount[-1].isdigit():
        return amount + ("ms" if unit == "ms" else unit[0].lower())
    return amount


def _in_body(body: object) -> float | None:
    """Google's RetryInfo, and the headers that OpenRouter puts into the body."""
    for error in _error_objects(body):
        for detail in map(fields, items(error.get("details"))):
            delay = parse_duration(text(detail.get("retryDelay")) or "")
            if delay is not None and delay >= 0:
                return delay
        forwarded = fields(fields(error.get("metadata")).get("headers"))
        if forwarded:
            return parse_retry_after(forwarded)
    return None
