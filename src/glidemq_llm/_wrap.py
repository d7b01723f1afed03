"""`wrap`: the client you have, metered inside jobs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from types import ModuleType
from typing import Any, TypeVar, Unpack

from glidemq_core.errors import InvalidOption
from glidemq_llm.providers._hooks import unwrapped
from glidemq_llm.settings import MeterOptions, MeterSettings, with_options

T = TypeVar("T")

# By the package that a client's class (or a function) comes from. No SDK is imported here.
_PROVIDERS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "litellm": "litellm",
    "google.genai": "google",
    "mistralai": "mistral",
    "cohere": "cohere",
    "ollama": "ollama",
    "botocore": "bedrock",
}


def wrap(
    client: T,
    *,
    job: Any = None,
    settings: MeterSettings | None = None,
    **options: Unpack[MeterOptions],
) -> T:
    """A metered copy of a provider's client: the same class, the same methods, sharing its connections.

    Inside a job's handler its calls write their tokens into the job's stream, and their usage is normalised, priced
    and booked on the job, on every way out. Outside of a job nothing changes. The given client is left as it was.

    Args:
        client: `AsyncOpenAI`, `OpenAI` (with any `base_url`), the Azure clients, `AsyncAnthropic`, `Anthropic`,
            `litellm.acompletion`, `litellm.completion`, the litellm module or its `Router`; google-genai's `Client`,
            `Mistral`, cohere's `ClientV2` and `AsyncClientV2`, ollama's `Client` and `AsyncClient`, boto3's
            "bedrock-runtime". An async client is metered in async handlers, a sync one in sync handlers, which run in
            threads of their own.
        job: The job that all calls belong to. Default: the one whose handler is running.
        settings: How calls are metered.
        options: Fields of `MeterSettings`, which beat those of `settings`: `pricing`, `limits`, `stream`, `idle_timeout`, ...

    Raises:
        InvalidOption: The client's library is not known here (then use `job.llm_call`), or an option is not what it has to be.
    """
    provider = package_of(client)
    module = importlib.import_module(f"glidemq_llm.providers.{provider}")
    return module.wrap(unwrapped(client), with_options(settings, options), job)


def package_of(client: object) -> str:
    """Which of the known client libraries an object comes from.

    Raises:
        InvalidOption: None of them.
    """
    for name in _modules(unwrapped(client)):
        for package, provider in _PROVIDERS.items():
            if name == package or name.startswith(f"{package}."):
                return provider
    raise InvalidOption(
        "client",
        client,
        f"no adapter for {type(client).__name__}{missing_sdk(client)}; known are {', '.join(sorted(_PROVIDERS))}. "
        "Any other SDK is metered by hand: async with job.llm_call(model, tokens=estimate) as call: ...",
    )


def missing_sdk(name: object) -> str:
    """What brings the SDK of a provider, to end an error's message with; empty if it is installed, or no such provider."""
    for package, extra in _PROVIDERS.items():
        if name in (package, extra) and not _is_installed(package):
            return f' (its SDK is not installed: pip install "glidemq-llm[{extra}]")'
    return ""


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # nor is the package around it
        return False


def _modules(client: object) -> Iterator[str]:
    """Where a client may come from: a module's name, a function's, or those of its class and bases."""
    if isinstance(client, ModuleType):
        yield client.__name__
    else:
        yield str(getattr(client, "__module__", ""))
        for base in type(client).__mro__:
            yield base.__module__
