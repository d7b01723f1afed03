"""Importing the package is cheap and touches nothing."""

import subprocess
import sys

import pytest

import glidemq_llm
from glidemq_llm import _wrap

HEAVY = [
    "openai",
    "anthropic",
    "litellm",
    "tiktoken",
    "genai_prices",
    "httpx",
    "httpx2",
    "pydantic",
    "google.genai",
    "mistralai",
    "cohere",
    "ollama",
    "botocore",
    "glide",
    "glide_sync",
    "requests",
    "aiohttp",
]

PROBE = """
import socket, sys
def refuse(*_, **__):
    raise AssertionError("opened a socket")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
import glidemq_llm
from glidemq_llm import _wrap
{rest}
print([name for name in {heavy!r} if name in sys.modules])
"""


def loaded_after(rest: str) -> str:
    code = PROBE.format(rest=rest, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50
    )
    return done.stdout.strip()


def test_import_loads_no_vendors_library():
    assert loaded_after("") == "[]"


def test_pure_parts_load_no_vendors_library():
    rest = (
        "from glidemq_llm import normalize_usage, classify_error, parse_rate_limits, Pricing, translator\n"
        "usage = normalize_usage({'usage': {'prompt_tokens': 5, 'completion_tokens': 2}})\n"
        "classify_error(ValueError('x'))\n"
        "Pricing(overrides={'m': {'input': 1}})\n"
        "translator('openai.chat')"
    )

    assert loaded_after(rest) == "[]"


PURE = [
    name
    for name, module in glidemq_llm._HOME.items()
    if module not in ("_wrap", "handler", "throttle")
]


@pytest.mark.parametrize("name", PURE)
def test_every_listed_name_is_where_the_table_says(name):
    assert getattr(glidemq_llm, name) is not None
    assert name in dir(glidemq_llm)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        glidemq_llm.nonsense  # noqa: B018


def test_adapters_load_no_vendors_library_by_themselves():
    adapters = sorted(set(_wrap._PROVIDERS.values()))
    assert (
        loaded_after("".join(f"import glidemq_llm.providers.{name}\n" for name in adapters)) == "[]"
    )
