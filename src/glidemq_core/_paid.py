"""The model calls of a running job: reserved before they are sent, booked when they have ended."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal, TypeAlias, TypedDict, get_args

from . import _codec
from ._allowance import Allowance
from ._amounts import left, nano_costs, token_counts
from ._gate import Gate
from ._host import Host
from ._ledger import Outcome as CallOutcome
from ._run import Run
from ._units import Money, Seconds, seconds
from .errors import InvalidOption
from .throttle import Throttle

_DAY: Final = 86_400.0  # the longest pause of a limiter
Status: TypeAlias = Literal["complete", "partial", "missing"]


@dataclass(slots=True)
class ManualCall:
    """A model call made by hand (see RunningJob.llm_call).

    Attributes:
        id: The call's id.
        tokens, costs: What it has used; None until it is known.
    """

    id: str
    tokens: Mapping[str, int] | None = None
    costs: Mapping[str, Money] | None = None


class PaidCalls:
    """What a running job can do about the money it spends."""

    __slots__ = ("_calls", "_host", "_run", "id")

    def __init__(self, run: Run, host: Host) -> None:
        self.id = run.id
        self._run = run
        self._host = host
        self._calls = 0

    async def report_usage(
        self,
        *,
        model: str,
        tokens: Mapping[str, int],
        costs: Mapping[str, Money] | None = None,
        provider: str = "",
        call: str | None = None,
        status: str = "complete",
        outcome: CallOutcome = "none",
        retry_after: float = 0.0,
        remaining: Mapping[str, int] | None = None,
        details: Mapping[str, object] | None = None,
    ) -> bool:
        """Book what one model call has used; calls add up, failed attempts count too.

        Args:
            model: As the provider answered it.
            tokens: Per category, disjoint: their sum is the total.
            costs: Amounts of money per name, "total" among them; None for a price that is not known. Budgets then count
                what was reserved; where nothing was, one that caps money stops the job's next step.
            call: The call's id within the job; reporting the same id twice counts once. Default: a new one per report.
            status: "complete", "partial" or "missing": how sure the numbers are.
            outcome: How the provider fared, for limiters: "ok", "limited" (429), "error", "none".
            retry_after: Seconds the provider asks to wait.
            remaining: What the provider says is left of a minute's limits, by axis ("rpm", "tpm", "input_tpm",
                "output_tpm"): adaptive limiters let no more than that pass at once.

        Returns:
            False if this call was booked before.

        Raises:
            InvalidOption: A count is not a non-negative integer, a cost not an amount, a word not known; nothing is booked.
        """
        # What the ledger would refuse must be refused before the job books the call: else its budgets would lack it.
        model = _named(model, "model")
        provider = _codec.checked_text(provider, "provider")
        call = self.next_call_id() if call is None else _named(call, "call")
        if status not in get_args(Status):
            raise InvalidOption("status", status, "not 'complete', 'partial' or 'missing'")
        heard = _heard(outcome, retry_after, remaining)
        counted, priced = token_counts(tokens), nano_costs(costs)
        facts: dict[str, object] = {
            "call": call,
            "model": model,
            "provider": provider,
            "run": self._run.claim.run,
            "attempt": self._run.claim.attempt,
            "status": status,
            "tokens": counted,
            "costs": {name: str(Decimal(nano).scaleb(-9)) for name, nano in priced.items()},
        }
        entry = {**facts, "details": details} if details else facts
        args: dict[str, object] = {
            "id": self.id,
            "call": call,
            "model": model,
            "tokens": counted,
            "costs": priced,
            "entry": _codec.dumps(entry, "usage", limit=65_536),
        }
        if details:
            args["event"] = _codec.dumps(facts, "usage")
        try:
            # The job first: whoever finds its worker dead settles the calls that stand on it.
            return await self._host.client.call("job_usage", self._host.root, args) == 1
        finally:
            await self._gate.settle(
                call,
                tokens=counted,
                costs=priced,
                **heard,
            )

    async def report_tokens(self, tokens: int | Mapping[str, int]) -> None:
        """Tell the job's limiters of tokens that were used without a call they had let pass; each report adds up.

        Nothing waits here: calls, and starts of jobs that name these limiters, do as long as they have no room. It is
        no usage: that is `report_usage`.

        Args:
            tokens: How many, or how many per category.
        """
        counts = {"input": tokens} if isinstance(tokens, int) else tokens
        await self._gate.charge(self.next_call_id(), token_counts(counts))

    @property
    def budget(self) -> Allowance:
        """What the job may still spend: `await job.budget.state()`, `await job.budget.try_reserve(10_000)`."""
        return Allowance(self._gate, self.budgets, self.next_call_id)

    @contextlib.asynccontextmanager
    async def llm_call(
        self,
        model: str,
        *,
        tokens: Mapping[str, int] | None = None,
        costs: Mapping[str, Money] | None = None,
        provider: str = "",
        timeout: Seconds = 600,
        limits: Mapping[str, Throttle] | None = None,
    ) -> AsyncGenerator[ManualCall]:
        """A model call by any means: reserved before the block, booked after it.

        Set `call.tokens` (and `call.costs`) in the block to what was used. A block that raises before it did books
        the estimate as unverified.

        Args:
            tokens, costs: An upper estimate. Under a budget that caps money, `costs` has to name one: {"total": 0} sets
                nothing aside.

        Raises:
            BudgetExceeded, CostUnknown: As `reserve`.
        """
        call = ManualCall(self.next_call_id())
        estimate = tokens or {}
        await self.reserve(call.id, tokens=estimate, costs=costs, timeout=timeout, limits=limits)
        self.call_began()
        try:
            yield call
        except BaseException:
            used, paid = (call.tokens, call.costs) if call.tokens is not None else (estimate, costs)
            status = "complete" if call.tokens is not None else "missing"
            await self.report_usage(
                model=model, tokens=used, costs=paid, provider=provider, call=call.id, status=status
            )
            raise
        else:
            status = "complete" if call.tokens is not None else "missing"
            await self.report_usage(
                model=model,
                tokens=estimate if call.tokens is None else call.tokens,
                costs=costs if call.tokens is None else call.costs,
                provider=provider,
                call=call.id,
                status=status,
                outcome="ok",
            )
        finally:
            self.call_ended()

    async def reserve(
        self,
        call: str,
        *,
        tokens: Mapping[str, int],
        costs: Mapping[str, Money] | None = None,
        timeout: Seconds = 600,
        limits: Mapping[str, Throttle] | None = None,
        may_park: bool = True,
    ) -> None:
        """Set aside what a model call may use, in the job's budgets and limiters, before it is sent.

        Returns when it may go ahead: a short wait for a limiter is waited for here; for a longer one, or for a budget
        that says "pause", the job is parked and its handler starts again from the top. Book the call's real use with
        `report_usage(call=...)`, or `release` it if it was not sent.

        Args:
            call: The call's id (`next_call_id()`).
            tokens, costs: An upper estimate, as for `llm_call`.
            timeout: The longest the call may take, in seconds.
            limits: Further limiters, by name.
            may_park: False: a budget that says "pause" refuses as well, so that a smaller call can be tried.

        Raises:
            BudgetExceeded: A budget that says "fail" leaves too little: let it pass, the job fails at once.
            CostUnknown: A budget caps money, and `costs` names none: let it pass, too.
        """
        gate = self._gate
        if not limits and not gate.is_closed_to:
            return
        await gate.reserve(
            call,
            tokens=token_counts(tokens),
            costs=nano_costs(costs),
            ttl=seconds(timeout, "timeout"),
            limiters=[throttle.wire(name) for name, throttle in (limits or {}).items()],
            may_park=may_park,
        )

    async def extend(
        self,
        call: str,
        *,
        tokens: Mapping[str, int],
        costs: Mapping[str, Money] | None = None,
        timeout: Seconds = 600,
    ) -> None:
        """Raise a reservation to these totals: the next slice of a stream that runs.

        Raises:
            BudgetExceeded: There is no room for it: end the call.
        """
        await self._gate.extend(
            call,
            tokens=token_counts(tokens),
            costs=nano_costs(costs),
            ttl=seconds(timeout, "timeout"),
        )

    def call_began(self) -> None:
        """A model call is in flight: a park waits for it."""
        self._run.busy += 1

    def call_ended(self) -> None:
        """It has ended."""
        self._run.busy -= 1
        self._run.park_if_idle()

    async def release(
        self,
        call: str,
        *,
        outcome: CallOutcome = "none",
        retry_after: float = 0.0,
        remaining: Mapping[str, int] | None = None,
    ) -> None:
        """Let go of a reservation whose call used nothing; the rest is for limiters, as in `report_usage`."""
        heard = _heard(outcome, retry_after, remaining)
        await self._gate.settle(call, tokens={}, costs={}, unused=True, **heard)

    @property
    def budgets(self) -> Sequence[str]:
        """The ids of the budgets that its calls spend from."""
        return self._run.options.get("budgets", ())

    @property
    def has_limits(self) -> bool:
        """Has the job budgets or limiters of its own? Then calls are to be reserved."""
        return self._gate.is_closed_to

    @property
    def _gate(self) -> Gate:
        if self._run.gate is None:
            self._run.gate = Gate(self._run, self._host)
        return self._run.gate

    def next_call_id(self) -> str:
        """A new id for a model call: job/run.claim/n. Make it before the call, report it after."""
        self._calls += 1
        return f"{self._run.key}/{self._calls}"


def _named(name: str, field: str) -> str:
    text = _codec.checked_text(name, field)
    if not text:
        raise InvalidOption(field, name, "an empty name")
    return text


class _Heard(TypedDict):
    """What a call's end tells the limiters it passed."""

    outcome: CallOutcome
    retry_after: float
    remaining: Mapping[str, int]


def _heard(outcome: CallOutcome, retry_after: float, remaining: Mapping[str, int] | None) -> _Heard:
    if outcome not in get_args(CallOutcome):
        raise InvalidOption("outcome", outcome, "not 'ok', 'limited', 'error' or 'none'")
    if not isinstance(retry_after, int | float) or not retry_after >= 0:  # pyright: ignore[reportUnnecessaryIsInstance] checked for untyped callers
        raise InvalidOption("retry_after", retry_after, "not a number of seconds")
    wait = float(min(retry_after, _DAY))
    return {"outcome": outcome, "retry_after": wait, "remaining": left(remaining)}
