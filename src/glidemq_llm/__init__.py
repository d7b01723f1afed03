"""Middleware for LLM providers on top of `glidemq_core`.

Names are imported at their first use, so that `import glidemq_llm` costs next to nothing, opens no
connection and loads no vendor's library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glidemq_llm._wrap import wrap as wrap
    from glidemq_llm.agent import agent_handler as agent_handler
    from glidemq_llm.chunks import ChunkType as ChunkType
    from glidemq_llm.chunks import Finish as Finish
    from glidemq_llm.chunks import FinishReason as FinishReason
    from glidemq_llm.chunks import Piece as Piece
    from glidemq_llm.classify import ErrorCategory as ErrorCategory
    from glidemq_llm.classify import ErrorInfo as ErrorInfo
    from glidemq_llm.classify import classify_error as classify_error
    from glidemq_llm.errors import AnswerUnreadable as AnswerUnreadable
    from glidemq_llm.errors import FallbacksExhausted as FallbacksExhausted
    from glidemq_llm.errors import ProviderError as ProviderError
    from glidemq_llm.errors import StreamFailed as StreamFailed
    from glidemq_llm.errors import StreamInterrupted as StreamInterrupted
    from glidemq_llm.errors import StreamStalled as StreamStalled
    from glidemq_llm.errors import TurnsExceeded as TurnsExceeded
    from glidemq_llm.errors import UnpricedModel as UnpricedModel
    from glidemq_llm.handler import chat_handler as chat_handler
    from glidemq_llm.handler import embeddings_handler as embeddings_handler
    from glidemq_llm.handler import responses_handler as responses_handler
    from glidemq_llm.limits import Axis as Axis
    from glidemq_llm.limits import RateLimits as RateLimits
    from glidemq_llm.limits import parse_rate_limits as parse_rate_limits
    from glidemq_llm.pricing import Cost as Cost
    from glidemq_llm.pricing import Pricing as Pricing
    from glidemq_llm.settings import MeterSettings as MeterSettings
    from glidemq_llm.tokens import Corrections as Corrections
    from glidemq_llm.tokens import Estimate as Estimate
    from glidemq_llm.tokens import ReceivedCounter as ReceivedCounter
    from glidemq_llm.tokens import count_text as count_text
    from glidemq_llm.tokens import estimate_tokens as estimate_tokens
    from glidemq_llm.tools import Tool as Tool
    from glidemq_llm.translators import Translator as Translator
    from glidemq_llm.translators import translator as translator
    from glidemq_llm.usage import Usage as Usage
    from glidemq_llm.usage import UsageAccumulator as UsageAccumulator
    from glidemq_llm.usage import normalize_usage as normalize_usage

# Every public name, by the module that has it. A new one is added here and to the block above.
_MODULES = {
    "agent": ("agent_handler",),
    "chunks": ("ChunkType", "Finish", "FinishReason", "Piece"),
    "classify": ("ErrorCategory", "ErrorInfo", "classify_error"),
    "errors": (
        "AnswerUnreadable",
        "FallbacksExhausted",
        "ProviderError",
        "StreamFailed",
        "StreamInterrupted",
        "StreamStalled",
        "TurnsExceeded",
        "UnpricedModel",
    ),
    "limits": ("Axis", "RateLimits", "parse_rate_limits"),
    "pricing": ("Cost", "Pricing"),
    "settings": ("MeterSettings",),
    "tokens": ("Corrections", "Estimate", "ReceivedCounter", "count_text", "estimate_tokens"),
    "tools": ("Tool",),
    "translators": ("Translator", "translator"),
    "usage": ("Usage", "UsageAccumulator", "normalize_usage"),
    "_wrap": ("wrap",),
    "handler": ("chat_handler", "responses_handler", "embeddings_handler"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOME)
