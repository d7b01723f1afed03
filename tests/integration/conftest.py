"""What the tests of the way to the server share: a small library of their own, and clients that are closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from glidemq_core import _glide_setup as setup
from glidemq_core._client import Client
from glidemq_core._library import Library
from glidemq_core._target import parse
from tests.harness.small_library import small_library

Open = Callable[..., Client]


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Library:
    return small_library(tmp_path_factory.mktemp("lua"))


@pytest.fixture
async def open_client(library) -> AsyncIterator[Open]:
    """Makes clients and closes them in the end."""
    made: list[Client] = []

    def make(url: str, **options: Any) -> Client:
        made.append(Client(parse(url), options.get("library", library)))
        return made[-1]

    yield make
    for client in made:
        await client.close()


@pytest.fixture
def quick_timeouts(monkeypatch):
    """A reply counts as lost after 0.3 s."""
    monkeypatch.setattr(setup, "REQUEST_TIMEOUT_MS", 300)
    monkeypatch.setattr(setup, "CONNECT_TIMEOUT_MS", 300)
