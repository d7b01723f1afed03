"""What the documents name is there."""

import re
from functools import cache
from pathlib import Path

import pytest

from glidemq_core.fsck import KEY_TABLE

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "lua" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACES = [
    ROOT,
    ROOT / "tests",
    ROOT / "lua",
    ROOT / "lua" / "functions",
    ROOT / "src" / "glidemq_core",
    ROOT / "src" / "glidemq_llm",
    ROOT / "lua" / "lib",
    ROOT / "cookbook",
    ROOT / "docs",
]
TEST = re.compile(r"`([a-z_/]+\.py)::(test_\w+)`")
FILE = re.compile(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|lua|md))`")
SAMPLE_NAMES = {"W": "ID", "N": "7", "ID": "ID", "WORKER": "w"}


@cache
def text_of(path: Path) -> str:
    return path.read_text()


def named_tests():
    return TEST.findall(text_of(ROOT / "docs" / "guarantees.md"))


@pytest.mark.parametrize(("path", "name"), named_tests(), ids=lambda value: value)
def test_guarantee_names_a_test_that_exists(path: str, name: str):
    assert re.search(rf"^\s*(async )?def {name}\(", text_of(ROOT / "tests" / path), re.MULTILINE)


def test_every_guarantee_has_a_test():
    promised, _, _ = text_of(ROOT / "docs" / "guarantees.md").partition("## What is not promised")
    rows = [line for line in promised.split("\n") if line.startswith("| ") and line != "| | |"]

    assert rows
    assert [row for row in rows if not TEST.search(row)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path):
    missing = [
        name
        for name in FILE.findall(text_of(page))
        if not any((place / name).is_file() for place in PLACES)
    ]

    assert [
        name for name in missing if not name.endswith(("verb.lua", "verb.py", "test_verb.py"))
    ] == []


def test_index_has_every_document():
    index = text_of(ROOT / "docs" / "README.md")
    documents = [f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")]

    assert [
        name for name in documents if name != "docs/README.md" and f"`{name}`" not in index
    ] == []


def test_list_of_recipes_has_every_recipe():
    listed = text_of(ROOT / "cookbook" / "README.md")
    recipes = [
        str(path.relative_to(ROOT / "cookbook"))
        for path in (ROOT / "cookbook").rglob("*.py")
        if not path.name.startswith("_")
    ]

    assert recipes
    assert [name for name in recipes if f"]({name})" not in listed] == []


def test_key_list_and_fsck_agree():
    listed = re.findall(r"^\| ((?:`:[\w:]+` ?)+)", text_of(ROOT / "docs" / "keys.md"), re.MULTILINE)
    keys = [name for row in listed for name in re.findall(r"`:([\w:]+)`", row) if name != "news"]
    samples = [
        re.sub(r"\b(W|N|ID|WORKER)\b", lambda found: SAMPLE_NAMES[found.group()], key)
        for key in keys
    ]

    assert [name for name in samples if not any(rule.fits(name) for rule in KEY_TABLE)] == []
    assert [
        rule.pattern for rule in KEY_TABLE if not any(rule.fits(name) for name in samples)
    ] == []


@pytest.mark.parametrize("folder", ["functions", "lib"])
def test_map_of_the_library_has_every_file(folder: str):
    names = [path.stem for path in (ROOT / "lua" / folder).glob("*.lua")]

    assert [name for name in names if f"`{name}`" not in text_of(ROOT / "lua" / "README.md")] == []


def test_list_of_fields_has_every_field_of_a_job():
    fields = set()
    for path in [*ROOT.glob("lua/lib/*.lua"), *ROOT.glob("lua/functions/*.lua")]:
        if not path.stem.startswith("ledger"):
            fields |= set(re.findall(r"\brecord\.([a-z_]+)", text_of(path)))

    assert (
        sorted(fields - set(re.findall(r"`([a-z_]+)`", text_of(ROOT / "docs" / "keys.md")))) == []
    )
