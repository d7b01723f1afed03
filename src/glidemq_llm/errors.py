"""Errors of the provider middleware; the tree continues `glidemq_core.errors`.

    GlideMQError
    ├── ProviderError          a provider's call went wrong in a way no SDK reports
    │   ├── StreamInterrupted  a stream ended without its terminal marker
    │   │   └── StreamStalled  a stream sent nothing for longer than allowed
    │   ├── StreamFailed       a stream said that it failed, and its SDK did not raise
    │   ├── AnswerUnreadable   an answer or an event of one is not in the provider's format
    │   └── FallbacksExhausted every entry of the fallback list failed
    ├── TurnsExceeded          an agent was asked as often as allowed, and has no answer yet
    └── CostUnknown            (of the core: a budget caps money, and a call's cost is not known)
        └── UnpricedModel      no price is known for its model

An error with `retryable = False` fails its job at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from glidemq_core.errors import CostUnknown, GlideMQError


class ProviderError(GlideMQError):
    """A provider's call went wrong in a way that its SDK does not report."""

    retryable = True


class StreamInterrupted(ProviderError):
    """A stream ended without its terminal marker: what arrived is not the whole answer.

    Attributes:
        model, provider: Who was asked, where known.
        delivered: Whether any text had been handed on, so that readers need a `reset` before
            another try.
    """

    def __init__(
        self,
        reason: str = "",
        *,
        model: str | None = None,
        provider: str | None = None,
        delivered: bool = False,
    ) -> None:
        self.reason = reason or "it ended without a finish reason"
        self.model = model
        self.provider = provider
        self.delivered = delivered
        super().__init__(f"the stream of {model or 'the model'} was cut: {self.reason}")


class StreamStalled(StreamInterrupted):
    """A stream sent nothing for longer than allowed; the connection was closed.

    Attributes:
        limit: The limit that was passed, in seconds.
        kind: "first_event" before anything arrived, "idle" between two events.
    """

    def __init__(
        self,
        *,
        limit: float,
        kind: Literal["first_event", "idle"] = "idle",
        model: str | None = None,
        provider: str | None = None,
        delivered: bool = False,
    ) -> None:
        self.limit = limit
        self.kind = kind
        where = "before its first event" if kind == "first_event" else "between two events"
        super().__init__(
            f"silent for {limit:g} s {where}", model=model, provider=provider, delivered=delivered
        )


class StreamFailed(ProviderError):
    """A stream, or an answer in one piece, said that it failed, under status 200 and without an error of its SDK.

    Attributes:
        code: The vendor's own word for it.
        model, provider, delivered: As in StreamInterrupted.
    """

    def __init__(
        self,
        reason: str,
        *,
        code: str | None = None,
        model: str | None = None,
        provider: str | None = None,
        delivered: bool = False,
    ) -> None:
        self.reason = reason
        self.code = code
        self.model = model
        self.provider = provider
        self.delivered = delivered
        super().__init__(f"{model or 'the model'} failed while it answered: {reason}")


class AnswerUnreadable(ProviderError):
    """An answer, or an event of a stream, is not in the provider's format: a page in HTML, say, or broken JSON.

    Attributes:
        model, provider, delivered: As in StreamInterrupted.
    """

    def __init__(
        self,
        reason: str,
        *,
        model: str | None = None,
        provider: str | None = None,
        delivered: bool = False,
    ) -> None:
        self.reason = reason
        self.model = model
        self.provider = provider
        self.delivered = delivered
        super().__init__(f"what {model or 'the model'} has answered can't be read: {reason}")


class FallbacksExhausted(ProviderError):
    """Every entry of the fallback list failed.

    Attributes:
        hops: One line per model tried: its name and why it failed, in order.
        retryable: Whether a later attempt of the job may do better (some hop failed for a passing
            reason).
        retry_after: Seconds until the earliest hop says it could be asked again, where one said so.
    """

    def __init__(
        self, hops: Sequence[tuple[str, str]], *, retryable: bool, retry_after: float | None = None
    ) -> None:
        self.hops = tuple(hops)
        self.retryable = retryable
        self.retry_after = retry_after
        listed = "; ".join(f"{model}: {reason}" for model, reason in self.hops)
        super().__init__(f"all {len(self.hops)} models failed ({listed})")


class TurnsExceeded(GlideMQError):
    """An agent was asked as often as allowed, and still calls tools; those calls were not carried out.

    Attributes:
        max_turns: How often it was asked.
        pending: The names of the tools that it calls.
    """

    retryable = False

    def __init__(self, max_turns: int, *, pending: Sequence[str]) -> None:
        self.max_turns = max_turns
        self.pending = tuple(pending)
        super().__init__(
            f"no answer after {max_turns} turns; the model still calls {', '.join(self.pending)}"
        )


class UnpricedModel(CostUnknown):
    """No price is known for a model, and a budget caps money or the policy is "deny"; nothing was sent.

    Attributes:
        model, provider: Who was to be asked.
        budget, cap: The budget that needs a price, and its cap; None if it is the policy alone.
    """

    def __init__(
        self,
        model: str | None,
        *,
        provider: str | None = None,
        budget: str | None = None,
        cap: str | None = None,
    ) -> None:
        self.model = model
        self.provider = provider
        self.budget = budget
        self.cap = cap
        why = f", and budget {budget!r} caps {cap}" if budget is not None else ""
        GlideMQError.__init__(
            self,
            f"no price is known for model {model!r} of {provider or 'an unknown provider'}{why}; give it one in "
            "Pricing(overrides=...), or allow such calls with on_unpriced='allow'",
        )
