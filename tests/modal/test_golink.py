"""The go links, tried through the app that Modal would serve; no account is needed for any of it."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import modal
import pytest
from fastapi.testclient import TestClient

FOLDER = Path(__file__).parents[2] / "modal" / "golink"
TOKEN = "a-token-of-some-length"
OWNER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def golink(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("links", "golink"):
        sys.modules.pop(name, None)
    yield importlib.import_module("links")
    for name in ("links", "golink"):
        sys.modules.pop(name, None)


@pytest.fixture
def kept():
    return {"docs": "https://docs.example.org/start?a=1#top"}


@pytest.fixture
def client(golink, kept):
    return TestClient(golink.build_app(kept, TOKEN), follow_redirects=False)


@pytest.mark.parametrize("call", ["GET /docs", "GET /go/docs", "GET /DOCS", "HEAD /go/docs"])
def test_a_name_redirects_to_its_target(client, call):
    answer = client.request(*call.split())
    assert (answer.status_code, answer.headers["location"]) == (307, "https://docs.example.org/start?a=1#top")


def test_an_unknown_name_is_not_found(client):
    assert client.get("/go/nothing").status_code == 404


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/links"), ("PUT", "/api/links/x"), ("DELETE", "/api/links/docs")]
)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}])
def test_only_the_holder_of_the_token_sees_or_changes_links(client, kept, method, path, headers):
    answer = client.request(method, path, headers=headers, json={"target": "https://example.org"})
    assert answer.status_code == 401
    assert kept == {"docs": "https://docs.example.org/start?a=1#top"}
    assert TOKEN not in answer.text


def test_a_link_is_added_changed_listed_and_removed(client):
    assert client.put("/api/links/Wiki", json={"target": "https://w.example.org"}, headers=OWNER).status_code == 201
    assert client.put("/api/links/wiki", json={"target": "https://w2.example.org"}, headers=OWNER).status_code == 200
    assert client.get("/api/links", headers=OWNER).json()["wiki"] == "https://w2.example.org"
    assert client.get("/wiki").headers["location"] == "https://w2.example.org"
    assert client.delete("/api/links/wiki", headers=OWNER).status_code == 200
    assert client.delete("/api/links/wiki", headers=OWNER).status_code == 404
    assert client.get("/wiki").status_code == 404


TARGETS = ("", "example.org", "javascript:alert(1)", "//example.org", "http://", "https://a\nb", "http://[bad")
GOOD = '{"target": "https://example.org"}'
REFUSED = [
    *(("x", json.dumps({"target": target}), "") for target in (*TARGETS, "http://a:b/", "http://a:99999/")),
    ("x", '{"target": "https://a/\\ud800"}', "URL"),
    *((name, GOOD, "link name") for name in ("-x", "a b", "x" * 65, "ä")),
    ("Healthz", GOOD, "Healthz"),
    *(("x", body, "like {") for body in ("", "{", "[]", '"x"', "{}", '{"target": 5}', '{"\\ud800": "x"}')),
]


@pytest.mark.parametrize(("name", "content", "word"), REFUSED)
def test_what_is_no_link_is_refused_with_its_reason(client, kept, name, content, word):
    """A target must be a full web address that an answer can hold; a name one that people type and the app lacks."""
    before = dict(kept)
    answer = client.put(f"/api/links/{name}", content=content, headers=OWNER | {"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert word in str(answer.json()["detail"])
    assert kept == before


def test_an_empty_token_is_refused_when_the_app_is_built(golink):
    with pytest.raises(ValueError, match="empty token"):
        golink.build_app({}, "")


def test_it_is_python_3_10() -> None:
    """The oldest that Modal's client runs on: neither words nor parts of the standard library that are newer.

    The rest of the repository asks for a newer one.
    """
    options = ["--config-file=", "--python-version=3.10", "--follow-imports=skip"]
    looked = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--cache-dir=/dev/null", *sorted(FOLDER.glob("*.py"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert looked.returncode == 0, looked.stdout + looked.stderr


class Kept(dict):
    """Notes which links are read by their names."""

    def __init__(self, links):
        super().__init__(links)
        self.read = []

    def get(self, key, default=None):
        self.read.append(key)
        return super().get(key, default)


def test_every_link_is_read_once_a_day_for_modal_drops_what_nobody_reads_for_a_week(golink, monkeypatch, capsys):
    schedules = []
    decorator = modal.App.function

    def function(app, *args, **options):
        schedules.append(options.get("schedule"))
        return decorator(app, *args, **options)

    monkeypatch.setattr(modal.App, "function", function)
    deployed = importlib.import_module("golink")
    assert [schedule.proto_message.period.days for schedule in schedules if schedule] == [1]
    kept = Kept({"docs": "https://d.example.org", "wiki": "https://w.example.org"})
    monkeypatch.setattr(deployed, "links", kept)
    deployed.keep.local()
    assert sorted(kept.read) == ["docs", "wiki"]
    assert capsys.readouterr().out == "2 links read\n"


def test_the_deployed_function_serves_the_same_app(golink, monkeypatch):
    deployed = importlib.import_module("golink")
    monkeypatch.setenv(deployed.TOKEN_KEY, TOKEN)
    client = TestClient(deployed.web.local(), follow_redirects=False)
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/api/links").status_code == 401
