"""A Go that is a script: it writes down its calls, and "builds" by a given piece of shell."""

from __future__ import annotations

from pathlib import Path

from lab.toolchain.build import Go
from lab.toolchain.tools import PULUMI, PULUMI_KUBERNETES

SCRIPT = """#!/bin/sh
echo "$@" >> {folder}/calls
case "$*" in
    "env GOVERSION") echo {version}; exit 0 ;;
    *" -m -f "*) echo {folder}/module; exit 0 ;;
    "list "*) printf 'one\\ntwo\\nthree\\nfour\\n'; exit 0 ;;
esac
while [ "$1" != -o ]; do shift; done
output=$2
shift 2
{body}
"""
BUILDS = """
for package; do
    case $package in */v[0-9]) package=${package%/*} ;; esac
    echo > "$output/${package##*/}"
done
"""


class FakeGo:
    """`<folder>/path/go`, with the files that programs want beside them in `<folder>/module`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = f"{folder}/path:/usr/bin:/bin"
        (folder / "path").mkdir()
        for module in (PULUMI, PULUMI_KUBERNETES):
            for _, name in module.beside:
                (folder / "module" / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / "module" / name).touch()

    def install(self, body: str = BUILDS, *, version: str = "go1.99.0") -> Go:
        program = self.folder / "path" / "go"
        program.write_text(SCRIPT.format(folder=self.folder, version=version, body=body))
        program.chmod(0o755)
        return Go(program=program, version=version, own=False)

    @property
    def builds(self) -> list[str]:
        """The arguments of each `go build` so far."""
        calls = self.folder / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [line for line in lines if line.startswith("build ")]
