"""Why a command of the stand-in ends without success: one exception a cause, turned into an exit code in ``cli``."""

from __future__ import annotations


class CommandFailed(Exception):
    """Shown as ``error: <text>`` on standard error. Exit codes follow the real CLI (``exit_code``)."""

    exit_code = 1


class NotSupported(CommandFailed):
    """The lab's stand-in does not have it; ``what`` names it (a flag, a command, a resource type, a provider)."""

    exit_code = 2

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not supported by the lab's stand-in for pulumi; use the real pulumi for it")


class UsageError(CommandFailed):
    """The command line or the settings cannot be carried out as given."""

    exit_code = 2


class LoginMissing(CommandFailed):
    exit_code = 3


class StackNotFound(CommandFailed):
    exit_code = 6

    def __init__(self, stack: str) -> None:
        super().__init__(f"no stack named '{stack}' found")


class ChangesProposed(CommandFailed):
    """``--expect-no-changes`` and there are some."""

    exit_code = 7


class OperationFailed(CommandFailed):
    """The display has told the reason already; nothing more is printed."""

    def __init__(self, exit_code: int = 1) -> None:
        super().__init__("")
        self.exit_code = exit_code
