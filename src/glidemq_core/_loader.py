"""What is done once with a new connection: is the server fit for a queue, and does it have our functions?"""

from __future__ import annotations

import logging
from typing import Any, Final, cast

from ._library import Library
from ._target import Target
from .errors import LibraryError, ServerUnsuitable

logger = logging.getLogger(__name__)

_OLDEST: Final = (7, 0)
_ROUNDS: Final = 3


async def check_server(glide: Any, target: Target) -> None:
    """Refuse a server that has no functions or would throw jobs away.

    Raises:
        ServerUnsuitable: What to change, on the server or in the URL.
    """
    reply = await glide.custom_command(["INFO"])
    for text in cast("list[bytes | str]", reply.values() if isinstance(reply, dict) else [reply]):
        check_info(text.decode() if isinstance(text, bytes) else text, target)


def check_info(text: str, target: Target) -> None:
    """As check_server, with one server's answer to INFO."""
    info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    version = info.get("redis_version", "0.0")
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise ServerUnsuitable(
            f"{target} is version {version}; functions need Valkey 7.2 or Redis 7.0 at least"
        )
    if info.get("cluster_enabled") == "1" and not target.cluster:
        raise ServerUnsuitable(f"{target} is a cluster: add `?cluster=true` to the URL")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy == "noeviction" or target.allow_eviction:
        return
    if info.get("maxmemory", "0") == "0":
        logger.warning(
            "%s has maxmemory-policy %s: if it is ever given a maxmemory, it will drop jobs",
            target,
            policy,
        )
        return
    raise ServerUnsuitable(
        f"{target} has maxmemory-policy {policy}: at its memory limit it would silently drop jobs. Set "
        "`maxmemory-policy noeviction` on the server (or add `?allow_eviction=true` to the URL)."
    )


async def ensure_loaded(glide: Any, package: Any, library: Library, target: Target) -> None:
    """Load the library on every primary where it is missing or older; never over a newer one.

    Args:
        package: The module `glide`.

    Raises:
        LibraryError: The server refuses the text.
    """
    for _ in range(_ROUNDS):
        wanting = {
            address: description
            for address, description in (
                await _descriptions(glide, package, library, target)
            ).items()
            if library.should_replace(description)
        }
        if not wanting:
            return
        for address, description in wanting.items():
            await _load(glide, package, library, address, is_new=description is None)
    # Somebody loads or removes it all the time; a call that misses its function comes here again.


async def _load(glide: Any, package: Any, library: Library, address: str, *, is_new: bool) -> None:
    """Load it on one primary (`address` "": the only one), or see that somebody else was quicker.

    A first load is without REPLACE: so of two starters the one with the older text can't take the place of the newer one.
    (Of two that replace a third, it can; the newer one hears of it from its turns, see `Client.saw_revision`.)
    """
    options: dict[str, Any] = {"replace": not is_new}
    if address:
        host, _, port = address.rpartition(":")
        options["route"] = package.ByAddressRoute(host, int(port))
    try:
        await glide.function_load(library.text, **options)
    except package.RequestError as error:
        if "already exists" in str(error):
            return
        if "Error registering functions" in str(error) or "Error compiling" in str(error):
            raise LibraryError(
                f"the function library can't be loaded: {library.locate(str(error))}"
            ) from error
        raise
    logger.info("loaded %s revision %d", library.name, library.revision)


async def _descriptions(
    glide: Any, package: Any, library: Library, target: Target
) -> dict[str, str | None]:
    """Per primary, the description of the library it has."""
    if not target.cluster:
        return {"": _description(await glide.function_list(library.name), library)}
    reply = await glide.function_list(library.name, False, package.AllPrimaries())
    by_node = cast("dict[bytes | str, Any]", reply)
    return {_text(node): _description(entries, library) for node, entries in by_node.items()}


def _description(entries: Any, library: Library) -> str | None:
    """The library's own description: the one of its function `source`. "" if it has none."""
    for entry in entries:
        facts = {_text(key): value for key, value in entry.items()}
        for function in facts["functions"]:
            about = {_text(key): value for key, value in function.items()}
            if _text(about["name"]) == f"{library.prefix}source":
                return _text(about["description"] or b"")
        return ""
    return None


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
