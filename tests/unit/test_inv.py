"""The script `inv`: finds itself, sets up once, never downloads a Python, says what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures import executable

ROOT = Path(__file__).parents[2]
PLAIN = ("sh", "cat", "readlink", "sed", "mkdir", "rm", "mv", "env", "flock", "echo", "ln", "sleep")

UV = """\
echo "$@" >> "$UV_LOG"
case $1 in
--version) echo "uv ${UV_VERSION:-0.13.9} (test)"; exit 0 ;;
python) [ -n "${UV_KNOWS:-}" ] && echo "$UV_KNOWS" && exit 0; exit 2 ;;
esac
[ -z "${UV_FAILS:-}" ] || { printf "%s\n" "no such index" "exit 0" >&2; exit "$UV_FAILS"; }
while [ $# -gt 0 ]; do [ "$1" = --project ] && project=$2; shift; done
sleep 0.2
mkdir -p "$project/.venv/bin"
rm -f "$project/.venv/bin/python"
ln -s "$REAL_PYTHON" "$project/.venv/bin/python"
printf '%s\n' "Installed 2 packages in 1s" " + invoke==3.0" " + rich==15.0" >&2
"""
TASKS = "import os, sys\nprint('tasks', os.getcwd(), *sys.argv[1:])\nsys.exit(3 if 'fail' in sys.argv else 0)\n"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A checkout of nothing but what `inv` touches, and a PATH of its own."""
    checkout, tools = tmp_path / "check out", tmp_path / "bin"
    checkout.mkdir()
    tools.mkdir()
    shutil.copy2(ROOT / "inv", checkout / "inv")
    (checkout / "tasks.py").write_text(TASKS)
    for name in ("uv.lock", "pyproject.toml"):
        (checkout / name).write_text("")
    for name in PLAIN:
        found = shutil.which(name)
        if found:
            (tools / name).symlink_to(found)
    executable(tools / "uv", UV)
    (tools / "python3").symlink_to(sys.executable)
    return checkout


def environment(place: Path, **more: str) -> dict[str, str]:
    tools = place.parent / "bin"
    return {
        "PATH": str(tools), "HOME": str(place.parent), "UV_LOG": str(place.parent / "uv.log"),
        "REAL_PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1", **more,
    }  # fmt: skip


def run(
    place: Path, *words: str, via: str = "", cwd: Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    command = [via or str(place / "inv"), *words]
    return subprocess.run(
        command, cwd=cwd or place.parent, env=environment(place, **more), capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip


def syncs(place: Path) -> int:
    log = place.parent / "uv.log"
    return sum(line.startswith("sync ") for line in log.read_text().splitlines()) if log.exists() else 0


def test_sets_up_once_and_says_so(place: Path) -> None:
    first = run(place, "a", "b c")
    assert first.stdout == f"tasks {place.parent} a b c\n" and first.returncode == 0
    assert "about 60 s, once" in first.stderr
    second = run(place)
    assert second.stderr == "" and syncs(place) == 1
    assert "--frozen" in (place.parent / "uv.log").read_text()


def test_the_packages_are_counted_and_their_names_are_in_the_log(place: Path) -> None:
    shown = run(place).stderr
    assert "2 packages" in shown and "rich" not in shown
    assert "rich==15.0" in (place / ".ops/setup.log").read_text()


def test_exit_code_of_the_task_is_its_own(place: Path) -> None:
    assert run(place, "fail").returncode == 3


@pytest.mark.parametrize("name", ["uv.lock", "pyproject.toml"])
def test_a_newer_lock_file_means_another_sync(place: Path, name: str) -> None:
    run(place)
    later = (place / ".venv/.synced").stat().st_mtime + 10
    os.utime(place / name, (later, later))
    assert "up to date" in run(place).stderr
    assert syncs(place) == 2


def test_works_through_links_and_from_anywhere(place: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links/first").symlink_to("../check out/inv")
    (tmp_path / "links/second").symlink_to(tmp_path / "links/first")
    assert run(place, via=str(tmp_path / "links/second"), cwd=Path("/")).stdout == "tasks /\n"
    assert run(place, via="./inv", cwd=place).stdout == f"tasks {place}\n"
    assert run(place, via="links/first", cwd=tmp_path).stdout == f"tasks {tmp_path}\n"
    shell = subprocess.run(
        ["sh", "inv"], cwd=place, env=environment(place), capture_output=True, text=True, check=False, timeout=60
    )
    assert shell.stdout == f"tasks {place}\n"
    assert syncs(place) == 1


def test_two_at_once_set_up_once(place: Path) -> None:
    started = [
        subprocess.Popen(
            [place / "inv"], cwd=place, env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    answers = [child.communicate(timeout=60)[0] for child in started]
    assert answers == [f"tasks {place}\n"] * 4
    assert syncs(place) == 1


def test_failed_sync_is_reported_and_tried_again(place: Path) -> None:
    failed = run(place, UV_FAILS="4")
    assert failed.returncode == 1 and "uv sync ended with 4" in failed.stderr and "no such index" in failed.stderr
    assert run(place).returncode == 0 and syncs(place) == 2


def test_no_python_names_what_was_found_and_how_to_install(place: Path) -> None:
    executable(place.parent / "bin/python3", "echo 3.9\n")
    told = run(place)
    assert told.returncode == 1
    assert "python3 is 3.9" in told.stderr and "apt install python3" in told.stderr
    (place.parent / "bin/python3").unlink()
    told = run(place)
    assert "there is none on PATH" in told.stderr and syncs(place) == 0


def test_python_that_only_uv_knows_does(place: Path) -> None:
    (place.parent / "bin/python3").unlink()
    assert run(place, UV_KNOWS=sys.executable).returncode == 0


def test_shim_that_does_not_start_is_passed_over(place: Path) -> None:
    executable(place.parent / "bin/python3.12", "echo 'command not found' >&2\nexit 127\n")
    assert run(place).returncode == 0
    assert "bin/python3" in (place.parent / "uv.log").read_text()


def test_python_3_12_is_preferred(place: Path) -> None:
    executable(place.parent / "bin/python3.12", "echo 3.12\n")
    run(place)
    assert "--python " + str(place.parent / "bin/python3.12") in (place.parent / "uv.log").read_text()


def test_too_old_uv_is_passed_over_for_a_pinned_one(place: Path) -> None:
    """The pinned one is there already: nothing is downloaded in this test."""
    pinned = next(line for line in (place / "inv").read_text().splitlines() if line.startswith("uv_version="))
    cache = place.parent / ".cache/homelab-ops" / f"uv-{pinned.partition('=')[2].split()[0]}" / "bin"
    cache.mkdir(parents=True)
    executable(cache / "uv", UV.replace('"$UV_LOG"', '"$UV_LOG.pinned"'))
    assert run(place, UV_VERSION="0.4.1").returncode == 0
    assert syncs(place) == 0 and "sync" in (place.parent / "uv.log.pinned").read_text()


def test_missing_venv_module_is_reported(place: Path) -> None:
    (place.parent / "bin/uv").unlink()
    executable(place.parent / "bin/python3", f'[ "$2" = venv ] && exit 1\nexec {sys.executable} "$@"\n')
    told = run(place)
    assert told.returncode == 1 and "install its venv module" in told.stderr
    assert [path.name for path in (place.parent / ".cache/homelab-ops").iterdir()] == []


def test_children_find_a_uv_that_reads_our_lock_file(place: Path) -> None:
    """pulumi's language host starts `uv` by its name, wherever PATH leads."""
    (place / "tasks.py").write_text("import shutil\nprint(shutil.which('uv'))\n")
    pinned = (ROOT / "inv").read_text().partition("uv_version=")[2].split()[0]
    own = place.parent / f".cache/homelab-ops/uv-{pinned}/bin/uv"
    own.parent.mkdir(parents=True)
    executable(own, UV)
    on_path = place.parent / "bin/uv"
    assert run(place).stdout == f"{on_path}\n"
    executable(on_path, "echo uv 0.4.30\n")
    assert run(place).stdout == f"{own}\n"
    on_path.unlink()
    assert run(place).stdout == f"{own}\n"


@pytest.mark.parametrize("broken", [".ops", ".ops/setup.lock"])
def test_a_folder_that_cannot_be_written_to_is_one_error(place: Path, broken: str) -> None:
    """A file where the folder should be, and a folder where the file should be: not even root can write there."""
    if broken == ".ops":
        (place / broken).touch()
    else:
        (place / broken).mkdir(parents=True)
    done = run(place, "look")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"inv: cannot write to {place}/.ops; free space or let this user")
    assert syncs(place) == 0
