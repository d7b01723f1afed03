"""Frameworks that are given a wrapped client: their recipes run without a key, print what they say they print, and every
call of theirs is booked once.
"""

from __future__ import annotations

import importlib.util

import pytest

from tests.harness.recipes import COOKBOOK, promised, run

pytestmark = pytest.mark.timeout(120)

RECIPES = {
    path.stem.removeprefix("with_"): path for path in (COOKBOOK / "frameworks").glob("with_*.py")
}


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


def needs(module: str, how: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not importlib.util.find_spec(module), reason=how)


@pytest.mark.vendors
@pytest.mark.parametrize(
    "framework",
    [
        pytest.param("langchain", marks=needs("langchain_openai", "make vendors")),
        pytest.param("openai_agents", marks=needs("agents", "make vendors")),
        pytest.param("pydantic_ai", marks=needs("pydantic_ai", "make vendors")),
    ],
)
def test_recipe_of_a_framework_prints_what_it_says(framework, url):
    done = run(RECIPES[framework], url)

    assert done.returncode == 0, done.stderr
    assert lines(done.stdout) == lines(promised(RECIPES[framework]))


@needs("instructor", "make litellm")
def test_recipe_with_instructor_prints_what_it_says(url):
    done = run(RECIPES["instructor"], url)

    assert done.returncode == 0, done.stderr
    assert lines(done.stdout) == lines(promised(RECIPES["instructor"]))


def test_every_framework_has_a_recipe_that_is_run():
    assert set(RECIPES) == {"langchain", "openai_agents", "pydantic_ai", "instructor"}
