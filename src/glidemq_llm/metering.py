"""The life of one model call inside a job: what it writes into the stream, and what it books when it ends.

No server and no SDK here: `_drivers` carries out what this decides, for async and for sync clients.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from glidemq_core._codec import sound_text
from glidemq_core.errors import BudgetExceeded, CostUnknown
from glidemq_core.throttle import Throttle
from glidemq_llm import _together
from glidemq_llm._answers import failure_of, is_empty, read_answer
from glidemq_llm._money import cost_of, costs_to_hold
from glidemq_llm._read import fields, text
from glidemq_llm._request import choices, thinking_budget
from glidemq_llm._shrink import limited_to, output_that_fits
from glidemq_llm.chunks import ChunkType, Finish, FinishReason, Piece
from glidemq_llm.classify import classify_error
from glidemq_llm.errors import (
    AnswerUnreadable,
    StreamFailed,
    StreamInterrupted,
    StreamStalled,
    UnpricedModel,
)
from glidemq_llm.limits import headers_of, parse_rate_limits, remaining_now
from glidemq_llm.pricing import Cost
from glidemq_llm.settings import MeterSettings
from glidemq_llm.tokens import Estimate, ReceivedCounter, estimate_tokens
from glidemq_llm.translators import Translator, translator
from glidemq_llm.usage import Usage, UsageAccumulator

logger = logging.getLogger("glidemq_llm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What a call leaves behind: chunks for the stream, and the report for the ledger (None: nothing was used)."""

    pieces: list[Piece]
    report: dict[str, Any] | None
    usage: Usage
    cost: Cost | None


class MeteredCall:
    """One call. Feed it what arrives; settle it once, however it ends.

    Args:
        call_id: job/run/n.
        api: Whose events these are (see `translators.translator`).
        request: The arguments of the SDK's call.
        has_answer: Whether it yields tokens; vectors are none.
    """

    def __init__(
        self,
        call_id: str,
        *,
        api: str,
        provider: str,
        request: Mapping[str, Any],
        settings: MeterSettings,
        attempt: int = 1,
        has_answer: bool = True,
    ) -> None:
        self.call_id = call_id
        self.provider = provider
        self.model = text(request.get("model") or request.get("modelId")) or ""
        self.settings = settings
        self.delivered = False
        self.is_settled = False
        self.is_sent = False
        self.has_begun = False
        self.has_company = False
        self._failure: Piece | None = None
        self._attempt = attempt
        self._has_answer = has_answer
        # There an index tells alternative answers apart, elsewhere the parts of one.
        self._has_choices = api in ("openai.chat", "gemini")
        self._request = request
        self._translator: Translator = translator(api)
        self._usage = UsageAccumulator(provider=provider)
        self._expected: Estimate | None = None
        self._sliced = 0
        self._api = api
        self._shrunk: int | None = None  # what its answer was lowered to, of `_wanted`
        self._wanted = 0
        self._changes: dict[str, Any] = {}
        self._seen = 0  # tokens of the answer so far, roughly
        self._finish: Finish | None = None
        self._pieces: list[Piece] = []
        self._headers: object = None
        self._answered_at = 0.0
        self.settlement: Settlement | None = None

    @property
    def is_finished(self) -> bool:
        """Has a terminal marker arrived?"""
        return self.finish is not None

    @property
    def finish(self) -> Finish | None:
        """Why the answer ended, once it is known."""
        return self._finish or self._translator.finish

    def check(self) -> None:
        """Asked before the call is sent.

        Raises:
            UnpricedModel: No price is known for it, and the policy is to refuse.
        """
        if self.settings.pricing.on_unpriced == "deny":
            expected = self.estimate()
            tokens = {"input": expected.input, "output": expected.output_max}
            self.settings.pricing.quote(
                Usage(tokens=tokens, model=self.model, provider=self.provider)
            )

    @property
    def limits(self) -> dict[str, Throttle]:
        """The limiters of the settings that this call passes."""
        names = (f"{self.provider}/{self.model}", self.provider, "*")
        return {name: self.settings.limits[name] for name in names if name in self.settings.limits}

    def reservation(self) -> dict[str, Any]:
        """What to reserve before the call is sent: arguments of `job.reserve`."""
        expected = self.estimate()
        output = expected.output_max if self._shrunk is None else self._shrunk
        if self.settings.slice is not None and self._request.get("stream"):
            output = min(output, self.settings.slice)
        self._sliced = output
        return {**self._amounts(expected.input, output), "limits": self.limits}

    @property
    def may_shrink(self) -> bool:
        """May it be made smaller where a budget has no room for it?"""
        return self.settings.on_tight == "shrink" and self.estimate().output_max > 0

    def shrink(self, refusal: BudgetExceeded, weights: Mapping[str, float]) -> bool:
        """Lower the limit of the answer to what a budget has room for; False if that is too little, and all is as
        it was before the first refusal.
        """
        asked = self.reservation()
        output: int = asked["tokens"]["output"]
        fits = output_that_fits(
            refusal, output, weight=weights.get("output", 1.0), price=self._output_price(output)
        )
        each = fits // choices(self._request)
        if each < self.settings.min_output + thinking_budget(self._request):
            self._shrunk, self._changes = None, {}
            return False
        self._wanted = self._wanted or output
        self._shrunk = each * choices(self._request)
        logger.info(
            "call %s: budget %r leaves %d of %d output tokens",
            self.call_id,
            refusal.budget,
            self._shrunk,
            self._wanted,
        )
        self._changes = limited_to(self._request, each, api=self._api, provider=self.provider)
        return True

    def _output_price(self, output: int) -> float:
        cost = self.settings.pricing.quote(
            Usage(tokens={"output": output}, model=self.model, provider=self.provider)
        )
        return float(cost.total * 10**9) / output if cost is not None and output else 0.0

    def sent(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments that the call is sent with, once it is admitted: those given, but for what was lowered."""
        return {**arguments, **self._changes} if self._changes else arguments

    @property
    def needs_slice(self) -> bool:
        """Is the answer about to outgrow what is reserved for it?"""
        slice_ = self.settings.slice
        return slice_ is not None and 0 < self._sliced <= self._seen + slice_ // 8

    def next_slice(self) -> dict[str, Any]:
        """The new totals: arguments of `job.extend`."""
        self._sliced = max(self._sliced, self._seen) + (self.settings.slice or 0)
        return self._amounts(self.estimate().input, self._sliced)

    def _amounts(self, input: int, output: int) -> dict[str, Any]:
        tokens = {"input": input, "output": output}
        usage = Usage(tokens=tokens, model=self.model, provider=self.provider)
        return {
            "tokens": tokens,
            "costs": costs_to_hold(self.settings.pricing, usage),
            "timeout": self.settings.call_timeout,
        }

    def refused(self, refusal: CostUnknown) -> UnpricedModel:
        """The error of a call whose price a budget needs, and nobody knows."""
        return UnpricedModel(
            self.model, provider=self.provider, budget=refusal.budget, cap=refusal.cap
        )

    def feed(self, event: object) -> list[Piece]:
        """Take in one event of a stream; answers what it adds to the job's stream."""
        read = fields(event)
        self._usage.feed(read)
        pieces = self._translator.translate(read)
        if not pieces:
            return pieces if self.has_begun else self._begin([])
        for piece in pieces:
            if piece.type in _COUNTED:
                self.delivered = True
                # Some send a token a delta, others dozens; a token is four letters or so.
                self._seen += len(piece.content) // 4 or 1
            elif piece.type == _ERROR:
                self._failure = piece
        if self._failure is not None:  # settling writes it
            pieces = [piece for piece in pieces if piece.type != _ERROR]
        shown = self._shown(pieces)
        if not self.has_begun:
            return self._begin(shown)
        return self._named(shown) if self.has_company else shown

    def take(self, response: object) -> list[Piece]:
        """Take in a whole answer; answers the pieces of it.

        Raises:
            AnswerUnreadable: It is a text: SDKs hand out what is not JSON as it came. Or it is empty.
            StreamFailed: It is an error under status 200.
        """
        if isinstance(response, str | bytes) and self._api != "openai.media":  # a transcript
            raise self.unreadable(f"it begins with {response[:100]!r}")
        if is_empty(response):
            raise self.unreadable("it is empty")
        self._usage.feed(response)
        failure = failure_of(response)
        if failure is not None:
            raise self._failed(failure)
        pieces, self._finish = read_answer(response)
        self.delivered = bool(pieces)
        return self._begin(self._shown(pieces))

    def answered(self, answer: object) -> None:
        """Take in what the SDK has returned: its headers say what is left of the vendor's limits."""
        self._headers, self._answered_at = headers_of(answer), time.monotonic()

    def remaining(self) -> dict[str, int]:
        """What the vendor says is left, for the call's limiters."""
        if self._headers is None:
            return {}
        age = time.monotonic() - self._answered_at
        return remaining_now(parse_rate_limits(self._headers, self.provider), age)

    def fault(self) -> StreamInterrupted | StreamFailed | None:
        """The error of a stream that has just ended: it said that it failed, or it lacks its terminal marker."""
        if self._failure is not None:
            return self._failed(self._failure)
        if self.is_finished:
            return None
        return StreamInterrupted(model=self.model, provider=self.provider, delivered=self.delivered)

    def _failed(self, failure: Piece) -> StreamFailed:
        return StreamFailed(
            failure.content,
            code=failure.fields.get("code"),
            model=self.model,
            provider=self.provider,
            delivered=self.delivered,
        )

    def unreadable(self, reason: str) -> AnswerUnreadable:
        """The error of an answer that is not in its provider's format."""
        return AnswerUnreadable(
            reason[:500], model=self.model, provider=self.provider, delivered=self.delivered
        )

    def stalled(self, limit: float, *, is_first: bool) -> StreamStalled:
        """The error of a stream that was silent for longer than `limit` seconds."""
        return StreamStalled(
            limit=limit,
            kind="first_event" if is_first else "idle",
            model=self.model,
            provider=self.provider,
            delivered=self.delivered,
        )

    @property
    def lacks_usage(self) -> bool:
        """Has the answer ended, but not yet said what it has used?"""
        return self.is_finished and not self.has_all

    @property
    def has_all(self) -> bool:
        """Has the answer ended and said what it has used?"""
        return self.is_finished and self._usage.result().status == "complete"

    def last_words(self) -> list[Piece]:
        """What the stream is told of a call that is settled only after its job has ended."""
        if not self.has_begun:
            return []
        return [Piece(ChunkType.DONE, FinishReason.CANCELLED, {"call": self.call_id, "raw": ""})]

    def settle(self, error: BaseException | None, *, whole: bool = False) -> Settlement:
        """End the call.

        Args:
            error: What ended it. None: it ended well, or whoever read it has left. What may have been billed all the
                same is estimated from the request and from what has arrived, and flagged.
            whole: The answer came in one piece, not as a stream.
        """
        self.is_settled = True
        if not isinstance(error, Exception):
            error = None  # cancelled, or its generator was closed: the caller has left
        usage = self._usage.result(whole=whole)
        if self.delivered and usage.status == "complete" and self._is_hollow(usage):
            usage = dataclasses.replace(usage, status="partial" if usage.tokens else "missing")
        was_billed = self.is_sent and (
            error is None or self.delivered or classify_error(error).billed
        )
        self._learn(usage)
        if usage.status != "complete" and was_billed:
            usage = self._estimated(usage)
        if usage.model is None:  # Bedrock and Cohere do not say who answered
            usage = replace(usage, requested_model=self.model or None)
        cost = cost_of(self.settings.pricing, usage, asked=self.model)
        report = (
            self._report(usage, cost)
            if self.settings.report and (usage.tokens or was_billed)
            else None
        )
        pieces = self._last_pieces(usage, cost, error)
        _together.end(self)
        self.settlement = Settlement(pieces=pieces, report=report, usage=usage, cost=cost)
        return self.settlement

    @property
    def text(self) -> str:
        """The visible text that has arrived."""
        # Some cut in the middle of a character: joined it is whole again.
        return sound_text(
            "".join(
                piece.content
                for piece in self._pieces
                if piece.type == ChunkType.CONTENT
                and not (self._has_choices and piece.fields.get("index", "0") != "0")
            )
        )

    @property
    def tool_calls(self) -> list[dict[str, str]]:
        """The tool calls that have arrived and are the caller's to answer: id, name, arguments (JSON text)."""
        calls: dict[str, dict[str, str]] = {}
        theirs: set[str] = set()
        for piece in self._pieces:
            if piece.type == ChunkType.TOOL_CALL:
                index = piece.fields.get("index", "0")
                if index in theirs or piece.fields.get("server"):
                    theirs.add(index)
                    continue
                call = calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
                call["id"] = piece.fields.get("id", call["id"]) or call["id"]
                call["name"] = piece.fields.get("name", call["name"]) or call["name"]
                call["arguments"] += piece.content
        for call in calls.values():
            call["arguments"] = sound_text(call["arguments"])
        return list(calls.values())

    def estimate(self) -> Estimate:
        """What the call is expected to use, from its request."""
        if self._expected is None:
            settings = self.settings
            found = estimate_tokens(
                self._request,
                provider=self.provider,
                corrections=settings.learned,
                expected_output=settings.learned.usual_output(self.model),
                default_output=settings.default_output,
            )
            self._expected = found if self._has_answer else replace(found, output_max=0)
        return self._expected

    def _learn(self, usage: Usage) -> None:
        """Compare what was expected, if that was asked for, with what the provider says."""
        if self._expected is None or usage.status != "complete" or usage.source != "provider":
            return
        self.settings.learned.learn(self.model, self._expected, usage.input_tokens)
        if self.finish is not None and self.finish.reason is not FinishReason.LENGTH:
            each = -(-usage.output_tokens // choices(self._request))
            self.settings.learned.learn_output(self.model, each)

    @staticmethod
    def _is_hollow(usage: Usage) -> bool:
        """Is an answer said to have taken nothing? Some servers state usage that they don't count."""
        return (
            not usage.output_tokens and not usage.counts and set(usage.details) != {"total_tokens"}
        )

    def _begin(self, pieces: list[Piece]) -> list[Piece]:
        if self.has_begun:
            return pieces
        self.has_begun = True
        facts = {
            "call": self.call_id,
            "model": self.model,
            "provider": self.provider,
            "attempt": str(self._attempt),
        }
        if self._shrunk is not None:
            facts["max_tokens"] = str(self._shrunk)
        _together.begin(self)
        return [Piece(ChunkType.START, "", facts), *self._named(pieces)]

    def _named(self, pieces: list[Piece]) -> list[Piece]:
        """Pieces that say whose they are, while others of the run answer at the same time."""
        if not self.has_company:
            return pieces
        return [piece._replace(fields={**piece.fields, "call": self.call_id}) for piece in pieces]

    def _shown(self, pieces: list[Piece]) -> list[Piece]:
        self._pieces += pieces
        if self.settings.include_reasoning:
            return pieces
        return [piece for piece in pieces if piece.type != ChunkType.REASONING]

    def _estimated(self, usage: Usage) -> Usage:
        counter = ReceivedCounter(self.model, self.provider)
        for piece in self._pieces:
            if piece.type in _COUNTED:
                counter.add(piece.content, _COUNTED[piece.type])
        received = counter.counts()
        return usage.with_estimate(
            input=self.estimate().input,
            output=received.get("output", 0),
            reasoning=received.get("reasoning", 0),
        )

    def _report(self, usage: Usage, cost: Cost | None) -> dict[str, Any]:
        details: dict[str, object] = {"source": usage.source}
        if usage.counts:
            details["counts"] = dict(usage.counts)
        if cost is not None:
            details["priced_by"] = cost.source
        if self._shrunk is not None:
            details["shrunk"] = {"from": self._wanted, "to": self._shrunk}
        return {
            "call": self.call_id,
            "model": usage.model or self.model or "unknown",
            "provider": usage.provider or self.provider,
            "tokens": dict(usage.tokens),
            "costs": cost.as_costs() if cost is not None else None,
            "status": usage.status,
            "details": details,
        }

    def _last_pieces(
        self, usage: Usage, cost: Cost | None, error: BaseException | None
    ) -> list[Piece]:
        if not self.has_begun:
            return []
        facts: dict[str, Any] = {
            "model": usage.model or self.model,
            "tokens": dict(usage.tokens),
            "total_tokens": usage.total_tokens,
            "cost": str(cost.total) if cost is not None else None,
        }
        named = {"call": self.call_id}  # by the time that these are written others may have begun
        pieces = [Piece(ChunkType.USAGE, json.dumps(facts), {**named, "status": usage.status})]
        if error is None:
            finish = self.finish or Finish(FinishReason.CANCELLED, "")
            pieces.append(Piece(ChunkType.DONE, finish.reason, {**named, "raw": finish.raw[:200]}))
        else:
            info = classify_error(error)
            more = {
                **named,
                "category": str(info.category),
                "code": info.code or "",
                "retryable": str(info.retryable).lower(),
            }
            pieces.insert(0, Piece(ChunkType.ERROR, str(error)[:1000], more))
        return pieces


_ERROR: Final = ChunkType.ERROR
_COUNTED: Final[dict[str, str]] = {
    ChunkType.CONTENT: "output",
    ChunkType.REFUSAL: "output",
    ChunkType.TOOL_CALL: "output",
    ChunkType.IMAGE: "output",
    ChunkType.REASONING: "reasoning",
}
