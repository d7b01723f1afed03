"""Money: known models, overrides, tiers, several models in one answer, and honest ignorance."""

import json
import sys
from decimal import Decimal

import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glidemq_core import InvalidOption
from glidemq_core._units import from_nano, to_nano
from glidemq_llm import Pricing, UnpricedModel, Usage, normalize_usage

OWN = {
    "own-model": {"input": "1", "cached_input": "0.1", "output": 10, "web_search_requests": "0.01"}
}


def used(model: str, provider: str | None = None, **rest: object) -> Usage:
    tokens = rest.pop("tokens", {"input": 1000, "output": 100})
    return Usage(model=model, provider=provider, tokens=tokens, **rest)


def by_genai(model: str, provider: str, *, context: dict | None = None, **tokens: int) -> Decimal:
    usage = genai_prices.Usage(**tokens)
    return genai_prices.calc_price(
        usage, model, provider_id=provider, price_context=context
    ).total_price


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-5", "openai"),
        ("gpt-5-mini", "openai"),
        ("gpt-4o-2024-08-06", "openai"),
        ("claude-sonnet-4-5", "anthropic"),
        ("gemini-2.5-flash", "google"),
        ("mistral-large-latest", "mistral"),
    ],
)
def test_known_model_costs_what_the_table_says(model, provider):
    cost = Pricing().cost(used(model, provider))

    assert cost.total == by_genai(model, provider, input_tokens=1000, output_tokens=100)
    assert cost.source == "genai-prices"


@pytest.mark.parametrize(
    ("model", "provider", "table"),
    [
        ("openai/gpt-5", None, "openai"),
        ("gpt-5", None, "openai"),
        ("gemini-2.5-flash", "vertex_ai", "google"),
        ("gpt-5", "my-gateway", "openai"),
        ("anthropic/claude-sonnet-4-5", "litellm", "anthropic"),
    ],
)
def test_model_is_found_under_the_names_people_use(model, provider, table):
    cost = Pricing().cost(used(model, provider))

    assert cost.total == by_genai(
        model.rpartition("/")[2], table, input_tokens=1000, output_tokens=100
    )


def test_categories_are_priced_apart_and_add_up():
    tokens = {
        "input": 16,
        "cached_input": 13637,
        "cache_write": 4000,
        "cache_write_1h": 3049,
        "output": 344,
    }

    cost = Pricing().cost(used("claude-sonnet-4-5", "anthropic", tokens=tokens))

    assert cost.total == by_genai(
        "claude-sonnet-4-5",
        "anthropic",
        input_tokens=16 + 13637 + 7049,
        cache_read_tokens=13637,
        cache_write_tokens=7049,
        cache_write_1h_tokens=3049,
        output_tokens=344,
    )
    assert cost.by_category["cache_write_1h"] == to_nano(Decimal(3049) * 6 / 10**6, "cost")
    assert sum(cost.by_category.values()) == cost.nano


@pytest.mark.parametrize(
    ("model", "provider", "usage", "context"),
    [
        ("gpt-5.1", "openai", {"service_tier": "flex"}, {"service_tier": "flex"}),
        ("gpt-5.1", "openai", {"service_tier": "priority"}, {"service_tier": "priority"}),
        ("gpt-5.1", "openai", {"service_tier": "default"}, None),
        ("claude-opus-4-8", "anthropic", {"speed": "fast"}, {"speed": "fast"}),
        ("claude-sonnet-4-5", "anthropic", {"service_tier": "batch"}, {"processing": "batch"}),
    ],
)
def test_tier_and_speed_have_their_own_price(model, provider, usage, context):
    cost = Pricing().cost(used(model, provider, **usage))

    assert cost.total == by_genai(
        model, provider, context=context, input_tokens=1000, output_tokens=100
    )


def test_long_prompt_pays_the_long_price_for_all_of_it():
    tokens = {"input": 10, "cached_input": 199_999, "output": 100}

    cost = Pricing().cost(used("claude-sonnet-4-5", "anthropic", tokens=tokens))

    assert cost.total == by_genai(
        "claude-sonnet-4-5",
        "anthropic",
        input_tokens=200_009,
        cache_read_tokens=199_999,
        output_tokens=100,
    )
    assert cost.by_category["output"] == to_nano(Decimal(100) * Decimal("22.5") / 10**6, "cost")


def test_batch_is_half_where_no_batch_price_is_known():
    for pricing, model in ((Pricing(), "claude-2"), (Pricing(overrides=OWN), "own-model")):
        assert pricing.cost(used(model), batch=True).nano * 2 == pricing.cost(used(model)).nano


def test_vendors_own_figure_beats_every_table():
    usage = used("own-model", provider_cost=Decimal("0.0042"))

    cost = Pricing(overrides=OWN).cost(usage)

    assert (cost.total, cost.source, dict(cost.by_category)) == (Decimal("0.0042"), "provider", {})


def test_override_beats_the_tables():
    cost = Pricing(overrides={"gpt-5": {"input": 1, "output": 1}}).cost(used("gpt-5", "openai"))

    assert (cost.total, cost.source) == (Decimal("0.0011"), "override")


@pytest.mark.parametrize(
    ("key", "price"),
    [
        ("acme/big-model-2", 5),
        ("big-model-2", 4),
        ("big-model", 3),
        ("big-*", 2),
        ("*", 1),
    ],
)
def test_longest_override_that_fits_wins(key, price):
    keys = ["*", "big-*", "big-model", "big-model-2", "acme/big-model-2"]
    overrides = {name: {"input": number} for number, name in enumerate(keys, 1)}
    known = {name: overrides[name] for name in keys[: keys.index(key) + 1]}

    cost = Pricing(overrides=known).cost(used("big-model-2", "acme", tokens={"input": 10**6}))

    assert cost.total == price


def test_category_without_a_price_takes_that_of_its_fallback():
    tokens = {
        "input": 100,
        "cached_audio_input": 100,
        "cache_write_12h": 100,
        "reasoning": 100,
        "other": 100,
    }

    cost = Pricing(overrides=OWN).cost(used("own-model", tokens=tokens))

    assert dict(cost.by_category) == {
        "input": 100_000,
        "cached_audio_input": 10_000,
        "cache_write_12h": 100_000,
        "reasoning": 1_000_000,
        "other": 1_000_000,
    }


def test_searches_are_priced_apiece_and_unpriced_counts_are_told():
    usage = used("own-model", counts={"web_search_requests": 3, "pages": 2})

    cost = Pricing(overrides=OWN).cost(usage)

    assert cost.by_category["web_search_requests"] == to_nano("0.03", "cost")
    assert cost.unpriced == ("pages",)


def test_counts_alone_can_be_priced():
    usage = Usage(model="whisper", counts={"audio_seconds": 27})

    assert Pricing(overrides={"whisper": {"audio_seconds": "0.0001"}}).cost(usage).total == Decimal(
        "0.0027"
    )
    assert Pricing(overrides={"whisper": {"input": 1}}).cost(usage) is None


def test_every_model_of_an_answer_has_its_own_price():
    parts = [("own-model", {"input": 1000, "output": 10}), ("gpt-5", {"input": 2000, "output": 20})]
    usage = used("own-model", tokens={"input": 3000, "output": 30}, parts=parts)

    cost = Pricing(overrides=OWN).cost(usage)

    assert cost.total == Decimal("0.0011") + by_genai(
        "gpt-5", "openai", input_tokens=2000, output_tokens=20
    )
    assert cost.source == "override+genai-prices"


def test_one_unknown_model_makes_the_whole_unknown():
    parts = [("own-model", {"input": 1}), ("nobody-knows", {"input": 1})]

    assert Pricing(overrides=OWN).cost(used("own-model", tokens={"input": 2}, parts=parts)) is None


def test_invoiced_tokens_are_priced_and_not_processed_ones():
    body = {
        "usage": {
            "billed_units": {"input_tokens": 431, "output_tokens": 661},
            "tokens": {"input_tokens": 2190, "output_tokens": 1257},
        },
        "model": "command-r-plus",
    }

    cost = Pricing().cost(normalize_usage(body, provider="cohere"))

    assert cost.total == by_genai("command-r-plus", "cohere", input_tokens=431, output_tokens=661)


@pytest.mark.parametrize(
    "usage",
    [
        used("nobody-knows"),
        used("gpt-5", "ollama"),
        used("ollama/gpt-5"),
        Usage(model="gpt-5", status="missing"),
        Usage(tokens={"input": 5}),
    ],
)
def test_unknown_is_none_and_never_zero(usage):
    assert Pricing().cost(usage) is None


def test_kind_of_token_that_was_not_used_needs_no_price():
    pricing = Pricing(overrides={"m": {"input": 1}})

    assert pricing.cost(used("m", tokens={"input": 10**6, "output": 0})).total == 1
    assert pricing.cost(used("m", tokens={"input": 10**6, "output": 1})) is None


def test_requested_model_is_priced_if_the_answer_names_none():
    usage = Usage(tokens={"input": 10**6}, requested_model="own-model")

    assert Pricing(overrides=OWN).cost(usage).total == 1


def test_denied_unpriced_model_is_refused_before_but_booked_after():
    pricing = Pricing(on_unpriced="deny")

    with pytest.raises(UnpricedModel, match="nobody-knows"):
        pricing.quote(used("nobody-knows"))
    assert pricing.cost(used("nobody-knows")) is None
    assert pricing.quote(used("gpt-5")).source == "genai-prices"


def test_unpriced_model_may_be_priced_by_a_function():
    pricing = Pricing(on_unpriced=lambda usage: Decimal(usage.total_tokens) / 1000)

    cost = pricing.quote(used("nobody-knows"))

    assert (cost.total, cost.source) == (Decimal("1.1"), "callable")
    assert Pricing(on_unpriced=lambda _: None).quote(used("nobody-knows")) is None


@pytest.fixture
def litellm_table(tmp_path):
    table = {
        "hosted/llama-9": {
            "input_cost_per_token": 1e-06,
            "input_cost_per_token_above_200k_tokens": 2e-06,
            "input_cost_per_token_priority": 3e-06,
            "cache_read_input_token_cost": 1e-07,
            "cache_creation_input_token_cost_above_1hr": 4e-06,
            "output_cost_per_token": 5e-06,
            "search_context_cost_per_query": {"search_context_size_medium": 0.03},
        },
        "sample_spec": {"input_cost_per_token": 0},
    }
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(table), "utf-8")
    return path


@pytest.mark.parametrize(
    ("usage", "total"),
    [
        (used("llama-9", "hosted"), "0.0015"),
        (used("hosted/llama-9"), "0.0015"),
        (used("hosted/llama-9", "litellm"), "0.0015"),
        (used("llama-9", "hosted", service_tier="priority"), "0.0035"),
        (used("llama-9", "hosted", service_tier="flex"), "0.0015"),
        (used("llama-9", "hosted", service_tier="batch"), "0.00075"),
        (used("llama-9", "hosted", tokens={"input": 200_001}), "0.400002"),
        (used("llama-9", "hosted", tokens={"cached_input": 10, "cache_write_1h": 10}), "0.000041"),
        (used("llama-9", "hosted", counts={"web_search_requests": 2}), "0.0615"),
    ],
)
def test_litellms_table_is_read_as_a_file(litellm_table, usage, total):
    cost = Pricing(litellm_prices=litellm_table).cost(usage)

    assert (cost.total, cost.source) == (Decimal(total), "litellm")


def test_an_installed_litellm_is_found_without_being_imported(tmp_path, monkeypatch, litellm_table):
    package = tmp_path / "litellm"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')", "utf-8")
    (package / "model_prices_and_context_window_backup.json").write_bytes(
        litellm_table.read_bytes()
    )
    monkeypatch.syspath_prepend(tmp_path)
    # Another test may have imported the real one.
    monkeypatch.delitem(sys.modules, "litellm", raising=False)
    from glidemq_llm import _rates

    _rates._litellm_file.cache_clear()
    try:
        cost = Pricing().cost(used("llama-9", "hosted"))
    finally:
        _rates._litellm_file.cache_clear()

    assert cost.source == "litellm"


def test_costs_are_reported_as_plain_decimal_text():
    cost = Pricing(overrides=OWN).cost(used("own-model", tokens={"input": 1, "output": 1}))

    assert cost.as_costs() == {"input": "0.000001", "output": "0.00001", "total": "0.000011"}


@given(
    st.dictionaries(
        st.sampled_from(["input", "cached_input", "output", "reasoning", "cache_write"]),
        st.integers(1, 10**7),
        min_size=1,
    ),
    st.decimals(min_value="0.000001", max_value=100, places=7),
)
def test_nano_dollars_are_rounded_up_once_per_call(tokens, price):
    prices = {"input": price, "cached_input": price / 3, "output": price * 7}

    cost = Pricing(overrides={"m": prices}).cost(used("m", tokens=tokens))

    rates = {"input": price, "cached_input": price / 3, "cache_write": price}
    exact = sum(rates.get(name, price * 7) * count for name, count in tokens.items()) * 1000
    assert exact - Decimal("0.001") <= cost.nano < exact + 1
    assert sum(cost.by_category.values()) == cost.nano


def test_money_is_exact_at_the_edge():
    assert to_nano("0.0000000001", "cost") == 1
    assert from_nano(to_nano("1.23456789", "cost")) == Decimal("1.23456789")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"on_unpriced": "Deny"}, "on_unpriced"),
        ({"on_unpriced": None}, "on_unpriced.*'allow', 'deny', 'deny_capped' or a function"),
        ({"overrides": {"m": {"input": -1}}}, r"overrides\['m'\]\['input'\]"),
        ({"overrides": {"m": {"input": "nan"}}}, "overrides"),
        ({"overrides": {"m": {"input": "a dollar"}}}, "overrides"),
    ],
)
def test_wrong_price_or_policy_is_named_before_any_call(wrong, field):
    with pytest.raises(InvalidOption, match=field):
        Pricing(**wrong)
