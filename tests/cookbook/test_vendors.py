"""Every vendor's recipe runs without a key, on loopback, and prints what it says it prints: the answer, the tokens as this
vendor tells them, and their price.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
from decimal import Decimal

import pytest

from glidemq_llm.demo.local import local_model
from tests.harness.recipes import COOKBOOK, promised, run

pytestmark = pytest.mark.timeout(120)

RECIPES = {path.stem.removeprefix("ask_"): path for path in (COOKBOOK / "vendors").glob("ask_*.py")}
# The price is that of a table, which moves: as whose, and of which model.
LISTED = {
    "openai": ("openai", "gpt-5-mini"),
    "azure": ("azure", "gpt-5-mini"),
    "anthropic": ("anthropic", "claude-haiku-4-5"),
    "gemini": ("google", "gemini-2.5-flash"),
    "vertex": ("google", "gemini-2.5-flash"),
    "bedrock": ("aws", "us.amazon.nova-lite-v1:0"),
    "mistral": ("mistral", "magistral-small-latest"),
    "cohere": ("cohere", "command-a-03-2025"),
    "groq": ("groq", "openai/gpt-oss-120b"),
    "deepseek": ("deepseek", "deepseek-reasoner"),
    "together": ("together", "openai/gpt-oss-120b"),
    "fireworks": ("fireworks", "accounts/fireworks/models/gpt-oss-120b"),
}
STATED = {"xai", "openrouter", "perplexity"}
FREE = {"ollama", "vllm", "llama_cpp"}
COST = re.compile(r"cost: (\S+) usd")


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


@pytest.mark.vendors
@pytest.mark.parametrize("vendor", sorted(set(RECIPES) - {"litellm"}))
def test_recipe_of_a_vendor_prints_what_it_says(vendor, url):
    done = run(RECIPES[vendor], url)

    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    printed, said = done.stdout, promised(RECIPES[vendor])
    if vendor in LISTED:
        assert abs(cost_of(printed) - listed(vendor)) < Decimal("2e-9")
        printed, said = COST.sub("cost: listed", printed), COST.sub("cost: listed", said)
    assert lines(printed) == lines(said)


def cost_of(printed: str) -> Decimal:
    found = COST.search(printed)
    assert found, printed
    return Decimal(found.group(1))


def listed(vendor: str) -> Decimal:
    """What 30 tokens of input, 12 of them cached, and 14 of output cost, by the table's own reckoning."""
    genai_prices = pytest.importorskip("genai_prices")
    provider, model = LISTED[vendor]
    used = genai_prices.Usage(input_tokens=30, cache_read_tokens=12, output_tokens=14)
    return genai_prices.calc_price(used, model, provider_id=provider).total_price


def test_every_vendor_has_a_recipe_and_a_price_that_is_checked():
    assert set(RECIPES) == LISTED.keys() | STATED | FREE | {"litellm"}


@pytest.mark.skipif(not importlib.util.find_spec("litellm"), reason="litellm: make litellm")
def test_recipe_with_litellm_prints_what_it_says(url):
    done = run(RECIPES["litellm"], url)

    assert done.returncode == 0, done.stderr
    said = promised(RECIPES["litellm"])
    assert cost_of(done.stdout) > 0
    assert lines(COST.sub("", done.stdout)) == lines(COST.sub("", said))


@pytest.mark.model
async def test_recipe_of_llama_cpp_asks_a_real_server(url):
    async with local_model() as base_url:
        done = await asyncio.to_thread(run, RECIPES["llama_cpp"], url, LLAMA_CPP_URL=base_url)

    assert done.returncode == 0, done.stderr
    answer, tokens, cost = done.stdout.rsplit("\n", 3)[:3]
    assert len(answer.split()) > 3
    assert re.fullmatch(r"tokens: (\d+ cached_input, )?\d+ input, \d+ output \(complete\)", tokens)
    assert cost == "cost: unknown"


def test_index_names_every_recipe():
    index = (COOKBOOK / "README.md").read_text()
    named = set(re.findall(r"\]\((\S+\.py)\)", index))
    recipes = {str(path.relative_to(COOKBOOK)) for path in COOKBOOK.glob("**/[!_]*.py")}

    assert named == recipes
