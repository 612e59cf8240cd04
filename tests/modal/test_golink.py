"""The go links, tried through the app that Modal would serve; no account is needed for any of it."""

import ast
import importlib
import sys
from pathlib import Path

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


@pytest.mark.parametrize("path", ["/docs", "/go/docs", "/DOCS"])
def test_a_name_redirects_to_its_target(client, path):
    answer = client.get(path)
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


@pytest.mark.parametrize(
    "target", ["", "example.org", "javascript:alert(1)", "//example.org", "http://", "https://a\nb", "http://[bad"]
)
def test_a_target_must_be_a_full_web_address(client, kept, target):
    assert client.put("/api/links/x", json={"target": target}, headers=OWNER).status_code == 422
    assert "x" not in kept


@pytest.mark.parametrize("name", ["-x", "a b", "x" * 65, "ä"])
def test_a_name_must_be_typeable(client, name):
    answer = client.put(f"/api/links/{name}", json={"target": "https://example.org"}, headers=OWNER)
    assert answer.status_code == 422
    assert "link name" in answer.json()["detail"]


def test_an_empty_token_is_refused_when_the_app_is_built(golink):
    with pytest.raises(ValueError, match="empty token"):
        golink.build_app({}, "")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["golink.py", "links.py"])
def test_it_reads_as_python_3_10(name):
    """The oldest Python that Modal's images may have; the rest of the repository asks for a newer one."""
    ast.parse((FOLDER / name).read_text(encoding="utf-8"), feature_version=(3, 10))


def test_the_deployed_function_serves_the_same_app(golink, monkeypatch):
    deployed = importlib.import_module("golink")
    monkeypatch.setenv(deployed.TOKEN_KEY, TOKEN)
    client = TestClient(deployed.web.local(), follow_redirects=False)
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/api/links").status_code == 401
