"""How calls are metered: one object for every way to do it (`wrap`, the ready-made handlers, your own)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypedDict, cast

from glidemq_core._units import seconds, whole
from glidemq_core.errors import InvalidOption
from glidemq_core.throttle import Throttle
from glidemq_llm.pricing import Pricing
from glidemq_llm.tokens import DEFAULT_OUTPUT, LEARNED, Corrections

OnTight: TypeAlias = Literal["refuse", "shrink"]
OnCancel: TypeAlias = Literal["close", "drain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterSettings:
    """How calls are metered.

    Attributes:
        stream: Write the answer into the job's stream. `report`: book its usage on the job.
        include_reasoning: Write thinking into the stream, too.
        pricing: Where prices come from. Default: what the vendor states, then the installed price tables.
        first_event_timeout, idle_timeout: Seconds a stream may be silent before its first event and between two; then
            it is closed and the attempt fails. Pings and comments are no silence, where the SDK lets them be seen
            (openai, anthropic, mistralai). A sync client's reads are bound by the longer of the two, or its own timeout
            if that is shorter; by its own alone with google-genai and boto3. Not bound by the lease, which is renewed
            while a call runs.
        sdk_retries: The SDK's own retries inside a job. 0: the queue retries, and waits as long as the vendor asks.
        limits: Limiters by "provider/model", "provider" or "*": all that fit a call are passed, shared with every
            worker that names them.
        slice: Reserve the answer of a stream in slices of so many tokens instead of all at once; a stream whose next
            slice is refused is closed. None: all at once.
        learned: What earlier calls have taught, by which estimates become better. Default: one for the whole process.
        default_output: Tokens to reserve for an answer whose request sets no limit, while nothing is learned.
        on_tight: "refuse": a call that its budget has no room for is refused (or its job parked, as the budget says).
            "shrink": its limit of output tokens is lowered to what is left first, if that is `min_output` or more; the
            start chunk and the usage's details say so.
        on_cancel: What becomes of the provider's answer when its job is cancelled, or its reader leaves it. "close": the
            connection is closed at once, and what came is booked, estimated. "drain": the rest is read in the
            background for up to `drain_timeout` seconds (by a sync client: before its thread ends), so that what is
            booked is what the provider bills; it may be booked after the job's end.
        call_timeout: Seconds that an async client's call may take which is answered in one piece (a sync client's own
            timeout bounds its calls, and a stop of the run ends them); and after which a reservation whose call was never settled counts as spent.
        provider: Who answers a wrapped client, where its address does not tell (a proxy; "vllm" or "llama.cpp" for a
            server of your own, whose tokens have no price). None: the owner of the address.

    Raises:
        InvalidOption: A time, a count or a limiter is none.
    """

    stream: bool = True
    report: bool = True
    include_reasoning: bool = True
    pricing: Pricing = field(default_factory=Pricing)
    first_event_timeout: float = 120.0
    idle_timeout: float = 60.0
    sdk_retries: int = 0
    limits: Mapping[str, Throttle] = field(default_factory=dict[str, Throttle])
    slice: int | None = None
    learned: Corrections = LEARNED
    default_output: int = DEFAULT_OUTPUT
    on_tight: OnTight = "refuse"
    min_output: int = 64
    on_cancel: OnCancel = "close"
    drain_timeout: float = 30.0
    call_timeout: float = 600.0
    provider: str | None = None

    def __post_init__(self) -> None:
        for name in ("first_event_timeout", "idle_timeout", "drain_timeout", "call_timeout"):
            seconds(getattr(self, name), name, low=0.001)
        whole(self.sdk_retries, "sdk_retries")
        for name in ("slice", "min_output", "default_output"):
            if name != "slice" or self.slice is not None:
                whole(getattr(self, name), name, low=1, high=10**9)
        for name, words in (("on_tight", ("refuse", "shrink")), ("on_cancel", ("close", "drain"))):
            if getattr(self, name) not in words:
                raise InvalidOption(
                    name, getattr(self, name), f"not {' or '.join(map(repr, words))}"
                )
        for name, limiter in self.limits.items():
            if not isinstance(cast("object", limiter), Throttle):
                raise InvalidOption(f"limits[{name!r}]", limiter, "not a Throttle")

    @property
    def longest_silence(self) -> float:
        """Seconds a sync client may wait for anything to read."""
        return max(self.first_event_timeout, self.idle_timeout)


class MeterOptions(TypedDict, total=False):
    """The fields of MeterSettings as keyword arguments."""

    stream: bool
    report: bool
    include_reasoning: bool
    pricing: Pricing
    first_event_timeout: float
    idle_timeout: float
    sdk_retries: int
    limits: Mapping[str, Throttle]
    slice: int | None
    learned: Corrections
    default_output: int
    on_tight: OnTight
    min_output: int
    on_cancel: OnCancel
    drain_timeout: float
    call_timeout: float
    provider: str | None


def with_options(settings: MeterSettings | None, options: Mapping[str, object]) -> MeterSettings:
    """Settings with some of their fields replaced.

    Raises:
        InvalidOption: There is no such field, or it can't have that value.
    """
    known = MeterOptions.__annotations__
    for name, value in options.items():
        if name not in known:
            raise InvalidOption(name, value, f"no such option; there are {', '.join(known)}")
    return dataclasses.replace(settings or MeterSettings(), **options)  # pyright: ignore[reportArgumentType] checked above
