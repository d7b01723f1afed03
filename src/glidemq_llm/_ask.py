"""Asking models for a job, as the ready-made handlers do: which data a job has, how a call is made, what it leaves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from glidemq_core.context import RunningJob
from glidemq_core.errors import UnrecoverableError
from glidemq_llm._drivers import AsyncDriver
from glidemq_llm._fallback import Backend, Hop, Hops, Route, first_that_answers, routes_of
from glidemq_llm._sent_back import Memory, said_to
from glidemq_llm.metering import MeteredCall
from glidemq_llm.settings import MeterSettings

Handler: TypeAlias = Callable[[RunningJob], Awaitable[dict[str, Any]]]
Convert: TypeAlias = Callable[[str, list[Any], dict[str, Any]], tuple[list[Any], dict[str, Any]]]

_RESERVED = frozenset({"model", "messages", "provider", "params", "input"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """Models that are asked in the chat format, one after the other until one answers."""

    backends: Mapping[str, Backend]
    model: str | None
    settings: MeterSettings
    fallback_on: Collection[str] | None = None
    convert: Convert | None = None

    def routes(self, job: RunningJob, data: Mapping[str, Any]) -> list[Route]:
        """See routes_of."""
        return routes_of(job, self.backends, data, self.model)

    async def ask(
        self,
        job: RunningJob,
        routes: list[Route],
        messages: Sequence[Any],
        data: Mapping[str, Any],
        *,
        earlier: Hops = (),
        memory: Memory | None = None,
    ) -> tuple[MeteredCall, int, Hops]:
        """Ask for the next message; see first_that_answers.

        Args:
            data: The job's, with what goes to the provider besides the messages.
            memory: Notes what is to be sent back with the message.
        """

        async def ask(route: Route, hop: Hop) -> MeteredCall:
            module = route.backend.module
            note = (
                _hide
                if memory is None
                else memory.begin(module.CHAT_API, route.provider, route.model)
            )
            request = self.request(route, messages, data)
            hop.call = new_call(job, route, module.CHAT_API, request, self.settings)
            driver = AsyncDriver(job, hop.call)
            await read_stream(
                driver,
                module,
                lambda: module.send_chat(route.backend.client, driver.call.sent(request)),
                note,
            )
            return hop.call

        return await first_that_answers(job, routes, ask, self.fallback_on, earlier=earlier)

    def request(
        self, route: Route, messages: Sequence[Any], data: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The arguments of the SDK's call."""
        whom = (route.backend.module.CHAT_API, route.provider, route.model)
        said, params = [said_to(*whom, message) for message in messages], params_of(data, route)
        if self.convert is not None:
            said, params = self.convert(route.provider, said, params)
        return route.backend.module.chat_request(route.model, said, params)


def new_call(
    job: RunningJob,
    route: Route,
    api: str,
    request: Mapping[str, Any],
    settings: MeterSettings,
    *,
    has_answer: bool = True,
) -> MeteredCall:
    """A call that is about to be made."""
    return MeteredCall(
        job.next_call_id(),
        api=api,
        provider=route.provider,
        request=request,
        settings=settings,
        attempt=job.attempt,
        has_answer=has_answer,
    )


def _hide(_event: object) -> bool:
    return True


async def read_stream(
    driver: AsyncDriver,
    module: Any,
    send: Callable[[], Awaitable[Any]],
    is_hidden: Callable[[Any], bool] = _hide,
) -> None:
    """Send a request and read its stream to the end."""
    source, close = module.reading(await driver.open(send))
    async for _ in driver.events(source, is_hidden, close):
        pass


def chat_data(data: object) -> Mapping[str, Any]:
    """The data of a chat job.

    Raises:
        UnrecoverableError: It has no messages.
    """
    found = mapping_with(data, "messages", "a chat job")
    if not isinstance(found["messages"], list):
        raise UnrecoverableError('the "messages" of a chat job are a list')
    return found


def mapping_with(data: object, key: str, what: str) -> Mapping[str, Any]:
    """The data of a job if it is a mapping with that key.

    Raises:
        UnrecoverableError: It is not.
    """
    if not isinstance(data, Mapping) or key not in data:
        raise UnrecoverableError(f'the data of {what} is a mapping with "{key}"')
    return cast("Mapping[str, Any]", data)


def params_of(data: Mapping[str, Any], route: Route) -> dict[str, Any]:
    """What goes to the provider as it is.

    Raises:
        UnrecoverableError: Its "params" are none.
    """
    plain = {name: value for name, value in data.items() if name not in _RESERVED}
    params: object = data.get("params") or {}
    if not isinstance(params, Mapping):
        raise UnrecoverableError('the "params" of a job are a mapping')
    return {**plain, **cast("Mapping[str, Any]", params), **route.params}


def usage_of(call: MeteredCall) -> dict[str, Any]:
    """What a call has used, for a result."""
    settlement = call.settlement
    if settlement is None:
        raise AssertionError("a call that ended is settled")
    return {
        "tokens": dict(settlement.usage.tokens),
        "total_tokens": settlement.usage.total_tokens,
        "cost": str(settlement.cost.total) if settlement.cost is not None else None,
        "status": settlement.usage.status,
    }


def answer_of(call: MeteredCall, index: int) -> dict[str, Any]:
    """What a call has brought, for a result."""
    answered_by = call.settlement.usage.model if call.settlement is not None else None
    return {
        "text": call.text,
        "tool_calls": call.tool_calls,
        "finish_reason": str(call.finish.reason) if call.finish is not None else "unknown",
        "usage": usage_of(call),
        "model": answered_by or call.model,
        "provider": call.provider,
        "fallback_index": index,
    }
