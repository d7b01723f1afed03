"""Amazon Bedrock, by boto3's Converse.

    pip install 'glidemq-llm[bedrock,prices]'
    AWS_PROFILE=... python cookbook/vendors/ask_bedrock.py

boto3 blocks, so the handler is a plain function: it runs in a thread of its own. The usage is the last event of all, after the
one that ends the answer; cached tokens stand beside the input, and thinking is not told from the output.

Without a profile it prints:

    content: The tide is the pull of the moon.
    tokens: 12 cached_input, 18 input, 14 output (complete)
    cost: 0.00000462 usd (by genai-prices)
"""

import asyncio

import boto3
from _common import QUESTION, show, vendor

from glidemq_core import Queue, Worker
from glidemq_llm import wrap


async def main() -> None:
    with vendor("bedrock", key="AWS_PROFILE") as at:
        # Without a profile: names that no one checks.
        login = {"aws_access_key_id": "none", "aws_secret_access_key": "none"} if at.url else {}
        session = boto3.Session(region_name="us-east-1", **login)
        client = wrap(session.client("bedrock-runtime", endpoint_url=at.url))

        def answer(job):
            stream = client.converse_stream(
                modelId="us.amazon.nova-lite-v1:0",
                messages=[{"role": "user", "content": [{"text": job.data}]}],
            )
            for _ in stream["stream"]:
                pass  # the wrapped client writes each piece into the job's stream

        async with Queue("bedrock") as queue, Worker("bedrock", answer):
            await show(await queue.add("answer", QUESTION))
        client.close()


if __name__ == "__main__":
    asyncio.run(main())
