"""Random calls of two workers on a watched queue, and what each of them must be answered."""

from __future__ import annotations

from typing import Any

import pytest

from glidemq_core import _keys
from tests.lua.engine import Claim, Refused, TurnReply, error_text, outcome, report
from tests.model.watched import ENDED, KEPT, LEASE, Seen, SentTurn, WatchedQueue, Worker

KINDS = ["completed"] * 4 + ["failed", "retry", "retry", "delayed", "released", "cancelled"]


class Story(WatchedQueue):
    """What happens to the queue."""

    def step(self) -> None:
        """Do one random thing."""
        action = self.random.choices(ACTIONS, WEIGHTS)[0]
        self.log.append(action.__name__)
        action(self)

    def note(self, text: str) -> None:
        self.log[-1] += f" {text}"

    def some_id(self) -> str:
        return self.random.choice(self.ids[-40:]) if self.ids else "nobody"

    def worker(self) -> Worker:
        return self.random.choice(self.workers)

    def add(self) -> None:
        options = self.random.choice(
            [{}, {}, {}, {"delay_ms": self.random.randrange(1, 4000)}, {"ttl_ms": self.random.randrange(1, 6000)},
             {"keep_completed": "0:", "keep_failed": "0:"}, {"priority": self.random.randrange(2049)}, {"lifo": True}]
        )  # fmt: skip
        jobs = [
            {"id": f"j{len(self.ids) + i}", "name": "n", **options}
            for i in range(self.random.randrange(1, 4))
        ]
        call = {"jobs": jobs, "nonce": f"n{len(self.ids)}"}
        new = [job["id"] for job in jobs]
        assert self.engine.call("job_add", **call) == b"a" * len(jobs)
        self.ids += new
        self.note(f"{new} {options}")
        expected = "delayed" if "delay_ms" in options else "waiting"
        self.settle(
            lambda added, old, after: (
                added in new and old is None and after is not None and after.state == expected
            ),
            now=0,
        )
        if self.random.random() < 0.3:
            assert self.engine.call("job_add", **call, repeat=True) == b"r" * len(jobs)
            self.unchanged("the repeat of an add")

    def turn(self) -> None:
        worker = self.worker()
        worker.number += 1
        args = self._turn_args(worker)
        if self.random.random() < 0.15:  # the next turn overtakes this one
            worker.number += 1
            self._send_turn(worker, self._turn_args(worker, done=[]))
        self._send_turn(worker, args)

    def _turn_args(self, worker: Worker, done: list[Any] | None = None) -> dict[str, Any]:
        if done is None:
            held = list(worker.held.values())
            given = [claim for claim in held if self.random.random() < 0.6]
            if worker.past and self.random.random() < 0.2:
                given.append(self.random.choice(worker.past))  # a zombie
            done = [self._outcome(claim) for claim in given]
            for claim in given:
                worker.held.pop(claim.id, None)
                worker.past.append(claim)
        return {
            "worker": worker.name, "number": worker.number, "want": self.random.randrange(4), "done": done,
            "lease_ms": LEASE, "max_stalled": 2, "keep_completed": f"{KEPT}:", "keep_failed": f"{KEPT}:",
        }  # fmt: skip

    def _outcome(self, claim: Claim) -> list[object]:
        kind = self.random.choice(KINDS)
        extra = {
            "failed": {"reason": "error", "error": error_text(claim.attempt)},
            "retry": {
                "delay_ms": self.random.choice([0, 0, 500, 5000]),
                "error": error_text(claim.attempt),
            },
            "delayed": {"delay_ms": self.random.choice([0, 700]), "why": "turn"},
        }.get(kind)
        return outcome(claim, kind, None, extra)

    def _send_turn(self, worker: Worker, args: dict[str, Any]) -> None:
        codes = self._codes(args["done"])
        before = self.jobs
        reply = self.engine.turn(**args)
        self.note(f"{worker.name}#{args['number']} {codes} -> {reply.ids}")
        assert reply.codes == codes
        self._settle_turn(before, args, reply)
        sent = SentTurn(args, reply)
        if self.random.random() < 0.25:  # the reply is lost
            worker.unanswered.append(sent)
        else:
            self._take_in(worker, sent)

    def _take_in(self, worker: Worker, sent: SentTurn) -> None:
        worker.answered.append(sent)
        for claim in sent.reply.claims:
            if claim.id in worker.held:
                worker.past.append(worker.held[claim.id])
            worker.held[claim.id] = claim
            worker.chunks.pop(claim.id, None)
            worker.updates.pop(claim.id, None)

    def _codes(self, done: list[list[Any]]) -> str:
        """What the outcomes must be answered."""
        codes, seen = "", set[str]()
        for id, token, *_ in done:
            raw = self.server.cmd("HMGET", _keys.job(self.engine.root, id), "state", "token")
            state, current = (part.decode() if part else "" for part in raw)
            if id in seen:
                codes += "r"
            elif not state:
                codes += "g"
            else:
                codes += "s" if current != token else "o" if state == "active" else "a"
            seen.add(id)
        return codes

    def _settle_turn(self, before: dict[str, Seen], args: dict[str, Any], reply: TurnReply) -> None:
        now = self.engine.now()  # what is due by then may have been due in the turn
        claimed = {claim.id: claim.token for claim in reply.claims}
        paused = self.server.cmd("HEXISTS", f"{self.engine.root}:meta", "paused")
        assert not (paused and claimed)
        assert len(claimed) == len(reply.claims) <= args["want"]
        ending = {
            line[0]: line
            for line, code in zip(args["done"], reply.codes, strict=True)
            if code == "o"
        }

        def allowed(id: str, old: Seen | None, new: Seen | None) -> bool:
            if old is None:
                return False
            reach = _reachable(old, ending.get(id), now)
            if id in claimed:
                return (
                    new is not None
                    and new.state == "active"
                    and new.token == claimed[id]
                    and "waiting" in reach
                )
            if new is None:
                return bool(reach & ENDED)
            return new.state in reach and (new.state != "active" or new.token == old.token)

        self.settle(allowed, now=now)
        for id, token in claimed.items():
            assert self.jobs[id].token == token, "a claim is this worker's"
            assert before[id].token != token, "a token is given once"

    def repeat_unanswered(self) -> None:
        worker = self.worker()
        if worker.unanswered:
            sent = worker.unanswered.pop(self.random.randrange(len(worker.unanswered)))
            if self._repeat(worker, sent):
                self._take_in(worker, sent)

    def repeat_answered(self) -> None:
        worker = self.worker()
        if worker.answered:
            self._repeat(worker, self.random.choice(worker.answered))

    def _repeat(self, worker: Worker, sent: SentTurn) -> bool:
        if sent.args["number"] <= worker.number - 8:
            return False  # no worker waits that long: at most two of its turns are open
        current = [claim for claim in sent.reply.claims if self._is_current(claim)]
        again = self.engine.turn(**sent.args, repeat=True)
        self.note(f"{worker.name}#{sent.args['number']}")
        assert again.codes == sent.reply.codes
        assert [claim.id for claim in again.claims] == [claim.id for claim in current]
        sent.reply = again
        self.unchanged("the repeat of a turn")
        return True

    def _is_current(self, claim: Claim) -> bool:
        seen = self.jobs.get(claim.id)
        return seen is not None and seen.state == "active" and seen.token == claim.token

    def beat(self) -> None:
        worker = self.worker()
        leases = [
            [claim.id, claim.token] for claim in [*worker.held.values(), *list(worker.past)[-1:]]
        ]
        started = [
            [claim.id, claim.token, 1]
            for claim in worker.held.values()
            if self.random.random() < 0.5
        ]
        # The same job may be among them twice: the claim that is held, and one before.
        held = {id for id, token in leases if self._holds(id, token)}
        lost, cancelled, *_ = self.engine.packed(
            "job_beat", worker=worker.name, leases=leases, started=started
        )
        expected = [id for id, token in leases if not self._holds(id, token)]
        assert lost == expected
        assert set(cancelled) == {id for id in held if self.jobs[id].cancel}
        self.unchanged("a beat")
        for id in lost:
            worker.held.pop(id, None)

    def _holds(self, id: str, token: str) -> bool:
        seen = self.jobs.get(id)
        return seen is not None and seen.state == "active" and seen.token == token

    def append(self) -> None:
        worker = self.worker()
        claims = [*worker.held.values(), *list(worker.past)[-1:]]
        if not claims:
            return
        claim = self.random.choice(claims)
        is_current = self._is_current(claim)
        known = worker.chunks[claim.id] if worker.held.get(claim.id) is claim else 0
        first = self.random.choice([known + 1, known + 1, max(1, known), known + 2])
        chunks = [
            ["content", f"{claim.run}.{first + i}"] for i in range(self.random.randrange(1, 3))
        ]
        parts = [[claim.id, claim.token, claim.run, first, chunks]]
        exists = self.server.cmd("EXISTS", _keys.job(self.engine.root, claim.id))
        before = None if is_current else self.engine.chunks(claim.id)
        ((_, code, _),) = self.engine.packed("stream_append", parts=parts)
        if not is_current:
            assert code == ("s" if exists else "g")
            assert self.engine.chunks(claim.id) == before
        elif worker.held.get(claim.id) is claim:
            assert code == ("x" if first > known + 1 else "o")
            if code == "o":
                worker.chunks[claim.id] = max(known, first + len(chunks) - 1)
        self.unchanged("an append")

    def update(self) -> None:
        worker = self.worker()
        claims = [*worker.held.values(), *list(worker.past)[-1:]]
        if not claims:
            return
        claim = self.random.choice(claims)
        worker.updates[claim.id] += 1
        args = {
            "id": claim.id,
            "token": claim.token,
            "n": worker.updates[claim.id],
            "log": ["line"],
        }
        if self._is_current(claim):
            self.engine.call("job_update", **args)
        else:
            with pytest.raises(Refused, match=r"STALE|GONE"):
                self.engine.call("job_update", **args)
        self.unchanged("an update")

    def book(self) -> None:
        id = self.some_id()
        call = f"{id}/{self.random.randrange(3)}"
        if id not in self.jobs:
            with pytest.raises(Refused, match="GONE"):
                self.engine.call("job_usage", id=id, **report(call))
            return
        booked = self.server.cmd("HEXISTS", f"{self.engine.root}:job:{id}:usage", f"call:{call}")
        assert self.engine.call("job_usage", id=id, **report(call)) == 1 - booked
        self.unchanged("usage")

    def cancel(self) -> None:
        id = self.some_id()
        old = self.jobs.get(id)
        self.note(id)
        if old is None:
            with pytest.raises(Refused, match="GONE"):
                self.engine.call("job_cancel", id=id)
            return
        answer = self.engine.call("job_cancel", id=id).decode()
        assert answer == (
            "ended" if old.state in ENDED else "requested" if old.state == "active" else "cancelled"
        )

        def allowed(other: str, old: Seen | None, new: Seen | None) -> bool:
            # It may push older ones out.
            was_cancelled = other == id or (old is not None and old.state == "cancelled")
            return was_cancelled and (new is None or (other == id and new.state == "cancelled"))

        if answer == "cancelled":
            self.settle(allowed, now=0)
        else:
            self.unchanged("the cancel of a job that runs, or has ended")

    def retry(self) -> None:
        self._move("job_retry", ("failed", "cancelled"), "waiting")

    def promote(self) -> None:
        self._move("job_promote", ("delayed",), "waiting")

    def remove(self) -> None:
        states = ("waiting", "delayed", *ENDED)
        self._move("job_remove", states, None)

    def _move(self, function: str, states: tuple[str, ...], to: str | None) -> None:
        id = self.some_id()
        old = self.jobs.get(id)
        call = {"id": id, "nonce": f"{function}{len(self.log)}{self.random.random()}"}
        self.note(id)
        if old is None or old.state not in states:
            with pytest.raises(Refused, match=r"GONE|STATE"):
                self.engine.call(function, **call)
            self.unchanged(function)
            return
        assert self.engine.call(function, **call) == 1
        if to is None:
            self.removed.add(id)
        self.settle(lambda other, _, new: other == id and (new.state if new else None) == to, now=0)
        if self.random.random() < 0.5:
            assert self.engine.call(function, **call, repeat=True) == 1
            self.unchanged(f"the repeat of {function}")

    def pause(self) -> None:
        self.engine.call("queue_pause", paused=self.random.random() < 0.4)
        self.unchanged("a pause")

    def tick(self) -> None:
        self.engine.advance(self.random.choice([10, 100, 500, 1000, 1000]))

    def jump(self) -> None:
        self.engine.advance(self.random.choice([5_000, 60_000, -5_000, -60_000]))
        self.note(str(self.engine.clock))
        self.turn()  # somebody calls, and deadlines left in the future are pulled back

    def die(self) -> None:
        worker = self.worker()
        worker.held.clear()
        worker.unanswered.clear()

    def finish(self) -> None:
        """Every job can be run to its end."""
        self.engine.call("queue_pause", paused=False)
        for _ in range(400):
            for worker in self.workers:
                worker.number += 1
                args = {**self._turn_args(worker, done=[]), "want": 20}
                args["done"] = [
                    outcome(claim) for claim in worker.held.values() if self._is_current(claim)
                ]
                worker.held.clear()
                before = self.jobs
                reply = self.engine.turn(**args)
                self._settle_turn(before, args, reply)
                self._take_in(worker, SentTurn(args, reply))
            left = [seen for seen in self.jobs.values() if seen.state not in ENDED]
            if not left:
                return
            # The clock may have gone back a long way since a job was delayed.
            is_idle = all(seen.state == "delayed" for seen in left)
            until_due = round(min(seen.score for seen in left)) - self.engine.now()
            self.engine.advance(max(900, until_due) if is_idle else 900)
        raise AssertionError(left)


def _reachable(old: Seen, line: list[Any] | None, now: int) -> set[str]:
    """The states that a job may be in after a turn."""
    reach = {old.state}
    if old.state == "active":
        if line is not None:
            reach = _ended_as(line, cancelled=old.cancel)
        elif old.score <= now:
            reach |= {"cancelled"} if old.cancel else {"waiting", "failed"}
    if old.state == "delayed" and old.score <= now:
        reach |= {"waiting"}
    if not old.started and old.expires_at <= now and reach & {"waiting", "delayed"}:
        reach |= {"failed"}
    return reach


def _ended_as(line: list[Any], *, cancelled: bool) -> set[str]:
    kind = line[2]
    if cancelled:
        return {"cancelled"}
    if kind in ("retry", "delayed"):
        return {"delayed" if line[5]["delay_ms"] else "waiting"}
    return {"waiting"} if kind == "released" else {kind}


WEIGHTED = {
    Story.add: 10,
    Story.turn: 34,
    Story.repeat_unanswered: 8,
    Story.repeat_answered: 4,
    Story.beat: 10,
    Story.append: 10,
    Story.update: 4,
    Story.book: 4,
    Story.cancel: 4,
    Story.retry: 4,
    Story.promote: 3,
    Story.remove: 3,
    Story.pause: 2,
    Story.tick: 14,
    Story.jump: 1,
    Story.die: 1,
}
ACTIONS, WEIGHTS = list(WEIGHTED), list(WEIGHTED.values())
