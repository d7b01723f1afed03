"""What a model call writes into its job's stream, and how a call can end. The vocabulary is the
same for every vendor.

| type | content | fields |
|---|---|---|
| start | | call, model, provider, attempt; max_tokens if it was lowered to fit a budget |
| content | text | index |
| reasoning | text | index, kind ("text" or "summary") |
| tool_call | a piece of the arguments' JSON | index, id, name; done="1" closes it; server="1": the vendor runs it |
| tool_result | what the tool answered, as the model reads it; of the vendor's own tools, JSON | id, name; error="1" |
| refusal | text, or what was filtered | |
| citation | JSON | |
| image | its address, if the vendor gives one | index, id, media_type, bytes, size ("1024x768"); partial="1": a draft |
| usage | JSON of the usage | call, status |
| error | message | call, category, code, retryable |
| reset | reason | call, attempt: drop what the call has written since its start |
| done | finish reason | call, raw |

`call` names the model call ("job/run/n"), `attempt` the job's attempt. Every chunk of a call has its name as `Chunk.call`,
whether or not it is among its fields, where it is only as often as need be. All have, as `Chunk.epoch` and `Chunk.seq`, the
run that wrote them and their number there: a reader can go on from one, and drop what a lost run wrote.

An image is never in the stream, where it would be kept beside every other chunk and sent to every reader: it is in the
answer that the handler is given. Store it there, and tell readers where with a chunk of your own.

The pieces of one vendor's events are made by `glidemq_llm.translators`; `start`, `usage`, `reset`
and `done` belong to whoever runs the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from glidemq_llm._read import text


class ChunkType(StrEnum):
    """The types of chunks of a model call."""

    START = "start"
    CONTENT = "content"
    REASONING = "reasoning"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"
    REFUSAL = "refusal"
    CITATION = "citation"
    IMAGE = "image"
    USAGE = "usage"
    ERROR = "error"
    RESET = "reset"
    DONE = "done"


class FinishReason(StrEnum):
    """Why a model stopped, in one vocabulary."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    PAUSE = "pause"
    CONTEXT_WINDOW = "context_window"
    ERROR = "error"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


class Piece(NamedTuple):
    """One piece of an answer, ready for `job.stream_chunk(piece.type, piece.content,
    **piece.fields)`.
    """

    type: str
    content: str
    fields: Mapping[str, str] = {}


class Finish(NamedTuple):
    """Why a stream ended: the common reason and the vendor's own word."""

    reason: FinishReason
    raw: str


_F = FinishReason

# The vendors' words in lower case. Those that are not here are UNKNOWN, with the raw word beside.
_FINISH_WORDS: dict[FinishReason, str] = {
    _F.STOP: "stop end_turn stop_sequence complete completed eos stop_token finish_reason_stop end done load unload",
    _F.LENGTH: "length max_tokens max_output_tokens max_token max_length truncated",
    _F.TOOL_CALLS: "tool_calls function_call tool_use tool_call function_calls",
    _F.CONTENT_FILTER: """content_filter content_filtered safety recitation blocklist prohibited_content spii
        image_safety image_prohibited_content image_recitation guardrail_intervened error_toxic language escalation
        pup_limited_disabled
        sensitive model_armor""",
    _F.REFUSAL: "refusal refused",
    _F.PAUSE: "pause_turn pause compaction continuation",
    _F.CONTEXT_WINDOW: "model_context_window_exceeded context_window error_limit context_length_exceeded model_length",
    _F.ERROR: """error failed malformed_function_call unexpected_tool_call malformed_model_output no_image
        malformed_tool_use insufficient_system_resource network_error other image_other timeout too_many_tool_calls
        missing_thought_signature malformed_response""",
    _F.CANCELLED: "cancelled canceled user_cancel abort aborted",
}
_BY_WORD = {word: reason for reason, words in _FINISH_WORDS.items() for word in words.split()}


def finish_reason(raw: object) -> FinishReason:
    """The common reason for a vendor's word.

    >>> finish_reason("MAX_TOKENS")
    <FinishReason.LENGTH: 'length'>
    """
    return _BY_WORD.get((text(raw) or "").lower(), FinishReason.UNKNOWN)
