"""Definitions of environments: what they read, which secrets are carried over, how two differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from runbooks.core.errors import NotFound, Usage
from runbooks.core.yaml_file import dump, parse
from runbooks.stacks import definitions
from runbooks.tools.esc import EnvironmentName

NAME = EnvironmentName(organization="acme", project="stitch", name="prod")
FILE = """\
# What Stitch runs with.
values:
  stacks:
    fn::open::pulumi-stacks:
      stacks:
        postgresql:
          stack: postgresql/mx # the producer
  pulumiConfig:
    POSTGRES_HOST: ${stacks.postgresql.host}
    postgresql:username: ${stacks.postgresql.user}
    dsn: pg://${stacks.postgresql["ts_hostname"]}:${stacks.postgresql.port}/${stacks.postgresql.host}
    token:
      fn::secret: ""
"""


def read(text: str) -> Any:
    return parse(Path("x.yaml"), text.encode())


def live(**secrets: str) -> str:
    """What a backend has: the file's values in its own layout, and secrets as ciphertext."""
    document = yaml.safe_load(FILE)
    del document["values"]["pulumiConfig"]["token"]
    for key, value in secrets.items():
        document["values"]["pulumiConfig"][key] = {"fn::secret": {"ciphertext": value}}
    return yaml.safe_dump(document)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "environments" / "stitch").mkdir(parents=True)
    (tmp_path / "environments" / "stitch" / "prod.yaml").write_text(FILE)
    return tmp_path


def test_a_file_is_read_and_found_by_its_name(root: Path) -> None:
    assert definitions.defined_names(root) == ["stitch/prod"]
    assert definitions.read_definition(root, NAME)["values"]
    missing = EnvironmentName(organization="acme", project="stich", name="prod")
    with pytest.raises(NotFound, match="stich/prod") as absent:
        definitions.read_definition(root, missing)
    assert "stitch/prod" in absent.value.expected


@pytest.mark.parametrize("value", ["hunter2", {"ciphertext": "ZXNj"}])
def test_a_file_holds_no_value_of_a_secret(root: Path, value: Any) -> None:
    path = root / "environments" / "stitch" / "prod.yaml"
    path.write_text(yaml.safe_dump({"values": {"pulumiConfig": {"token": {"fn::secret": value}}}}))
    with pytest.raises(Usage, match=r"pulumiConfig\.token") as refused:
        definitions.read_definition(root, NAME)
    assert "hunter2" not in "\n".join(refused.value.lines())


def test_an_unknown_top_level_key_is_refused(root: Path) -> None:
    (root / "environments" / "stitch" / "prod.yaml").write_text("value: {}\n")
    with pytest.raises(Usage, match="unknown key 'value'"):
        definitions.read_definition(root, NAME)


@pytest.mark.parametrize("text", ["", "# nothing\n", "values:\n", "values: {}\nimports: []\n"])
def test_a_file_that_was_emptied_is_no_definition(root: Path, text: str) -> None:
    """Applied, it would take away everything but the secrets."""
    (root / "environments" / "stitch" / "prod.yaml").write_text(text)
    with pytest.raises(Usage, match=r"environments/stitch/prod\.yaml defines nothing"):
        definitions.read_definition(root, NAME)


def test_a_path_to_type_is_quoted_for_the_shell(root: Path) -> None:
    path = root / "environments" / "stitch" / "prod.yaml"
    path.write_text(yaml.safe_dump({"values": {"pulumiConfig": {"a:b": {"fn::secret": "hunter2"}}}}))
    with pytest.raises(Usage) as refused:
        definitions.read_definition(root, NAME)
    assert refused.value.next_step == """./inv esc.set stitch/prod 'pulumiConfig["a:b"]'"""


# Secrets


def test_a_secret_set_live_is_carried_over_with_the_files_comments() -> None:
    carried = definitions.carry_over(read(FILE), read(live(token="ZXNj1")))
    assert carried.kept == [("values", "pulumiConfig", "token")] and not carried.lost and not carried.empty
    text = dump(carried.document)
    assert yaml.safe_load(text)["values"]["pulumiConfig"]["token"] == {"fn::secret": {"ciphertext": "ZXNj1"}}
    assert "# What Stitch runs with." in text and "# the producer" in text
    assert definitions.differences(read(live(token="ZXNj1")), carried.document) == []


def test_a_secret_the_file_does_not_name_is_kept_too() -> None:
    carried = definitions.carry_over(read(FILE), read(live(token="a1", other="b2")))
    assert carried.added == [("values", "pulumiConfig", "other")]
    assert carried.document["values"]["pulumiConfig"]["other"]["fn::secret"] == {"ciphertext": "b2"}


@pytest.mark.parametrize(
    ("file", "path"),
    [
        ("values: {pulumiConfig: {token: plain}}", "a value in its place"),
        ("values: {pulumiConfig: plain}", "a value in place of what holds it"),
        ("values: {pulumiConfig: {token: {inner: 1}}}", "a map in its place"),
        ("values: {pulumiConfig: {'fn::open::x': {}}}", "a call in place of what holds it"),
        ("values: {pulumiConfig: [1]}", "a list in place of what holds it"),
    ],
)
def test_a_secret_that_would_vanish_is_lost(file: str, path: str) -> None:
    carried = definitions.carry_over(read(file), read(live(token="a1")))
    assert carried.lost == [("values", "pulumiConfig", "token")], path


def test_a_secret_inside_a_call_or_list_the_file_lacks_is_lost() -> None:
    in_call = read("values: {x: {'fn::open::aws': {key: {'fn::secret': a}}}}")
    in_list = read("values: {x: [{'fn::secret': a}]}")
    for definition in (in_call, in_list):
        assert definitions.carry_over(read("values: {}"), definition).lost
        kept = definitions.carry_over(read(dump(definition).replace("fn::secret: a", 'fn::secret: ""')), definition)
        assert not kept.lost


def test_places_without_a_value_are_named_or_filled() -> None:
    carried = definitions.carry_over(read(FILE), read("values: {}"))
    assert carried.empty == [("values", "pulumiConfig", "token")]
    (made,) = definitions.fill_empty(carried.document)
    assert len(made) == 32 and carried.document["values"]["pulumiConfig"]["token"]["fn::secret"] == made


# Stacks


def test_the_stack_part_is_replaced_and_nothing_else() -> None:
    document = read(FILE)
    assert definitions.with_stack(document, "lab") == ["postgresql/mx → postgresql/lab"]
    assert dump(document) == FILE.replace("postgresql/mx", "postgresql/lab")
    assert definitions.with_stack(document, "lab") == []


def test_the_long_form_of_open_is_known() -> None:
    document = read(
        "values: {db: {'fn::open': {provider: pulumi-stacks, inputs: {stacks: {pg: {stack: acme/postgresql/mx}}}}}}"
    )
    (found,) = definitions.stacks_read(document)
    assert (found.path, found.local, found.project) == (("values", "db"), "pg", "postgresql")
    assert definitions.with_stack(document, "lab") == ["acme/postgresql/mx → acme/postgresql/lab"]


def test_the_outputs_it_refers_to() -> None:
    document = read(FILE)
    (found,) = definitions.stacks_read(document)
    assert definitions.outputs_read(document, found) == ["host", "user", "ts_hostname", "port"]


# Differences


def test_differences_say_what_changes_without_secrets() -> None:
    old = read("values: {a: 1, b: {c: x}, gone: y, s: {'fn::secret': hunter2}, t: {'fn::secret': old}}")
    new = read("values: {b: {c: z, d: [1]}, a: 1, s: {'fn::secret': hunter2}, t: plain, u: {v: {'fn::secret': w}}}")
    texts = definitions.differences(old, new)
    assert texts == [
        "~ b.c: 'x' → 'z'",
        "+ b.d: [1]",
        "~ t: a secret → 'plain'",
        "+ u.v: a secret",
        "- gone: 'y'",
    ]


def test_layout_comments_and_order_are_no_difference() -> None:
    assert definitions.differences(read("b: 1\na: '2' # x\n"), read('{a: "2", b: 1}')) == []
    assert definitions.differences(read("a: 2"), read("a: '2'")) != [], "a number is not a text"
