"""The agent's handler: models that call tools, people who approve, and what is left of it all on the job."""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import asyncio
import json
from decimal import Decimal

import pytest

from glidemq_core import Budget, Throttle, Worker
from glidemq_core.ledger import Ledger
from glidemq_llm import MeterSettings, Pricing, agent_handler
from tests.harness.agents import ASK, add, calls, results, says, told
from tests.harness.processes import eventually
from tests.harness.provider import Behaviour

PRICING = Pricing(overrides={"*": {"input": 1, "output": 10}})


TWENTY = " ".join(["and"] * 20)


# -- the loop ---------------------------------------------------------------


async def test_tools_are_run_until_the_model_answers(clients, provider, model, name, plan, run):
    plan(calls(("add", {"a": 1, "b": 2})), calls(("add", {"a": 3})), says("it is 4"))

    ended = await run(
        agent_handler(clients, [add], pricing=PRICING), {"model": name, "messages": ASK}
    )

    assert ended.job.result == {
        "text": "it is 4",
        "finish_reason": "stop",
        "turns": 3,
        "tool_calls": [
            {
                "id": called["id"],
                "name": "add",
                "arguments": arguments,
                "is_error": False,
            }
            for called, arguments in zip(
                ended.job.result["tool_calls"], ['{"a": 1, "b": 2}', '{"a": 3}'], strict=True
            )
        ],
        "usage": {
            "tokens": {"input": 30, "output": 7},
            "total_tokens": 37,
            "cost": "0.0001",
            "status": "complete",
            "calls": 3,
        },
        "models": [model],
        "ended_by": "answer",
    }
    assert told(provider, model) == [[], ["3"], ["4"]]
    assert ended.tokens == provider.billed(model=model)
    assert ended.text == "thinking. thinking. it is 4"
    assert results(ended) == [("add", "3", False), ("add", "4", False)]
    called = [chunk for chunk in ended.of("tool_call") if chunk.fields.get("name")]
    assert [chunk.fields["name"] for chunk in called] == ["add", "add"]


async def test_calls_of_one_turn_run_at_the_same_time_and_answer_in_order(
    clients, provider, model, name, plan, run
):
    plan(calls(("meet", {"who": "a"}), ("meet", {"who": "b"})), says())
    here = {"a": asyncio.Event(), "b": asyncio.Event()}

    async def meet(who: str) -> str:
        here[who].set()
        await here["b" if who == "a" else "a"].wait()
        return f"{who} was here"

    ended = await run(agent_handler(clients, [meet]), {"model": name, "messages": ASK})

    assert told(provider, model) == [[], ["a was here", "b was here"]]
    assert ended.job.result["turns"] == 2


async def test_attempt_repeats_nothing_that_was_done(clients, provider, model, name, plan, run):
    plan(
        calls(("count", {})), Behaviour(tokens=9, input=10, faults={4: "disconnect"}), says("three")
    )
    counted = []

    async def count() -> int:
        counted.append(1)
        return len(counted)

    ended = await run(agent_handler(clients, [count]), {"model": name, "messages": ASK}, attempts=2)

    assert ended.job.attempt == 2
    assert counted == [1]
    assert len(provider.calls(model=model)) == 3
    assert ended.text == "thinking. three"
    assert results(ended) == [("count", "1", False)]
    assert ended.job.result["usage"]["calls"] == 2
    assert len(ended.job.usage.calls) == 3


async def test_too_many_turns_end_the_job_with_an_error_of_its_own(
    clients, provider, model, openai_model, plan, run, queue, url
):
    plan(*[calls(("add", {"a": 1}))] * 3, says())
    data = {"model": openai_model, "messages": ASK}

    ended = await run(agent_handler(clients, [add], max_turns=3), data, attempts=3)

    assert (ended.job.state, ended.job.reason, ended.job.attempt) == ("failed", "unrecoverable", 1)
    assert ended.job.error.error_class == "glidemq_llm.errors.TurnsExceeded"
    assert "no answer after 3 turns; the model still calls add" in ended.job.error.message
    assert len(provider.calls(model=model)) == 3

    # With more turns it goes on from there.
    async with Worker(queue.name, agent_handler(clients, [add], max_turns=4), connection=url):
        await queue.retry(ended.job.id)
        result = await queue.result(ended.job.id, timeout=10)
    assert result["turns"] == 4
    assert len(provider.calls(model=model)) == 4


async def test_next_model_goes_on_with_the_conversation(clients, provider, model, run):
    first, second = f"{model}-1", f"{model}-2"
    provider.plan(first, calls(("add", {"a": 1})), Behaviour(status=529), says("never asked"))
    provider.plan(second, calls(("add", {"a": 5})))
    provider.plan(first, says())

    ended = await run(
        agent_handler(clients, [add]),
        {"model": f"openai/{first}", "messages": ASK},
        fallbacks=[{"model": f"anthropic/{second}"}],
    )

    assert ended.job.result["models"] == [first, second]
    assert told(provider, second) == [["2"]]
    assert told(provider, first) == [[], ["2"], ["6"]]
    assert [hop["model"] for hop in ended.job.hops] == [f"openai/{first}", f"anthropic/{second}"]


# -- approval ---------------------------------------------------------------


@pytest.fixture
def mailer():
    class Mailer:
        def __init__(self) -> None:
            self.sent: list[str] = []

        async def send_mail(self, to: str) -> str:
            """Send a mail."""
            self.sent.append(to)
            return "sent"

    return Mailer()


async def parked(queue):
    async def waits():
        return len(await queue.suspended()) == 1

    await eventually(waits)
    return (await queue.suspended())[0]


async def test_tool_to_approve_waits_for_a_person(
    clients, provider, model, name, plan, run, queue, mailer
):
    plan(calls(("add", {"a": 1}), ("send_mail", {"to": "ada"})), says("mailed"))
    handler = agent_handler(clients, [add, mailer.send_mail], approve={"send_mail"})

    async def approve(job):
        waiting = await parked(queue)
        assert waiting.waits_for == "approve/send_mail/1.2"
        assert waiting.reason == 'send_mail({"to": "ada"})'
        assert mailer.sent == []
        await job.signal(waiting.waits_for, {"approved": True, "by": "Eve"})

    ended = await run(handler, {"model": name, "messages": ASK}, beside=approve)

    assert mailer.sent == ["ada"]
    assert told(provider, model) == [[], ["2", "sent"]]
    assert ended.text == "thinking. mailed"
    assert (ended.job.run, ended.job.attempt) == (2, 1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"approved": False, "by": "Eve", "reason": "not on Fridays"}, "by Eve: not on Fridays"),
        ({"approved": "yes"}, ""),
        (None, ""),
    ],
)
async def test_refusal_is_told_to_the_model(
    clients, provider, model, name, plan, run, queue, mailer, answer, words
):
    plan(calls(("send_mail", {"to": "ada"})), says("I could not mail"))
    handler = agent_handler(clients, [mailer.send_mail], approve={"send_mail"})

    async def refuse(job):
        await job.signal((await parked(queue)).waits_for, answer)

    ended = await run(handler, {"model": name, "messages": ASK}, beside=refuse)

    assert mailer.sent == []
    assert told(provider, model)[1] == [f"refused {words}".strip()]
    assert ended.job.result["tool_calls"][0]["is_error"]
    assert ended.job.state == "completed"


async def test_calls_are_approved_one_by_one_and_an_answer_counts_for_its_own_call(
    clients, provider, model, openai_model, plan, run, queue, mailer
):
    plan(calls(("send_mail", {"to": "ada"}), ("send_mail", {"to": "eve"})), says())
    handler = agent_handler(clients, [mailer.send_mail], approve=["send_mail"])

    async def decide(job):
        await job.signal("approve/send_mail/1.1", True)
        await job.signal("approve/send_mail/1.1", True)  # a second click is for no other call

        async def second():
            waiting = await queue.suspended()
            return [one.waits_for for one in waiting] == ["approve/send_mail/1.2"]

        await eventually(second)
        await job.signal("approve/send_mail/1.2", False)

    await run(handler, {"model": openai_model, "messages": ASK}, beside=decide)

    assert told(provider, model)[1] == ["sent", "refused"]
    assert mailer.sent == ["ada"]


async def test_nobody_who_answers_in_time_is_a_refusal(
    clients, provider, model, openai_model, plan, run, mailer
):
    plan(calls(("send_mail", {"to": "ada"})), says())
    handler = agent_handler(
        clients, [mailer.send_mail], approve={"send_mail"}, approval_timeout=0.1
    )

    await run(handler, {"model": openai_model, "messages": ASK})

    assert told(provider, model)[1] == ["refused: nobody approved it in time"]


async def test_nobody_is_asked_about_a_call_that_can_not_be_made(
    clients, provider, model, openai_model, plan, run, mailer
):
    plan(calls(("send_mail", {})), says())
    handler = agent_handler(clients, [mailer.send_mail], approve={"send_mail"})

    ended = await run(handler, {"model": openai_model, "messages": ASK})

    assert ended.job.run == 1
    assert "missing required field `to`" in told(provider, model)[1][0]


# -- budgets and limiters ---------------------------------------------------


@pytest.fixture
async def ledger(url):
    async with Ledger(connection=url) as opened:
        yield opened


async def test_budget_that_is_full_in_mid_loop_stops_there_and_goes_on_when_it_is_raised(
    clients, provider, model, openai_model, plan, run, queue, url, ledger
):
    plan(calls(("add", {"a": 1}), text=TWENTY), says())
    budget = f"b-{model}"
    await ledger.open_budget(budget, Budget(max_tokens={"output": 119}))
    handler = agent_handler(clients, [add])
    data = {"model": openai_model, "messages": ASK, "max_tokens": 100}

    ended = await run(handler, data, budgets=[budget], attempts=3)

    assert (ended.job.state, ended.job.reason) == ("failed", "budget")
    assert len(provider.calls(model=model)) == 1
    assert results(ended) == [("add", "2", False)]

    await ledger.update_budget(budget, Budget(max_total_tokens=1000))
    async with Worker(queue.name, handler, connection=url):
        await queue.retry(ended.job.id)
        result = await queue.result(ended.job.id, timeout=10)
    assert (result["turns"], result["ended_by"]) == (2, "answer")
    _, second = provider.calls(model=model)
    assert second.tool_choice is None


@pytest.mark.parametrize(
    "cap",
    [
        {"max_total_tokens": 150, "token_weights": {"input": 0}},
        {"max_tokens": {"output": 150}},
        {"max_total_cost": Decimal("0.0015")},
    ],
    ids=["total", "category", "cost"],
)
async def test_model_is_made_to_answer_when_a_budget_has_hardly_room_for_another_turn(
    clients, provider, model, name, plan, run, ledger, cap
):
    plan(calls(("add", {"a": 1}), text=TWENTY), says("it is two", tools=[{"name": "add"}]))
    budget = f"b-{model}"
    await ledger.open_budget(budget, Budget(**cap))
    handler = agent_handler(
        clients, [add], pricing=Pricing(overrides={"*": {"input": 0, "output": 10}})
    )

    ended = await run(
        handler, {"model": name, "messages": ASK, "max_tokens": 100}, budgets=[budget]
    )

    assert ended.job.state == "completed", ended.job.error
    assert (ended.job.result["text"], ended.job.result["ended_by"]) == ("it is two", "budget")
    first, second = provider.calls(model=model)
    assert first.tool_choice is None
    assert second.tool_choice in ("none", {"type": "none"})


async def test_limiter_without_room_parks_the_agent_between_two_turns(
    clients, provider, model, openai_model, plan, queue, url
):
    plan(calls(("add", {"a": 1})), says())
    limits = {f"l-{model}": Throttle(rpm=6, burst=0.1)}  # one in ten seconds
    settings = MeterSettings(limits={"*": Throttle(rpm=600)})

    async with Worker(queue.name, agent_handler(clients, [add], settings=settings), connection=url):
        job = await queue.add("job", {"model": openai_model, "messages": ASK}, limits=limits)

        async def waits():
            found = await job.snapshot()
            return (found.state, found.reason) == ("delayed", "throttled")

        await eventually(waits)
    assert len(provider.calls(model=model)) == 1


async def test_data_that_is_no_chat_is_refused(clients, run):
    ended = await run(agent_handler(clients, [add]), {"input": "hi"}, attempts=3)

    assert (ended.job.state, ended.job.reason) == ("failed", "unrecoverable")
    assert json.dumps(ended.job.result) == "null"
