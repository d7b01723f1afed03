"""A made-up price for the local model, so that the demo's table has a cost to show."""

from __future__ import annotations

from glidemq_llm.demo.model_server import MODEL_NAME

# US dollars for a million tokens.
LOCAL_PRICES = {MODEL_NAME: {"input": "0.10", "cached_input": "0.05", "output": "0.40"}}
