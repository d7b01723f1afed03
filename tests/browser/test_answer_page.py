"""The page of the recipe for FastAPI, in a real browser: what a person sees of a job's stream."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from glidemq_core import Worker

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

RECIPE = Path(__file__).parents[2] / "cookbook" / "03_stream_to_fastapi_sse.py"
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


class Site:
    """The recipe's application, served on loopback.

    Attributes:
        resumed: The Last-Event-ID of each connection to a stream; "" for a new one.
    """

    def __init__(self, recipe: Any) -> None:
        self.resumed: list[str] = []
        self._server = uvicorn.Server(
            uvicorn.Config(self._app, port=0, interface="asgi3", log_level="warning")
        )
        self._recipe = recipe

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].endswith("/stream"):
            self.resumed.append(dict(scope["headers"]).get(b"last-event-id", b"").decode())
        await self._recipe.app(scope, receive, send)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Cut every connection, as a network does."""
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()

    @asynccontextmanager
    async def served(self) -> AsyncIterator[Site]:
        serving = asyncio.create_task(self._server.serve())
        while not self._server.started:  # noqa: ASYNC110 there is only this flag
            await asyncio.sleep(0.01)
        yield self
        self._server.should_exit = True
        await serving


@pytest.fixture
async def site(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setenv("GLIDEMQ_URL", url)
    spec = importlib.util.spec_from_file_location("recipe", RECIPE)
    assert spec
    assert spec.loader
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    async with recipe.queue, Site(recipe).served() as served:
        yield served


@pytest.fixture
async def page(site: Site) -> AsyncIterator[Any]:
    playwright = pytest.importorskip("playwright.async_api", reason="make browser installs it")
    path = shutil.which("chromium") or pytest.skip("chromium is not installed (make browser)")
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=path, args=QUIET)
        page = await browser.new_page()
        await page.goto(site.url)
        yield page
        await browser.close()


async def shows(page: Any, id: str, text: str) -> None:
    """Wait until an element has this text."""
    await page.wait_for_function(
        "([id, text]) => document.getElementById(id).textContent === text", arg=[id, text]
    )


def worker(handler: Any, url: str, **options: Any) -> Worker:
    return Worker("sse", handler, connection=url, **options)


async def test_cut_connection_goes_on_after_the_last_chunk_seen(site: Site, page: Any, url: str):
    go_on = asyncio.Event()

    async def answer(job):
        await job.stream_chunk("content", "The tide ")
        await go_on.wait()
        await job.stream_chunk("content", "is the pull of the moon.")

    async with worker(answer, url):
        await page.click("#ask")
        await shows(page, "answer", "The tide ")
        site.cut()
        await shows(page, "state", "reconnecting")
        go_on.set()
        await shows(page, "answer", "The tide is the pull of the moon.")
        await shows(page, "state", "completed")

    assert len(site.resumed) == 2
    assert site.resumed[0] == ""
    assert site.resumed[1] > ""


async def test_stop_button_ends_the_job_and_keeps_what_came(page: Any, url: str):
    async def answer(job):
        await job.stream_chunk("content", "The tide ")
        await asyncio.Event().wait()

    async with worker(answer, url):
        await page.click("#ask")
        await shows(page, "answer", "The tide ")
        await page.click("#stop")
        await shows(page, "state", "cancelled")
        await shows(page, "answer", "The tide ")


async def test_what_a_lost_run_wrote_is_taken_back(site: Site, page: Any, url: str):
    go_on = asyncio.Event()
    gone = asyncio.Event()

    async def half(job):
        await job.stream_chunk("content", "wrong ")
        gone.set()
        await asyncio.Event().wait()

    async def whole(job):
        await go_on.wait()
        await job.stream_chunk("content", "right")

    first = worker(half, url)
    async with first:
        await page.click("#ask")
        await gone.wait()
        await shows(page, "answer", "wrong ")
        await first.stop(grace=0)
    async with worker(whole, url):
        go_on.set()
        await shows(page, "answer", "right")
        await shows(page, "state", "completed")


async def test_what_another_model_replaced_is_taken_back(site: Site, page: Any, url: str):
    async def answer(job):
        await job.stream_chunk("content", "First: ")
        for call, text in (("a", "half an ans"), ("b", "a whole answer")):
            await job.stream_chunk("start", "", call=call)
            await job.stream_chunk("content", text)
            if call == "a":
                await job.reset_stream("fallback", call=call)

    async with worker(answer, url):
        await page.click("#ask")
        await shows(page, "answer", "First: a whole answer")
        await shows(page, "state", "completed")


async def test_markup_in_an_answer_is_text(site: Site, page: Any, url: str):
    hostile = '<img src=x onerror="document.title=1">\r\n\r\ndata: {"content":"forged"}\n\n'

    async def answer(job):
        await job.stream_chunk("content", hostile)

    async with worker(answer, url):
        await page.click("#ask")
        await shows(page, "state", "completed")

    assert await page.text_content("#answer") == hostile
    assert await page.title() == "An answer, live"
