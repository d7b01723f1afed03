"""Rate-limit headers in every format that vendors use."""

from datetime import UTC, datetime

import httpx
import pytest

from glidemq_llm import Axis, parse_rate_limits
from glidemq_llm.limits import parse_duration, parse_retry_after

NOW = datetime(2026, 11, 1, tzinfo=UTC)
EPOCH = int(NOW.timestamp())

FORMATS = [
    (
        "openai",
        {
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-remaining-requests": "499",
            "x-ratelimit-reset-requests": "12ms",
            "x-ratelimit-limit-tokens": "30000",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "6m0s",
            "x-ratelimit-limit-input-images": "50",
        },
        {
            "requests": Axis(limit=500, remaining=499, reset_seconds=0.012),
            "tokens": Axis(limit=30000, remaining=0, reset_seconds=360),
            "images": Axis(limit=50),
        },
    ),
    (
        "azure",
        {
            "x-ratelimit-limit-requests": "10",
            "x-ratelimit-reset-requests": "7",
            "x-ratelimit-renewalperiod-requests": "60",
            "x-ratelimit-limit-tokens": "0",
            "x-ratelimit-remaining-tokens": "-1",
            "x-ratelimit-reset-tokens": "-1",
            "x-ratelimit-reset-input-images": "-1",
        },
        {"requests": Axis(limit=10, reset_seconds=7, window_seconds=60)},
    ),
    (
        "anthropic",
        {
            "anthropic-ratelimit-input-tokens-limit": "80000",
            "anthropic-ratelimit-input-tokens-remaining": "79000",
            "anthropic-ratelimit-input-tokens-reset": "2026-11-01T00:00:30Z",
            "anthropic-ratelimit-output-tokens-limit": "16000",
            "anthropic-priority-input-tokens-limit": "1",
            "anthropic-ratelimit-unified-5h-utilization": "0.25",
            "anthropic-ratelimit-unified-5h-reset": str(EPOCH + 90),
        },
        {
            "input_tokens": Axis(limit=80000, remaining=79000, reset_seconds=30),
            "output_tokens": Axis(limit=16000),
            "priority_input_tokens": Axis(limit=1),
            "unified_5h": Axis(limit=1000, remaining=750, reset_seconds=90),
        },
    ),
    (
        "groq",
        {
            "x-ratelimit-limit-requests": "14400",
            "x-ratelimit-reset-requests": "2m59.56s",
            "x-ratelimit-limit-tokens": "6000",
            "x-ratelimit-reset-tokens": "17.379s",
        },
        {
            "requests": Axis(limit=14400, reset_seconds=179.56, window_seconds=86400),
            "tokens": Axis(limit=6000, reset_seconds=17.379, window_seconds=60),
        },
    ),
    (
        "mistral",
        {
            "x-ratelimit-limit-req-10-second": "5",
            "x-ratelimit-remaining-req-10-second": "4",
            "x-ratelimit-limit-tokens-minute": "500000",
            "x-ratelimit-limit-tokens-month": "1000000000",
            "x-ratelimit-tokens-query-cost": "12",
        },
        {
            "requests": Axis(limit=5, remaining=4, window_seconds=10),
            "tokens": Axis(limit=500000, window_seconds=60),
            "tokens_month": Axis(limit=1000000000, window_seconds=2592000),
        },
    ),
    (
        "together",
        {"x-ratelimit-limit": "2", "x-ratelimit-remaining": "1", "x-ratelimit-reset": "1"},
        {"requests": Axis(limit=2, remaining=1, reset_seconds=1, window_seconds=1)},
    ),
    (
        "openrouter",
        {"X-RateLimit-Limit": "20", "X-RateLimit-Reset": str(EPOCH * 1000 + 5000)},
        {"requests": Axis(limit=20, reset_seconds=5)},
    ),
    (
        "fireworks",
        {
            "x-ratelimit-limit-tokens-prompt": "60000",
            "x-ratelimit-remaining-tokens-generated": "9",
            "x-ratelimit-over-limit": "no",
        },
        {"input_tokens": Axis(limit=60000), "output_tokens": Axis(remaining=9)},
    ),
    (
        None,
        {"ratelimit": '"api";r=999;t=295', "ratelimit-policy": '"api";q=1000;w=300'},
        {"requests": Axis(limit=1000, remaining=999, reset_seconds=295, window_seconds=300)},
    ),
    (
        "litellm",
        {
            "llm_provider-x-ratelimit-limit-tokens": "4",
            "x-ratelimit-limit-tokens": "5",
            "llm_provider-x-ratelimit-remaining-tokens": "3",
        },
        {"tokens": Axis(limit=5, remaining=3)},
    ),
    ("openai", {"x-ratelimit-reset-requests": "soon", "x-ratelimit-limit-requests": "many"}, {}),
    ("openai", {"content-type": "application/json"}, {}),
]


@pytest.mark.parametrize(("provider", "headers", "axes"), FORMATS)
def test_every_format_is_read(provider, headers, axes):
    assert parse_rate_limits(headers, provider, now=NOW).axes == axes


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "20"}, 20),
        ({"Retry-After": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Sun, 01 Nov 2026 00:01:00 GMT"}, 60),
        ({"retry-after": "Sat, 31 Oct 2026 00:00:00 GMT"}, 0),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "7.5s"}, 7.5),
        ({"retry-after": "later"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after_in_every_form(headers, seconds):
    assert parse_retry_after(headers, now=NOW) == seconds
    assert parse_rate_limits(headers, now=NOW).retry_after == seconds


def test_absolute_times_are_relative_to_the_servers_own_clock():
    headers = {
        "date": "Sun, 01 Nov 2020 00:00:00 GMT",
        "anthropic-ratelimit-requests-reset": "2020-11-01T00:00:10Z",
        "retry-after": "Sun, 01 Nov 2020 00:00:05 GMT",
    }

    limits = parse_rate_limits(headers, "anthropic")

    assert limits.axes["requests"].reset_seconds == 10
    assert limits.retry_after == 5


@pytest.mark.parametrize(
    "headers",
    [
        httpx.Headers({"X-RateLimit-Limit-Tokens": "9"}),
        [("X-RateLimit-Limit-Tokens", "9")],
        {b"x-ratelimit-limit-tokens": b"9"},
    ],
)
def test_headers_are_read_in_any_container(headers):
    assert parse_rate_limits(headers).axes == {"tokens": Axis(limit=9)}


@pytest.mark.parametrize("headers", [None, 7, "x-ratelimit-limit: 3"])
def test_what_is_no_headers_says_nothing(headers):
    assert parse_rate_limits(headers).axes == {}


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("1h2m3s", 3723), ("12ms", 0.012), ("6m0s", 360), ("100us", 0.0001), ("7", 7), ("1d", 86400)],
)
def test_durations(written, seconds):
    assert parse_duration(written) == pytest.approx(seconds)


@pytest.mark.parametrize("written", ["", "soon", "3 apples", "1h-2m", "inf"])
def test_what_is_no_duration(written):
    assert parse_duration(written) is None
