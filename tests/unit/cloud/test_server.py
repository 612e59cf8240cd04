"""The server: which callers it serves, what it answers and logs, and what survives a restart."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from lab.cloud import server
from lab.cloud.server import Cloud
from lab.platform import ports
from runbooks.core.errors import OpsError
from tests.fixtures import until
from tests.unit.cloud.conftest import Caller
from tests.unit.cloud.operation import STACK, Operation, create_stack, deployment

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("authorization", ["", "token", "token ", "token x", "Bearer {token}", "update-token {token}"])
@pytest.mark.parametrize("path", ["/api/user", "/api/nothing"])
def test_without_the_token_nothing_is_answered(caller: Caller, path: str, authorization: str) -> None:
    reply = caller.send("GET", path, Authorization=authorization.format(token=caller.token))
    assert reply.status == 401
    assert reply.content == {"code": 401, "message": "Unauthorized: No credentials provided or are invalid."}


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}"])
def test_another_host_name_is_turned_away(caller: Caller, host: str) -> None:
    port = caller.url.rsplit(":", 1)[-1]
    assert caller.send("GET", "/api/user", Host=host.format(port=port)).status == 421
    assert caller.send("GET", "/healthz", Host=host.format(port=port)).status == 421
    assert caller.send("GET", "/api/user", Host=f"localhost:{port}").status == 200


def test_it_listens_on_loopback_only(cloud: Cloud) -> None:
    assert cloud.server.server_address[0] == "127.0.0.1"


def test_health_needs_no_token(caller: Caller) -> None:
    assert caller.send("GET", "/healthz", Authorization="").status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/stacks/organization/p/s/policypacks"),
        ("PATCH", "/api/stacks/organization/p/s/update/1/checkpointdelta"),
        ("PUT", "/api/stacks/organization/p/s/config"),
        ("POST", "/api/esc/environments/organization/p/e/drafts"),
        ("POST", "/api/user"),
        ("GET", "/"),
    ],
)
def test_other_routes_are_not_there_and_logged_without_their_query(
    caller: Caller, capsys: pytest.CaptureFixture[str], method: str, path: str
) -> None:
    reply = caller.send(method, f"{path}?token=do-not-log-this", b"nor this")
    assert (reply.status, reply.content["code"]) in ((404, 404), (401, 401))
    logged = capsys.readouterr().err
    assert f"{method} '{path}': no such route" in logged
    assert "do-not-log-this" not in logged
    assert "nor this" not in logged


def test_a_bug_is_an_answer_and_its_words_stay_out_of_the_log(
    caller: Caller, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("-".join(("a", "secret", "value")))

    create_stack(caller)
    monkeypatch.setattr("lab.cloud.stack_store.StackStore.deployment", broken)
    reply = caller.send("GET", f"{STACK}/export")
    assert reply.status == 500
    logged = capsys.readouterr().err
    assert "RuntimeError" in logged
    assert "a-secret-value" not in logged


def sent(cloud: Cloud, *requests: tuple[str, str]) -> bytes:
    """The answers to requests on one connection: each is a method with its path, and what follows the first headers."""
    head = f"Host: {cloud.url.removeprefix('http://')}\r\nAuthorization: token {cloud.token}\r\n"
    with socket.create_connection(("127.0.0.1", int(cloud.url.rsplit(":", 1)[-1])), timeout=10) as connection:
        connection.sendall("".join(f"{what} HTTP/1.1\r\n{head}{rest}" for what, rest in requests).encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_one_connection_carries_many_requests(cloud: Cloud) -> None:
    refused, fine = ("POST /api/user", "Content-Length: 3\r\n\r\nabc"), "GET /api/capabilities"
    answered = sent(cloud, refused, (fine, "\r\n"), (fine, "Connection: close\r\n\r\n"))
    assert re.findall(rb"HTTP/1.1 (\d+)", answered) == [b"404", b"200", b"200"]


@pytest.mark.parametrize("length", ["x", "-1", str(65 * 1024 * 1024)])
def test_a_body_of_impossible_length_is_refused(cloud: Cloud, length: str) -> None:
    answered = sent(cloud, ("POST /api/stacks/organization/p", f"Content-Length: {length}\r\n\r\n"))
    assert answered.split(b" ", 2)[1] in (b"400", b"413")
    assert b"Connection: close" in answered


def test_every_file_is_private(caller: Caller, folder: Path) -> None:
    create_stack(caller)
    Operation.started(caller).checkpoint(deployment())
    caller.post("/api/esc/environments/organization", {"project": "stitch", "name": "prod"})
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
    assert len(modes) > 10
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items()), modes


def test_a_folder_has_one_server(cloud: Cloud, folder: Path) -> None:
    with pytest.raises(OpsError, match="another process serves"):
        server.serve_in_thread(folder)


@contextmanager
def process(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m lab.cloud`, once it answers."""
    argv = [sys.executable, "-m", "lab.cloud", "--folder", str(folder), "--port", str(port), "--evaluator", "/none"]
    with subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE) as running:
        try:
            until(lambda: running.poll() is not None or _answers(port), "an answer")
            assert running.poll() is None, running.stderr and running.stderr.read()
            yield running
        finally:
            running.kill()


def _answers(port: int) -> bool:
    try:
        return Caller(f"http://127.0.0.1:{port}", "").send("GET", "/healthz").status == 200
    except OSError:
        return False


def test_a_killed_server_comes_back_with_everything_and_the_running_update_continues(tmp_path: Path) -> None:
    port = ports.pick(())
    with process(tmp_path, port) as first:
        caller = Caller(f"http://127.0.0.1:{port}", (tmp_path / "token").read_text())
        create_stack(caller)
        sealed = caller.post(f"{STACK}/encrypt", {"plaintext": "aGVsbG8="})["ciphertext"]
        update = Operation.started(caller)
        update.checkpoint(deployment({"a": 1}))
        first.send_signal(signal.SIGKILL)
        first.wait()
    with process(tmp_path, port):
        assert caller.get(STACK)["activeUpdate"] == update.id
        assert caller.post(f"{STACK}/decrypt", {"ciphertext": sealed}) == {"plaintext": "aGVsbG8="}
        assert update.renew().status == 200
        assert update.checkpoint(deployment({"a": 2})).status == 204
        assert update.complete().status == 204
        assert caller.get(f"{STACK}/export") == deployment({"a": 2})


def test_it_ends_when_asked(tmp_path: Path) -> None:
    with process(tmp_path, ports.pick(())) as running:
        running.terminate()
        assert running.wait(10) == 0


def test_half_a_write_and_half_a_removal_are_forgotten(tmp_path: Path) -> None:
    cloud = server.serve_in_thread(tmp_path)
    caller = Caller(cloud.url, cloud.token)
    create_stack(caller)
    folder = tmp_path / "stacks" / "postgresql"
    (folder / "lab" / f".stack.json.{os.getpid()}").write_text('{"project": "post')
    (folder / ".removed-1" / "updates").mkdir(parents=True)
    (folder / "half").mkdir()
    cloud.stop()
    served: list[Cloud] = []

    def is_served() -> bool:
        with suppress(OpsError):
            served.append(server.serve_in_thread(tmp_path))
        return bool(served)

    until(is_served, "the lock is free")
    (again,) = served
    caller = Caller(again.url, again.token)
    assert [one["stackName"] for one in caller.get("/api/user/stacks")["stacks"]] == ["lab"]
    assert not (folder / ".removed-1").exists()
    again.stop()
