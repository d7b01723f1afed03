"""llama.cpp's server, on a machine of yours.

    pip install 'glidemq-llm[openai]'
    LLAMA_CPP_URL=http://localhost:8080/v1 python cookbook/vendors/ask_llama_cpp.py

`provider="llama.cpp"` says whose answers these are: at an address of your own it can't be told, and such tokens have no price.
The server's `timings` tell which tokens came from its cache. `make demo` installs a small model;
`python -m glidemq_llm.demo.model_server` serves it.

Without LLAMA_CPP_URL it prints:

    reasoning: hm hm hm hm hm hm
    content: The tide is the pull of the moon.
    tokens: 12 cached_input, 18 input, 14 output (complete)
    cost: unknown
"""

import asyncio
import os

from _common import QUESTION, show, vendor
from openai import AsyncOpenAI

from glidemq_core import Queue, Worker
from glidemq_llm import wrap


async def main() -> None:
    with vendor("llama.cpp", key="LLAMA_CPP_URL", url=os.environ.get("LLAMA_CPP_URL")) as at:
        client = wrap(AsyncOpenAI(base_url=at.url, api_key="none"), provider="llama.cpp")

        async def answer(job):
            stream = await client.chat.completions.create(
                model="default",
                messages=[{"role": "user", "content": job.data}],
                stream=True,
            )
            async for _ in stream:
                pass  # the wrapped client writes each piece into the job's stream

        async with client, Queue("llama_cpp") as queue, Worker("llama_cpp", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
