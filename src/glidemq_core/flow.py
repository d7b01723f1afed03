"""Flows: jobs that wait for other jobs, in any queues."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Literal, Self, cast

from . import _keys, options
from ._client import Client, release_client, shared_client
from ._codec import dumps, loads, texts_of
from ._own_budgets import OF_FLOW, open_own
from ._target import Target, resolve
from .budget import Budget
from .errors import InvalidOption, JobCancelled, JobFailed
from .options import NewJob

OnChildFailure = Literal["fail", "ignore", "collect"]

_BATCH: Final = 100
_MAX_CHILDREN: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowJob:
    """A job of a flow, with the jobs it waits for.

    Attributes:
        name, data: As in `Queue.add`.
        queue: The name of its queue.
        options: Further options of `Queue.add`, by name.
        children: Jobs that must end before this one starts.
        on_child_failure: What the end of a child that did not complete means for this job: "fail": it fails, too;
            "ignore": it starts without that child's result; "collect": it starts, and finds the error among the results.
        key: The name under which its parent finds its result. Default: its name, numbered if it is not the only one.
    """

    name: str
    queue: str
    data: object = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    children: Sequence[FlowJob] = ()
    on_child_failure: OnChildFailure = "fail"
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowHandle:
    """An added flow.

    Attributes:
        id, queue: The job itself.
        children: Its children, by key.
    """

    id: str
    queue: str
    children: Mapping[str, FlowHandle] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEnd:
    """How a child has ended.

    Attributes:
        key: Its name for the parent. `id`, `queue`: the child.
        state: "completed", "failed", "cancelled", or "removed" if it was removed before it had ended.
    """

    key: str
    id: str
    queue: str
    state: str
    reason: str = ""
    value: Any = None
    error: Mapping[str, Any] | None = None

    @property
    def result(self) -> Any:
        """What it returned.

        Raises:
            JobFailed: It failed. JobCancelled: it was cancelled.
        """
        if self.state == "completed":
            return self.value
        kind = JobCancelled if self.state == "cancelled" else JobFailed
        error = self.error or {}
        raise kind(
            self.id,
            reason=self.reason,
            error_class=str(error.get("class", "")),
            error_message=str(error.get("message", "")),
            traceback=str(error.get("traceback", "")),
        )


class FlowProducer:
    """Adds flows.

    Args:
        connection: As for `Queue`.
    """

    def __init__(self, connection: str | Target | None = None) -> None:
        self._connection = connection
        self._client: Client | None = None

    async def add(self, flow: FlowJob, *, budget: Budget | None = None) -> FlowHandle:
        """Add a tree of jobs: children first to run, each parent after all of its own.

        Everything is checked before the first write. Parents are added before their children, so that no child's end is
        missed.

        Args:
            budget: One budget for all jobs of the flow, and for the children that they add (see `Queue.budget`). It
                is let go 30 days after the flow was added.

        Raises:
            InvalidOption: Something in the tree is refused; nothing was written.
        """
        return (await self.add_many([flow], budget=budget))[0]

    async def add_many(
        self, flows: Iterable[FlowJob], *, budget: Budget | None = None
    ) -> list[FlowHandle]:
        """Add several trees; with one budget for all of them."""
        plan = _Plan(budget)
        handles = [plan.tree(flow, f"flows[{i}]", parents=()) for i, flow in enumerate(flows)]
        await self._write(plan)
        return handles

    async def add_dag(
        self,
        jobs: Mapping[str, FlowJob],
        edges: Mapping[str, Sequence[str]],
        *,
        budget: Budget | None = None,
    ) -> dict[str, FlowHandle]:
        """Add a graph of jobs.

        Args:
            jobs: By node name; their `children` must be empty.
            edges: Node -> the nodes it waits for.
            budget: One budget for all jobs.

        Raises:
            InvalidOption: A cycle, an unknown node, or an option is refused; nothing was written.
        """
        plan = _Plan(budget)
        handles = plan.graph(jobs, edges)
        await self._write(plan)
        return handles

    async def close(self) -> None:
        """Let go of the connection."""
        client, self._client = self._client, None
        if client is not None:
            await release_client(client)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _write(self, plan: _Plan) -> None:
        if self._client is None:
            self._client = await shared_client(resolve(self._connection))
        client = self._client
        if plan.budget is not None and plan.budget_id is not None:
            await open_own(client, [("main", plan.budget_id, plan.budget)])
        for node in plan.nodes:  # parents come before their children
            root = _keys.root_of(node.queue)
            args: dict[str, object] = {
                "jobs": [node.wire],
                "nonce": str(node.wire["id"]),
                "id": node.wire["id"],
            }
            verdict = await client.call("job_add", root, args)
            if verdict == b"d":
                raise InvalidOption(
                    "job_id",
                    node.wire["id"],
                    f"is in queue {node.queue!r} already; the flow is incomplete",
                )
            for start in range(0, len(node.children), _BATCH):
                part = node.children[start : start + _BATCH]
                await client.call(
                    "child_expect", root, {"parent": node.wire["id"], "children": part}
                )


@dataclass(slots=True)
class _Node:
    queue: str
    wire: dict[str, Any]
    children: list[list[str]] = field(default_factory=list[list[str]])


class _Plan:
    """The jobs of a flow in the order of writing, all checked."""

    def __init__(self, budget: Budget | None) -> None:
        self.budget = budget
        self.budget_id = None if budget is None else OF_FLOW + _keys.new_id()
        self.nodes: list[_Node] = []
        self._ids: set[tuple[str, str]] = set()
        self._path: list[int] = []

    def tree(self, flow: FlowJob, where: str, *, parents: tuple[dict[str, str], ...]) -> FlowHandle:
        """Plan a tree; answers its handle."""
        if id(flow) in self._path:
            raise InvalidOption(where, flow.name, "is its own ancestor")
        self._path.append(id(flow))
        node = self._node(flow, where, parents, pending=len(flow.children))
        children: dict[str, FlowHandle] = {}
        for i, child in enumerate(flow.children):
            key = _free_key(child.key or child.name, children)
            link = self._link(node, key, flow.on_child_failure)
            children[key] = self.tree(child, f"{where}.children[{i}]", parents=(link,))
            node.children.append(
                [key, dumps({"queue": child.queue, "id": children[key].id}, "child")]
            )
        self._path.pop()
        return FlowHandle(id=node.wire["id"], queue=flow.queue, children=children)

    def graph(
        self, jobs: Mapping[str, FlowJob], edges: Mapping[str, Sequence[str]]
    ) -> dict[str, FlowHandle]:
        """Plan a graph; answers the handles by node."""
        for name, needed in edges.items():
            for one in (name, *needed):
                if one not in jobs:
                    raise InvalidOption(f"edges[{name!r}]", one, "is not one of the jobs")
        links: dict[str, list[dict[str, str]]] = {name: [] for name in jobs}
        handles: dict[str, FlowHandle] = {}
        for name in _dependents_first(jobs, edges):
            job = jobs[name]
            if job.children:
                raise InvalidOption(
                    f"jobs[{name!r}].children", len(job.children), "must be empty in a graph"
                )
            needed = list(dict.fromkeys(edges.get(name, ())))
            node = self._node(job, f"jobs[{name!r}]", tuple(links[name]), pending=len(needed))
            for one in needed:
                links[one].append(self._link(node, one, job.on_child_failure))
            handles[name] = FlowHandle(id=node.wire["id"], queue=job.queue)
        return handles

    def _node(
        self, flow: FlowJob, where: str, parents: tuple[dict[str, str], ...], *, pending: int
    ) -> _Node:
        _keys.check_name(flow.queue, f"{where}.queue")
        if flow.on_child_failure not in ("fail", "ignore", "collect"):
            raise InvalidOption(
                f"{where}.on_child_failure", flow.on_child_failure, "not fail, ignore or collect"
            )
        if pending > _MAX_CHILDREN:
            raise InvalidOption(f"{where}.children", pending, f"more than {_MAX_CHILDREN}")
        known = set(NewJob.__dataclass_fields__) - {"name", "data", "budget", "parent"}
        unknown = set(flow.options) - known
        if unknown:
            raise InvalidOption(
                f"{where}.options",
                sorted(unknown),
                f"unknown; known are {', '.join(sorted(known))}",
            )
        given = dict(flow.options)
        if self.budget_id is not None:
            if given.get("ledger", "main") != "main":
                raise InvalidOption(
                    f"{where}.ledger", given["ledger"], "a flow's budget is in 'main'"
                )
            given["budgets"] = [*given.get("budgets", ()), self.budget_id]
        wire = options.to_wire(NewJob(name=flow.name, data=flow.data, **given), f"{where}.")
        place = (flow.queue, cast("str", wire["id"]))
        if place in self._ids:
            raise InvalidOption(f"{where}.job_id", place[1], "is in the flow twice")
        self._ids.add(place)
        if parents:
            wire["parent"] = dumps(parents, "parent")
        if pending:
            wire["pending"] = pending
        node = _Node(flow.queue, wire)
        self.nodes.append(node)
        return node

    def _link(self, parent: _Node, key: str, policy: str) -> dict[str, str]:
        return {
            "queue": parent.queue,
            "id": parent.wire["id"],
            "key": _keys.check_name(key, "key"),
            "policy": policy,
        }


def _free_key(name: str, taken: Mapping[str, object]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"


def _dependents_first(jobs: Mapping[str, FlowJob], edges: Mapping[str, Sequence[str]]) -> list[str]:
    """An order in which every node comes before the nodes it waits for."""
    waiting = dict.fromkeys(jobs, 0)
    for needed in edges.values():
        for one in dict.fromkeys(needed):
            waiting[one] += 1
    ready = [name for name, count in waiting.items() if count == 0]
    order: list[str] = []
    while ready:
        name = ready.pop()
        order.append(name)
        for one in dict.fromkeys(edges.get(name, ())):
            waiting[one] -= 1
            if waiting[one] == 0:
                ready.append(one)
    if len(order) < len(jobs):
        rest = sorted(set(jobs) - set(order))
        raise InvalidOption("edges", rest, "these nodes wait for each other")
    return order


def ends_of(flat: Sequence[bytes]) -> dict[str, ChildEnd]:
    """The children of a `job_children` reply that have ended, by key."""
    pairs = texts_of(flat)
    ends: dict[str, ChildEnd] = {}
    for name, text in pairs.items():
        if not name.endswith(":end"):
            continue
        key = name.removesuffix(":end")
        end = cast("dict[str, Any]", loads(text))
        child = (
            cast("dict[str, str]", loads(pairs[key])) if key in pairs else {"id": "", "queue": ""}
        )
        ends[key] = ChildEnd(
            key=key,
            id=child["id"],
            queue=child["queue"],
            state=end["state"],
            reason=end.get("reason", ""),
            value=end.get("result"),
            error=end.get("error"),
        )
    return ends
