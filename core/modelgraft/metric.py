"""What a metric is: a component of kind `metric`, whose code keeps a row of numbers for each record, and whose config sums them up.

Rows, and not the figure alone, because only rows can be drawn again: that is how a figure gets an interval, also one that is no
mean of records, such as a corpus BLEU.

@component("metric/exact_match", kind="metric", load="my_plugin.matching:exact",
           inputs={"prediction": "text", "references": "list[text]"}, outputs={"rows": "object"})
class ExactMatch(Metric):
    '''The part of the answers that are one of the references.'''
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from modelgraft.kernel.words.kinds import Config
from modelgraft.kernel.words.ports import Ports

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


class Metric(Config):
    """The config of a metric. Its component has the input `prediction`, mostly `references` too, and the one output `rows`.

    The code is called once, with all records as one batch, and gives a list of numbers for each record, all of the same length.
    The rows of records in another order are the same rows in that order.

    better   whether a higher figure is the better one
    unit     of the figure, such as "%" or "words"; "" where it is a plain number
    of_sums  the figure depends on the sums of the columns alone, so that one row of sums gives it too: intervals are made much faster
    """

    better: ClassVar[Literal["higher", "lower"]] = "higher"
    unit: ClassVar[str] = ""
    of_sums: ClassVar[bool] = False

    def summary(self, rows: NDArray[numpy.float64]) -> float:
        """Make the figure of some rows, float64[records statistics]: at least one, some perhaps several times.

        Here it is the mean of the first column. What overrides it depends on the rows alone, and not on their order.
        """
        return float(rows[:, 0].mean())

    @property
    def is_mean(self) -> bool:
        """Whether the figure is the mean of the first column: such a figure is drawn again much faster."""
        return type(self).summary is Metric.summary


def complaint_of(config: type[Config]) -> str:
    """Why a component with this config cannot be a metric; "" when it can. Ports that depend on the config are looked at by `misfit_of`."""
    if not issubclass(config, Metric):
        return f"{config.__name__} derives from modelgraft.Config, and a metric from modelgraft.plugin.Metric"
    if config.better not in ("higher", "lower"):
        return f"its `better` is {config.better!r}; wanted: 'higher' or 'lower'"
    return misfit_of(config.declared_ports) if config.ports is Metric.ports else ""


def misfit_of(ports: Ports) -> str:
    """Why these cannot be the ports of a metric; "" when they can."""
    if "prediction" not in ports.inputs or not {"prediction", "references"}.issuperset(ports.inputs):
        return f"it has the inputs {', '.join(ports.inputs) or 'none'}; wanted: `prediction`, and `references` where it compares"
    if list(ports.outputs) != ["rows"] or ports.outputs["rows"].tensor is not None:
        return "it has not the one output `rows`, a list of numbers for each record"
    return ""
