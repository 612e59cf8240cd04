"""The lab's Go programs: pinned by the module files beside this one, found or built once per user."""

from lab.toolchain.resolve import Found, of_user, resolve
from lab.toolchain.tools import TOOLS, Tool, version_of

__all__ = ["TOOLS", "Found", "Tool", "of_user", "resolve", "version_of"]
