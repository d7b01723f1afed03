"""What errors mean, built with the vendors' own classes where these are installed."""

# size: a table of every vendor's errors

import asyncio
import json

import anthropic
import httpx
import httpx2
import openai
import pytest
from openai import OpenAI

from glidemq_core import errors as core
from glidemq_llm import (
    AnswerUnreadable,
    FallbacksExhausted,
    StreamFailed,
    StreamInterrupted,
    StreamStalled,
    UnpricedModel,
    classify_error,
)

REQUEST = httpx2.Request("POST", "https://api.test/v1/chat")


def openai_error(status: int, error: dict | None = None, **headers: str) -> Exception:
    """The exception that the OpenAI SDK raises for a response, made by the SDK itself."""
    body = {"error": error} if error is not None else None
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(
            status,
            json=body,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )
    )
    with httpx2.Client(transport=transport) as http:
        client = OpenAI(
            api_key="k", base_url="https://api.test/v1", http_client=http, max_retries=0
        )
        with pytest.raises(openai.APIError) as caught:
            client.chat.completions.create(model="m", messages=[])
    return caught.value


def anthropic_error(
    status: int, kind: str, message: str = "no", *, error_code: str | None = None
) -> Exception:
    error: dict = {"type": kind, "message": message}
    if error_code:
        error["details"] = {"error_code": error_code}
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(status, json={"type": "error", "error": error})
    )
    with httpx2.Client(transport=transport) as http:
        client = anthropic.Anthropic(
            api_key="k", base_url="https://api.test", http_client=http, max_retries=0
        )
        with pytest.raises(anthropic.APIError) as caught:
            client.messages.create(model="m", max_tokens=1, messages=[])
    return caught.value


def stream_error(lines: str) -> Exception:
    """The exception out of a stream that began with status 200."""
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(200, text=lines, headers={"content-type": "text/event-stream"})
    )
    with httpx2.Client(transport=transport) as http:
        if "event: error" in lines:
            client = anthropic.Anthropic(
                api_key="k", base_url="https://api.test", http_client=http, max_retries=0
            )
            with pytest.raises(anthropic.APIError) as caught:
                list(client.messages.create(model="m", max_tokens=1, messages=[], stream=True))
        else:
            chat = OpenAI(
                api_key="k", base_url="https://api.test/v1", http_client=http, max_retries=0
            )
            with pytest.raises(openai.APIError) as caught:
                list(chat.chat.completions.create(model="m", messages=[], stream=True))
    return caught.value


def made(
    name: str, module: str, base: type[Exception] = Exception, **attributes: object
) -> Exception:
    """An exception of a library that is not installed, with the attributes that library sets."""
    kind = type(name, (base,), {"__module__": module})
    error = kind(str(attributes.pop("text", name)))
    for key, value in attributes.items():
        setattr(error, key, value)
    return error


def google(status: int, word: str, message: str = "no", details: list | None = None) -> Exception:
    body = {"error": {"code": status, "status": word, "message": message, "details": details or []}}
    return made(
        "ClientError", "google.genai.errors", code=status, status=word, details=body, text=message
    )


def boto(code: str, status: int = 400, message: str = "no", name: str = "ClientError") -> Exception:
    response = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return made(name, "botocore.exceptions", response=response, text=message)


def violation(quota: str) -> dict:
    return {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{"quotaId": quota}],
    }


RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "14s"}

STATUS_ERRORS = [
    (400, {"message": "bad", "type": "invalid_request_error"}, "invalid_request"),
    (400, {"message": "This model's maximum context length is 8192 tokens"}, "context_window"),
    (400, {"message": "x", "code": "context_length_exceeded"}, "context_window"),
    (400, {"message": "x", "code": "content_filter"}, "content_filter"),
    (
        400,
        {"message": "x", "code": "invalid", "innererror": {"code": "ResponsibleAIPolicyViolation"}},
        "content_filter",
    ),
    (400, {"message": "Failed to call a function", "code": "tool_use_failed"}, "server"),
    (
        400,
        {"message": "the method is overloaded", "type": "invalid_request_error"},
        "invalid_request",
    ),
    (401, {"message": "x", "code": "invalid_api_key"}, "auth"),
    (402, {"message": "Insufficient credits", "code": 402}, "quota"),
    (403, {"message": "x"}, "auth"),
    (404, {"message": "x", "code": "model_not_found"}, "not_found"),
    (404, {"message": "x", "code": "DeploymentNotFound"}, "not_found"),
    (
        413,
        {"message": "Request too large", "code": "rate_limit_exceeded", "type": "tokens"},
        "context_window",
    ),
    (422, {"message": "x"}, "invalid_request"),
    (429, {"message": "slow down", "code": "rate_limit_exceeded", "type": "tokens"}, "rate_limit"),
    (429, {"message": "x", "code": "insufficient_quota", "type": "insufficient_quota"}, "quota"),
    (429, {"message": "x", "code": "billing_hard_limit_reached"}, "quota"),
    (429, {"message": "x", "code": "project_spend_limit_exceeded"}, "quota"),
    (429, {"message": "x", "code": "1113"}, "quota"),
    (429, {"message": "x", "type": "exceeded_current_quota_error"}, "quota"),
    (429, None, "rate_limit"),
    (500, {"message": "x", "type": "server_error"}, "server"),
    (502, None, "server"),
    (503, {"message": "x"}, "unavailable"),
    (504, None, "timeout"),
    (529, None, "overloaded"),
    (520, None, "server"),
    (418, None, "invalid_request"),
]


@pytest.mark.parametrize(("status", "error", "category"), STATUS_ERRORS)
def test_openai_like_errors(status, error, category):
    info = classify_error(openai_error(status, error))

    assert info.category == category
    assert info.status == status
    assert not info.in_stream


@pytest.mark.parametrize(
    ("status", "kind", "message", "error_code", "category"),
    [
        (
            400,
            "invalid_request_error",
            "prompt is too long: 210000 tokens > 200000 maximum",
            None,
            "context_window",
        ),
        (400, "invalid_request_error", "Your credit balance is too low", None, "quota"),
        (400, "invalid_request_error", "messages: required", None, "invalid_request"),
        (401, "authentication_error", "no", None, "auth"),
        (402, "billing_error", "no", None, "quota"),
        (403, "permission_error", "no", None, "auth"),
        (404, "not_found_error", "no", None, "not_found"),
        (409, "conflict_error", "no", None, "unavailable"),
        (413, "request_too_large", "no", None, "context_window"),
        (429, "rate_limit_error", "no", None, "rate_limit"),
        (429, "rate_limit_error", "no", "contract_spend_limit_reached", "quota"),
        (429, "rate_limit_error", "no", "enforced_spend_limit_reached", "quota"),
        (429, "rate_limit_error", "no", "ramp_limit_exceeded", "rate_limit"),
        (500, "api_error", "no", None, "server"),
        (504, "timeout_error", "no", None, "timeout"),
        (529, "overloaded_error", "no", None, "overloaded"),
        (529, "overloaded_error", "no", "compaction_unavailable", "overloaded"),
    ],
)
def test_anthropic_errors(status, kind, message, error_code, category):
    info = classify_error(anthropic_error(status, kind, message, error_code=error_code))

    assert info.category == category
    assert info.code == (error_code or kind)


@pytest.mark.parametrize(
    ("kind", "category", "status"),
    [
        ("overloaded_error", "overloaded", 529),
        ("rate_limit_error", "rate_limit", 429),
        ("api_error", "server", 500),
    ],
)
def test_error_inside_an_anthropic_stream_has_its_usual_status(kind, category, status):
    error = {"type": "error", "error": {"type": kind, "message": "no"}}

    info = classify_error(stream_error(f"event: error\ndata: {json.dumps(error)}\n\n"))

    assert (info.category, info.status, info.in_stream, info.billed) == (
        category,
        status,
        True,
        True,
    )
    assert info.retryable
    assert info.fallback


def test_error_inside_an_openai_stream_is_known_by_its_code():
    error = {"error": {"message": "no", "type": "server_error", "code": "rate_limit_exceeded"}}

    info = classify_error(stream_error(f"data: {json.dumps(error)}\n\n"))

    assert (info.category, info.status, info.in_stream) == ("rate_limit", 429, True)
    assert info.code == "rate_limit_exceeded"


OTHERS = [
    (
        google(
            429, "RESOURCE_EXHAUSTED", details=[violation("RequestsPerDayPerProject"), RETRY_INFO]
        ),
        "quota",
    ),
    (google(429, "RESOURCE_EXHAUSTED", "exceeded your current quota", [RETRY_INFO]), "rate_limit"),
    (
        google(429, "RESOURCE_EXHAUSTED", "x", [violation("RequestsPerMinutePerProject")]),
        "rate_limit",
    ),
    (google(400, "INVALID_ARGUMENT", "x", [{"reason": "API_KEY_INVALID"}]), "auth"),
    (
        google(400, "INVALID_ARGUMENT", "The input token count (2) exceeds the maximum (1)"),
        "context_window",
    ),
    (google(400, "INVALID_ARGUMENT"), "invalid_request"),
    (google(404, "NOT_FOUND"), "not_found"),
    (google(503, "UNAVAILABLE", "The model is overloaded."), "unavailable"),
    (google(504, "DEADLINE_EXCEEDED"), "timeout"),
    (boto("ThrottlingException", 429), "rate_limit"),
    (boto("ServiceQuotaExceededException", 400), "quota"),
    (boto("ModelNotReadyException", 429), "unavailable"),
    (boto("ModelTimeoutException", 408), "timeout"),
    (boto("modelStreamErrorException", 424, name="EventStreamError"), "stream_interrupted"),
    (boto("throttlingException", 400, name="EventStreamError"), "rate_limit"),
    (boto("internalServerException", 500, name="EventStreamError"), "server"),
    (boto("validationException", 400, name="EventStreamError"), "invalid_request"),
    (boto("validationException", 400, "Input is too long", "EventStreamError"), "context_window"),
    (made("ReadTimeoutError", "botocore.exceptions"), "timeout"),
    (made("ConnectionClosedError", "botocore.exceptions"), "connection"),
    (made("EndpointConnectionError", "botocore.exceptions"), "connection"),
    (made("ProtocolError", "urllib3.exceptions"), "stream_interrupted"),
    (made("NoCredentialsError", "botocore.exceptions"), "auth"),
    (boto("ServiceUnavailableException", 503), "unavailable"),
    (boto("ValidationException", 400, "Input is too long for requested model."), "context_window"),
    (boto("ValidationException", 400), "invalid_request"),
    (boto("AccessDeniedException", 403), "auth"),
    (boto("ExpiredTokenException", 400), "auth"),
    (boto("MPAgreementBeingCreated", 403), "unavailable"),
    (
        made(
            "SDKError",
            "mistralai.models",
            status_code=429,
            body='{"message":"Requests rate limit"}',
        ),
        "rate_limit",
    ),
    (
        made("HTTPValidationError", "mistralai.models", status_code=422, body="{}"),
        "invalid_request",
    ),
    (
        made("TooManyRequestsError", "cohere.errors", status_code=429, body={"message": "x"}),
        "rate_limit",
    ),
    (
        made("ServiceUnavailableError", "cohere.errors", status_code=503, body={"message": "x"}),
        "unavailable",
    ),
    (
        made("ResponseError", "ollama._types", status_code=404, error="model 'x' not found"),
        "not_found",
    ),
    (made("ResponseError", "ollama._types", status_code=-1, error="unexpected EOF"), "server"),
    (
        made("RateLimitError", "litellm.exceptions", status_code=429, litellm_response_headers={}),
        "rate_limit",
    ),
    (made("ContextWindowExceededError", "litellm.exceptions", status_code=400), "context_window"),
    (made("ContentPolicyViolationError", "litellm.exceptions", status_code=400), "content_filter"),
    (made("MidStreamFallbackError", "litellm.exceptions", status_code=500), "stream_interrupted"),
    (made("Timeout", "litellm.exceptions", status_code=408), "timeout"),
    (made("BudgetExceededError", "litellm.exceptions", status_code=400), "budget"),
    (
        made(
            "OpenRouterError", "openrouter.errors", status_code=502, body='{"error":{"code":502}}'
        ),
        "server",
    ),
    *(
        (made("APIError", "openai", body={"error": {"code": code, "message": "x"}}), category)
        for code, category in (
            (402, "quota"),
            (408, "timeout"),
            (429, "rate_limit"),
            (502, "server"),
            (503, "unavailable"),
        )
    ),
    (made("APIError", "groq", body={"error": {"status_code": 498, "type": "x"}}), "overloaded"),
    (StreamFailed("no", code="402"), "quota"),
    (StreamFailed("no", code="503"), "unavailable"),
    (StreamFailed("The model is overloaded"), "overloaded"),
    (StreamFailed("no"), "server"),
    (AnswerUnreadable("<html>"), "server"),
    (UnicodeDecodeError("utf-8", b"", 0, 1, "x"), "server"),
    (made("ProviderDown", "groq"), "server"),
    (made("CredentialsError", "anthropic"), "auth"),
    (TypeError("x"), "bug"),
    (ValueError("maximum context length"), "bug"),
    (KeyError("messages"), "bug"),
    (RuntimeError("event loop is closed"), "bug"),
    (json.JSONDecodeError("x", "doc", 0), "server"),
    (TimeoutError(), "timeout"),
    (ConnectionResetError(), "connection"),
    (ConnectionRefusedError(), "connection"),
    (asyncio.CancelledError(), "cancelled"),
    (ExceptionGroup("tasks", [ConnectionResetError()]), "connection"),
    (core.BudgetExceeded("b", cap="total_tokens", limit=1, used=1, reserved=0, asked=1), "budget"),
    (core.Throttled("openai", retry_after=2.5), "budget"),
    (core.JobTimeout("j", limit=1), "timeout"),
    (core.LeaseLost("j"), "cancelled"),
    (core.UnrecoverableError("no"), "bug"),
    (UnpricedModel("m"), "budget"),
    (StreamInterrupted(), "stream_interrupted"),
    (StreamStalled(limit=60), "stream_interrupted"),
    (FallbacksExhausted([("a", "down")], retryable=True, retry_after=3), "unavailable"),
]


@pytest.mark.parametrize(("error", "category"), OTHERS, ids=lambda value: str(value)[:40])
def test_other_errors(error, category):
    assert classify_error(error).category == category


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize(
    ("name", "message", "category", "billed"),
    [
        ("ReadTimeout", "x", "timeout", True),
        ("ConnectTimeout", "x", "connection", False),
        ("PoolTimeout", "x", "connection", False),
        ("ConnectError", "x", "connection", False),
        ("ReadError", "x", "stream_interrupted", True),
        (
            "RemoteProtocolError",
            "peer closed connection (incomplete chunked read)",
            "stream_interrupted",
            True,
        ),
        (
            "RemoteProtocolError",
            "Server disconnected without sending a response.",
            "connection",
            True,
        ),
    ],
)
def test_transport_errors_of_both_http_libraries(library, name, message, category, billed):
    info = classify_error(getattr(library, name)(message))

    assert (info.category, info.billed) == (category, billed)
    assert info.retryable


@pytest.mark.parametrize(
    ("cause", "category", "billed"),
    [
        (httpx2.ConnectError("refused"), "connection", False),
        (httpx2.RemoteProtocolError("incomplete chunked read"), "stream_interrupted", True),
        (httpx2.WriteError("reset"), "connection", True),
    ],
)
def test_connection_error_of_an_sdk_is_told_by_its_cause(cause, category, billed):
    error = openai.APIConnectionError(request=REQUEST)
    error.__cause__ = cause

    info = classify_error(error)

    assert (info.category, info.billed) == (category, billed)


@pytest.mark.parametrize("kind", [openai.APITimeoutError, anthropic.APITimeoutError])
def test_timeout_may_have_been_billed_unless_it_never_connected(kind):
    slow, unreachable = kind(REQUEST), kind(REQUEST)
    slow.__cause__ = httpx2.ReadTimeout("x")
    unreachable.__cause__ = httpx2.ConnectTimeout("x")

    assert classify_error(slow).billed
    assert not classify_error(unreachable).billed


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (openai_error(429, {"message": "x"}, retry_after="20"), 20),
        (openai_error(429, {"message": "x"}, retry_after_ms="250", retry_after="1"), 0.25),
        (openai_error(429, {"message": "Please try again in 6.5s. Visit"}), 6.5),
        (openai_error(429, {"message": "Please try again in 1m2s."}), 62),
        (openai_error(429, {"message": "Please try again in 20ms."}), 0.02),
        (openai_error(429, {"message": "Please retry after 26 seconds."}), 26),
        (
            openai_error(
                429,
                {"message": "x"},
                x_ratelimit_remaining_tokens="0",
                x_ratelimit_reset_tokens="9s",
                x_ratelimit_remaining_requests="5",
                x_ratelimit_reset_requests="1m0s",
            ),
            9,
        ),
        (openai_error(429, {"message": "x", "metadata": {"headers": {"Retry-After": "4"}}}), 4),
        (openai_error(503, {"message": "x"}, retry_after="3600"), 3600),
        (openai_error(400, {"message": "x"}, retry_after="20"), None),
        (openai_error(429, {"message": "x"}), None),
        (google(429, "RESOURCE_EXHAUSTED", details=[RETRY_INFO]), 14),
        (
            made(
                "RateLimitError",
                "litellm",
                status_code=429,
                litellm_response_headers={"retry-after": "8"},
            ),
            8,
        ),
        (made("TooManyRequestsError", "cohere", status_code=429, headers={"retry-after": "6"}), 6),
        (core.Throttled("openai", retry_after=2.5), 2.5),
        (FallbacksExhausted([("a", "down")], retryable=True, retry_after=3), 3),
    ],
)
def test_wait_time_is_found_wherever_the_vendor_put_it(error, seconds):
    assert classify_error(error).retry_after == seconds


def test_classes_decide_retry_and_fallback():
    table = {
        category: (info.retryable, info.fallback)
        for category, info in (
            (str(info.category), info)
            for info in (
                *(
                    classify_error(openai_error(status, error))
                    for status, error, _ in STATUS_ERRORS
                ),
                *(
                    classify_error(error)
                    for error in (TypeError(), ConnectionResetError(), StreamInterrupted())
                ),
            )
        )
    }

    assert table == {
        "invalid_request": (False, False),
        "context_window": (False, True),
        "content_filter": (False, False),
        "auth": (False, True),
        "quota": (False, True),
        "not_found": (False, True),
        "rate_limit": (True, True),
        "server": (True, True),
        "unavailable": (True, True),
        "timeout": (True, True),
        "overloaded": (True, True),
        "bug": (False, False),
        "connection": (True, True),
        "stream_interrupted": (True, True),
    }


def test_wait_is_found_behind_an_error_that_does_not_keep_it():
    """Ollama's client raises its error out of its HTTP library's, from None."""
    request = httpx.Request("POST", "http://api.test")
    response = httpx.Response(429, headers={"retry-after": "7"})
    own = made("ResponseError", "ollama._types", status_code=429, error="no")
    other = made("ResponseError", "ollama._types", status_code=503, error="no")
    own.__context__ = httpx.HTTPStatusError("no", request=request, response=response)
    other.__context__ = own.__context__

    assert classify_error(own).retry_after == 7
    assert classify_error(other).retry_after is None


@pytest.mark.parametrize(
    ("module", "billed"), [("openai", False), ("ollama", False), ("litellm", True)]
)
def test_status_408_is_free_unless_it_is_a_clients_own_word_for_a_timeout(module, billed):
    info = classify_error(made("Timeout", module, status_code=408))

    assert (info.category, info.billed) == ("timeout", billed)


def test_refused_requests_are_free_and_answered_ones_are_not():
    rejected = openai.LengthFinishReasonError(
        completion=openai.types.chat.ChatCompletion.model_construct(usage=None)
    )

    assert not classify_error(openai_error(429)).billed
    assert not classify_error(openai_error(400)).billed
    assert classify_error(rejected).billed


def test_next_model_may_have_a_price_but_a_call_made_by_hand_has_none():
    by_model = classify_error(UnpricedModel("m", budget="b", cap="cost.total"))
    by_hand = classify_error(core.CostUnknown("b", cap="cost.total"))

    assert (by_model.retryable, by_model.fallback) == (False, True)
    assert (by_hand.retryable, by_hand.fallback) == (False, False)
    assert by_model.code == by_hand.code == "unpriced"
    assert by_hand.category == "budget"


def test_our_own_waits_are_retried_but_not_spent_money():
    throttled = classify_error(core.Throttled("openai", retry_after=1))
    spent = classify_error(
        core.BudgetExceeded("b", cap="cost.total", limit=1, used=1, reserved=0, asked=1)
    )

    assert (throttled.retryable, throttled.fallback) == (True, False)
    assert (spent.retryable, spent.fallback, spent.code) == (False, False, "cost.total")
