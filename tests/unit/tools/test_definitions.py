"""Definitions of environments: what they read, which secrets are carried over, how two differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runbooks.core.errors import NotFound, Refused, Usage
from runbooks.core.yaml_file import dump, parse
from runbooks.tools import definitions
from runbooks.tools.definitions import NAMES
from runbooks.tools.esc import EnvironmentName, property_path

NAME = EnvironmentName(organization="acme", project="stitch", name="prod")
HOOKS = EnvironmentName(organization="acme", project="people", name="hooks")
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
    return parse(Path("x.yaml"), text)


def short(text: str) -> Any:
    """A definition in short: `$x` is a secret whose value is x, `$` the place of one."""

    def expanded(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: expanded(inner) for key, inner in node.items()}
        if isinstance(node, list):
            return [expanded(inner) for inner in node]
        return {"fn::secret": node[1:]} if isinstance(node, str) and node.startswith("$") else node

    return read(yaml.safe_dump({"values": expanded(yaml.safe_load(text))}, sort_keys=False))


def shown(path: definitions.KeyPath) -> str:
    return property_path(definitions.below_values(path))


def held(document: Any) -> dict[str, str]:
    """Path and value of each secret that is set."""
    found = ((shown(path), node["fn::secret"]) for path, node in definitions.secrets_in(document))
    return {path: value for path, value in found if value}


# Files


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


@pytest.mark.parametrize(
    ("text", "seen", "next_step"),
    [
        # Applied, it would take away everything but the secrets.
        *((empty, "prod.yaml", "") for empty in ("", "# x\n", "values:\n", "values: {}\nimports: []\n")),
        ("value: {}\n", "unknown key 'value'", ""),
        ("values: {token: {fn::secret: hunter2}}\n", "token", "./inv esc.set stitch/prod token"),
        ("values: {token: {fn::secret: {ciphertext: hunter2}}}\n", "token", "./inv esc.set stitch/prod token"),
        ("values: {m: {'a:b': {fn::secret: hunter2}}}\n", 'm["a:b"]', "./inv esc.set stitch/prod 'm[\"a:b\"]'"),
        # Setting a value in a list by its index compares the file, so the value is removed from it first.
        ("values: {l: [{t: {fn::secret: hunter2}}]}\n", "l[0].t", "then ./inv esc.set stitch/prod 'l[0].t'"),
    ],
)
def test_what_is_no_definition_or_holds_a_value_of_a_secret_is_refused(
    root: Path, text: str, seen: str, next_step: str
) -> None:
    (root / "environments" / "stitch" / "prod.yaml").write_text(text)
    with pytest.raises(Usage) as refused:
        definitions.read_definition(root, NAME)
    assert seen in refused.value.summary and next_step in refused.value.next_step
    assert "hunter2" not in "\n".join(refused.value.lines())


# Stacks

LONG_FORM = """\
values: {db: {"fn::open": {provider: pulumi-stacks, inputs: {stacks: {pg: {stack: acme/postgresql/mx}}}}}}
"""


@pytest.mark.parametrize(
    ("text", "path", "local", "before", "after"),
    [
        (FILE, ("values", "stacks"), "postgresql", "postgresql/mx", "postgresql/lab"),
        (LONG_FORM, ("values", "db"), "pg", "acme/postgresql/mx", "acme/postgresql/lab"),
    ],
    ids=["short form", "long form"],
)
def test_the_stack_part_is_replaced_and_nothing_else(
    text: str, path: definitions.KeyPath, local: str, before: str, after: str
) -> None:
    document = read(text)
    (found,) = definitions.stacks_read(document)
    assert (found.path, found.local, found.project) == (path, local, "postgresql")
    if text == FILE:
        assert definitions.outputs_read(document, found) == ["host", "user", "ts_hostname", "port"]
    assert definitions.with_stack(document, "lab") == [f"{before} → {after}"]
    assert text != FILE or dump(document) == FILE.replace(before, after)
    assert definitions.with_stack(document, "lab") == []


# Secrets: in lists they follow the identity of an entry, never its position


def test_a_secret_set_live_is_carried_over_with_the_files_comments() -> None:
    live = yaml.safe_load(FILE)
    live["values"]["pulumiConfig"]["token"] = {"fn::secret": {"ciphertext": "ZXNj1"}}
    carried = definitions.carry_over(read(FILE), read(yaml.safe_dump(live)))
    assert carried.kept == [("values", "pulumiConfig", "token")] and not carried.lost and not carried.empty
    text = dump(carried.document)
    assert yaml.safe_load(text) == live
    assert "# What Stitch runs with." in text and "# the producer" in text
    assert definitions.differences(read(yaml.safe_dump(live)), carried.document) == []


def test_places_without_a_value_are_named_or_filled() -> None:
    carried = definitions.carry_over(read(FILE), read("values: {}"))
    assert carried.empty == [("values", "pulumiConfig", "token")]
    (made,) = definitions.fill_empty(carried.document)
    assert len(made) == 32 and carried.document["values"]["pulumiConfig"]["token"]["fn::secret"] == made


LIVE = "{l: [{name: a, url: u, t: $A}, {name: b, url: v, t: $B}]}"
TWINS = "{l: [{u: 1, t: $A}, {u: 1, t: $B}]}"
CARRIED: dict[str, tuple[str, str, dict[str, str]]] = {
    "not named in the file": ("{p: {t: $A, u: $B}}", "{p: {t: $}}", {"p.t": "A", "p.u": "B"}),
    "below a renamed key": ("{a: {t: $A}}", "{b: {t: $}}", {"a.t": "A"}),
    "in a call": ("{x: {'fn::open::aws': {key: $A}}}", "{x: {'fn::open::aws': {key: $}}}",
        {'x["fn::open::aws"].key': "A"}),
    "the name counts, other values do not": (LIVE, "{l: [{name: b, url: new, t: $}, {name: a, url: v, t: $}]}",
        {"l[0].t": "B", "l[1].t": "A"}),
    "equal plain values without a name": ("{l: [{url: u, t: $A}, {url: v, t: $B}]}",
        "{l: [plain, {url: v, t: $}, {url: u, t: $, more: $}]}", {"l[1].t": "B", "l[2].t": "A"}),
    "names that are not unique": ("{l: [{name: a, url: u, t: $A}, {name: a, url: v, t: $B}]}",
        "{l: [{name: a, url: v, t: $}, {name: a, url: u, t: $}]}", {"l[0].t": "B", "l[1].t": "A"}),
    "its place is missing": ("{l: [{url: u, t: $A}]}", "{l: [{url: u}, x]}", {"l[0].t": "A"}),
    "known by a key": ("{l: [{a: {t: $A}}, {b: {t: $B}}]}", "{l: [{b: {t: $}}, {a: {t: $}}]}",
        {"l[0].b.t": "B", "l[1].a.t": "A"}),
    "nested lists": ("{l: [{name: a, in: [{id: 1, t: $A}, {id: 2, t: $B}]}, {name: b, in: [{id: 1, t: $C}]}]}",
        "{l: [{name: b, in: [{id: 1, t: $}]}, {name: a, in: [{id: 2, t: $}, {id: 1, t: $}]}]}",
        {"l[0].in[0].t": "C", "l[1].in[0].t": "B", "l[1].in[1].t": "A"}),
    "lists of lists": ("{l: [[x, $A], [y, $B]]}", "{l: [[y, $], [x, $]]}", {"l[0][1]": "B", "l[1][1]": "A"}),
    "nothing but secrets, unchanged": ("{l: [$A, $B], k: 1}", "{l: [$, $], k: 2}", {"l[0]": "A", "l[1]": "B"}),
    "twins, unchanged": (TWINS, TWINS, {"l[0].t": "A", "l[1].t": "B"}),
    "twins with the same secret": ("{l: [{u: 1, t: $A}, {u: 1, t: $A}]}", "{l: [x, {u: 1, t: $}]}", {"l[1].t": "A"}),
    "lists that are arguments": (
        "{u: {'fn::join': ['', [a, $A]]}, c: {'fn::concat': [[{name: a, t: $B}], [{name: b, t: $C}]]}}",
        "{u: {'fn::join': ['', [a, $]]}, c: {'fn::concat': [[{name: b, t: $}], [{name: a, t: $}]]}}",
        {'u["fn::join"][1][1]': "A", 'c["fn::concat"][0][0].t': "C", 'c["fn::concat"][1][0].t': "B"}),
    "a call in an entry": ("{l: [{name: a, t: {'fn::toBase64': $A}}]}",
        "{l: [x, {name: a, t: {'fn::toBase64': $}}]}", {'l[1].t["fn::toBase64"]': "A"}),
}  # fmt: skip


def without_values(text: str) -> str:
    return text.replace("$A", "$").replace("$B", "$")


@pytest.mark.parametrize("name", CARRIED)
def test_a_secret_follows_its_entry(name: str) -> None:
    live, file, expected = CARRIED[name]
    carried = definitions.carry_over(short(without_values(file)), short(live))
    assert (carried.lost, carried.doubts) == ([], {})
    assert held(carried.document) == expected
    assert {shown(path) for path in (*carried.kept, *carried.added)} == set(expected)


BELOW = "{p: {t: $A}}"
NOT_CARRIED: dict[str, tuple[str, str, list[str], list[str]]] = {
    "a value in its place": (BELOW, "{p: {t: plain}}", ["p.t"], []),
    "a value in place of what holds it": (BELOW, "{p: plain}", ["p.t"], []),
    "a map in its place": (BELOW, "{p: {t: {inner: 1}}}", ["p.t"], []),
    "a call in place of what holds it": (BELOW, "{p: {'fn::open::x': {}}}", ["p.t"], []),
    "a list in place of what holds it": (BELOW, "{p: [1]}", ["p.t"], []),
    "in a call that the file lacks": ("{x: {'fn::open::aws': {key: $A}}}", "{}", ['x["fn::open::aws"].key'], []),
    "in a list that the file lacks": ("{x: [$A]}", "{}", ["x[0]"], []),
    "removed": (LIVE, "{l: [{name: b, url: v, t: $}]}", ["l[0].t"], []),
    "renamed": (LIVE, "{l: [{name: c, url: u, t: $}, {name: b, url: v, t: $}]}", ["l[0].t"], []),
    "a key that is no name": ("{l: [{u: 1, r: eu, t: $A}]}", "{l: [{u: 2, r: eu, t: $}]}", ["l[0].t"], []),
    "id and name disagree": ("{l: [{id: 1, name: a, t: $A}]}", "{l: [{id: 1, name: b, t: $}]}", [], ["l[0]"]),
    "duplicated": (LIVE, "{l: [{name: a, url: u, t: $}, {name: a, url: u, t: $}, {name: b, url: v, t: $}]}", [],
        ["l[0]"]),
    "one of two twins removed": (TWINS, "{l: [{u: 1, t: $}]}", [], ["l[0]", "l[1]"]),
    "twins in a list that was edited": (TWINS, "{l: [{u: 1, t: $}, {u: 1, t: $}, x]}", [], ["l[0]", "l[1]"]),
    "a twin without a secret": ("{l: [{u: 1, t: $A}, {u: 1}]}", "{l: [{u: 1, t: $}]}", [], ["l[0]"]),
    "a number is no text": ("{l: [{u: 1, t: $A}]}", "{l: [{u: '1', t: $}]}", ["l[0].t"], []),
    "nothing but secrets, longer": ("{l: [$A, $B]}", "{l: [$, $, $]}", [], ["l[0]", "l[1]"]),
    "nothing but secrets, shorter": ("{l: [$A, $B]}", "{l: [$]}", [], ["l[0]", "l[1]"]),
    "nothing but a secret, edited": ("{l: [user, $A]}", "{l: [password, $]}", [], ["l[1]"]),
    "no plain value": ("{l: [{t: $A}]}", "{l: [{t: $}, {t: $}]}", [], ["l[0]"]),
    "lists of secrets": ("{l: [[$A], [$B]]}", "{l: [[$], [$], [$]]}", [], ["l[0]", "l[1]"]),
    "nested, nothing but secrets": ("{l: [{name: a, in: [$A, $B]}]}", "{l: [x, {name: a, in: [$]}]}", [],
        ["l[0].in[0]", "l[0].in[1]"]),
    "an argument that was edited": ("{u: {'fn::join': ['', [a, $A]]}}", "{u: {'fn::join': ['', [b, $]]}}",
        ['u["fn::join"][1][1]'], []),
    "list to map": (LIVE, "{l: {a: {url: u, t: $}, b: {url: v, t: $}}}", ["l[0].t", "l[1].t"], []),
    "map to list": ("{l: {a: {t: $A}}}", "{l: [{name: a, t: $}]}", ["l.a.t"], []),
    "the list's key renamed": (LIVE, LIVE.replace("l:", "m:"), ["l[0].t", "l[1].t"], []),
    "emptied": (LIVE, "{l: []}", ["l[0].t", "l[1].t"], []),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_CARRIED)
def test_what_has_no_certain_entry_is_not_carried(name: str) -> None:
    live, file, lost, doubts = NOT_CARRIED[name]
    carried = definitions.carry_over(short(without_values(file)), short(live))
    assert ([shown(path) for path in carried.lost], [*map(shown, carried.doubts)]) == (lost, doubts)
    assert all(doubt and "$" not in doubt for doubt in carried.doubts.values())


@pytest.mark.parametrize(
    ("live", "file", "expected"),
    [
        ("{a: $A, b: $B}", '{a: &s {fn::secret: ""}, b: *s}', {"a": "A", "b": "B"}),
        ("{base: {t: $}, l: [{name: x, t: $X}, {name: y, t: $Y}]}",
         '{base: &b {t: {fn::secret: ""}}, l: [{<<: *b, name: y}, {<<: *b, name: x}]}', {"l[0].t": "Y", "l[1].t": "X"}),
        ("{l: [{name: x, in: {t: $X}}, {name: y, in: {t: $Y}}]}",
         '{l: [{name: y, in: &b {t: {fn::secret: ""}}}, {name: x, in: *b}]}', {"l[0].in.t": "Y", "l[1].in.t": "X"}),
    ],
)  # fmt: skip
def test_a_secret_under_an_alias_is_one_for_each_place(live: str, file: str, expected: dict[str, str]) -> None:
    """Written out: ESC takes no alias."""
    wanted = read(f"values: {file}")
    carried = definitions.carry_over(wanted, short(live))
    assert held(carried.document) == expected and not carried.lost and not carried.doubts
    assert "*" not in dump(carried.document) and "*" in dump(wanted)


# Every edit


SECRETS, WORDS = st.just("$"), st.sampled_from("abcd")
MAPS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(["name", "id", "url"], WORDS)
    | dict.fromkeys(["t", "u"], SECRETS)
    | {"in": st.lists(st.fixed_dictionaries({"name": WORDS, "t": SECRETS}))},
)
LISTS = st.builds(lambda word, secrets: [word, *secrets], WORDS, st.lists(SECRETS, max_size=2))
ENTRIES = MAPS | MAPS | LISTS | SECRETS | WORDS
"""Entries of a list, `$` for each secret; few different values, so that twins are common."""

Held = tuple[list[Any], int]
"""A list and the index of one of its entries."""


def numbered(node: Any, seen: dict[str, list[Held]], around: tuple[Held, ...] = ()) -> Any:
    """The node with a value of its own in each secret; `seen` gets the entries that hold it, outermost first."""
    if node == "$":
        value = f"secret-{len(seen)}"
        seen[value] = list(around)
        return f"${value}"
    if isinstance(node, dict):
        return {key: numbered(inner, seen, around) for key, inner in node.items()}
    if isinstance(node, list):
        return [numbered(inner, seen, (*around, (node, index))) for index, inner in enumerate(node)]
    return node


def entries_on(path: definitions.KeyPath, node: Any) -> list[Held]:
    """The list entries on a path; the last keys may be missing."""
    found: list[Held] = []
    for part in path:
        if isinstance(node, list):
            assert isinstance(part, int)
            found.append((node, part))
            node = node[part]
        else:
            node = node.get(part, {})
    return found


def rest(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: rest(inner) for key, inner in node.items() if inner != "$"}
    return [rest(inner) for inner in node if inner != "$"] if isinstance(node, list) else node


def is_same(old: Held, new: Held) -> bool:
    """Whether both are the same entry: by an unchanged list, by its rest, or by a name; the latter two unique."""
    if old == new:
        return True
    (olds, before), (news, after) = old, new
    rests = [rest(entry) for entry in olds], [rest(entry) for entry in news]
    if olds[before] != "$" and rests[0][before] == rests[1][after]:
        return rests[0].count(rests[0][before]) == rests[1].count(rests[1][after]) == 1
    return any(
        has_unique(key, olds) and has_unique(key, news) and olds[before][key] == news[after][key] for key in NAMES
    )


def has_unique(key: str, entries: list[Any]) -> bool:
    values = [entry[key] for entry in entries if isinstance(entry, dict) and key in entry]
    return len(set(values)) == len(entries)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_edit_gives_a_secret_to_another_entry(data: st.DataObject) -> None:
    before = data.draw(st.lists(ENTRIES, min_size=1, max_size=5))
    # Some entries stay, in any order and number; others come, or are edited.
    after = data.draw(st.just(before) | st.lists(st.sampled_from(before) | ENTRIES, max_size=6))
    seen: dict[str, list[Held]] = {}
    live = short(yaml.safe_dump({"l": numbered(before, seen)}))
    carried = definitions.carry_over(short(yaml.safe_dump({"l": after})), live)
    if carried.lost or carried.doubts:
        assert before != after, "an unchanged list is always carried"
        return
    secrets = [(path, node["fn::secret"]) for path, node in definitions.secrets_in(carried.document)]
    now = {value: path for path, value in secrets if value}
    assert sorted(now) == sorted(value for _, value in secrets if value) == sorted(seen)
    if before == after:
        assert carried.document == live
        return
    for value, path in now.items():
        holders = entries_on(path[1:], {"l": after})
        pairs = zip(seen[value], holders, strict=True)
        assert all(is_same(old, new) for old, new in pairs), (before, after, value, path)


# Differences


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("{b: 1, a: x}", "{a: x, b: 1}", []),
        ("{a: 2}", "{a: '2'}", ["- a: 2", "+ a: '2'"]),
        ("{a: 1, gone: y}", "{a: 1, b: {c: x, d: []}}", ["+ b.c: 'x'", "+ b.d: []", "- gone: 'y'"]),
        ("{a: $A, b: $B}", "{a: $A, b: plain, c: $C}", ["- b: a secret", "+ b: 'plain'", "+ c: a secret"]),
        ("{a: $A}", "{a: $B}", ["- a: a secret", "+ a: a secret"]),
        ("{l: [a, b, c]}", "{l: [a, c]}", ["- l[1]: 'b'"]),
        ("{l: [b, c]}", "{l: [a, b, c]}", ["+ l[0]: 'a'"]),
        ("{l: [a, b]}", "{l: [b, a]}", ["+ l[0]: 'b'", "- l[1]: 'b'"]),
        (LIVE, LIVE.replace("url: v", "url: w"), ["- l[1].url: 'v'", "+ l[1].url: 'w'"]),
        ("{l: [1]}", "{l: {a: 1}}", ["- l[0]: 1", "+ l.a: 1"]),
    ],
)  # fmt: skip
def test_values_that_differ_are_shown_without_secrets(old: str, new: str, lines: list[str]) -> None:
    found = definitions.differences(short(old), short(new))
    assert sorted(found) == sorted(lines)


def test_comments_and_layout_are_no_difference() -> None:
    assert definitions.differences(read("b: 1\na: '2' # x\n"), read('{a: "2", b: 1}')) == []
    assert definitions.differences(read("{}"), read("imports: [a/b]")) == ["+ imports[0]: 'a/b'"]


PLAIN = st.recursive(
    st.sampled_from(["x", "y", 1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
)


@example(*map(short, ("{a: x}", "{a: [x]}")))
@example(*map(short, ("{l: [{a: 1}, {b: 2}]}", "{l: [{a: 1, b: 2}]}")))
@example(*map(short, ("{l: [[1, 2], [3]]}", "{l: [[1], [2, 3]]}")))
@given(*[st.fixed_dictionaries({"values": PLAIN})] * 2)
def test_only_definitions_that_mean_the_same_have_no_difference(old: Any, new: Any) -> None:
    assert (definitions.differences(old, new) == []) == (old == new)


# What is set by an index


@pytest.mark.parametrize(
    ("live", "file", "path", "seen"),
    [
        (LIVE, LIVE, ("l", 1, "t"), ""),
        (LIVE, "{l: [{name: a, url: new, t: $}]}", ("l", 0, "t"), ""),
        ("{l: [$, $]}", "{l: [$, $]}", ("l", 1), ""),
        ("{k: {t: $}}", "{}", ("k", "t"), ""),
        (LIVE, "{l: [{name: b, t: $}, {name: a, url: u, t: $}]}", ("l", 1, "t"), "is {'name': 'a', 'url': 'u'"),
        (LIVE, "{l: [{name: c, t: $}, {name: a, url: u, t: $}]}", ("l", 0, "t"), "is {'name': 'c'"),
        (LIVE, "{l: [{name: b, url: v, t: $}]}", ("l", 1, "t"), "is not there"),
        (LIVE, "{k: 1}", ("l", 0, "t"), "is not there"),
    ],
)
def test_an_index_has_to_be_the_same_entry_in_the_file(
    live: str, file: str, path: definitions.KeyPath, seen: str
) -> None:
    if not seen:
        definitions.refuse_other_place(short(live), short(file), path, HOOKS)
        return
    with pytest.raises(Refused) as refused:
        definitions.refuse_other_place(short(live), short(file), path, HOOKS)
    assert seen in refused.value.summary and "./inv esc.apply people/hooks" in refused.value.next_step


def test_the_entry_that_holds_a_path_is_shown_without_its_secrets() -> None:
    document = short("{l: [{name: a, in: [$A, [$B]]}]}")["values"]
    assert definitions.holding_entry(document, ("l", 0, "in", 0)) == "{'name': 'a', 'in': [a secret, [a secret]]}"
    assert definitions.holding_entry(document, ("l",)) == ""
