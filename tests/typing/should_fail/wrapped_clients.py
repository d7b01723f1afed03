"""Each marked line is an error for a type checker."""

# pyright: strict

import openai

from glidemq_llm import wrap

wrapped = wrap(openai.AsyncOpenAI())

wrapped.chat.completions.creat()  # error: no such method
wrapped.chat.completions.create(model=1, messages=[])  # error: not a model's name
wrap(openai.AsyncOpenAI(), streams=True)  # error: no such option
wrap(openai.AsyncOpenAI(), limits=5)  # error: not limiters by name
sync: openai.OpenAI = wrapped  # error: another class
