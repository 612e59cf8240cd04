"""The lab's Go programs: pinned by the module files beside this one, found or built once per user."""

from lab.toolchain.resolve import Found, of_person, resolve
from lab.toolchain.tools import TOOLS, Tool, version_of

__all__ = ["TOOLS", "Found", "Tool", "of_person", "resolve", "version_of"]
