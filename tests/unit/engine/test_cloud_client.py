"""HTTP to the cloud: connections that are kept, closed, refused or silent, and the token."""

from __future__ import annotations

import gzip
import json
import re
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import takewhile
from pathlib import Path

import pytest

from lab.cloud import server
from lab.engine import cloud_client
from lab.engine.cloud_client import CloudClient, CloudError, Unreachable, log_in
from lab.engine.failures import CommandFailed, LoginMissing
from lab.platform import ports

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{"fine": 1}\n'


@contextmanager
def listening(serve: Callable[[socket.socket], None], port: int = 0) -> Iterator[str]:
    """A server that treats each connection in its own way; its URL."""
    with socket.create_server(("127.0.0.1", port)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    serve(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


class Recorder:
    """Answers ``answers`` requests on each connection, then closes it."""

    def __init__(self, answers: int) -> None:
        self.answers = answers
        self.requests: list[bytes] = []
        self.connections = 0

    def __call__(self, connection: socket.socket) -> None:
        self.connections += 1
        with connection.makefile("rb") as stream:
            for _ in range(self.answers):
                lines = list(takewhile(lambda line: line.strip(), stream))
                if not lines:
                    return
                head = b"".join(lines)
                length = re.search(rb"Content-Length: (\d+)", head)
                self.requests.append(head + b"\r\n" + stream.read(int(length[1]) if length else 0))
                connection.sendall(ANSWER)


def test_one_connection_carries_many_requests() -> None:
    recorder = Recorder(answers=100)
    with listening(recorder) as url:
        client = CloudClient(url, "t")
        for _ in range(3):
            assert client.json("GET", "/api/user") == {"fine": 1}
        client.call("POST", "/x", content={"long": "x" * 5000})
        client.close()

    assert recorder.connections == 1
    head, _, body = recorder.requests[-1].partition(b"\r\n\r\n")
    assert b"Content-Encoding: gzip" in head
    assert json.loads(gzip.decompress(body)) == {"long": "x" * 5000}
    assert b"Authorization: token t" in head


def test_a_connection_that_the_server_has_closed_is_opened_anew() -> None:
    recorder = Recorder(answers=1)
    with listening(recorder) as url:
        client = CloudClient(url, "t")
        for _ in range(3):
            assert client.json("GET", "/api/user") == {"fine": 1}
        client.close()
    assert len(recorder.requests) == recorder.connections == 3


def test_a_server_that_closes_every_connection_is_not_asked_for_ever() -> None:
    recorder = Recorder(answers=0)
    refused = pytest.raises(Unreachable, match="does not answer")
    with listening(recorder) as url, closing(CloudClient(url, "t")) as client, refused:
        client.json("GET", "/api/user")
    assert recorder.connections == 1


def test_a_silent_server_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience is for one that is gone, not for one that took the request."""
    monkeypatch.setattr(cloud_client, "_TIMEOUT", 0.2)
    release = threading.Event()
    with listening(lambda _: release.wait(20) and None) as url:
        with pytest.raises(Unreachable, match="no answer within 0 s"):
            CloudClient(url, "t").call("POST", "/x", content={}, patience=60)
        release.set()


def test_a_server_that_starts_again_is_waited_for() -> None:
    port = ports.pick(())
    recorder = Recorder(answers=1)
    started = threading.Event()
    done = threading.Event()

    def serve() -> None:
        started.wait(20)
        with listening(recorder, port):
            done.wait(20)

    thread = threading.Thread(target=serve)
    thread.start()
    client = CloudClient(f"http://127.0.0.1:{port}", "t")
    with pytest.raises(Unreachable, match="connection refused"):
        client.json("GET", "/api/user")
    threading.Timer(0.3, started.set).start()
    assert client.json("GET", "/api/user", patience=20) == {"fine": 1}
    client.close()
    done.set()
    thread.join(20)


def test_patience_ends() -> None:
    client = CloudClient(f"http://127.0.0.1:{ports.pick(())}", "t")
    with pytest.raises(Unreachable, match="connection refused"):
        client.json("GET", "/api/user", patience=0.3)


def test_what_was_interrupted_is_not_read_as_the_next_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(answers=5)
    with listening(recorder) as url:
        client = CloudClient(url, "t")
        real, interrupts = cloud_client._reply, [KeyboardInterrupt]

        def reply(*args: object) -> object:
            if interrupts:
                raise interrupts.pop()
            return real(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(cloud_client, "_reply", reply)
        with pytest.raises(KeyboardInterrupt):
            client.json("GET", "/first")
        assert client.json("GET", "/second") == {"fine": 1}
        client.close()
    assert recorder.connections == 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"code": 418, "message": "Teapot: no coffee"}', "[418] Teapot: no coffee"),
        (b"plain words", "[418] plain words"),
        (b"", "[418] I'm a Teapot"),
        (b"{broken", "[418] {broken"),
    ],
)
def test_a_refusal_says_what_the_server_said(body: bytes, message: str) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 418 x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    with listening(serve) as url, closing(CloudClient(url, "t")) as client, pytest.raises(CloudError) as refused:
        client.json("GET", "/api/user")
    assert (str(refused.value), refused.value.status) == (message, 418)


# -- the token -----------------------------------------------------------------------------------------------------


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[server.Cloud]:
    cloud = server.serving(tmp_path / "cloud")
    yield cloud
    cloud.stop()


def test_a_token_is_tried_once_and_kept(
    cloud: server.Cloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    environment = {"PULUMI_HOME": str(home), "PULUMI_ACCESS_TOKEN": cloud.token}

    log_in(cloud.url, environment).close()
    log_in(cloud.url, environment).close()
    stored = log_in(cloud.url, {"PULUMI_HOME": str(home)})

    assert capsys.readouterr().err == "Logging in using access token from PULUMI_ACCESS_TOKEN\n"
    assert stored.json("GET", "/api/user")["githubLogin"] == "lab"
    stored.close()
    kept = home / "credentials.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    document = json.loads(kept.read_text())
    assert (document["current"], document["accessTokens"]) == (cloud.url, {cloud.url: cloud.token})
    assert document["accounts"][cloud.url]["organizations"] == ["organization"]


def test_a_wrong_token_is_refused_and_not_kept(cloud: server.Cloud, tmp_path: Path) -> None:
    environment = {"PULUMI_HOME": str(tmp_path / "home"), "PULUMI_ACCESS_TOKEN": "pul-wrong"}
    with pytest.raises(CommandFailed, match=r"^invalid access token$"):
        log_in(cloud.url, environment)
    assert not (tmp_path / "home").exists()


def test_another_clouds_token_is_none(cloud: server.Cloud, tmp_path: Path) -> None:
    log_in(cloud.url, {"PULUMI_HOME": str(tmp_path), "PULUMI_ACCESS_TOKEN": cloud.token}).close()
    with pytest.raises(LoginMissing, match=r"^PULUMI_ACCESS_TOKEN must be set for login during non-interactive"):
        log_in("http://127.0.0.1:1", {"PULUMI_HOME": str(tmp_path)})


def test_broken_credentials_are_named(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").write_text("{")
    with pytest.raises(CommandFailed, match=r"failed to read Pulumi credentials file .*credentials.json"):
        log_in("http://127.0.0.1:1", {"PULUMI_HOME": str(tmp_path)})
