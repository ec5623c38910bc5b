"""Metrics over outputs and columns: what they are called, what is told before anything runs, what becomes of records that fail."""

import re
import sys
import types
from pathlib import Path

import numpy
import pytest
import torch

import modelgraft_plugins.metrics as shipped
import modelgraft_plugins.torch as backend
from modelgraft import ABSENT, Embedding, component, hookimpl, port
from modelgraft.installed.discovery import assemble
from modelgraft.plugin import GraphError, InputError, ModelgraftError, PluginError
from modelgraft.testing import conform
from modelgraft_plugins import scoring
from modelgraft_plugins.scoring import clusters_of, difference_of, fits, interval_of, joined, metric_named, rehearse, score

README = Path(shipped.__file__).parent / "README.md"
TEXT = {"text": port("text")}


@pytest.fixture(scope="module")
def registry():
    """The shipped metrics, and those of the example in their README."""
    mine = types.ModuleType("metrics_of_ours")
    sys.modules[mine.__name__] = mine
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, str(README), "exec"), mine.__dict__)
    yield assemble({"metrics": shipped, "ours": mine, "torch": backend})
    del sys.modules[mine.__name__]


def test_a_metric_of_a_third_party_is_used_as_ours_are(registry):
    """The example of the README: named by its last part, set, joined, scored, with an interval."""
    for id in ("mine/polite", "mine/brevity"):
        found = registry.find(id)
        conform(found.function or found.config)
    brevity = joined(metric_named(registry, "brevity:spaces=false"), TEXT, ["references"])
    assert (brevity.name, brevity.config.better) == ("mine/brevity(spaces=False)", "lower")
    found = score(brevity, ["a b", "abcd"], ["abc", ["ab", "a b c"]])
    assert found.rows.tolist() == [[2, 3], [4, 2]]
    assert found.value == 6 / 5
    polite = score(joined(metric_named(registry, "mine/polite"), TEXT, []), ["Please!"] * 5 + ["no"] * 5)
    assert (polite.value, interval_of(polite).low > 0, interval_of(polite).draws) == (0.5, True, 10)


def test_the_readme_lists_every_metric_and_no_other():
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    listed = {f"metric/{name}" for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert listed == {one.__component__.id for one in shipped.METRICS}


def test_a_word_says_which_metric_of_what(registry):
    measure = metric_named(registry, "recall:k=5,queries=references,prediction=vector,references=captions")
    assert (measure.component.id, measure.prediction, measure.references) == ("metric/recall", "vector", "captions")
    assert (measure.config.k, measure.name) == (5, "recall(k=5, queries=references)")
    assert metric_named(registry, "metric/wer@1").name == metric_named(registry, "wer").name == "wer"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("wre", r"there is no metric 'wre'; there are: .*wer.*Did you mean 'wer'\?"),
        ("recall:n=5", r"metric/recall has no 'n'; it has: prediction, references, k, queries"),
        ("recall:k=many", r"metric/recall has k='many'; Input should be a valid integer"),
        ("recall:k", r"--metric recall:k: found 'k'; wanted NAME:KEY=VALUE"),
        ("recall:k=1,k=2", r"found 'k=2'; wanted .* each key once"),
    ],
)
def test_a_word_that_means_nothing_is_told_with_what_there_is(registry, word, said):
    with pytest.raises(InputError, match=said):
        metric_named(registry, word)


def test_a_component_that_is_no_metric_is_told(registry):
    @component("mine/upper", kind="preprocess", inputs={"text": "text"}, outputs={"text": "text"})
    def upper(text):
        """In capitals."""
        return text

    class Ours:
        @hookimpl
        def register_components(self, register):
            register(upper)

    with pytest.raises(InputError, match="mine/upper is no metric: it is a preprocess"):
        metric_named(assemble({"metrics": shipped, "ours": Ours()}), "mine/upper")


def test_references_that_are_missing_are_told_with_the_columns_that_there_are(registry):
    (problem,) = fits(metric_named(registry, "wer"), TEXT, ["audio", "transcript"])
    assert (problem.code, problem.found) == (
        "unknown-input", "wer compares with references, and the data have no column 'references'; the columns: audio, transcript",
    )  # fmt: skip
    assert problem.hint == "say which one holds what is right: --metric wer:references=COLUMN"
    (problem,) = fits(metric_named(registry, "wer:text=as_is,references=transkript"), TEXT, ["audio", "transcript"])
    assert "the data have no column 'transkript'" in problem.found
    assert "Did you mean 'transcript'?" in problem.hint
    assert fits(metric_named(registry, "wer:references=transcript"), TEXT, ["audio", "transcript"]) == []
    assert fits(metric_named(registry, "wer"), TEXT, ["audio", "reference"]) == []


def test_an_output_that_does_not_fit_is_told_in_the_words_of_the_checker(registry):
    """All misfits at once: of the output, and of the column."""
    outputs = {"image": port("image"), "tokens": port("float[batch tokens 8]")}
    found = fits(metric_named(registry, "wer"), outputs, [])
    assert [problem.code for problem in found] == ["modality-mismatch", "modality-mismatch", "unknown-input"]
    assert found[0].found == "image gives image, but wer.prediction takes text | label"
    assert found[2].found.endswith("the columns: none")
    (problem,) = fits(metric_named(registry, "wer:prediction=image"), outputs | TEXT, ["references"])
    assert problem.found == "image gives image, but wer.prediction takes text | label"
    (problem,) = fits(metric_named(registry, "wer:prediction=txt"), TEXT, ["references"])
    assert (problem.code, problem.hint) == ("unknown-port", "Did you mean 'text'?")


def test_of_several_outputs_that_fit_one_is_to_be_named(registry):
    outputs = {"text": port("text"), "label": port("label"), "image": port("image")}
    (problem,) = fits(metric_named(registry, "wer:text=plain"), outputs, ["references"])
    assert problem.found == "wer.prediction takes text | label, and several outputs give that: label, text"
    assert problem.hint == "say which: --metric wer:text=plain,prediction=text"
    assert joined(metric_named(registry, "wer:prediction=label"), outputs, ["references"]).prediction == "label"
    with pytest.raises(GraphError, match="takes no references"):
        joined(metric_named(registry, "mine/polite:references=a"), TEXT, ["a"])


def test_records_that_failed_are_left_out_and_counted(registry):
    """One failed, one went another way: neither is a wrong answer."""
    found = score(metric_named(registry, "exact_match"), ["a", None, "b", ABSENT, "c"], ["a", "x", "x", "x", ["d", "C"]])
    assert (found.value, found.left_out, found.kept) == (2 / 3, 2, [0, 2, 4])
    with pytest.raises(InputError, match="exact_match: none of 2 records has an output to look at"):
        score(metric_named(registry, "exact_match"), [None, ABSENT], ["a", "b"])
    with pytest.raises(InputError, match="exact_match: record 1 has nothing in the column 'references'"):
        score(metric_named(registry, "exact_match"), ["a", "b"], ["a", None])


def test_what_a_metric_refuses_is_told_in_a_rehearsal(registry, monkeypatch):
    """References that it refuses, records without one, a package that is missing: before a graph runs. Vectors cannot be made up."""
    rehearse(metric_named(registry, "wer"), ["a b", ["c", "d"]])
    rehearse(metric_named(registry, "vqa_accuracy"))
    with pytest.raises(ModelgraftError, match="record 1 has 1 references; wanted at least 4"):
        rehearse(metric_named(registry, "vqa_accuracy"), [["a"] * 10, "b"])
    with pytest.raises(InputError, match="wer: record 0 has nothing in the column 'references'"):
        rehearse(metric_named(registry, "wer"), [None])
    rehearse(metric_named(registry, "recall"), [[[1.0]]])
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(InputError, match=r"metric/wer needs the package jiwer: pip install 'modelgraft\[metrics\]'"):
        rehearse(metric_named(registry, "wer"))


def test_vectors_are_scored_as_runs_give_them_and_as_json_holds_them(registry):
    """A tensor with an axis of one record, the same as lists, and records."""
    vectors = numpy.random.default_rng(3).normal(size=(6, 4)).astype(numpy.float32)
    wanted = [[(vector + 0.1).tolist()] for vector in vectors]
    measure = metric_named(registry, "recall")
    forms = [
        [torch.tensor(vector)[None] for vector in vectors],
        [[vector.tolist()] for vector in vectors],
        [{"type": "embedding", "vector": vector.tolist()} for vector in vectors],
        [Embedding(vector) for vector in vectors],
    ]
    assert [score(measure, form, wanted).value for form in forms] == [1.0] * 4
    probabilities = [[[0.5, 0.5]], [[1.0, 0.0]]]
    assert score(metric_named(registry, "calibration"), probabilities, [0, 0]).value == 0.25


def test_what_is_drawn_together_is_what_shares_a_picture():
    records = [{"image": "a.png", "topic": "x"}, {"image": "a.png", "topic": "y"}, {"image": "b.png", "topic": "x"}, {"topic": "z"}]
    assert clusters_of(records, ["image"]) == ["a.png", "a.png", "b.png", "record 3"]
    assert clusters_of(records, ["nothing", "topic"]) == ["x", "y", "x", "z"]
    assert clusters_of(records[1:], ["image"]) is None
    assert clusters_of([{"image": [1, 2]}, {"image": [1, 2]}], ["image"]) == ["[1, 2]"] * 2


def test_two_graphs_are_compared_over_the_records_that_both_answered(registry):
    measure = metric_named(registry, "accuracy")
    wanted = [f"class {n}" for n in range(12)]
    good = score(measure, [None, *wanted[1:]], wanted)
    bad = score(measure, [*wanted[:6], *["no"] * 6], wanted)
    found = difference_of(good, bad)
    assert (found.n, found.value) == (11, pytest.approx(6 / 11))
    assert found.low > 0
    assert difference_of(good, bad, clusters=["a"] * 6 + ["b"] * 6).low is None  # two pictures are too few to draw from
    none = score(measure, [wanted[0]], wanted)
    assert difference_of(score(measure, [None, "x"], wanted), none) is None


def test_code_of_a_metric_that_fails_is_told_with_its_plugin():
    @component("mine/bad", kind="metric", inputs={"prediction": "text"}, outputs={"rows": "object"})
    def bad(prediction):
        """Fails, or gives what is none."""
        return {"fail": lambda: 1 / 0, "few": lambda: [[1.0]], "words": lambda: [["a"], ["b"]]}[prediction[0]]()

    class Ours:
        @hookimpl
        def register_components(self, register):
            register(bad)

    measure = metric_named(assemble({"ours": Ours()}), "mine/bad")
    with pytest.raises(ModelgraftError, match=r"mine/bad.*ZeroDivisionError|ZeroDivisionError.*mine/bad"):
        score(measure, ["fail", "x"])
    with pytest.raises((PluginError, ModelgraftError), match=r"plugin 'ours'.*mine/bad breaks its declaration"):
        score(measure, ["few", "x"])
    with pytest.raises(PluginError, match=r"plugin 'ours': mine/bad breaks its declaration: it gave rows that are no table of numbers"):
        score(measure, ["words", "x"])


def test_scoring_is_light_to_import():
    from modelgraft.testing import imports_of

    assert imports_of(scoring.__name__) == frozenset()
    assert imports_of("modelgraft_plugins.intervals") == frozenset()
