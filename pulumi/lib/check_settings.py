"""Check config values as a program reads them, without pulumi's engine.

usage: python check_settings.py FOLDER PROJECT STACK
Standard input: `{"config": {"namespace:key": "text"}, "secrets": ["namespace:key", …]}`. What is missing or wrong is
printed, never a secret, and the exit code is 1; it is 0 when the program would accept the values.
"""

import asyncio
import importlib
import json
import sys
from pathlib import Path

import pulumi
from pulumi.runtime import mocks, set_all_config, set_mocks


class Nothing(mocks.Mocks):
    """Settings are read without resources and calls."""

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict]:
        raise NotImplementedError(args.typ)

    def call(self, args: mocks.MockCallArgs) -> tuple[dict, None]:
        raise NotImplementedError(args.token)


async def check(folder: str, project: str, stack: str) -> str:
    """Return what is missing or wrong; empty when nothing is."""
    given = json.load(sys.stdin)
    set_mocks(Nothing(), project=project, stack=stack)
    set_all_config(given["config"], given["secrets"])
    sys.path[:1] = [folder, str(Path(__file__).resolve().parents[1])]  # not lib/ itself
    settings, reader = importlib.import_module("settings"), importlib.import_module("lib.settings")
    try:
        reader.read_settings(settings.Settings, environment=getattr(settings, "ENVIRONMENT", ""))
    except pulumi.RunError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    problems = asyncio.run(check(*sys.argv[1:]))
    sys.stdout.write(problems)
    sys.exit(1 if problems else 0)
