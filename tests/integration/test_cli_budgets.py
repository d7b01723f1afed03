"""The command line's view of budgets."""

import dataclasses
import json
from decimal import Decimal

from glidemq_core import Budget, Ledger
from tests.harness.servers import ValkeyServer
from tests.integration.test_cli import glidemq

BUDGET = Budget(
    max_total_tokens=100,
    max_tokens={"output": 50},
    token_weights={"input": 0.5},
    max_total_cost="1.5",
    max_costs={"search": "0.2"},
    cost_unit="eur",
    on_exceeded="pause",
    window="month",
    time_zone="Europe/Berlin",
)


async def test_shown_budget_has_its_caps_and_what_is_used(url):
    async with Ledger(connection=url) as ledger:
        await ledger.open_budget("b", BUDGET)
        held = await ledger.reserve(
            "c/1/1", tokens={"input": 10}, costs={"total": "0.1"}, budgets=["b"]
        )
        await held.settle(tokens={"input": 8}, costs={"total": "0.000000001"})

    shown = json.loads(glidemq(url, "budget", "show", "b", "--json").stdout)
    table = glidemq(url, "budget", "show", "b").stdout

    assert shown["caps"]["tokens.input"]["used"] == 8
    assert Decimal(shown["caps"]["cost.total"]["used"]) == Decimal("1e-9")
    assert "0.000000001" in table
    (tokens,) = [line for line in table.split("\n") if "tokens.input" in line]
    assert [cell.strip() for cell in tokens.split("│")[2:5]] == ["", "8", "0"]
    assert "on_exceeded: pause, waiting jobs: 0, until" in table


async def test_raised_budget_keeps_what_was_not_named(url):
    async with Ledger(connection=url) as ledger:
        await ledger.open_budget("b", BUDGET)

        done = glidemq(url, "budget", "raise", "b", "--tokens", "200", "--cost", "2.5")

        state = await ledger.budget("b")
    assert (done.returncode, done.stderr) == (0, "")
    assert "200" in done.stdout
    assert state is not None
    expected = dataclasses.replace(BUDGET, max_total_tokens=200, max_total_cost=Decimal("2.5"))
    assert state.as_budget().caps() == expected.caps()
    rules = ("token_weights", "cost_unit", "on_exceeded", "window", "time_zone")
    assert all(getattr(state.as_budget(), name) == getattr(expected, name) for name in rules)


async def test_history_tells_what_happened_newest_first(url):
    async with Ledger(connection=url) as ledger:
        await ledger.open_budget("b", BUDGET)
        await ledger.settle("c/1/1", tokens={"input": 8, "output": 30}, budgets=["b"])

    entries = json.loads(glidemq(url, "budget", "history", "b", "--json").stdout)
    table = glidemq(url, "budget", "history", "b", "--limit", "1").stdout

    (alert,) = json.loads(glidemq(url, "budget", "alerts", "--json").stdout)

    assert [entry["kind"] for entry in entries] == ["unreserved", "open"]
    assert entries[0]["changes"]["tokens.input"] == 8
    assert (alert["budget"], alert["cap"], alert["percent"]) == ("b", "tokens.output", 50)
    assert "unreserved" in table
    assert "tokens.input +8" in table
    assert "+8.0" not in table
    assert "open" not in table


async def test_audit_tells_of_entries_that_are_missing(url, server: ValkeyServer):
    async with Ledger(connection=url) as ledger:
        await ledger.open_budget("b", Budget(max_total_tokens=100))
        for number in range(3):
            await ledger.settle(f"c/1/{number}", tokens={"input": 8}, budgets=["b"])
    sound = glidemq(url, "audit", "b")

    entries = "glidemq:{ledger:main}:entries:b"
    lost = server.cmd("XREVRANGE", entries, "+", "-", "COUNT", 2)
    server.cmd("XDEL", entries, *[id for id, _ in lost])
    wrong = glidemq(url, "audit", "b")

    assert (sound.returncode, sound.stdout) == (0, "4 entries and 0 open calls agree\n")
    assert wrong.returncode == 1, wrong.stderr
    assert "tokens.input" in wrong.stdout


def test_unknown_budget_is_one_line_and_exit_code_1(url):
    for command in (
        ["audit", "nobody"],
        ["budget", "show", "nobody"],
        ["budget", "history", "nobody"],
        ["budget", "raise", "nobody", "--tokens", "1"],
    ):
        done = glidemq(url, *command)

        assert done.returncode == 1
        assert "no budget" in done.stderr
        assert len(done.stderr.splitlines()) == 1


async def test_budgets_are_listed_with_their_caps(url):
    async with Ledger(connection=url) as ledger:
        await ledger.open_budget("tenant-[7]", BUDGET)
        await ledger.open_budget("gone", BUDGET)
        await ledger.drop_budget("gone")
        assert [state.id for state in await ledger.budgets()] == ["tenant-[7]"]

    table = glidemq(url, "budget", "list").stdout
    shown = json.loads(glidemq(url, "budget", "list", "--json").stdout)

    assert table.count("tenant-[7]") == 4
    assert "gone" not in table
    assert [state["id"] for state in shown] == ["tenant-[7]"]
