"""A model with tools: asks, runs what it calls, and asks again until it answers.

Each turn of the model and each call of a tool is a step of the job. Whatever interrupts it (a crash, a person who is
waited for, a full budget), the next run goes on where the last one was: nothing is done, paid for or shown twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from glidemq_core._keys import check_list
from glidemq_core._units import Seconds, seconds, whole
from glidemq_core.context import RunningJob
from glidemq_core.errors import (
    BudgetExceeded,
    ConnectionLost,
    CostUnknown,
    InvalidOption,
    LeaseLost,
    PayloadTooLarge,
    SignalTimeout,
    Throttled,
    UnrecoverableError,
)
from glidemq_llm._agent_parts import (
    Amounts,
    Call,
    calls_of,
    is_last_in,
    refusal_in,
    result_text,
    said,
    sum_of,
)
from glidemq_llm._ask import Chat, Convert, Handler, answer_of, chat_data
from glidemq_llm._fallback import Route, backends_of
from glidemq_llm._read import fields, items
from glidemq_llm._sent_back import Memory
from glidemq_llm.errors import TurnsExceeded
from glidemq_llm.metering import MeteredCall
from glidemq_llm.pricing import Pricing
from glidemq_llm.settings import MeterSettings
from glidemq_llm.tools import BadArguments, BoundTool, Tool, bind

T = TypeVar("T")

_REASON: Final = 1000
_HOPS: Final = 50
# Not for the model: they say what becomes of the job.
_OURS: Final = (
    UnrecoverableError,
    BudgetExceeded,
    CostUnknown,
    Throttled,
    LeaseLost,
    ConnectionLost,
)


def agent_handler(
    clients: Mapping[str, Any],
    tools: Sequence[Callable[..., Any] | Tool],
    *,
    model: str | None = None,
    max_turns: int = 10,
    approve: Collection[str] = (),
    approval_timeout: Seconds | None = None,
    pricing: Pricing | None = None,
    settings: MeterSettings | None = None,
    fallback_on: Collection[str] | None = None,
    convert: Convert | None = None,
) -> Handler:
    """A handler for jobs in which a model works with tools.

    A job's data is that of a chat job (see chat_handler), and its fallbacks are walked in each turn. The stream has
    the text of all turns, `tool_call` chunks, and a `tool_result` chunk for each call.

    The result: `{"text", "finish_reason", "turns", "tool_calls": [{"id", "name", "arguments", "is_error"}], "usage":
    {"tokens", "total_tokens", "cost", "status", "calls"}, "models", "ended_by"}`. Text and reason are the last turn's, usage
    is the sum over the turns, `ended_by` is "answer" or "budget".

    What a tool raises, and arguments that it does not take, are told to the model; an UnrecoverableError ends the job.
    A tool is a step: it may use the job it is given, but not wait in it (`sleep`, `wait_for_signal`, ...).

    Thinking and signatures go back to the model that made them, as Anthropic, Gemini, DeepSeek and OpenRouter ask for.
    DeepSeek, which asks for more than that, is known by its name "deepseek" in `clients`.

    A turn that a budget (with `on_exceeded="fail"`) has no room for fails the job; `queue.retry` goes on from there
    when the cap was raised. Before it comes to that, when there is room for one more turn but hardly for another, the
    model is made to answer at once, without tools: `ended_by` is "budget".

    Args:
        clients, model, pricing, settings, fallback_on, convert: As for chat_handler.
        tools: Functions, or `Tool`s. The calls of one turn run at the same time.
        max_turns: How often the model is asked at most.
        approve: Names of tools that a person has to approve. Before each call of one the job is parked: it waits for the
            signal `approve/TOOL/TURN.NUMBER`, its reason shows tool and arguments (`queue.suspended()` lists both). The
            signal's data: `{"approved": true}`, or false with `by` and `reason`, which the model is told.
        approval_timeout: Seconds after which a call that nobody approved counts as refused. Default: never.

    Raises:
        InvalidOption: As chat_handler; or a tool can't be told to a model, or one to approve is not there.
    """
    bound = bind(tools)
    unknown = sorted(set(check_list(approve, "approve")) - set(bound), key=repr)
    if unknown:
        raise InvalidOption("approve", unknown[0], f"no such tool; there are {', '.join(bound)}")
    whole(max_turns, "max_turns", low=1)
    if approval_timeout is not None:
        seconds(approval_timeout, "approval_timeout")
    chat = Chat(
        backends=backends_of(clients),
        model=model,
        settings=settings or MeterSettings(pricing=pricing or Pricing()),
        fallback_on=fallback_on,
        convert=convert,
    )

    async def handle(job: RunningJob) -> dict[str, Any]:
        data = _with_params(job.data, tools=[tool.definition for tool in bound.values()])
        return await _Agent(
            job=job,
            chat=chat,
            data=data,
            routes=chat.routes(job, data),
            tools=bound,
            max_turns=max_turns,
            approve=frozenset(approve),
            approval_timeout=approval_timeout,
            messages=list(data["messages"]),
        ).run()

    return handle


@dataclass(slots=True, kw_only=True)
class _Agent:
    """One run of one job.

    Attributes:
        messages: The conversation so far, in the chat format; the model's may have an `own` besides (`_sent_back`).
        turns: What the model's turns have brought; `done`: what became of its calls.
    """

    job: RunningJob
    chat: Chat
    data: Mapping[str, Any]
    routes: list[Route]
    tools: Mapping[str, BoundTool]
    max_turns: int
    approve: frozenset[str]
    approval_timeout: Seconds | None
    messages: list[Any]
    turns: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    done: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    async def run(self) -> dict[str, Any]:
        """Take turns until there is an answer; answers the job's result."""
        while True:
            turn = await self._turn()
            calls = [] if turn["is_last"] else calls_of(turn["tool_calls"], len(self.turns))
            if not calls:
                return self._result(turn)
            if len(self.turns) == self.max_turns:
                raise TurnsExceeded(self.max_turns, pending=[call.name for call in calls])
            self.messages.append(said(turn["text"], calls, turn["own"]))
            refusals = [await self._refusal(call) for call in calls]
            outcomes = await _all(
                [self._carry_out(call, why) for call, why in zip(calls, refusals, strict=True)]
            )
            for call, outcome in zip(calls, outcomes, strict=True):
                self.messages.append(
                    {"role": "tool", "tool_call_id": call.id, "content": outcome["content"]}
                )
                self.done.append(
                    {
                        "id": call.id,
                        "name": call.name,
                        "arguments": call.arguments,
                        "is_error": outcome["is_error"],
                    }
                )

    async def _turn(self) -> dict[str, Any]:
        try:
            turn = await self.job.step("turn", self._ask, inputs=self.messages, paid=True)
        except PayloadTooLarge as error:
            # Another attempt would pay for it again.
            raise UnrecoverableError(f"the model's turn is too long to be kept: {error}") from error
        self.turns.append(turn)
        return turn

    async def _ask(self) -> dict[str, Any]:
        hops = [hop for turn in self.turns for hop in turn["hops"]]
        is_last = await self._is_last()
        data = _with_params(self.data, tool_choice="none") if is_last else self.data
        memory = Memory()
        call, index, new = await self.chat.ask(
            self.job, self.routes, self.messages, data, earlier=hops[-_HOPS:], memory=memory
        )
        answer = answer_of(call, index)
        own = memory.kept() if answer["tool_calls"] else None
        return {**answer, "own": own, "is_last": is_last, "hops": new}

    async def _is_last(self) -> bool:
        """Has a budget room for this turn, but hardly for another?"""
        if not self.turns or not self.job.budgets:
            return False
        before = self.turns[-1]["usage"]
        spent = Amounts(before["tokens"], {"total": before["cost"]} if before["cost"] else {})
        needed = self._needed()
        states = [await self.job.budget.state(name) for name in self.job.budgets]
        return any(is_last_in(state, needed, spent) for state in states if state is not None)

    def _needed(self) -> Amounts:
        """What is set aside for the next turn."""
        route = self.routes[0]
        reserved = MeteredCall(
            "",
            api=route.backend.module.CHAT_API,
            provider=route.provider,
            request=self.chat.request(route, self.messages, self.data),
            settings=self.chat.settings,
        ).reservation()
        return Amounts(reserved["tokens"], reserved["costs"] or {})

    async def _refusal(self, call: Call) -> str | None:
        """Ask a person where one is to be asked; why the call is refused, or None."""
        if call.name not in self.approve or isinstance(self._read(call), str):
            return None
        try:
            signal = await self.job.wait_for_signal(
                f"approve/{call.name}/{len(self.turns)}.{call.number}",
                timeout=self.approval_timeout,
                reason=f"{call.name}({call.arguments})"[:_REASON],
            )
        except SignalTimeout:
            return "refused: nobody approved it in time"
        return refusal_in(signal.data)

    async def _carry_out(self, call: Call, refusal: str | None) -> dict[str, Any]:
        return await self.job.step(
            f"tool/{len(self.turns)}.{call.number}", self._outcome, call, refusal
        )

    async def _outcome(self, call: Call, refusal: str | None) -> dict[str, Any]:
        """What the model is told of its call, which readers see as well."""
        content, is_error = (refusal, True) if refusal else await self._called(call)
        more = {"error": "1"} if is_error else {}
        await self.job.stream_chunk("tool_result", content, id=call.id, name=call.name, **more)
        return {"content": content, "is_error": is_error}

    async def _called(self, call: Call) -> tuple[str, bool]:
        arguments = self._read(call)
        if isinstance(arguments, str):
            return arguments, True
        try:
            result = await self.tools[call.name].call(self.job, arguments)
            return result_text(result), False
        except _OURS:
            raise
        except Exception as error:  # noqa: BLE001 whatever a tool raises is the model's to deal with
            return f"{type(error).__name__}: {error}"[:2000], True

    def _read(self, call: Call) -> dict[str, Any] | str:
        """The arguments, or what is wrong with the call."""
        tool = self.tools.get(call.name)
        if tool is None:
            return f"there is no tool {call.name!r}; there are {', '.join(self.tools)}"
        try:
            return tool.read(call.arguments)
        except BadArguments as error:
            return f"the arguments {call.arguments[:200]!r} are wrong: {error}"

    def _result(self, last: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "text": last["text"],
            "finish_reason": last["finish_reason"],
            "turns": len(self.turns),
            "tool_calls": self.done,
            "usage": sum_of([turn["usage"] for turn in self.turns]),
            "models": list(dict.fromkeys(turn["model"] for turn in self.turns)),
            "ended_by": "budget" if last["is_last"] else "answer",
        }


def _with_params(data: object, *, tools: Sequence[Any] = (), **params: Any) -> dict[str, Any]:
    """A job's data with more for the provider; its own tools (a vendor's search, ...) stay beside ours."""
    plain = chat_data(data)
    given = fields(plain.get("params"))
    if tools:
        params["tools"] = [*items(plain.get("tools")), *items(given.get("tools")), *tools]
    return {**plain, "params": {**given, **params}}


async def _all(work: Sequence[Awaitable[T]]) -> list[T]:
    """Bring all to their ends, also when one fails: what the others have done is remembered then."""

    async def caught(one: Awaitable[T]) -> T | Exception:
        try:
            return await one
        except Exception as error:  # noqa: BLE001 raised below
            return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(caught(one)) for one in work]
    ended = [task.result() for task in tasks]
    for one in ended:
        if isinstance(one, Exception):
            raise one
    return cast("list[T]", ended)
