"""What a metric is: declared like any component, with rows out of which a figure is made; proved by `conform`."""

import numpy
import pytest

from modelgraft import Config, component
from modelgraft.plugin import Metric, PluginError
from modelgraft.testing import ConformanceError, conform

ANSWERS = {"prediction": "text", "references": "list[text]"}


@component("mine/words", kind="metric", inputs={"prediction": "text"}, outputs={"rows": "object"})
def words(prediction):
    """How many words an answer has."""
    return [[len(text.split())] for text in prediction]


@component("mine/share", kind="metric", inputs=ANSWERS, outputs={"rows": "object"}, load=f"{__name__}:load_share")
class Share(Metric):
    """Letters that an answer has of all that its references have."""

    better = "lower"
    unit = "letters"
    of_sums = True

    def summary(self, rows):
        """The share over all records together."""
        return float(rows[:, 0].sum() / rows[:, 1].sum())


def load_share(config, context):
    return lambda prediction, references: [[len(p), sum(map(len, r))] for p, r in zip(prediction, references, strict=True)]


def test_a_function_is_a_metric_whose_figure_is_the_mean_of_its_rows():
    config = words.__component__.config()
    assert isinstance(config, Metric)
    assert (config.better, config.unit, config.is_mean) == ("higher", "", True)
    assert config.summary(numpy.array([[1.0, 9], [3, 9]])) == 2
    conform(words)


def test_a_metric_may_make_its_figure_of_all_rows_together():
    """Which is then no mean of records: those with long references weigh more."""
    config = Share()
    assert (config.better, config.unit, config.is_mean) == ("lower", "letters", False)
    assert config.summary(numpy.array([[1.0, 2], [1, 8]])) == 0.2
    conform(Share)


@pytest.mark.parametrize(
    ("ports", "said"),
    [
        ({"inputs": {"text": "text"}, "outputs": {"rows": "object"}}, "inputs text; wanted: `prediction`"),
        ({"inputs": {**ANSWERS, "hint": "text"}, "outputs": {"rows": "object"}}, "inputs prediction, references, hint; wanted"),
        ({"inputs": {"prediction": "text"}, "outputs": {"score": "object"}}, "it has not the one output `rows`"),
        ({"inputs": {"prediction": "text"}, "outputs": {"rows": "float[batch]"}}, "it has not the one output `rows`"),
    ],
)
def test_ports_that_nobody_could_score_with_are_refused_where_they_are_declared(ports, said):
    with pytest.raises(PluginError, match=rf"'mine/bad' cannot be a metric: .*{said}"):
        component("mine/bad", kind="metric", load="x.y:z", **ports)(type("Bad", (Metric,), {"__doc__": "Bad."}))


def test_a_config_that_is_no_metric_is_refused():
    with pytest.raises(PluginError, match=r"Bad derives from modelgraft.Config, and a metric from modelgraft.plugin.Metric"):
        component("mine/bad", kind="metric", load="x.y:z")(type("Bad", (Config,), {"__doc__": "Bad."}))
    with pytest.raises(PluginError, match="its `better` is 'more'; wanted: 'higher' or 'lower'"):
        component("mine/bad", kind="metric", load="x.y:z")(type("Bad", (Metric,), {"__doc__": "Bad.", "better": "more"}))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (lambda prediction: [float(len(p)) for p in prediction], "'rows' holds [0-9.]+, wanted a list"),
        (lambda prediction: [[1.0] * (1 + n) for n, _ in enumerate(prediction)], "lists of 1 and of 2"),
        (lambda prediction: [[float("nan")] for _ in prediction], "not finite|NaN"),
        (lambda prediction: [[n] for n, _ in enumerate(prediction)], "in another order"),
    ],
)
def test_conform_tells_of_rows_that_cannot_be_drawn_again(rows, said):
    broken = component("mine/bad", kind="metric", inputs={"prediction": "text"}, outputs={"rows": "object"})
    rows.__doc__ = "Bad."
    with pytest.raises(ConformanceError, match=said):
        conform(broken(rows))


def test_conform_tells_of_a_figure_that_is_none_or_depends_on_what_it_may_not():
    def bad(summary, **facts):
        declared = component("mine/bad", kind="metric", inputs=ANSWERS, outputs={"rows": "object"}, load=f"{__name__}:load_share")
        return declared(type("Bad", (Metric,), {"__doc__": "Bad.", "summary": summary, **facts}))

    with pytest.raises(ConformanceError, match=r"metric: summary gave .*, wanted a number"):
        conform(bad(lambda self, rows: "much"))
    with pytest.raises(ConformanceError, match="another figure when the rows stand in another order"):
        conform(bad(lambda self, rows: float(rows[0, 0])))
    with pytest.raises(ConformanceError, match="another figure of the sums of the rows, and its class says of_sums"):
        conform(bad(lambda self, rows: float(rows[:, 0].mean()), of_sums=True))
