"""The local model for scripts: `async with local_model() as base_url`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from glidemq_llm.demo.processes import Processes


@asynccontextmanager
async def local_model(*, slots: int = 2) -> AsyncGenerator[str]:
    """Run the small local model in a process of its own for the length of the block.

    Args:
        slots: How many answers it generates at once.

    Yields:
        The base URL for an OpenAI client; the API key may be anything, the model's name is `smollm2`.

    Raises:
        RuntimeError: The server did not start, for example because the model is not installed.
    """
    async with Processes() as processes:
        yield f"{await processes.model_server(slots)}/v1"
