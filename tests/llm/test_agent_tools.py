"""Tools: functions that a model may call, what it is told of them, and what it makes of their types."""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import asyncio
import enum
import math
import threading
from typing import Annotated, Any

import msgspec
import openai
import pytest

from glidemq_core import UnrecoverableError, current_job
from glidemq_core.errors import CostUnknown, InvalidOption
from glidemq_llm import Tool, agent_handler, wrap
from tests.harness.agents import ASK, add, calls, results, says, told


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(msgspec.Struct):
    x: float
    y: float


async def test_model_is_told_names_docstrings_and_types(clients, plan, run, openai_model):
    plan(says())
    seen = {}

    async def paint(
        job: Any, at: Point, colour: Colour, coats: Annotated[int, msgspec.Meta(le=3)] = 1
    ) -> None:
        """Paint a point."""

    def search(query, **more):
        """Not shown."""

    tools = [paint, Tool(function=search, name="find", description="d", schema={"type": "object"})]

    def convert(provider, messages, params):
        seen["tools"] = params["tools"]
        return messages, params

    await run(
        agent_handler(clients, tools, convert=convert),
        {"model": openai_model, "messages": ASK, "tools": [{"type": "web_search"}]},
    )

    search_of_vendor, painting, finding = seen["tools"]
    assert search_of_vendor == {"type": "web_search"}
    about = painting["function"]
    assert (about["name"], about["description"]) == ("paint", "Paint a point.")
    assert about["parameters"]["required"] == ["at", "colour"]
    assert about["parameters"]["additionalProperties"] is False
    assert about["parameters"]["properties"]["coats"] == {"type": "integer", "maximum": 3}
    assert set(about["parameters"]["$defs"]) == {"Colour", "Point"}
    assert finding["function"] == {
        "name": "find",
        "description": "d",
        "parameters": {"type": "object"},
    }


async def test_arguments_come_as_the_types_that_were_hinted(clients, plan, run, openai_model):
    plan(calls(("paint", {"at": {"x": 1, "y": 2}, "colour": "red"})), says())
    seen = []

    async def paint(at: Point, colour: Colour, coats: int = 2) -> None:
        seen.append((at, colour, coats))

    await run(agent_handler(clients, [paint]), {"model": openai_model, "messages": ASK})

    assert seen == [(Point(1, 2), Colour.RED, 2)]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"a": "one"}, "Expected `int`, got `str`"),
        ({"b": 1}, "missing required field `a`"),
        ({"a": 1, "c": 2}, "unknown field `c`"),
        ("[1]", "Expected `object`, got `array`"),
        ('{"a": 1', "truncated"),
    ],
)
async def test_wrong_arguments_are_the_models_to_mend(
    clients, provider, model, openai_model, plan, run, arguments, complaint
):
    plan(calls(("add", arguments)), calls(("add", {"a": 1})), says())

    ended = await run(agent_handler(clients, [add]), {"model": openai_model, "messages": ASK})

    (_, (first,), (second,)) = told(provider, model)
    assert complaint in first
    assert second == "2"
    assert [call["is_error"] for call in ended.job.result["tool_calls"]] == [True, False]


async def test_wrong_arguments_for_a_schema_of_its_own_are_told_too(
    clients, provider, model, openai_model, plan, run
):
    plan(calls(("find", "nonsense")), calls(("find", {"what": 1})), says())

    def find(query: str) -> str:
        raise AssertionError(query)

    tool = Tool(function=find, schema={"type": "object"})
    await run(agent_handler(clients, [tool]), {"model": openai_model, "messages": ASK})

    (_, (first,), (second,)) = told(provider, model)
    assert "Expecting value" in first
    assert "missing a required argument: 'query'" in second


async def test_unknown_tool_is_told_with_those_that_are_there(
    clients, provider, model, name, plan, run
):
    plan(calls(("subtract", {})), says())

    await run(agent_handler(clients, [add]), {"model": name, "messages": ASK})

    assert told(provider, model)[1] == ["there is no tool 'subtract'; there are add"]


async def test_what_a_tool_raises_is_told_and_its_siblings_go_on(
    clients, provider, model, name, plan, run
):
    plan(calls(("fails", {}), ("add", {"a": 1})), says("sorry"))

    def fails() -> None:
        raise ConnectionError("the shop is closed")

    ended = await run(agent_handler(clients, [fails, add]), {"model": name, "messages": ASK})

    assert told(provider, model)[1] == ["ConnectionError: the shop is closed", "2"]
    assert ended.job.result["text"] == "sorry"
    assert ("fails", "ConnectionError: the shop is closed", True) in results(ended)


async def test_tool_whose_call_no_budget_can_hold_ends_its_agent(clients, model, name, plan, run):
    plan(calls(("asks", {})), says("never mind"))

    def asks() -> None:
        raise CostUnknown("b", cap="cost.total")

    ended = await run(agent_handler(clients, [asks]), {"model": name, "messages": ASK})

    assert (ended.job.state, ended.job.reason) == ("failed", "budget")


@pytest.mark.parametrize("result", [object(), "x" * 200_001, float("nan")])
async def test_result_that_no_model_can_read_is_an_error_of_its_tool(
    clients, provider, model, openai_model, plan, run, result
):
    plan(calls(("odd", {})), says())

    def odd():
        return result

    ended = await run(agent_handler(clients, [odd]), {"model": openai_model, "messages": ASK})

    assert ended.job.state == "completed"
    assert ended.job.result["tool_calls"][0]["is_error"]


async def test_unrecoverable_error_of_a_tool_ends_the_job_when_its_siblings_are_done(
    clients, provider, model, openai_model, plan, run
):
    plan(calls(("gives_up", {}), ("slow", {})))
    done = []

    async def gives_up() -> None:
        raise UnrecoverableError("the account is gone")

    async def slow() -> None:
        await asyncio.sleep(0.05)
        done.append(1)

    ended = await run(
        agent_handler(clients, [gives_up, slow]),
        {"model": openai_model, "messages": ASK},
        attempts=3,
    )

    assert (ended.job.state, ended.job.reason) == ("failed", "unrecoverable")
    assert ended.job.error.message == "the account is gone"
    assert done == [1]
    assert len(provider.calls(model=model)) == 1


async def test_tools_are_given_the_job_and_sync_ones_a_thread(
    clients, provider, model, openai_model, plan, run
):
    plan(calls(("sync", {}), ("on_loop", {})), says())
    threads = []

    def sync(job: Any) -> str:
        threads.append(threading.current_thread())
        job.stream_chunk("note", "from the thread")
        return job.id

    async def on_loop(job: Any) -> str:
        await job.stream_chunk("note", "from the loop")
        assert current_job() is job
        return job.id

    ended = await run(
        agent_handler(clients, [sync, on_loop]), {"model": openai_model, "messages": ASK}
    )

    assert told(provider, model)[1] == [ended.job.id, ended.job.id]
    assert threads[0] is not threading.main_thread()
    assert {chunk.content for chunk in ended.of("note")} == {"from the thread", "from the loop"}


async def test_tool_may_ask_a_model_of_its_own_and_it_is_booked(
    clients, provider, model, openai_model, plan, run
):
    plan(calls(("ask", {"question": "why"})), says("because"), says())
    own = wrap(clients["openai"])

    async def ask(question: str) -> str:
        answer = await own.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}]
        )
        return answer.choices[0].message.content

    ended = await run(agent_handler(clients, [ask]), {"model": openai_model, "messages": ASK})

    assert told(provider, model)[2] == ["because"]
    assert ended.tokens == provider.billed(model=model)
    assert len(ended.job.usage.calls) == 3


# -- what is refused --------------------------------------------------------


def test_tools_are_looked_at_when_the_handler_is_made(clients_of_any_kind):
    def positional(a, /): ...

    def variadic(*a): ...

    def foreign(a: threading.Thread): ...

    def unreadable(a: Missing): ...  # type: ignore[name-defined] # noqa: F821

    refused = [
        ([], "tools"),
        ([3], "not a function"),
        ([add, add], "another tool"),
        ([lambda: None], "not a name"),
        ([positional], "given by name"),
        ([variadic], "given by name"),
        ([foreign], "give Tool a schema"),
        ([unreadable], "type hints"),
    ]
    for tools, words in refused:
        with pytest.raises(InvalidOption, match=words):
            agent_handler(clients_of_any_kind, tools)
    with pytest.raises(InvalidOption, match="approve.*no such tool; there are add"):
        agent_handler(clients_of_any_kind, [add], approve={"mail"})
    for turns in (0, 1.5, math.nan, True, None, "3"):
        with pytest.raises(InvalidOption, match="max_turns"):
            agent_handler(clients_of_any_kind, [add], max_turns=turns)
    for names in ("add", 7, None):
        with pytest.raises(InvalidOption, match="approve"):
            agent_handler(clients_of_any_kind, [add], approve=names)
    with pytest.raises(InvalidOption, match="approval_timeout"):
        agent_handler(clients_of_any_kind, [add], approval_timeout=-1)
    with pytest.raises(InvalidOption, match="clients"):
        agent_handler({}, [add])


@pytest.fixture
def clients_of_any_kind():
    return {"openai": openai.AsyncOpenAI(api_key="k")}
