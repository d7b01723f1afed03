"""Instructor with a wrapped client: what it asks for again, because an answer did not fit, is booked as well.

    pip install 'glidemq-llm[openai]' instructor   # in an environment of its own: it holds openai at 2.x
    OPENAI_API_KEY=... python cookbook/frameworks/with_instructor.py

Without a key, where the first answer is wrong, it prints:

    Let me see. Let me see.
    result: {'city': 'Oslo', 'rain_mm': 4}
    booked: 2 calls, 48 tokens
"""

import asyncio

import instructor
from _common import MODEL, calls, openai, show
from pydantic import BaseModel

from glidemq_core import Queue, Worker


class Weather(BaseModel):
    city: str
    rain_mm: int


async def main() -> None:
    wrong = calls("Weather", city="Oslo", rain_mm="a lot")
    right = calls("Weather", city="Oslo", rain_mm=4)
    with openai(wrong, right) as client:
        model = instructor.from_openai(client)

        async def answer(job):
            return await model.create(
                model=MODEL,
                messages=[{"role": "user", "content": job.data}],
                response_model=Weather,
                max_retries=2,
            )

        async with client, Queue("instructor") as queue, Worker("instructor", answer):
            await show(await queue.add("answer", "It rains in Oslo, four millimetres."))


if __name__ == "__main__":
    asyncio.run(main())
