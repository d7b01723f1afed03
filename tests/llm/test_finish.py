"""The vocabulary of chunks and of ends."""

import enum
from typing import Any, get_args

import pytest

from glidemq_llm.chunks import ChunkType, finish_reason


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("stop", "stop"),
        ("end_turn", "stop"),
        ("COMPLETE", "stop"),
        ("MAX_TOKENS", "length"),
        ("tool_use", "tool_calls"),
        ("SAFETY", "content_filter"),
        ("guardrail_intervened", "content_filter"),
        ("refusal", "refusal"),
        ("pause_turn", "pause"),
        ("model_context_window_exceeded", "context_window"),
        ("MALFORMED_FUNCTION_CALL", "error"),
        ("brand_new", "unknown"),
        (None, "unknown"),
    ],
)
def test_finish_reasons(raw, reason):
    assert finish_reason(raw) == reason


def gemini():
    from google.genai.types import FinishReason

    return FinishReason


def anthropic():
    from anthropic.types import StopReason

    return StopReason


def openai():
    from openai.types.chat.chat_completion import Choice

    return Choice.model_fields["finish_reason"].annotation


def mistral():
    from mistralai.client.models import ChatCompletionChoice

    return ChatCompletionChoice.model_fields["finish_reason"].annotation


def cohere():
    from cohere.types import ChatFinishReason

    return ChatFinishReason


def bedrock():
    import boto3

    client = boto3.client("bedrock-runtime", region_name="us-east-1")
    return client.meta.service_model.shape_for("StopReason").enum


def words(kind: Any) -> set[str]:
    """The words of an enum, or of the literals in an annotation."""
    if isinstance(kind, list):
        return set(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {str(one.value) for one in kind}
    if isinstance(kind, str):
        return {kind}
    return set().union(*map(words, get_args(kind))) if get_args(kind) else set()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("vendor", [gemini, anthropic, openai, mistral, cohere, bedrock])
def test_every_word_that_an_sdk_knows_has_a_meaning_here(vendor):
    pytest.importorskip(
        {"gemini": "google.genai", "mistral": "mistralai", "bedrock": "boto3"}.get(
            vendor.__name__, vendor.__name__
        )
    )
    known = words(vendor())

    assert len(known) > 3
    assert {word for word in known if finish_reason(word) == "unknown"} <= {
        "FINISH_REASON_UNSPECIFIED"
    }


def test_vocabulary_of_types():
    types = "start content reasoning tool_call tool_result refusal citation image usage error reset done"

    assert " ".join(ChunkType) == types
