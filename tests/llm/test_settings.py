"""How calls are metered is said once, and wrong settings are refused before anything is made."""

import dataclasses
import logging

import openai
import pytest

from glidemq_core import Throttle
from glidemq_core.errors import InvalidOption
from glidemq_llm import MeterSettings, Pricing, wrap
from glidemq_llm.settings import MeterOptions, with_options
from tests.harness.provider import Behaviour

WRONG = [
    ("first_event_timeout", 0),
    ("idle_timeout", -1),
    ("call_timeout", float("nan")),
    ("sdk_retries", -1),
    ("slice", 0),
    ("slice", 1.5),
    ("default_output", float("nan")),
    ("min_output", None),
    ("call_timeout", None),
    ("sdk_retries", "3"),
]


def test_every_setting_is_an_option_of_wrap():
    names = [field.name for field in dataclasses.fields(MeterSettings)]

    assert list(MeterOptions.__annotations__) == names


@pytest.mark.parametrize(("name", "value"), WRONG, ids=[name for name, _ in WRONG])
def test_wrong_setting_is_refused_by_its_name(name, value):
    with pytest.raises(InvalidOption) as caught:
        wrap(openai.OpenAI(api_key="k"), **{name: value})

    assert caught.value.field == name


def test_limit_that_is_no_throttle_is_refused():
    with pytest.raises(InvalidOption, match="limits"):
        MeterSettings(limits={"openai": 500})


def test_unknown_option_is_refused_with_those_there_are():
    with pytest.raises(InvalidOption, match="no such option.*idle_timeout"):
        wrap(openai.OpenAI(api_key="k"), idle=3)


def test_options_beat_settings():
    limits = {"*": Throttle(rpm=5)}
    settings = with_options(
        MeterSettings(idle_timeout=5, limits=limits), {"idle_timeout": 7, "pricing": Pricing()}
    )

    assert (settings.idle_timeout, settings.limits) == (7, limits)


async def test_settings_reach_the_call(provider, model, plan, run):
    plan(Behaviour(tokens=5))
    async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k") as client:
        wrapped = wrap(client, settings=MeterSettings(stream=False), report=False)

        async def handler(_job):
            await wrapped.chat.completions.create(model=model, messages=[])

        ended = await run(handler)

    assert ended.tokens == {}
    assert [chunk.type for chunk in ended.chunks] == ["end"]


async def test_sync_client_in_an_async_handler_is_unmetered_and_said_so_once(
    provider, model, run, caplog
):
    with openai.OpenAI(base_url=provider.openai_url, api_key="k") as client:
        wrapped = wrap(client)

        async def handler(_job):
            for _ in range(2):
                wrapped.chat.completions.create(model=model, messages=[])

        with caplog.at_level(logging.WARNING, "glidemq_llm"):
            ended = await run(handler)

    assert ended.tokens == {}
    (warning,) = [line for line in caplog.records if line.name == "glidemq_llm"]
    assert "NOT metered" in warning.message
    assert ended.job.id in warning.message


def test_counting_without_its_package_says_which_extra_to_install(monkeypatch):
    from glidemq_llm import _vocabulary

    monkeypatch.setattr(_vocabulary, "_package_folders", lambda _: ())

    with pytest.raises(ImportError, match=r"glidemq-llm\[tokens\]"):
        _vocabulary.prefetch()
