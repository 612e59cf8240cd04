"""Stack configs: the lab's private copy follows its template; environments are bound once, every other line stays."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import yaml

from runbooks.core.errors import Usage
from runbooks.tools.stack_config import (
    StackFile,
    bind,
    bound_names,
    full_key,
    is_same,
    missing_keys,
    preserve,
    refresh_copy,
    secrets_provider_of,
    unbind,
)
from tests.fixtures import ended_process

TEMPLATE = """\
# Template of the lab.
config:
  # where charts are
  charts:source: lab/charts
  postgresql:storage_size: 1Gi
"""
IMPOSED = {"postgresql:port": "15432", "postgresql:ts_hostname": "localhost"}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    template = tmp_path / "Pulumi.lab.yaml"
    template.write_text(TEMPLATE)
    (tmp_path / "copy").mkdir()
    return template, tmp_path / "copy" / "Pulumi.lab.yaml"


def read(path: Path) -> dict[str, object]:
    document: dict[str, object] = yaml.safe_load(path.read_text())
    return document


def test_a_new_copy_is_the_template_with_what_is_imposed(files: tuple[Path, Path]) -> None:
    template, copied = files
    assert refresh_copy(template, copied, IMPOSED)
    text = copied.read_text()
    assert text.startswith(TEMPLATE)
    assert read(copied)["config"] == {
        "charts:source": "lab/charts",
        "postgresql:storage_size": "1Gi",
        "postgresql:port": "15432",
        "postgresql:ts_hostname": "localhost",
    }
    assert stat.S_IMODE(copied.stat().st_mode) == 0o600
    before = copied.stat().st_mtime_ns
    assert not refresh_copy(template, copied, IMPOSED)
    assert copied.stat().st_mtime_ns == before, "nothing is written when nothing changed"


@pytest.mark.parametrize(
    ("which", "content", "said"),
    [(1, b"config: [\n", ":2: not YAML"), (0, b"config:\n  a:a: \xff\n", ":2: byte 0xff")],
)
def test_a_broken_file_is_one_error_with_its_line(
    files: tuple[Path, Path], which: int, content: bytes, said: str
) -> None:
    refresh_copy(*files, {})
    files[which].write_bytes(content)
    with pytest.raises(Usage, match=said):
        refresh_copy(*files, {})


@pytest.mark.parametrize(
    ("head", "own"),
    [
        ("", False),
        ("secretsprovider: awskms://x\n", True),
        ("encryptionsalt: v1:x\n", True),
        ("encryptedkey: x\n", True),
    ],
)
def test_every_ciphertext_is_found_and_whose_key_it_is_under(tmp_path: Path, head: str, own: bool) -> None:
    path = tmp_path / "Pulumi.mx.yaml"
    path.write_text(
        f"{head}config:\n  a:plain: secure\n  a:one: {{secure: c1}}\n"
        "  a:deep:\n    list:\n    - secure: c2\n    - secure: no\n      other: x\n    secure: {secure: c3}\n"
    )
    file = StackFile.read(path)
    assert file.ciphertexts == ["c1", "c2", "c3"]
    assert file.has_own_key is own


@pytest.mark.parametrize(
    ("text", "provider"),
    [
        ("secretsprovider: awskms://alias/x?region=eu\nencryptedkey: AQ\nconfig: {}\n", "awskms://alias/x?region=eu"),
        ("secretsprovider: passphrase\n", "passphrase"),
        ("secretsprovider:\n", ""),
        ("config:\n  app:secretsprovider: awskms://x\n", ""),
        ("config: {}\n", ""),
        (None, ""),
    ],
)
def test_who_holds_the_key(tmp_path: Path, text: str | None, provider: str) -> None:
    path = tmp_path / "Pulumi.mx.yaml"
    if text is not None:
        path.write_text(text)
    assert secrets_provider_of(path) == StackFile.read(path).secrets_provider == provider


SALTED, SECURE = "encryptionsalt: v1:salt=\n", "  postgresql:superuser_password:\n    secure: v1:abc:def\n"
CHARTS = {"charts:source": "lab/charts"}
REFRESHED: dict[str, tuple[str | None, str | None, dict[str, str], dict[str, object]]] = {
    "salt, secrets and bindings stay": (
        f"{SALTED}{TEMPLATE}  postgresql:port: '1'\n{SECURE}environment:\n  - postgresql/lab\n",
        TEMPLATE.replace("1Gi", "2Gi") + "  postgresql:instances: '1'\n# the end\n",
        IMPOSED,
        {
            "encryptionsalt": "v1:salt=",
            "environment": ["postgresql/lab"],
            "config": CHARTS | {"postgresql:storage_size": "2Gi", "postgresql:instances": "1"} | IMPOSED
            | {"postgresql:superuser_password": {"secure": "v1:abc:def"}},
        },
    ),
    "what was set in the copy stays, what the template drops goes": (
        TEMPLATE.replace("1Gi", "9Gi"), "config:\n  postgresql:storage_size: 2Gi\n", {},
        {"config": {"postgresql:storage_size": "9Gi"}},
    ),
    "a file that stack init wrote first": (
        SALTED, None, {}, {"encryptionsalt": "v1:salt=", "config": CHARTS | {"postgresql:storage_size": "1Gi"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFRESHED)
def test_a_copy_follows_its_template(files: tuple[Path, Path], case: str) -> None:
    template, copied = files
    before, changed, imposed, after = REFRESHED[case]
    if changed:
        refresh_copy(template, copied, {})
        template.write_text(changed)
    copied.write_text(before)
    assert refresh_copy(template, copied, imposed)
    assert read(copied) == after
    assert "# where charts are" in copied.read_text() or "drops" in case
    assert not refresh_copy(template, copied, imposed)


def test_a_project_without_a_template_gets_what_is_imposed(tmp_path: Path) -> None:
    for imposed, document in ((IMPOSED, {"config": IMPOSED}), ({}, None)):
        refresh_copy(tmp_path / "absent.yaml", tmp_path / "Pulumi.lab.yaml", imposed)
        assert yaml.safe_load((tmp_path / "Pulumi.lab.yaml").read_text()) == document
        (tmp_path / "Pulumi.lab.yaml").unlink()


def test_a_definition_in_the_template_is_refused_by_the_templates_path(files: tuple[Path, Path]) -> None:
    template, copied = files
    template.write_text("environment:\n  imports:\n    - stitch/prod\n")
    with pytest.raises(Usage) as refused:
        refresh_copy(template, copied, {})
    assert str(template) in refused.value.summary and not copied.exists()


def test_what_a_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.mx.yaml"
    path.write_text("environment:\n  - a/b\nconfig:\n  p:plain: x\n  p:secret:\n    secure: v1:x\n  p:empty: ''\n")
    file = StackFile.read(path)
    assert file.environment == ("a/b",)
    assert missing_keys(file, "p", ("plain", "secret", "empty", "absent", "p:absent")) == [
        "p:empty",
        "p:absent",
        "p:absent",
    ]
    assert StackFile.read(tmp_path / "absent").config == {}
    for text in ("", "config:\n", "encryptionsalt: x\n"):
        path.write_text(text)
        assert StackFile.read(path).config == {}
    path.write_text("config: text\n")
    with pytest.raises(Usage, match=r"Pulumi\.mx\.yaml:1"):
        StackFile.read(path)
    assert (full_key("p", "a"), full_key("p", "q:a")) == ("p:a", "q:a")


FULL = "encryptionsalt: v1:x\nconfig:\n  app:token:\n    secure: v1:abc\n"


@pytest.mark.parametrize("left", [None, "", "config:\n  app:token:\n    secure: v1:abc\n"])
def test_a_file_that_a_power_cut_emptied_is_reported_with_its_copy(tmp_path: Path, left: str | None) -> None:
    path, copied = tmp_path / "Pulumi.mx.yaml", tmp_path / f".Pulumi.mx.yaml.{ended_process()}-0123abcd.kept"
    copied.write_text(FULL)
    if left is not None:
        path.write_text(left)
    with pytest.raises(Usage, match="lacks keys that it had") as told, preserve(path):
        pytest.fail("the tool must not start: it would make a new salt")
    assert f"mv {copied} {path}" in told.value.next_step
    assert copied.read_text() == FULL


def test_copies_that_are_of_no_use_any_more_go(tmp_path: Path) -> None:
    path, name, over = tmp_path / "Pulumi.mx.yaml", ".Pulumi.mx.yaml.", ended_process()
    path.write_text(FULL + "  app:more: x\n")
    (tmp_path / f"{name}{over}-0123abcd.kept").write_text(FULL)
    (tmp_path / f"{name}{over}-4567abcd.kept").write_text("")
    living = tmp_path / f"{name}{os.getpid()}-0123abcd.kept"
    living.write_text("other: x\n")
    with preserve(path):
        assert sum(1 for _ in tmp_path.iterdir()) == 3
    assert sorted(tmp_path.iterdir()) == [living, path]


COMMENTED = """\
# Stitch on mx.
environment:
  # what everybody shares
  - shared/base # first
  - stitch/prod   # bound in May
config:
  # where it lives
  stitch:namespace: 'stitch' # quoted on purpose
"""

CASES = {
    "no file": None,
    "settings only": "config:\n  a:b: 1 # one\n",
    "empty list": "environment: []\nconfig: {}\n",
    "with options": "environment:\n  - other/x: {merge: false}\n",
}
"""tests/unit/core/test_yaml_file.py has more forms of a list."""


def write(path: Path, text: str | None) -> Path:
    if text is not None:
        path.write_bytes(text.encode())
    return path


def names(path: Path) -> list[str]:
    return bound_names(yaml.safe_load(path.read_text()) or {}, path)


@pytest.mark.parametrize("case", CASES)
def test_binding_twice_binds_once_and_unbinding_gives_the_settings_back(tmp_path: Path, case: str) -> None:
    path = write(tmp_path / "Pulumi.mx.yaml", CASES[case])
    before = yaml.safe_load(CASES[case] or "") or {}
    assert bind(path, "stitch/prod")
    once = path.read_bytes()
    assert names(path)[-1] == "stitch/prod" and names(path).count("stitch/prod") == 1
    assert not bind(path, "stitch/prod")
    assert path.read_bytes() == once
    assert unbind(path, "stitch/prod") == 1
    after = yaml.safe_load(path.read_text()) or {}
    assert {key: value for key, value in after.items() if value} == {
        key: value for key, value in before.items() if value
    }
    assert unbind(path, "stitch/prod") == 0


def test_every_other_line_and_the_mode_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "Pulumi.mx.yaml", COMMENTED.replace("  - stitch/prod   # bound in May\n", ""))
    path.chmod(0o640)
    bind(path, "stitch/prod")
    assert path.read_text() == COMMENTED.replace("   # bound in May", "") and path.stat().st_mode & 0o777 == 0o640
    write(path, COMMENTED)
    assert unbind(path, "stitch/prod") == 1
    assert path.read_text() == COMMENTED.replace("  - stitch/prod   # bound in May", "  # bound in May")
    assert unbind(path, "shared/base") == 1
    for comment in ("# Stitch on mx.", "# what everybody shares", "# first", "# bound in May", "# quoted on purpose"):
        assert comment in path.read_text()
    assert yaml.safe_load(path.read_text()) == {"config": {"stitch:namespace": "stitch"}}


def test_a_name_bound_several_times_keeps_its_last_place(tmp_path: Path) -> None:
    text = "environment:\n  - stitch/prod\n  - other/x\n  - acme/stitch/prod@3 # pinned\n"
    path = write(tmp_path / "Pulumi.mx.yaml", text)
    assert bind(path, "stitch/prod")
    assert names(path) == ["other/x", "acme/stitch/prod@3"], "later ones win, so the order decides"


def test_which_entries_name_it() -> None:
    same = ("stitch/prod", "acme/stitch/prod", "stitch/prod@3", "stitch/prod:stable")
    assert all(is_same(entry, "stitch/prod") for entry in same)
    assert not any(is_same(entry, "stitch/prod") for entry in ("stitch/production", "x/prod", "prod"))


def test_a_definition_in_the_stack_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "Pulumi.mx.yaml", "environment:\n  values: {a: 1}\n")
    with pytest.raises(Usage, match="a definition of its own"):
        bind(path, "stitch/prod")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("stitch/prod", "stitch/prod"),
        ("5", "5"),
        ("[[stitch/prod]]", "stitch/prod"),
        ("[a/b, 5]", "entry 2"),
        ("[a/b, {stitch/prod: {merge: 'false'}}]", "entry 2"),
        ("[{a/b: {}, stitch/prod: {}}]", "entry 1"),
    ],
)
def test_what_is_not_a_list_of_names_is_refused_with_its_place(tmp_path: Path, written: str, shown: str) -> None:
    path = write(tmp_path / "Pulumi.mx.yaml", f"environment: {written}\n")
    with pytest.raises(Usage) as caught:
        bind(path, "stitch/prod")
    assert str(path) in caught.value.summary and shown in caught.value.summary
    assert "stitch/prod" in caught.value.expected and "a definition" not in caught.value.summary


AS_A_PERSON_WROTE_IT = (
    "\ufeff# mine\r\nconfig:   # all\r\n    app:a:   '1' # four\r\n"
    "    app:password:\r\n        secure: v1:old # why\r\n# end"
)


@pytest.mark.parametrize(
    ("before", "by_pulumi", "kept"),
    [
        (
            AS_A_PERSON_WROTE_IT,
            '# mine\nconfig: # all\n  app:a: "1" # four\n  app:password:\n    secure: v1:new= # why\n# end\n',
            AS_A_PERSON_WROTE_IT.replace("v1:old", "v1:new="),
        ),
        (
            "config:\n    app:a:   '1' # four",
            'encryptionsalt: v1:salt=\nconfig:\n  app:a: "1" # four\n  app:password:\n    secure: v1:new\n',
            "config:\n    app:a:   '1' # four\n    app:password:\n      secure: v1:new\nencryptionsalt: v1:salt=",
        ),
        ("# mine", "config:\n  app:b:\n    secure: v1:new\n", "# mine\nconfig:\n  app:b:\n    secure: v1:new"),
        ("config: {app:a: '1'} # x", "config: {app:a: '1', app:b: '2'} # x\n", "config: {app:a: '1', app:b: '2'} # x"),
        # Not a text in place of a text: pulumi's own layout is as good.
        ("config:\n    app:b: x", "config:\n  app:b:\n    secure: y\n", "config:\n  app:b:\n    secure: y\n"),
        ("config:\n    app:b: x\n", "config: {}\n", "config: {}\n"),
    ],
)
def test_only_what_pulumi_set_changes(tmp_path: Path, before: str, by_pulumi: str, kept: str) -> None:
    path = tmp_path / "Pulumi.mx.yaml"
    path.write_bytes(before.encode())
    with preserve(path):
        path.write_text(by_pulumi)
    assert path.read_bytes().decode() == kept
