"""The vocabulary of chunks and of ends."""

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


def test_vocabulary_of_types():
    types = "start content reasoning tool_call tool_result refusal citation usage error reset done"

    assert " ".join(ChunkType) == types
