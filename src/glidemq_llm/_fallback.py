"""Who is asked for a job, and who is asked next when that one fails."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from glidemq_core.context import RunningJob
from glidemq_core.errors import GlideMQError, InvalidOption, Throttled, UnrecoverableError
from glidemq_llm._read import fields
from glidemq_llm._windows import context_window
from glidemq_llm._wrap import missing_sdk, package_of
from glidemq_llm.classify import ErrorCategory, ErrorInfo, classify_error
from glidemq_llm.errors import FallbacksExhausted
from glidemq_llm.metering import MeteredCall

LITELLM = "litellm"
_LONG_WAIT: Final = 5.0  # shorter ones are the backoff of an ordinary retry


@dataclass(frozen=True, slots=True)
class Backend:
    """A client that does not retry by itself, and the module of its provider, which knows how to ask it."""

    client: Any
    module: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One entry of a job's list of models: whom to ask, and under which name of the model.

    Attributes:
        name: The model as the job names it.
        model: Its name at the provider.
        params: What this entry adds to the request.
    """

    backend: Backend
    provider: str
    name: str
    model: str
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])


def backends_of(clients: Mapping[str, Any]) -> dict[str, Backend]:
    """The clients given to a handler, plain or wrapped.

    Raises:
        InvalidOption: There is none, or one of a library that has no adapter.
    """
    if not clients:
        raise InvalidOption("clients", clients, "an empty mapping")
    found: dict[str, Backend] = {}
    for name, client in clients.items():
        module = importlib.import_module(f"glidemq_llm.providers.{package_of(client)}")
        found[name] = Backend(module.quiet(client), module)
    return found


def routes_of(
    job: RunningJob, backends: Mapping[str, Backend], data: Mapping[str, Any], default: str | None
) -> list[Route]:
    """The models to try in order: the job's own, then its fallbacks.

    All are found before the first is asked: a mistake in the last entry must not show only when money was spent.

    Raises:
        UnrecoverableError: No model is named, or one that no client serves.
    """
    first = data.get("model") or default
    if not isinstance(first, str):
        raise UnrecoverableError("the job's data names no model, and the handler has no default")
    own = {"model": first, "provider": data.get("provider")}
    return [_route(entry, backends) for entry in (own, *job.fallbacks)]


def _route(entry: Mapping[str, Any], backends: Mapping[str, Backend]) -> Route:
    name = str(entry.get("model"))
    params: Mapping[str, Any] = fields(entry.get("params"))
    stated: str | None = entry.get("provider")
    if not isinstance(stated, str | None):  # pyright: ignore[reportUnnecessaryIsInstance] the data is a user's
        raise UnrecoverableError(f"the provider of model {name!r} is not a name: {stated!r}")
    prefix, slash, rest = name.partition("/")
    provider = stated or (prefix if slash and prefix in backends else None)
    if provider in backends:
        model = rest if slash and prefix == provider else name
        return Route(
            backend=backends[str(provider)],
            provider=str(provider),
            name=name,
            model=model,
            params=params,
        )
    if LITELLM in backends:
        model = f"{stated}/{name}" if stated and prefix != stated else name
        served_by = stated or (prefix if slash else "openai")
        return Route(
            backend=backends[LITELLM], provider=served_by, name=name, model=model, params=params
        )
    if stated is None and len(backends) == 1:
        only, backend = next(iter(backends.items()))
        return Route(backend=backend, provider=only, name=name, model=name, params=params)
    raise UnrecoverableError(
        f"no client for model {name!r} of provider {stated or (prefix if slash else None)!r}: "
        "name it PROVIDER/MODEL, where the provider is one of "
        f"{', '.join(sorted(backends))}{missing_sdk(stated or prefix)}"
    )


Ask = Callable[[Route, "Hop"], Awaitable[MeteredCall]]
Hops: TypeAlias = Sequence[Mapping[str, object]]


@dataclass(slots=True)
class Hop:
    """One try of one model.

    Attributes:
        call: The last model call that was made for it.
    """

    route: Route
    call: MeteredCall | None = None
    began: float = field(default_factory=time.monotonic)

    def facts(self, error: BaseException | None, info: ErrorInfo | None) -> dict[str, object]:
        """What the job keeps of it: model, error, tokens, cost, time."""
        settlement = self.call.settlement if self.call is not None else None
        cost = settlement.cost if settlement is not None else None
        found: dict[str, object] = {
            "model": self.route.name,
            "provider": self.route.provider,
            "tokens": settlement.usage.total_tokens if settlement is not None else 0,
            "cost": str(cost.total) if cost is not None else None,
            "seconds": round(time.monotonic() - self.began, 3),
        }
        if error is not None and info is not None:
            found |= {
                "error": str(error)[:500],
                "category": str(info.category),
                "retryable": info.retryable,
            }
            if info.retry_after:
                found["retry_after"] = info.retry_after
        return found


async def first_that_answers(
    job: RunningJob,
    routes: list[Route],
    ask: Ask,
    fallback_on: Collection[str] | None,
    *,
    earlier: Hops = (),
) -> tuple[MeteredCall, int, Hops]:
    """Ask one model after the other until one answers; answers its call, its index, and the hops if there was a failure.

    The job's `hops` say who was asked and why it was left, as soon as there is more than one to ask. Where the vendors ask
    for a long wait and nobody else is left, the job is parked for as long, which uses no attempt.

    Args:
        ask: Makes the call and reads it to its end.
        fallback_on: Categories of errors after which the next one is asked. Default: `ErrorInfo.fallback`.
        earlier: The hops of the job's calls before this one.
    """
    hops: list[dict[str, object]] = []
    last: Exception | None = None
    too_small = 0  # the largest context window that did not hold the prompt
    for index, route in enumerate(routes):
        if too_small and not _may_hold(route, too_small):
            hops.append(_skipped(route, too_small))
            continue
        job.fallback_index = index
        hop = Hop(route)
        try:
            call = await ask(route, hop)
        except Exception as error:  # every SDK has its own; what it means is told by classify_error
            info = classify_error(error)
            hops.append(hop.facts(error, info))
            await _note(job, routes, [*earlier, *hops])
            if len(routes) == 1 or not _goes_on(info, fallback_on):
                _park_if_long(hops, error)
                if index and not isinstance(error, GlideMQError):
                    # What a later model refuses says nothing of the first: another attempt may help.
                    raise _exhausted(hops) from error
                _stay(error)
                raise
            if hop.call is not None and hop.call.delivered:
                await job.reset_stream("fallback", call=hop.call.call_id)
            if info.category is ErrorCategory.CONTEXT_WINDOW:
                too_small = max(too_small, context_window(route.model, route.provider) or 0)
            last = error
            continue
        if hops:
            hops.append(hop.facts(None, None))
            await _note(job, routes, [*earlier, *hops])
        return call, index, hops
    await _note(job, routes, [*earlier, *hops])
    _park_if_long(hops, last)
    if last is not None and all(hop["category"] == str(ErrorCategory.BUDGET) for hop in hops):
        raise last
    raise _exhausted(hops) from last


async def _note(job: RunningJob, routes: list[Route], hops: Hops) -> None:
    if len(routes) > 1:
        await job.note_hops(hops)


def _stay(error: Exception) -> None:
    """Have the queue not go on to another model, either: this handler has decided that."""
    with contextlib.suppress(AttributeError, TypeError):  # an exception with slots
        error.fallback = False  # type: ignore[attr-defined]


def _goes_on(info: ErrorInfo, fallback_on: Collection[str] | None) -> bool:
    return info.fallback if fallback_on is None else info.category in fallback_on


def _may_hold(route: Route, too_small: int) -> bool:
    """Whether a model may read what did not fit into a window; one that is not known may."""
    window = context_window(route.model, route.provider)
    return window is None or window > too_small


def _skipped(route: Route, too_small: int) -> dict[str, object]:
    return {
        "model": route.name,
        "provider": route.provider,
        "tokens": 0,
        "cost": None,
        "seconds": 0.0,
        "error": f"not asked: its context window is no larger than {too_small}, which was too small",
        "category": str(ErrorCategory.CONTEXT_WINDOW),
        "retryable": False,
    }


def _park_if_long(hops: list[dict[str, object]], error: Exception | None) -> None:
    """Have the job sent back until a provider takes calls again, if that is long and no earlier try would help.

    Raises:
        Throttled: So it is.
    """
    hopeful = [hop for hop in hops if hop["retryable"]]
    waits = [float(str(hop.get("retry_after", 0))) for hop in hopeful]
    is_limited = all(hop["category"] == str(ErrorCategory.RATE_LIMIT) for hop in hopeful)
    if waits and is_limited and min(waits) >= _LONG_WAIT:
        soonest = hopeful[waits.index(min(waits))]
        raise Throttled(str(soonest["provider"]), retry_after=min(waits)) from error


def _exhausted(hops: list[dict[str, object]]) -> FallbacksExhausted:
    waits = [float(str(hop["retry_after"])) for hop in hops if "retry_after" in hop]
    return FallbacksExhausted(
        [(str(hop["model"]), str(hop["error"])) for hop in hops],
        retryable=any(hop["retryable"] for hop in hops),
        retry_after=min(waits) if waits else None,
    )
