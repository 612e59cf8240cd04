"""The YAML editor: the wanted document, and every other byte as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from runbooks.core.errors import Usage
from runbooks.core.yaml_file import YamlEditor


def edited(folder: Path, before: str, operation: str, *arguments: Any) -> str:
    path = folder / "file.yaml"
    path.write_bytes(before.encode())
    editor = YamlEditor(path)
    getattr(editor, operation)(*arguments)
    editor.write()
    return path.read_bytes().decode()


SET, APPEND, REMOVE = "set", "append", "remove"


@pytest.mark.parametrize(
    ("operation", "path", "value", "before", "after"),
    [
        (SET, "a", "x", "", "a: x\n"),
        (SET, "a", "x", "# why", "# why\na: x"),
        (SET, "a", "x", "a: 1 # c\nb: 2\n", "a: x # c\nb: 2\n"),
        (SET, "a", "x", 'a: "1"   # c\r\nb: 2\r\n', "a: x   # c\r\nb: 2\r\n"),
        (SET, "a", "true", "a: 1\n", "a: 'true'\n"),
        (SET, "a", "it's #1", "a: 1\n", "a: 'it''s #1'\n"),
        (SET, "a", "two\nlines", "a: 1\n", 'a: "two\\nlines"\n'),
        (SET, "a", "x", "a:\nb: 2\n", "a: x\nb: 2\n"),
        (SET, "a", "x", "a: # none\nb: 2\n", "a: x # none\nb: 2\n"),
        (SET, "b", "x", "\ufeffa: 1", "\ufeffa: 1\nb: x"),
        (SET, "b", "x", "a: |\n  # text\n  more\n# end\n", "a: |\n  # text\n  more\nb: x\n# end\n"),
        (SET, "a.b", "x", "a: {}\nd: 1\n", "a:\n  b: x\nd: 1\n"),
        (SET, "a.b.c", "x", "a: {}\nd: 1\n", "a:\n  b:\n    c: x\nd: 1\n"),
        (SET, "a.b.c", "x", "a: {d: 1}\n", "a: {d: 1, b: {c: x}}\n"),
        (SET, "a.b.c", "x", "", "a:\n  b:\n    c: x\n"),
        (SET, "a.b", "x", "a: {c: 1}\n", "a: {c: 1, b: x}\n"),
        (SET, "a.b", "x", "{a: {}}\n", "{a: {b: x}}\n"),
        (SET, "a", "x", "{}\n", "{a: x}\n"),
        (SET, "a.0.b", "x", "a:\n  - c: 1\n  - d: 2\n", "a:\n  - c: 1\n    b: x\n  - d: 2\n"),
        (SET, "s.b", "x", "h: &h\n  b: 1\ns:\n  <<: *h\nz: 1\n", "h: &h\n  b: 1\ns:\n  <<: *h\n  b: x\nz: 1\n"),
        (APPEND, "a", "x", "", "a:\n  - x\n"),
        (APPEND, "a", "x", "b: 1\r\n", "b: 1\r\na:\r\n  - x\r\n"),
        (APPEND, "a", "x", "a: [] # c\nb: 1\n", "a: # c\n  - x\nb: 1\n"),
        (APPEND, "a", "x", "a: # c\nb: 1\n", "a: # c\n  - x\nb: 1\n"),
        (APPEND, "a", "x", "a: [y, z] # c\n", "a: [y, z, x] # c\n"),
        (APPEND, "a", "x", "a:\n- y # c\n# d\nb: 1\n", "a:\n- y # c\n- x\n# d\nb: 1\n"),
        (APPEND, "a", "x", "a:\n  - {y: 1}", "a:\n  - {y: 1}\n  - x"),
        (REMOVE, "a", "", "a: 1 # c\nb: 2\n", "# c\nb: 2\n"),
        (REMOVE, "a", "", "a: |\n  # text\n  more\nb: 2\n", "b: 2\n"),
        (REMOVE, "a.b", "", "# top\na:\n  # inner\n  b: 1\nc: 2\n", "# top\n  # inner\nc: 2\n"),
        (REMOVE, "a.0", "", "a:\n  - x # c\n  - y\n", "a:\n  # c\n  - y\n"),
        (REMOVE, "a.1", "", "a:\r\n- x\r\n-\r\n  # c\r\n  y: 1\r\n- z\r\n", "a:\r\n- x\r\n  # c\r\n- z\r\n"),
        (REMOVE, "a.0", "", "a: [x, y]\n", "a: [y]\n"),
        (REMOVE, "a.1", "", "a: [x, y]\n", "a: [x]\n"),
        (REMOVE, "a.0", "", "a: [x]\nb: 1\n", "b: 1\n"),
        (REMOVE, "a", "", "{a: 1}\n", "{}\n"),
    ],
)
def test_an_edit_changes_its_place_alone(
    tmp_path: Path, operation: str, path: str, value: str, before: str, after: str
) -> None:
    keys = [int(key) if key.isdigit() else key for key in path.split(".")]
    assert edited(tmp_path, before, operation, keys, *([] if operation == REMOVE else [value])) == after


@pytest.mark.parametrize(
    ("operation", "arguments", "before"),
    [
        (APPEND, (["b"], "x"), "a: &l [y]\nb: *l\n"),
        (SET, (["a", "b"], "x"), "a: text\n"),
        (APPEND, (["a", "b"], "x"), ""),
        (SET, (["a"], "x"), "a: &t y\nb: *t\n"),
        (REMOVE, (["nothing"],), "a: 1\n"),
        (REMOVE, (["a", 0],), "a:\n  - - x\n    - y\n  - z\nb: &q 1\nc: *q\n"),
    ],
)
def test_what_cannot_be_edited_in_place_is_refused_or_exact(
    tmp_path: Path, operation: str, arguments: tuple[Any, ...], before: str
) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(before)
    editor = YamlEditor(path)
    try:
        getattr(editor, operation)(*arguments)
    except Usage:
        assert editor.text == before
    else:
        assert yaml.safe_load(editor.text) == {"a": ["z"], "b": 1, "c": 1}


NAMES = st.sampled_from(["a", "b", "c", "key: x", "it's", "#no", "- d"])
TEXTS = st.sampled_from(["x", "two words", "it's", "#1", "a: b", "[x]", "true", "12", "", "é\n", "*star", "- x"])
TREES = st.recursive(
    TEXTS | st.none() | st.integers(0, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(
    tree=st.dictionaries(NAMES, TREES, max_size=4), flow=st.sampled_from([None, False, True]), key=NAMES, value=TEXTS
)
@settings(max_examples=200, deadline=None)
def test_any_document_takes_a_key_and_gives_it_back(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any], flow: bool | None, key: str, value: str
) -> None:
    path = tmp_path_factory.mktemp("yaml") / "file.yaml"
    path.write_text(yaml.safe_dump(tree, default_flow_style=flow, sort_keys=False, allow_unicode=True))
    editor = YamlEditor(path)
    name = next(iter(tree), "new") if key in tree else "new"
    if isinstance(tree.get(name), (dict, list)):
        return
    editor.set((name,), value)
    assert yaml.safe_load(editor.text) == {**tree, name: value}
    editor.remove((name,))
    assert (yaml.safe_load(editor.text) or {}) == {k: v for k, v in tree.items() if k != name}
