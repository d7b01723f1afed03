"""The words by which vendors name their errors, and what each means. As of 2026-11.

Codes come first, because classes and HTTP statuses lie: an empty account is a 429 at OpenAI, an
overload in an Anthropic stream has status 200, and Google has one code for a minute's limit and a
spent daily quota.
"""

from __future__ import annotations

import re
from enum import StrEnum


class ErrorCategory(StrEnum):
    """What went wrong, by what can be done about it."""

    RATE_LIMIT = "rate_limit"
    QUOTA = "quota"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    SERVER = "server"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    STREAM_INTERRUPTED = "stream_interrupted"
    AUTH = "auth"
    NOT_FOUND = "not_found"
    CONTEXT_WINDOW = "context_window"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    INVALID_REQUEST = "invalid_request"
    BUDGET = "budget"
    CANCELLED = "cancelled"
    BUG = "bug"


_C = ErrorCategory

RETRYABLE = frozenset(
    {
        _C.RATE_LIMIT,
        _C.OVERLOADED,
        _C.UNAVAILABLE,
        _C.SERVER,
        _C.TIMEOUT,
        _C.CONNECTION,
        _C.STREAM_INTERRUPTED,
    }
)
# Where another model or provider may do better. A context window needs a larger one; a filter or
# refusal is not here, because asking the next model until one says yes is a policy that the user
# has to choose.
FALLBACK = RETRYABLE | {_C.QUOTA, _C.AUTH, _C.NOT_FOUND, _C.CONTEXT_WINDOW}

# The HTTP status that an error usually has, for those that arrive without one (inside a stream).
USUAL_STATUS = {
    _C.RATE_LIMIT: 429,
    _C.QUOTA: 429,
    _C.OVERLOADED: 529,
    _C.UNAVAILABLE: 503,
    _C.SERVER: 500,
    _C.TIMEOUT: 504,
    _C.AUTH: 401,
    _C.NOT_FOUND: 404,
    _C.CONTEXT_WINDOW: 400,
    _C.CONTENT_FILTER: 400,
    _C.INVALID_REQUEST: 400,
}

_WORDS = {
    _C.QUOTA: """
        insufficient_quota billing_hard_limit_reached credit_balance_exhausted organization_usage_limit_exceeded
        billing_error billing_not_active contract_spend_limit_reached enforced_spend_limit_reached
        insufficient_balance insufficient_credits exceeded_current_quota_error quota_exceeded account_deactivated
        payment_required servicequotaexceededexception 1113 access_terminated 402
    """,
    _C.RATE_LIMIT: """
        rate_limit_error rate_limit_exceeded rate_limit_reached rate_limited ratelimitreached ramp_limit_exceeded
        too_many_requests requests tokens throttlingexception toomanyrequestsexception resource_exhausted 429
        throttling
    """,
    _C.OVERLOADED: """
        overloaded_error overloaded server_is_overloaded engine_overloaded engine_overloaded_error server_overloaded
        slow_down model_overloaded compaction_unavailable over_capacity 529 no_capacity capacity_exceeded
    """,
    _C.UNAVAILABLE: """
        unavailable service_unavailable serviceunavailableexception modelnotreadyexception service_unavailable_error
        mpagreementbeingcreated 503 conflict_error
    """,
    _C.SERVER: """
        server_error api_error internal_error internal internalserverexception internal_server_error
        tool_use_failed modelerrorexception unknown 500 502 bad_gateway vector_store_timeout
    """,
    _C.STREAM_INTERRUPTED: "modelstreamerrorexception",
    _C.TIMEOUT: "timeout_error timeout deadline_exceeded modeltimeoutexception request_timeout 504 408",
    _C.AUTH: """
        invalid_api_key authentication_error permission_error permission_denied unauthenticated api_key_invalid
        accessdeniedexception expiredtokenexception unrecognizedclientexception invalidsignatureexception
        incorrect_api_key unauthorized access_denied invalid_authentication forbidden 401 403 service_disabled
        missingauthenticationtokenexception invalidclienttokenid no_permission
    """,
    _C.NOT_FOUND: """
        model_not_found not_found_error deploymentnotfound not_found resourcenotfoundexception model_not_available
        model_decommissioned unknown_model 404
    """,
    _C.CONTEXT_WINDOW: """
        context_length_exceeded context_window_exceeded string_above_max_length request_too_large
        exceed_context_size_error
    """,
    _C.CONTENT_FILTER: """
        content_filter content_policy_violation responsibleaipolicyviolation moderation_blocked image_content_policy
        content_filtered safety prohibited_content recitation data_inspection_failed guardrail_intervened
    """,
    _C.REFUSAL: "refusal",
    _C.INVALID_REQUEST: """
        invalid_request_error invalid_argument validationexception failed_precondition out_of_range bad_request
        invalid_request unprocessable_entity 400 422 invalid_prompt unsupported_parameter invalid_value
    """,
}

CODES: dict[str, ErrorCategory] = {
    word: category for category, words in _WORDS.items() for word in words.split()
}

# Too general to settle a case on their own: the message and the status are asked first.
GENERAL_CODES = frozenset(
    [
        "invalid_request_error",
        "invalid_argument",
        "validationexception",
        "bad_request",
        "invalid_request",
        "failed_precondition",
        "api_error",
        "server_error",
        "internal",
        "internal_server_error",
        "unknown",
        "requests",
        "tokens",
        "request_too_large",
        "throttling",
        "internal_error",
        "resource_exhausted",
        "rate_limit_error",
        "rate_limit_exceeded",
        "too_many_requests",
    ]
)

_SPEND = re.compile(r"(spend|usage|credit|billing)_limit_(exceeded|reached)$")


def code_category(code: str) -> ErrorCategory | None:
    """What a code means; None if it is not known."""
    word = code.lower().replace("-", "_").strip()
    found = CODES.get(word)
    if found is None and _SPEND.search(word):
        return ErrorCategory.QUOTA
    return found


# Vendors that have no code for it say it in words.
MESSAGES: tuple[tuple[re.Pattern[str], ErrorCategory], ...] = (
    (
        re.compile(
            r"maximum context length|reduce the length|prompt is too long|input is too long|context (window|length)"
            r"|input token count.{0,80}exceeds|too many (input )?tokens|exceeds? the (available )?context"
            r"|input length and `?max_tokens`? exceed|longer than the model's context",
            re.IGNORECASE | re.DOTALL,
        ),
        _C.CONTEXT_WINDOW,
    ),
    (
        re.compile(
            r"credit balance is too low|insufficient (balance|credits|quota)|exceeded your current quota"
            r"|no (remaining )?credits|usage limits? (has|have) been|out of credits|(reached|exceeded).{0,40}spend",
            re.IGNORECASE,
        ),
        _C.QUOTA,
    ),
    (
        re.compile(r"content management policy|content policy|safety system", re.IGNORECASE),
        _C.CONTENT_FILTER,
    ),
    (re.compile(r"api key not valid|invalid api key|incorrect api key", re.IGNORECASE), _C.AUTH),
    (re.compile(r"overloaded|over capacity|at capacity", re.IGNORECASE), _C.OVERLOADED),
)

STATUS = {
    400: _C.INVALID_REQUEST,
    401: _C.AUTH,
    402: _C.QUOTA,
    403: _C.AUTH,
    404: _C.NOT_FOUND,
    408: _C.TIMEOUT,
    409: _C.UNAVAILABLE,
    413: _C.CONTEXT_WINDOW,
    422: _C.INVALID_REQUEST,
    425: _C.UNAVAILABLE,
    429: _C.RATE_LIMIT,
    498: _C.OVERLOADED,  # Groq's flex tier without capacity
    499: _C.CONNECTION,
    500: _C.SERVER,
    502: _C.SERVER,
    503: _C.UNAVAILABLE,
    504: _C.TIMEOUT,
    522: _C.CONNECTION,
    524: _C.TIMEOUT,
    529: _C.OVERLOADED,
}

# Class names, for errors without a status. Looked up along the class and its bases, the most
# specific first, so that neither an SDK nor its HTTP library has to be imported (openai 2 sits on
# httpx, openai 3 on httpx2).
CLASSES = {
    "ContextWindowExceededError": _C.CONTEXT_WINDOW,
    "ContentPolicyViolationError": _C.CONTENT_FILTER,
    "ContentFilterFinishReasonError": _C.CONTENT_FILTER,
    "LengthFinishReasonError": _C.INVALID_REQUEST,
    "MidStreamFallbackError": _C.STREAM_INTERRUPTED,
    "BudgetExceededError": _C.BUDGET,
    "CredentialsError": _C.AUTH,
    "NoCredentialsError": _C.AUTH,
    "DefaultCredentialsError": _C.AUTH,
    "EventStreamError": _C.STREAM_INTERRUPTED,
    "ConnectTimeout": _C.CONNECTION,
    "ConnectTimeoutError": _C.CONNECTION,
    "PoolTimeout": _C.CONNECTION,
    "APITimeoutError": _C.TIMEOUT,
    "Timeout": _C.TIMEOUT,
    "TimeoutException": _C.TIMEOUT,
    "ReadTimeoutError": _C.TIMEOUT,
    "ServerTimeoutError": _C.TIMEOUT,
    "TimeoutError": _C.TIMEOUT,
    "IncompleteRead": _C.STREAM_INTERRUPTED,
    "IncompleteReadError": _C.STREAM_INTERRUPTED,
    "ProtocolError": _C.STREAM_INTERRUPTED,
    "ChunkedEncodingError": _C.STREAM_INTERRUPTED,
    "ClientPayloadError": _C.STREAM_INTERRUPTED,
    "RemoteProtocolError": _C.STREAM_INTERRUPTED,
    "ResponseStreamingError": _C.STREAM_INTERRUPTED,
    "ReadError": _C.STREAM_INTERRUPTED,
    "APIConnectionError": _C.CONNECTION,
    "ConnectionError": _C.CONNECTION,
    "ConnectError": _C.CONNECTION,
    "EndpointConnectionError": _C.CONNECTION,
    "ConnectionClosedError": _C.CONNECTION,
    "HTTPClientError": _C.CONNECTION,
    "ClientConnectionError": _C.CONNECTION,
    "TransportError": _C.CONNECTION,
    "RequestError": _C.CONNECTION,
    "NetworkError": _C.CONNECTION,
    "gaierror": _C.CONNECTION,
    "SSLError": _C.CONNECTION,
    "JSONDecodeError": _C.SERVER,
    "UnicodeDecodeError": _C.SERVER,
    "APIResponseValidationError": _C.SERVER,
    "UnknownApiResponseError": _C.SERVER,
}

# Classes that say more than the 400 or 500 which their library has put on them.
TELLING_CLASSES = frozenset(
    {_C.CONTEXT_WINDOW, _C.CONTENT_FILTER, _C.STREAM_INTERRUPTED, _C.BUDGET}
)

# The model has answered in full; it is the SDK that rejects the answer.
ANSWERED = frozenset(
    [
        "LengthFinishReasonError",
        "ContentFilterFinishReasonError",
        "APIResponseValidationError",
        "JSONDecodeError",
        "UnknownApiResponseError",
    ]
)

# Raised before or while connecting: the vendor can't have begun to work.
NEVER_SENT = frozenset(
    [
        "ConnectTimeout",
        "ConnectTimeoutError",
        "ConnectError",
        "EndpointConnectionError",
        "ProxyConnectionError",
        "PoolTimeout",
        "gaierror",
    ]
)

# Roots of modules whose otherwise unknown errors are the vendor's, not ours.
VENDOR_MODULES = frozenset(
    [
        "openai",
        "anthropic",
        "litellm",
        "google",
        "mistralai",
        "cohere",
        "groq",
        "together",
        "fireworks",
        "ollama",
        "xai_sdk",
        "perplexity",
        "openrouter",
        "botocore",
        "httpx",
        "httpx2",
        "httpcore",
        "httpcore2",
        "aiohttp",
        "requests",
        "urllib3",
        "grpc",
    ]
)
