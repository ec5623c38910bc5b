"""Whatever the file holds, reading, expanding and checking it gives a graph or a documented error, never another exception.

More than 2,300 documents in the suite. A longer run, with other documents each time:

    MODELGRAFT_FUZZ=100000 python -m pytest tests/core/test_document_fuzz.py --timeout 0
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelgraft import GraphError
from modelgraft.installed.discovery import assemble, discover
from modelgraft.kernel.language.document import ADAPTER_KEYS, INPUT_KEYS, NODE_KEYS, PARAM_KEYS, RUNTIME_KEYS, TOP_KEYS, parse
from modelgraft.kernel.language.expand import expand_document
from modelgraft.kernel.language.shipped_graphs import find_shipped, shipped_names
from modelgraft.tools.checked import checked

LONG = int(os.environ.get("MODELGRAFT_FUZZ", "0"))  # documents per test in a longer run
HERE = Path("/nowhere/fuzz.yaml")
EMPTY = assemble({})
CODE = re.compile(r"[a-z][a-z0-9-]*")


def runs(count):
    return settings(
        max_examples=LONG or count,
        deadline=None,
        derandomize=not LONG,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


@pytest.fixture(scope="module")
def installed():
    return discover()


def take(content, registry, **options):
    """Read, expand and check. Problems must be whole: code, sentence, and a line that the file has."""
    lines = (content.count(b"\n") if isinstance(content, bytes) else content.count("\n")) + 1
    try:
        found = parse(content, path=HERE)
        graph = expand_document(found, registry=registry, **options)
        checked(graph)
    except GraphError as error:
        problems = error.problems
    else:
        return
    assert problems
    for problem in problems:
        assert CODE.fullmatch(problem.code)
        assert problem.found
        if problem.place is not None and problem.place.file == str(HERE) and problem.place.line is not None:
            assert 1 <= problem.place.line <= lines + 1


# -- bytes and texts ----------------------------------------------------------------------------------------------------


@runs(400)
@given(content=st.binary(max_size=400))
def test_any_bytes(content):
    take(content, EMPTY)


@runs(400)
@given(text=st.text(alphabet=st.sampled_from("ab1:-?,[]{}#&*!|>'\"%@`~ \n\t\\.$<=é\u2028\ufeff"), max_size=120))
def test_any_text_of_the_characters_that_mean_something_in_yaml(text):
    take(text, EMPTY)
    take("modelgraft: 1\n" + text, EMPTY)


# -- structures ---------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        "a",
        "b",
        "inputs",
        "inputs.x",
        "a.y",
        "b.z.w",
        "text",
        "image",
        "list[text]",
        "optional[float[batch 3]]",
        "float[",
        "${p}",
        "${",
        "$${p}",
        "${q}x",
        "graph:clip",
        "graph:x.yaml",
        "graph:",
        "graph:../x.yaml",
        "vision/encoder",
        "llm/causal",
        "vision/encoder | ",
        "text/tokenizer",
        "./x",
        "org/m#p",
        "preset:x",
        "pypi:x==1/y",
        "cpu",
        "auto",
        "torch",
        "true",
        "1",
        "clip",
        "",
        "\0",
        "a" * 300,
        "é",
        "a\nb",
    ]
)
LEAVES = st.one_of(WORDS, st.none(), st.booleans(), st.integers(-3, 3), st.floats(allow_nan=True), st.text(max_size=8))
KEYS = st.one_of(
    st.sampled_from([*TOP_KEYS, *NODE_KEYS, *ADAPTER_KEYS, *INPUT_KEYS, *PARAM_KEYS, *RUNTIME_KEYS]),
    st.sampled_from(
        ["a", "b", "x", "p", "inputs", "default", "nodes.a.from", "nodes.a.with.x", "nodes.", "runtime.device", "params.p", "outputs.y"]
    ),
    st.text(max_size=5),
)
TREES = st.recursive(LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=5)), max_leaves=12)


def written(value):
    """Write a value as YAML in flow form, quoted, so that what is read is what was meant."""
    import json

    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {written(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, float):
        return {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}.get(repr(value), repr(value))
    return json.dumps(value)


@runs(250)
@given(tree=st.dictionaries(KEYS, TREES, max_size=5))
def test_any_structure_of_the_words_of_the_language(tree):
    take("".join(f"{written({key: value})[1:-1]}\n" for key, value in {"modelgraft": 1, **tree}.items()), EMPTY)


NODES = st.fixed_dictionaries(
    {"use": WORDS},
    optional={
        "from": st.one_of(WORDS, LEAVES),
        "with": st.one_of(st.dictionaries(KEYS, TREES, max_size=3), LEAVES),
        "in": st.one_of(
            st.dictionaries(st.sampled_from(["x", "ids", "image", "pixels"]), st.one_of(WORDS, st.lists(WORDS, max_size=3)), max_size=3),
            LEAVES,
        ),
        "frozen": LEAVES,
        "when": WORDS,
        "lazy": LEAVES,
        "share": WORDS,
        "adapters": st.one_of(st.lists(st.dictionaries(st.sampled_from(list(ADAPTER_KEYS)), TREES, max_size=3), max_size=2), LEAVES),
        "runtime": st.one_of(st.dictionaries(st.sampled_from(list(RUNTIME_KEYS)), LEAVES, max_size=3), LEAVES),
    },
)
NAMES = st.sampled_from(["a", "b", "c", "inputs"])
GRAPHS = st.fixed_dictionaries(
    {
        "modelgraft": st.just(1),
        "nodes": st.dictionaries(NAMES, NODES, min_size=1, max_size=4),
        "outputs": st.dictionaries(st.sampled_from(["y", "z"]), WORDS, min_size=1),
    },
    optional={
        "params": st.dictionaries(
            st.sampled_from(["p", "q"]), st.one_of(LEAVES, st.dictionaries(st.sampled_from(list(PARAM_KEYS)), TREES, max_size=3))
        ),
        "inputs": st.dictionaries(
            st.sampled_from(["x", "w"]), st.one_of(WORDS, st.dictionaries(st.sampled_from(list(INPUT_KEYS)), TREES, max_size=3))
        ),
        "runtime": st.dictionaries(
            st.sampled_from(list(RUNTIME_KEYS)), st.one_of(LEAVES, st.dictionaries(NAMES, LEAVES, max_size=2)), max_size=2
        ),
        "extends": st.sampled_from(["clip", "x.yaml", "../y.yaml", "", "fuzz.yaml"]),
    },
)


@pytest.mark.slow
@runs(350)
@given(
    graph=GRAPHS,
    settings_=st.dictionaries(
        st.sampled_from(["p", "q", "nodes.a.from", "nodes.b.with.x", "runtime.device", "nodes..x"]), LEAVES, max_size=2
    ),
)
def test_any_graph_of_nodes(installed, graph, settings_):
    take(written(graph), installed, params=settings_)


# -- graphs that are nearly right ---------------------------------------------------------------------------------------

SHIPPED = {name: find_shipped(name).read_text() for name in shipped_names()}


@st.composite
def mutated(draw):
    """A shipped graph with some lines or letters taken out, doubled, moved or replaced."""
    text = SHIPPED[draw(st.sampled_from(sorted(SHIPPED)))]
    for _ in range(draw(st.integers(1, 4))):
        lines = text.split("\n")
        at, other = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
        way = draw(st.sampled_from(["drop", "double", "swap", "cut", "insert", "word"]))
        if way == "drop":
            del lines[at]
        elif way == "double":
            lines.insert(at, lines[at])
        elif way == "swap":
            lines[at], lines[other] = lines[other], lines[at]
        elif way == "cut":
            lines = lines[: at + 1]
        elif way == "insert":
            place = draw(st.integers(0, len(lines[at])))
            lines[at] = lines[at][:place] + draw(st.sampled_from([*"{}[]:,'\"#&*!\t$ ~", "${x}", "null", ": "])) + lines[at][place:]
        else:
            words = re.findall(r"[\w/.]+", text) or ["x"]  # all that had words may have been cut
            lines[at] = lines[at].replace(draw(st.sampled_from(words)), draw(st.one_of(st.sampled_from(words), WORDS)), 1)
        text = "\n".join(lines)
    return text


@pytest.mark.slow
@runs(500)
@given(text=mutated())
def test_shipped_graphs_with_mistakes(installed, text):
    take(text, installed)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_shipped_graphs_cut_anywhere(installed, name):
    """A file that was cut while it was copied: at every fortieth byte."""
    content = SHIPPED[name].encode()
    for end in range(0, len(content), 40):
        take(content[:end], installed)
