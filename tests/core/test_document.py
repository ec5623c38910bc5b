"""Reading documents: places, plain values, and one clear problem for everything that is no graph."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import yaml

from modelgraft import DocumentError
from modelgraft.kernel.language import yaml_reader
from modelgraft.kernel.language.document import headline, parse, read
from modelgraft.kernel.language.shipped_graphs import find_shipped, shipped_names
from modelgraft.kernel.language.yaml_reader import MOST_DOCUMENT_BYTES, read_yaml
from support.work import grows

HEAD = "modelgraft: 1\n"


def values(text):
    return read_yaml(text, file="a.yaml").plain()


def problems(text, *, head=HEAD):
    content = text if isinstance(text, bytes) else head + text
    with pytest.raises(DocumentError) as caught:
        parse(content, path=Path("a.yaml"))
    return caught.value.problems


def problem(text, *, head=HEAD):
    (only,) = problems(text, head=head)
    return only


# -- plain values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word", ["yes", "no", "on", "off", "Y", "2024-01-01", "12:30:45", "1_000", "0x", "1e", "-", ".", "+.", "1.2.3", "=", "<<"]
)
def test_words_that_older_yaml_converts_stay_text(word):
    """Only true and false are booleans; dates, sexagesimals and underscores are text."""
    assert values(f"a: {word}" if word != "-" else 'a: "-"') == {"a": word}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e-3", 1e-3),
        ("1.", 1.0),
        (".5", 0.5),
        ("-2E+3", -2000.0),
        ("7", 7),
        ("+7", 7),
        ("-07", -7),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("null", None),
        (".inf", math.inf),
        ("-.INF", -math.inf),
    ],
)
def test_numbers_booleans_and_null_are_read_as_yaml_1_2_does(word, value):
    found = values(f"a: {word}")["a"]
    assert (found, type(found)) == (value, type(value))


def test_a_quoted_word_is_text():
    assert values("a: \"5\"\nb: 'true'\nc: |\n  7\n") == {"a": "5", "b": "true", "c": "7\n"}


@pytest.mark.parametrize("word", ["9" * 5000, "1e999", "-1e999"])
def test_a_number_too_large_to_be_one_is_text(word):
    """Python refuses to read integers of thousands of digits; here they are no numbers in the first place."""
    assert values(f"a: {word}") == {"a": word}


@pytest.mark.parametrize("key", ["on", "yes", "no"])
def test_keys_that_older_yaml_takes_for_booleans_are_text(key):
    assert values(f"{key}: 1") == {key: 1}


def test_every_value_and_key_knows_its_place():
    root = read_yaml("a: 1\nb:\n  - x\n  - {c: 2}\n", file="dir/a.yaml").value
    assert (str(root["a"].key), str(root["a"].place), root["a"].place.column) == ("dir/a.yaml:1", "dir/a.yaml:1", 4)
    assert (root["b"].key.line, root["b"].place.line) == (2, 3)
    inner = root["b"].value[1].value["c"]
    assert (inner.key.line, inner.key.column, inner.place.column) == (4, 6, 9)
    assert root["b"].value[0].at.line == 3


def test_an_alias_repeats_a_value_with_its_own_place():
    root = read_yaml("a: &x {k: 1}\nb: *x\n", file="a.yaml")
    assert root.plain() == {"a": {"k": 1}, "b": {"k": 1}}
    assert root.value["b"].place.line == 2


# -- problems -----------------------------------------------------------------------------------------------------------


def test_a_duplicate_key_names_both_lines():
    found = problem("nodes:\n  a: {}\n  b: {}\n  a: {}\n")
    assert (found.code, found.place.line) == ("duplicate-key", 5)
    assert found.found == "'a' is written twice in the same mapping: in line 3 and in line 5"


def test_all_duplicate_keys_are_told_at_once_and_values_below_them_are_skipped():
    found = problems("a: {x: 1, x: {y: [1, 2]}}\nb: 2\nb: [3, {c: 1}]\n")
    assert [(p.code, p.place.line) for p in found] == [("duplicate-key", 2), ("duplicate-key", 4)]


@pytest.mark.parametrize(("key", "shown"), [("1", "1"), ("true", "true"), ("~", "null"), ("1.5", "1.5")])
def test_a_key_that_is_not_text_says_to_quote_it(key, shown):
    found = problem(f"{key}: 3\n")
    assert (found.code, found.found, found.hint) == ("key-not-text", f"the key {shown} is not text", f'put it in quotes: "{shown}"')


@pytest.mark.parametrize("text", ["? [a, b]\n: 1\n", "? {a: 1}\n: 2\n", "{[a]: 1}", "x: &a [1]\n? *a\n: 2\n"])
def test_a_list_or_mapping_as_key_is_refused(text):
    assert problem(text, head="" if text.startswith("{") else HEAD).code == "key-not-text"


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system [x]", "!!python/name:os.system ''", "!!str 5", "!mine {a: 1}", "!!binary aGk="]
)
def test_a_tag_is_refused_and_nothing_is_constructed(tag):
    found = problem(f"a: {tag}\n")
    assert found.code == "unsupported-tag"
    assert "is not part of the graph language" in found.found


def test_anchors_of_anchors_are_refused_before_they_are_followed():
    """Billion laughs: nine levels of ten aliases each."""
    laughs = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
    found = problem(laughs)
    assert (found.code, found.found) == ("too-many-aliases", "aliases repeat more than 10000 values")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("a: &x [1, *x]\n", "*x stands inside the value that it names"), ("a: *y\n", "there is no anchor &y before *y")],
)
def test_an_alias_without_a_finished_anchor_is_refused(text, sentence):
    found = problem(text)
    assert (found.code, found.found) == ("unknown-alias", sentence)


@pytest.mark.parametrize(
    "text", ["a: " + "[" * 100_000, "a: " + "{x: " * 100_000, "".join(" " * i + f"k{i}:\n" for i in range(300)), "- " * 50_000]
)
def test_deep_nesting_is_refused_without_recursion(text):
    found = problems(text, head="")[-1]
    assert (found.code, found.found) == ("too-deep", "values are nested more than 100 levels deep")


def test_a_second_document_is_refused():
    found = problem("a: 1\n---\nb: 2\n")
    assert (found.code, found.place.line) == ("several-documents", 3)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_an_empty_file_says_how_to_start(text):
    found = problem(text, head="")
    assert (found.code, found.hint) == ("empty-file", "write a graph: start with `modelgraft: 1`")


@pytest.mark.parametrize(("text", "what"), [("- a\n", "a list"), ("hello\n", "the text 'hello'"), ("3\n", "the number 3"), ("~\n", "null")])
def test_a_document_that_is_no_mapping_is_refused(text, what):
    found = problem(text, head="")
    assert (found.code, found.found) == ("wrong-type", f"a graph is a mapping of keys, but this file holds {what}")


def test_a_tab_in_the_indentation_says_to_use_spaces():
    found = problem("nodes:\n\ta: 1\n")
    assert (found.code, found.found, found.hint, found.place.line) == (
        "yaml-syntax",
        "a tab stands where YAML wants spaces",
        "indent with spaces",
        3,
    )


@pytest.mark.parametrize(
    "text", ["a: [1, 2\n", "a: {b: 1\n", 'a: "open\n', "a: b: c\n", "a: @x\n", "a: `x\n", "%TAG ! x\n", "a:\n  - 1\n b: 2\n", "a: 'x' y\n"]
)
def test_broken_yaml_is_one_problem_with_a_line_and_a_way_out(text):
    found = problem(text)
    assert (found.code, bool(found.place.line), bool(found.hint)) == ("yaml-syntax", True, True)


def test_a_control_character_is_named():
    found = problem("a: 1\nb: \x07\n")
    assert found.code == "yaml-syntax"
    assert "U+0007 is not allowed" in found.found or "control characters are not allowed" in found.found


@pytest.mark.parametrize("letter", ["\x85", "\u2028", "\u2029"])
def test_a_character_that_only_some_take_for_a_line_break_is_refused(letter):
    found = problem(f"a: 1\nb: x{letter}y\n")
    assert (found.code, found.place.line, f"U+{ord(letter):04X}" in found.found) == ("yaml-syntax", 3, True)
    assert values(f'a: "x\\u{ord(letter):04x}y"') == {"a": f"x{letter}y"}


def test_bytes_that_are_not_utf_8_are_named_with_their_line():
    found = problem(b"modelgraft: 1\nname: caf\xe9\n")
    assert (found.code, found.found, found.place.line) == ("not-text", "the byte 0xe9 is not UTF-8", 2)


@pytest.mark.parametrize("content", ["modelgraft: 1\n".encode("utf-16"), b"modelgraft: 1\n\0\n", b"\x89PNG\r\n\x1a\n\0\0"])
def test_binary_files_are_refused(content):
    assert problem(content).code == "not-text"


def test_a_byte_order_mark_is_skipped():
    assert parse(b"\xef\xbb\xbfmodelgraft: 1\n", path=Path("a.yaml")).root.plain() == {"modelgraft": 1}


# -- version ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        ("modelgraft: 2", "the file is written in version 2 of the graph language; this release reads version 1"),
        ("modelgraft: true", "modelgraft: states the version of the graph language, but it is true; this release reads version 1"),
        ('modelgraft: "1"', "modelgraft: states the version of the graph language, but it is the text '1'; this release reads version 1"),
        ("name: x", "the version of the graph language is not stated"),
    ],
)
def test_an_unknown_version_says_what_this_release_reads(head, sentence):
    found = problem(f"{head}\n", head="")
    assert (found.code, found.found, found.place.line) == ("unknown-version", sentence, 1)


# -- files --------------------------------------------------------------------------------------------------------------


def test_a_file_of_50_mb_is_refused_without_reading_it(tmp_path, monkeypatch):
    big = tmp_path / "big.yaml"
    with big.open("wb") as stream:
        stream.truncate(50 * 2**20)
    monkeypatch.setattr(Path, "open", lambda *a, **k: pytest.fail("the file was opened"))
    with pytest.raises(
        DocumentError, match=rf"big\.yaml  too-large  the file has 52,428,800 bytes; a graph document may have {MOST_DOCUMENT_BYTES:,}"
    ):
        read(big)


def test_a_missing_file_a_folder_and_a_device_are_named(tmp_path):
    with pytest.raises(DocumentError, match=r"no-such-graph  .*none\.yaml cannot be read: No such file or directory"):
        read(tmp_path / "none.yaml")
    with pytest.raises(DocumentError, match=r"is a folder\n    name a \.yaml file inside it"):
        read(tmp_path)
    with pytest.raises(DocumentError, match="is not an ordinary file"):
        read(Path("/dev/zero"))
    with pytest.raises(DocumentError, match="cannot be read"):
        read(tmp_path / ("x" * 300 + ".yaml"))
    with pytest.raises(DocumentError, match="cannot be read"):
        read(tmp_path / "nul\0.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_read_permission_is_named(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(HEAD)
    path.chmod(0)
    with pytest.raises(DocumentError, match="cannot be read: Permission denied"):
        read(path)


# -- heading ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# Say what\n#   is seen.\n\n# not this\nmodelgraft: 1\n", "Say what is seen."),
        ("# yaml-language-server: $schema=x\n\n# Heading.\nmodelgraft: 1\n", "Heading."),
        ("modelgraft: 1  # not this\n", ""),
        ("modelgraft: 1\n# nor this\n", ""),
    ],
)
def test_the_comment_at_the_top_is_the_heading(text, line):
    assert headline(text) == line


def test_the_work_of_reading_grows_with_the_number_of_nodes():
    """Ten times the nodes take ten times the work: a quadratic reader would take a hundred times."""

    def reading(count):
        text = HEAD + "nodes:\n" + "".join(f"  n{i}: {{use: a/b, with: {{k: {i}}}, in: {{x: n{i}.y}}}}\n" for i in range(count))
        return lambda: parse(text, path=Path("a.yaml"))

    assert grows(reading, 300) < 12


@pytest.mark.parametrize("name", shipped_names())
def test_the_parser_in_python_reads_the_same_as_the_one_in_c(name, monkeypatch):
    """Where PyYAML was built without libyaml, graphs are read more slowly, and alike."""
    fast = read(find_shipped(name))
    monkeypatch.setattr(yaml_reader, "YamlLoader", yaml.SafeLoader)
    assert read(find_shipped(name)) == fast
