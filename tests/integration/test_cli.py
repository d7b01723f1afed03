"""The command line, each command a process of its own."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from glidemq_core import Ledger, Queue, Throttle, Worker
from tests.harness.jobs import until_counted
from tests.harness.processes import eventually

HANDLER = """
async def shout(job):
    await job.stream_chunk("content", job.data["text"].upper())
    return {"said": job.data["text"].upper()}
"""


def glidemq(url: str, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "glidemq_core.cli", *arguments, "--url", url],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


@contextlib.contextmanager
def running(url: str, *arguments: str, cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on until it is told to end; killed if it does not."""
    command = [sys.executable, "-m", "glidemq_core.cli", *arguments, "--url", url]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=cwd, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def test_added_job_is_listed_and_counted(url):
    job_id = glidemq(url, "add", "cli-list", "shout", '{"text": "hi"}').stdout.strip()

    listed = json.loads(glidemq(url, "list", "cli-list", "waiting", "--json").stdout)
    counts = json.loads(glidemq(url, "counts", "cli-list", "--json").stdout)
    assert [job["id"] for job in listed] == [job_id]
    assert (counts["waiting"], counts["completed"]) == (1, 0)


def test_worker_command_runs_a_handler_and_stream_follows_it(url, tmp_path):
    (tmp_path / "handlers.py").write_text(HANDLER)
    job_id = glidemq(url, "add", "cli-run", "shout", '{"text": "hi"}').stdout.strip()
    with running(url, "worker", "cli-run", "handlers:shout", cwd=tmp_path) as worker:
        result = json.loads(glidemq(url, "result", "cli-run", job_id, "--timeout", "20").stdout)
        stream = glidemq(url, "stream", "cli-run", job_id).stdout
        worker.terminate()
        _, told = worker.communicate(timeout=30)

    assert (result, stream.strip(), worker.returncode) == ({"said": "HI"}, "HI", 0)
    assert "takes jobs of queue cli-run" in told


@pytest.fixture
def interruptible():
    """Tests that were started in the background ignore Ctrl-C, and so would the commands that they run."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_events_go_on_behind_the_one_that_was_seen(url, interruptible):
    ids = [glidemq(url, "add", "cli-events", "shout").stdout.strip() for _ in range(2)]
    with running(url, "events", "cli-events", "--after", "", "--json") as follower:
        seen = [json.loads(follower.stdout.readline()) for _ in ids]
        follower.send_signal(signal.SIGINT)
        follower.communicate(timeout=30)

    assert [(event["type"], event["job_id"]) for event in seen] == [("added", id) for id in ids]


async def test_waiting_job_is_listed_with_its_reason_and_signalled(url):
    async def ask(job):
        return (await job.wait_for_signal("approve", reason="over $100")).data

    async with (
        Queue("cli-people", connection=url) as queue,
        Worker(queue.name, ask, connection=url),
    ):
        job = await queue.add("n")
        await until_counted(queue, suspended=1)
        listed = await asyncio.to_thread(glidemq, url, "suspended", "cli-people", "--json")
        table = await asyncio.to_thread(glidemq, url, "suspended", "cli-people")
        sent = await asyncio.to_thread(
            glidemq, url, "signal", "cli-people", job.id, "approve", '{"ok": true}'
        )
        result = await job.result(timeout=5)

    (one,) = json.loads(listed.stdout)
    assert (one["job_id"], one["waits_for"], one["reason"]) == (job.id, "approve", "over $100")
    assert "over $100" in table.stdout
    assert job.id in table.stdout
    assert (sent.returncode, sent.stderr, result) == (0, "", {"ok": True})


async def test_signal_that_nobody_waits_for_is_kept_and_says_so(url):
    async def ask(job):
        return (await job.wait_for_signal("approve/mail/1.1")).data

    async with (
        Queue("cli-other-signal", connection=url) as queue,
        Worker(queue.name, ask, connection=url),
    ):
        job = await queue.add("n")
        await until_counted(queue, suspended=1)
        sent = await asyncio.to_thread(glidemq, url, "signal", queue.name, job.id, "approve")

    assert (sent.returncode, sent.stdout) == (0, "")
    assert sent.stderr.strip() == "kept for later: the job waits for 'approve/mail/1.1'"


async def test_list_says_who_runs_a_job_and_why_one_has_failed(url):
    may_end = asyncio.Event()

    async def run(job):
        if job.data == "fail":
            raise ValueError("a message that is " + "long " * 40)
        await may_end.wait()

    async with (
        Queue("cli-list-more", connection=url) as queue,
        Worker(queue.name, run, connection=url, concurrency=2, name="w") as worker,
    ):
        await queue.add("n")
        failed = await queue.add("n", "fail")
        await until_counted(queue, active=1, failed=1)
        active = await asyncio.to_thread(glidemq, url, "list", queue.name, "active")
        ended = await asyncio.to_thread(glidemq, url, "list", queue.name, "failed")
        known = json.loads(
            (await asyncio.to_thread(glidemq, url, "workers", queue.name, "--json")).stdout
        )
        table = await asyncio.to_thread(glidemq, url, "workers", queue.name)
        may_end.set()

    assert worker.name in active.stdout
    (line,) = [line for line in ended.stdout.split("\n") if failed.id in line]
    assert "long " * 40 in line
    assert [(one["name"], one["jobs"]) for one in known] == [(worker.name, 1)]
    assert worker.name in table.stdout


async def test_stream_tells_what_is_not_text_on_the_error_output(url):
    async def talk(job):
        await job.stream_chunk("tool_result", "found", name="look_up")

    async with (
        Queue("cli-told", connection=url) as queue,
        Worker(queue.name, talk, connection=url),
    ):
        job = await queue.add("n")
        shown = await asyncio.to_thread(glidemq, url, "stream", queue.name, job.id)

    assert shown.stdout == ""
    assert shown.stderr.split("\n") == [
        "",
        "[tool_result look_up found]",
        "",
        "[end completed]",
        "",
    ]


async def test_what_runs_where_and_for_how_much_is_listed_and_all_of_it_stopped(url):
    async def spend(job):
        await job.report_usage(model="m", tokens={"input": 1200}, costs={"total": "0.5"})
        await job.progress("spent")
        await asyncio.sleep(60)

    async with (
        Queue("cli-stop", connection=url) as queue,
        Worker(queue.name, spend, connection=url, concurrency=2, name="night"),
    ):
        for _ in range(4):
            await queue.add("n")

        async def both_have_spent():
            return [job.progress for job in await queue.jobs("active")] == ["spent"] * 2

        await eventually(both_have_spent)
        await queue.pause()
        workers, listed, counts = await asyncio.gather(
            *(
                asyncio.to_thread(glidemq, url, *command)
                for command in (
                    ("workers", "cli-stop", "--json"),
                    ("list", "cli-stop", "active"),
                    ("counts", "cli-stop"),
                )
            )
        )
        running, waiting, ended = await asyncio.gather(
            *(
                asyncio.to_thread(glidemq, url, "cancel", "cli-stop", "--all", state)
                for state in ("active", "waiting", "failed")
            )
        )
        await until_counted(queue, cancelled=4)

    (worker,) = json.loads(workers.stdout)
    assert (worker["name"][:5], worker["jobs"]) == ("night", 2)
    table = listed.stdout
    assert table.count(worker["name"]) == table.count("1,200") == table.count("0.5") == 2
    assert "paused" in counts.stdout
    assert (running.stdout, waiting.stdout) == ("requested: 2\n", "cancelled: 2\n")
    assert ended.returncode == 2


async def test_texts_of_others_are_listed_as_they_are_and_do_not_move_the_terminal(url):
    async def fail(job):
        raise ValueError("no [/red] and [bold] \x1b[2J")

    async with (
        Queue("cli-odd", connection=url) as queue,
        Worker(queue.name, fail, connection=url),
    ):
        job = await queue.add("n")
        await until_counted(queue, failed=1)
        listed = await asyncio.to_thread(glidemq, url, "list", "cli-odd", "failed")

    assert "no [/red] and [bold] \ufffd[2J" in listed.stdout
    assert job.id in listed.stdout


def test_result_that_does_not_come_in_time_is_one_line_and_exit_code_1(url):
    job_id = glidemq(url, "add", "cli-late", "n").stdout.strip()

    done = glidemq(url, "result", "cli-late", job_id, "--timeout", "0.01")

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert job_id in done.stderr


async def test_limiter_is_printed(url):
    async with Ledger(connection=url) as ledger:
        held = await ledger.reserve("c", limits={"p": Throttle(rpm=1, concurrency=2)})
        shown = json.loads((await asyncio.to_thread(glidemq, url, "limiter", "p")).stdout)
        await held.settle()

    assert (shown["running"], shown["concurrency"], shown["axes"]["rpm"]["used"]) == (1, 2, 1)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("get", "glidemq: no job 'nobody' in queue 'cli-unknown'"),
        ("log", "glidemq: job 'nobody' is not known in queue 'cli-unknown'"),
        ("stream", "[end gone]"),
    ],
)
def test_unknown_job_is_one_line_and_exit_code_1(url, command, said):
    done = glidemq(url, command, "cli-unknown", "nobody")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip().startswith(said)
    assert len(done.stderr.strip().splitlines()) == 1


def test_what_changed_nothing_says_so(url):
    first, second = (glidemq(url, "add", "cli-same", "n", "--job-id", "one") for _ in range(2))
    stopped, again = (glidemq(url, "cancel", "cli-same", "one").stdout for _ in range(2))

    assert (first.stdout, first.stderr) == ("one\n", "")
    assert (second.stdout, second.stderr) == ("one\n", "it was there before: nothing was added\n")
    assert (stopped, again) == ("cancelled\n", "ended\n")


@pytest.mark.parametrize(
    ("handler", "problem"),
    [("absent:shout", "no module 'absent'"), ("handlers:absent", "has no 'absent'")],
)
def test_handler_that_is_not_there_is_named_without_a_traceback(url, tmp_path, handler, problem):
    (tmp_path / "handlers.py").write_text(HANDLER)

    done = glidemq(url, "worker", "cli-absent", handler, cwd=tmp_path)

    assert done.returncode == 2
    assert problem in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_data_that_is_not_json_is_refused(url):
    done = glidemq(url, "add", "cli-bad", "shout", "{text")

    assert done.returncode == 2
    assert "is not JSON" in done.stderr


def test_paused_queue_says_so_and_keeps_its_jobs(url):
    glidemq(url, "add", "cli-pause", "shout")

    assert glidemq(url, "pause", "cli-pause").returncode == 0
    assert json.loads(glidemq(url, "counts", "cli-pause", "--json").stdout)["waiting"] == 1
    assert glidemq(url, "resume", "cli-pause").returncode == 0


def test_fsck_is_silent_about_a_sound_queue_and_names_a_stray_key(url, server):
    glidemq(url, "add", "cli-fsck", "shout")

    sound = glidemq(url, "fsck", "cli-fsck")
    server.cmd("SET", "glidemq:{cli-fsck}:stray", "1")
    broken = glidemq(url, "fsck", "cli-fsck")

    assert (sound.returncode, sound.stdout) == (0, "")
    assert (broken.returncode, "stray" in broken.stdout) == (1, True)
