"""Tools: plain functions that a model may call.

    def weather(city: str, days: Annotated[int, msgspec.Meta(ge=1, le=7)] = 1) -> dict:
        "The weather forecast for a city."

What the model is told is the function's name, its docstring, and a JSON schema of its type hints.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import msgspec

from glidemq_core._threads import run_in_thread
from glidemq_core.context import RunningJob
from glidemq_core.errors import InvalidOption

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_JOB: Final = "job"
_UNNAMED: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY)

Read: TypeAlias = Callable[[str], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that a model may call, where its name, docstring or type hints are not what the model is to be told.

    Attributes:
        function: Async, or sync: then it runs in a thread. A parameter named `job` is given the running job and is not
            shown to the model.
        name: Default: the function's.
        description: Default: the function's docstring.
        schema: JSON schema of its arguments, an object. Default: from its type hints, which arguments are checked against;
            those of a schema given here are not.
    """

    function: Callable[..., Any]
    name: str | None = None
    description: str | None = None
    schema: Mapping[str, Any] | None = None


class BadArguments(ValueError):
    """What the model has given is not what the function takes."""


@dataclass(frozen=True, slots=True)
class BoundTool:
    """A tool, made ready.

    Attributes:
        definition: What the model is told, in the chat format.
        read: The arguments from a model's JSON; raises BadArguments.
    """

    name: str
    definition: Mapping[str, Any]
    read: Read
    _function: Callable[..., Any]
    _wants_job: bool

    async def call(self, job: RunningJob, arguments: Mapping[str, Any]) -> object:
        """Call the function."""
        if inspect.iscoroutinefunction(self._function):
            return await self._function(**self._with_job(job, arguments))
        # The job that a thread is given blocks.
        result = await run_in_thread(
            lambda blocking: self._function(**self._with_job(blocking, arguments)), job
        )
        return await result if inspect.isawaitable(result) else result

    def _with_job(self, job: Any, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**arguments, _JOB: job} if self._wants_job else arguments


def bind(tools: Sequence[Callable[..., Any] | Tool]) -> dict[str, BoundTool]:
    """Make tools ready; by name.

    Raises:
        InvalidOption: There is none, two have one name, or one can't be told to a model.
    """
    bound: dict[str, BoundTool] = {}
    for index, given in enumerate(tools):
        field = f"tools[{index}]"
        tool = given if isinstance(given, Tool) else Tool(function=given)
        one = _bind(tool, field)
        if one.name in bound:
            raise InvalidOption(field, one.name, "there is another tool of this name")
        bound[one.name] = one
    if not bound:
        raise InvalidOption("tools", tools, "empty")
    return bound


def _bind(tool: Tool, field: str) -> BoundTool:
    function = tool.function
    if not callable(function):
        raise InvalidOption(field, function, "not a function")
    name = tool.name or getattr(function, "__name__", "")
    if not _NAME.fullmatch(name):
        raise InvalidOption(field, name, "not a name for a tool: 1 to 64 letters, digits, _ and -")
    parameters = inspect.signature(function).parameters
    if tool.schema is None:
        arguments = _struct(function, parameters, field)
        schema, read = _schema(arguments, field), _read_into(arguments)
    else:
        schema, read = tool.schema, _read_for(function, wants_job=_JOB in parameters)
    description = tool.description or inspect.getdoc(function) or ""
    about = {"name": name, "description": description, "parameters": schema}
    return BoundTool(
        name, {"type": "function", "function": about}, read, function, _JOB in parameters
    )


def _struct(
    function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter], field: str
) -> type[msgspec.Struct]:
    """The arguments as a type; one that is left out is left to the function's default."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise InvalidOption(field, function, f"its type hints can't be read: {error}") from error
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for name, parameter in parameters.items():
        if parameter.kind in _UNNAMED or parameter.kind is inspect.Parameter.VAR_KEYWORD:
            raise InvalidOption(field, name, "a tool's parameters are given by name")
        if name != _JOB:
            hint: Any = hints.get(name, Any)
            is_needed = parameter.default is inspect.Parameter.empty
            fields.append(
                (name, hint) if is_needed else (name, hint | msgspec.UnsetType, msgspec.UNSET)
            )
    return msgspec.defstruct("arguments", fields, kw_only=True, forbid_unknown_fields=True)


def _schema(arguments: type[msgspec.Struct], field: str) -> dict[str, Any]:
    try:
        whole = msgspec.json.schema(arguments)
    except TypeError as error:
        raise InvalidOption(field, arguments, f"{error}; give Tool a schema") from error
    named: dict[str, Any] = whole.pop("$defs")
    schema: dict[str, Any] = named.pop("arguments")
    schema.pop("title", None)
    return {**schema, "$defs": named} if named else schema


def _read_into(arguments: type[msgspec.Struct]) -> Read:
    decoder = msgspec.json.Decoder(arguments)

    def read(text: str) -> dict[str, Any]:
        try:
            found = msgspec.structs.asdict(decoder.decode(text or "{}"))
        except msgspec.MsgspecError as error:
            raise BadArguments(str(error)) from None
        return {name: value for name, value in found.items() if value is not msgspec.UNSET}

    return read


def _read_for(function: Callable[..., Any], *, wants_job: bool) -> Read:
    signature = inspect.signature(function)

    def read(text: str) -> dict[str, Any]:
        try:
            found: object = json.loads(text or "{}")
            if not isinstance(found, dict):
                raise BadArguments("Expected `object`")
            arguments = cast("dict[str, Any]", found)
            signature.bind(**arguments, **({_JOB: None} if wants_job else {}))
        except (ValueError, TypeError) as error:
            raise BadArguments(str(error)) from None
        return arguments

    return read
