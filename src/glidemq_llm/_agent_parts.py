"""The plain parts of an agent: what the model's calls, a person's answers and a budget's figures mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, cast

import msgspec

from glidemq_core import _codec
from glidemq_core.budget import BudgetState

# A step holds 256 KiB; more than this helps no model either.
_RESULT_BYTES: Final = 200_000


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a tool, as the model made it; `number` is its place in the turn, from 1."""

    id: str
    name: str
    arguments: str
    number: int


def calls_of(given: Sequence[Mapping[str, str]], turn: int) -> list[Call]:
    """The model's calls; some vendors give them no id."""
    return [
        Call(
            id=call["id"] or f"call_{turn}_{number}",
            name=call["name"],
            arguments=call["arguments"],
            number=number,
        )
        for number, call in enumerate(given, 1)
    ]


def said(text: str, calls: Sequence[Call], own: Mapping[str, Any] | None) -> dict[str, Any]:
    """The model's message; arguments that are no JSON would be refused when they are sent back.

    Args:
        own: What its vendor wants to see again (`_sent_back`).
    """
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text,
        "tool_calls": [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _object(call.arguments)},
            }
            for call in calls
        ],
    }
    return message if own is None else {**message, "own": own}


def _object(text: str) -> str:
    try:
        return text if isinstance(json.loads(text), dict) else "{}"
    except ValueError:
        return "{}"


def refusal_in(data: object) -> str | None:
    """Why a person's answer is no approval; None if it is one. Only a plain yes is."""
    given = cast("Mapping[str, Any]", data) if isinstance(data, Mapping) else None
    facts: Mapping[str, Any] = {"approved": data} if given is None else given
    if facts.get("approved") is True:
        return None
    by, reason = facts.get("by"), facts.get("reason")
    return "refused" + (f" by {by}" if by else "") + (f": {reason}" if reason else "")


def result_text(result: object) -> str:
    """A tool's result as the model reads it."""
    text = result if isinstance(result, str) else _codec.dumps(result, "result")
    if len(text.encode()) > _RESULT_BYTES:
        raise ValueError(f"the result is longer than {_RESULT_BYTES} bytes")
    return text


@dataclass(frozen=True, slots=True)
class Amounts:
    """Tokens by category, and money by name."""

    tokens: Mapping[str, int]
    costs: Mapping[str, Any]

    def under(self, cap: str, weights: Mapping[str, float]) -> float:
        """How much of it falls under a cap of that name."""
        kind, _, name = cap.partition(".")
        if kind == "cost":
            return float(self.costs.get(name, 0))
        if name:
            return self.tokens.get(name, 0)
        return sum(count * weights.get(category, 1) for category, count in self.tokens.items())


def is_last_in(state: BudgetState, needed: Amounts, spent: Amounts) -> bool:
    """Has a budget hardly room for a turn after the next? That needs as much again, and what tools will have answered."""
    if state.on_exceeded != "fail":
        return False
    for cap, left in state.remaining.items():
        asked, grows = (one.under(cap, state.token_weights) for one in (needed, spent))
        if asked and float(left) < asked + 2 * grows:
            return True
    return False


def sum_of(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The usage of all turns; its cost is None if that of any is."""
    tokens: dict[str, int] = {}
    for usage in usages:
        for name, count in usage["tokens"].items():
            tokens[name] = tokens.get(name, 0) + count
    costs = [usage["cost"] for usage in usages]
    cost = None if None in costs else format(sum(map(Decimal, costs), Decimal()).normalize(), "f")
    statuses = {usage["status"] for usage in usages}
    return {
        "tokens": tokens,
        "total_tokens": sum(tokens.values()),
        "cost": cost,
        "status": "complete" if statuses == {"complete"} else "partial",
        "calls": len(usages),
    }
