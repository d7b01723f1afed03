from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
from types import ModuleType

import pytest

from glidemq_core import errors
from glidemq_llm import errors as llm_errors

EXAMPLES = [
    errors.InvalidOption("delay", -1, "not positive"),
    errors.PayloadTooLarge("data", size=5, limit=4),
    errors.ConnectionLost("gone", outcome="unknown", id="a"),
    errors.ServerError("no", code="WRONGTYPE"),
    errors.JobNotFound("a", queue="q"),
    errors.WrongState("a", state="active", wanted="waiting"),
    errors.JobFailed("a", reason="error", error_class="ValueError", error_message="no", attempt=2),
    errors.LeaseLost("a", worker="w"),
    errors.StepChanged("s", stored="1", given="2"),
    errors.PossiblyBilled("a", step="s"),
    errors.UnknownJobName("n", known=["m"]),
    errors.JobTimeout("a", limit=1.5, kind="idle_timeout"),
    errors.SignalTimeout("a", name="x"),
    errors.BudgetExceeded("b", cap="c", limit=5, used=1, reserved=2, asked=3),
    errors.CostUnknown("b", cap="cost.total"),
    errors.Throttled("x", retry_after=1.5),
    errors.StreamGap("a", after="1-1", first="2-1"),
]


def _name(error: Exception) -> str:
    return type(error).__name__


def _below(kind: type) -> set[type]:
    return {kind}.union(*map(_below, kind.__subclasses__()))


@pytest.mark.parametrize("tree", [errors, llm_errors], ids=lambda module: module.__name__)
def test_every_error_of_a_package_is_in_the_tree_at_the_head_of_its_file(tree: ModuleType):
    package = importlib.import_module(tree.__name__.partition(".")[0])
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if "demo" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    found = {
        kind for kind in _below(errors.GlideMQError) if kind.__module__.startswith(package.__name__)
    }
    assert {kind.__module__ for kind in found} == {tree.__name__}
    assert [kind.__name__ for kind in found if kind.__name__ not in (tree.__doc__ or "")] == []


@pytest.mark.parametrize("error", EXAMPLES, ids=_name)
def test_errors_travel_between_processes(error: Exception):
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)


def test_long_values_are_shortened():
    error = errors.InvalidOption("data", "x" * 10_000, "too long")

    assert len(str(error)) < 150
    assert len(error.value) == 10_000  # type: ignore[arg-type]


class Shy:
    def __repr__(self):
        raise RuntimeError("not even that")


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "told"),
    [(nested(10_000), "<list>"), (10**5000, "<int>"), (Shy(), "<Shy>")],
    ids=["deep", "large", "shy"],
)
def test_value_without_a_text_is_told_by_its_type(value, told):
    assert str(errors.InvalidOption("result", value, "no")) == f"result={told}: no"
