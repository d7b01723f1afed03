"""Put the Lua sources into the wheel.

A hook instead of `force-include`, because that would also copy them into an editable install, where the copy goes stale.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class LuaSources(BuildHookInterface[Any]):
    """Adds `lua/` to a wheel as `glidemq_core/_lua`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the sources, unless the build is an editable install."""
        if version != "editable":
            build_data["force_include"]["lua"] = "glidemq_core/_lua"
