"""Handlers that spend money at the fake provider, and an auditor that compares three books: the provider's log, the
ledger, and the usage on the jobs.

A call's model is its id ("job/run/n"), so that the provider's log says which call each line is of.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any

from glidemq_core import Queue
from glidemq_core.ledger import Ledger
from tests.harness.provider import Behaviour, Provider, ProviderCall

INPUT = 5
_NANO = Decimal(1).scaleb(-9)
_OPEN_ENDS = ("unverified", "late_refused")


def price(tokens: Mapping[str, int]) -> dict[str, Decimal]:
    """What tokens cost: odd nano-units, which a float could not add up."""
    return {"total": (tokens.get("input", 0) * 7 + tokens.get("output", 0) * 331) * _NANO}


def behaviour(output: int = 5, **more: Any) -> Behaviour:
    """A call that is billed INPUT and `output` tokens."""
    return Behaviour(tokens=output, input=INPUT, **more)


async def ask(port: int, model: str, *, limit: int = 1000) -> dict[str, int]:
    """Ask the fake provider for a whole answer; answers the tokens it billed. A connection of its own per call."""
    messages = [{"role": "user", "content": "say it"}]
    body = json.dumps({"model": model, "messages": messages, "max_tokens": limit}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        headers = dict(line.split(b": ", 1) for line in answer.lower().splitlines()[1:] if line)
        found = json.loads(await reader.readexactly(int(headers[b"content-length"])))
    finally:
        writer.close()
    usage = found["usage"]
    return {"input": usage["prompt_tokens"], "output": usage["completion_tokens"]}


def spender(port: int, *, estimate: int = 5, then: Any = None) -> Any:
    """A handler that makes one paid call; `then(job)` is awaited between the answer and its booking."""

    async def spend(job: Any) -> int:
        expected = {"input": INPUT, "output": estimate}
        async with job.llm_call("m", tokens=expected, costs=price(expected), timeout=5) as call:
            used = await ask(port, call.id)
            if then is not None:
                await then(job)
            call.tokens, call.costs = used, price(used)
        return sum(used.values())

    return spend


async def money_problems(
    ledger: Ledger, budgets: Sequence[str], provider: Provider, queue: Queue, ids: Collection[str]
) -> list[str]:
    """What does not agree, once nothing runs any more: every call of the provider's log is in each budget, to the unit.

    A call whose worker died stands there as unverified, with at least what the provider billed. Nothing is reserved.
    """
    calls = {call.model: call for call in provider.calls() if call.outcome != "limited"}
    problems: list[str] = []
    for id in budgets:
        problems += await _of_budget(ledger, id, calls)
    for job_id in ids:
        problems += await _of_job(queue, job_id, calls)
    return problems


async def _of_budget(ledger: Ledger, id: str, calls: Mapping[str, ProviderCall]) -> list[str]:
    state = await ledger.budget(id)
    assert state is not None
    problems = [f"{id}: {problem}" for problem in (await ledger.audit(id)).problems]
    problems += [f"{id}: {name} is still reserved: {held}" for name, held in state.reserved.items()]
    sums, kinds = await _entries(ledger, id)
    for call in calls.values():
        problems += _of_call(id, call, sums.get(call.model, {}), kinds.get(call.model, ""))
    for call_id in set(sums) - set(calls):
        if kinds[call_id] not in _OPEN_ENDS and any(sums[call_id].values()):
            problems.append(f"{id}: {call_id} was booked, but the provider never saw it")
    for name, used in state.used.items():
        booked = sum((one.get(name, Decimal(0)) for one in sums.values()), Decimal(0))
        if used != booked:
            problems.append(f"{id}: {name} is {used}, but its entries make {booked}")
        loose = sum(
            (one.get(name, Decimal(0)) for call, one in sums.items() if kinds[call] in _OPEN_ENDS),
            Decimal(0),
        )
        if state.caps[name].unverified != loose:
            problems.append(
                f"{id}: {state.caps[name].unverified} of {name} unverified, not {loose}"
            )
    return problems


async def _entries(ledger: Ledger, id: str) -> tuple[dict[str, dict[str, Decimal]], dict[str, str]]:
    """What each call has added to the used sums, and what the last word on it was."""
    sums: dict[str, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    kinds: dict[str, str] = {}
    for entry in reversed(await ledger.history(id, limit=1000)):
        if entry.call:
            kinds[entry.call] = entry.kind
            for name, change in entry.changes.items():
                sums[entry.call][name] += change
    return sums, kinds


def _of_call(id: str, call: ProviderCall, sums: Mapping[str, Decimal], kind: str) -> list[str]:
    billed: dict[str, Any] = {"tokens.input": call.input, "tokens.output": call.output}
    billed["cost.total"] = price({"input": call.input, "output": call.output})["total"]
    wrong = {
        name: (sums.get(name, Decimal(0)), due)
        for name, due in billed.items()
        if (sums.get(name, Decimal(0)) < due)
        or (kind not in _OPEN_ENDS and sums.get(name, Decimal(0)) != due)
    }
    return [f"{id}: {call.model} ({kind}): booked and billed differ: {wrong}"] if wrong else []


async def _of_job(queue: Queue, id: str, calls: Mapping[str, ProviderCall]) -> list[str]:
    """A job's own book has no call twice, and no figure that is not the provider's."""
    job = await queue.get(id)
    assert job is not None
    listed = [call["call"] for call in job.usage.calls]
    problems = [f"{id}: {call} is listed twice" for call in set(listed) if listed.count(call) > 1]
    for booked in job.usage.calls:
        true = calls.get(booked["call"])
        if booked["status"] == "complete" and (
            true is None or booked["tokens"] != {"input": true.input, "output": true.output}
        ):
            problems.append(f"{id}: {booked} is not what the provider says: {true}")
    return problems


def rate_problems(
    provider: Provider, *, per_minute: int, burst: int, windows: Sequence[float]
) -> list[str]:
    """Windows in which the provider admitted more calls than the rate and its burst allow, one for the clocks' sake."""
    problems: list[str] = []
    for window in windows:
        most, allowed = provider.busiest(window), per_minute * window / 60 + burst + 1
        if most > allowed:
            problems.append(f"{most} calls within {window:g} s, allowed are {allowed:g}")
    return problems
