"""How good the outputs of a graph are: words of the command line as metrics, what they need, and their figures with intervals.

    measure = metric_named(registry, "wer:prediction=text,references=transcript")
    measure = joined(measure, outputs, columns)      # or GraphError with what is missing, before anything runs
    rehearse(measure, references)                    # or an error that would come after an hour otherwise
    scored = score(measure, predictions, references)
    interval_of(scored, clusters=clusters_of(columns, ["image"]))

Shared by benches and evaluations. Importing this page is light.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

import modelgraft as mg
from modelgraft.plugin import GraphError, InputError, Metric, PluginError, Port, Problem, Tensor, choices, choose, nearest, port
from modelgraft_plugins import intervals

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from modelgraft import Component
    from modelgraft.commands import Registry

KIND = "metric"
OWN = "metric/"  # the namespace that a name on the command line may leave out
MANY = 10  # references that are made up: as many as VQA has
USUAL = ("references", "reference")  # columns that are meant when none is named
KEYS = ("prediction", "references")  # of a word, beside the fields of the metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A metric as it was asked for.

    word        what was asked
    prediction  the output that it looks at, or a port as "node.port";  references  the column with what is right; None: not said
    """

    word: str
    component: Component
    config: Metric
    registry: Registry
    prediction: str | None = None
    references: str | None = None

    @property
    def name(self) -> str:
        """What a table calls it: its name, with what is set of it."""
        short = self.component.id.removeprefix(OWN)
        fields = type(self.config).model_fields.items()
        said = [f"{name}={value}" for name, field in fields if (value := getattr(self.config, name)) != field.default]
        return f"{short}({', '.join(said)})" if said else short

    @property
    def ports(self) -> Mapping[str, Port]:
        """Its inputs."""
        return self.component.ports(self.config).inputs

    @property
    def summary(self) -> Any:  # Any: rows -> figure, or None where it is the plain mean
        """What makes the figure of rows, for intervals."""
        return None if self.config.is_mean else self.config.summary


# -- from words to metrics ----------------------------------------------------------------------------------------------


def metric_named(registry: Registry, word: str) -> Measure:
    """Read NAME[:KEY=VALUE,...]: `wer`, `metric/recall:k=5`, `wer:prediction=text,references=transcript`.

    A name is the id of a metric, or its last part where only one metric ends in it. A key is `prediction`, `references` or a
    field of the metric. Raises InputError with what there is.
    """
    name, _, rest = word.partition(":")
    given = _keys(word, rest)
    where = {key: given.pop(key) for key in KEYS if key in given}
    return replace(metric_of(registry, name, given, word=word), **where)


def metric_of(registry: Registry, name: str, fields: Mapping[str, Any] | None = None, *, word: str = "") -> Measure:
    """A metric by its name, with fields of its config. Raises InputError as `metric_named` does."""
    component = _component(registry, name.strip())
    known = component.config.model_fields
    if unknown := [key for key in fields or {} if key not in known]:
        there = choices([*KEYS, *known], sort=False)
        raise InputError(f"the metric {component.id} has no '{unknown[0]}'; it has: {there}. {nearest(unknown[0], known)}".rstrip())
    try:
        config = component.config(**(fields or {}))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(f"the metric {component.id} has {key}={first['input']!r}; {first['msg']}") from error
    assert isinstance(config, Metric), "declaring one without is refused"
    return Measure(word=word or name, component=component, config=config, registry=registry)


def _keys(word: str, rest: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in rest.split(",") if rest else ():
        key, is_pair, value = part.partition("=")
        if not is_pair or not key.strip() or not value.strip() or key.strip() in found:
            raise InputError(
                f"--metric {word}: found '{part}'; wanted NAME:KEY=VALUE,KEY=VALUE with each key once, such as wer:references=text"
            )
        found[key.strip()] = value.strip()
    return found


def _component(registry: Registry, name: str) -> Component:
    there = {id: one for id, one in registry.components.items() if one.kind == KIND}
    found = registry.find(name)
    if found is not None and found.kind != KIND:
        raise InputError(f"{name} is no metric: it {'is a ' + found.kind}. The metrics: {choices(_short(there), most=40)}")
    if found is not None:
        return found
    ends = [one for id, one in there.items() if id.partition("/")[2] == name]
    mine = [one for one in ends if one.id == f"{OWN}{name}"]
    if len(mine or ends) == 1:
        return (mine or ends)[0]
    if ends:
        raise InputError(f"'{name}' may be {choices([one.id for one in ends])}; write the whole id")
    raise InputError(f"there is no metric '{name}'; there are: {choices(_short(there), most=40)}. {nearest(name, _short(there))}".rstrip())


def _short(ids: Iterable[str]) -> list[str]:
    return sorted(id.removeprefix(OWN) for id in ids)


# -- does it fit --------------------------------------------------------------------------------------------------------


def fits(measure: Measure, outputs: Mapping[str, Port], columns: Collection[str]) -> list[Problem]:
    """What is in the way of a metric, before anything runs; empty when it can be taken.

    outputs  what the graph gives, by name;  columns  of the data
    """
    try:
        joined(measure, outputs, columns)
    except GraphError as error:
        return list(error.noted)
    return []


def joined(measure: Measure, outputs: Mapping[str, Port], columns: Collection[str]) -> Measure:
    """The metric with the output and the column that it takes, also where the user left that open.

    An output that is not named is the only one that fits; a column is called `references`. Raises GraphError with every misfit.
    """
    problems: list[Problem] = []
    prediction, references = measure.prediction, measure.references
    taker, at = measure.ports["prediction"], f"{measure.name}.prediction"
    if prediction is None:
        prediction = _only(measure, outputs, problems)
    elif prediction not in outputs:
        there = choices([f"{name} ({port})" for name, port in outputs.items()])
        text = f"--metric {measure.word}: the graph has no output '{prediction}'; it has: {there}"
        problems.append(Problem("unknown-port", text, hint=nearest(prediction, outputs)))
    elif choose(outputs[prediction].type, taker) is None:
        problems.append(_misfit(prediction, outputs[prediction], at, taker))
    if "references" in measure.ports:
        references = references or next((name for name in USUAL if name in columns), None)
        if references is None or references not in columns:
            problems.append(_no_column(measure, references, columns))
    elif references is not None:
        text = f"--metric {measure.word}: {measure.component.id} compares with nothing, and takes no references"
        problems.append(Problem("unknown-input", text, hint="leave references out"))
    if problems:
        raise GraphError(problems)
    return replace(measure, prediction=prediction, references=references)


def _only(measure: Measure, outputs: Mapping[str, Port], problems: list[Problem]) -> str | None:
    """The output that is meant when none is named."""
    taker = measure.ports["prediction"]
    good = [name for name, port in outputs.items() if choose(port.type, taker) is not None]
    if len(good) == 1 or "prediction" in good:
        return "prediction" if "prediction" in good else good[0]
    if good:
        text = f"{measure.name}.prediction takes {taker}, and several outputs give that: {choices(good)}"
        problems.append(Problem("unknown-port", text, hint=f"say which: --metric {_more(measure.word)}prediction={good[0]}"))
    else:
        problems += [_misfit(name, port, f"{measure.name}.prediction", taker) for name, port in outputs.items()]
    return None


def _misfit(name: str, given: Port, end: str, taker: Port) -> Problem:
    """As the checker says it of a wire."""
    return Problem(
        "modality-mismatch", f"{name} gives {given}, but {end} takes {taker}", hint="name another output, or any port as node.port"
    )


def _no_column(measure: Measure, named: str | None, columns: Collection[str]) -> Problem:
    there = choices(columns, most=20) if columns else "none"
    if named is not None:
        text = f"--metric {measure.word}: the data have no column '{named}'; the columns: {there}"
        return Problem("unknown-input", text, hint=nearest(named, columns))
    text = f"{measure.name} compares with references, and the data have no column '{USUAL[0]}'; the columns: {there}"
    return Problem("unknown-input", text, hint=f"say which one holds what is right: --metric {_more(measure.word)}references=COLUMN")


def _more(word: str) -> str:
    """The word, ready for another key."""
    return f"{word}," if ":" in word else f"{word}:"


def rehearse(measure: Measure, references: Sequence[Any] | None = None) -> None:
    """Take a metric of texts as if every answer were right: what it lacks or refuses is told before graphs run.

    references  by record, as `score` takes them; None: some that are made up

    Raises what `score` raises. Metrics of vectors and numbers are left alone: what they take cannot be made up.
    """
    if choose(port("text").type, measure.ports["prediction"]) is None:
        return
    given = [["a"] * MANY] if references is None else references
    if given:
        score(measure, [_right(one) for one in given], given)


def _right(reference: Any) -> str:
    """An answer that a reference would have right, as far as that can be told."""
    first = reference[0] if isinstance(reference, list | tuple) and reference else reference
    return first if isinstance(first, str) else "a"


# -- figures ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A metric over records.

    rows      float64[kept statistics]: what it kept of each
    kept      the numbers of the records that these are of
    left_out  how many records have no output, because they failed or went another way
    """

    measure: Measure
    value: float
    rows: NDArray[numpy.float64]
    kept: Sequence[int]
    left_out: int = 0


def score(measure: Measure, predictions: Sequence[Any], references: Sequence[Any] | None = None) -> Scored:
    """Take a metric over all records at once.

    predictions  by record: what the graph gave, as a value of a run or as plain JSON; None or ABSENT where it gave nothing
    references   by record: what the column holds; one in place of a list of one will do

    Raises InputError when no record has an output or a reference is none, and what the code of the metric raises as its error.
    """
    import numpy

    kept = [index for index, one in enumerate(predictions) if one is not None and one is not mg.ABSENT]
    if not kept:
        raise InputError(f"{measure.name}: none of {len(predictions)} records has an output to look at")
    given: dict[str, Any] = {"prediction": [predictions[index] for index in kept]}
    if "references" in measure.ports:
        given["references"] = _references(measure, kept, references or ())
    rows = _rows(measure, given)
    try:
        table = intervals.as_rows([[float(number) for number in row] for row in rows])
    except (TypeError, ValueError) as error:
        raise _broken(measure, f"rows that are no table of numbers: {error}") from error
    if len(table) != len(kept) or not numpy.isfinite(table).all():
        raise _broken(measure, f"{len(table)} rows for {len(kept)} records, or numbers that are not finite")
    return Scored(measure=measure, value=float(measure.config.summary(table)), rows=table, kept=kept, left_out=len(predictions) - len(kept))


def _references(measure: Measure, kept: Sequence[int], references: Sequence[Any]) -> list[Any]:
    """The references of the records that count; where the metric takes a list of them, one alone becomes a list."""
    is_list = str(measure.ports["references"]).startswith("list[")
    found = [references[index] if index < len(references) else None for index in kept]
    if bare := [number for number, one in zip(kept, found, strict=True) if one is None]:
        raise InputError(f"{measure.name}: record {bare[0]} has nothing in the column '{measure.references or USUAL[0]}'")
    return [one if isinstance(one, list) or not is_list else list(one) if isinstance(one, tuple) else [one] for one in found]


def _rows(measure: Measure, given: Mapping[str, Any]) -> Sequence[Any]:
    """What the metric gives: run as the one node of a graph, so that what goes in is read, and what it raises names its plugin."""
    graph = mg.Graph(measure.component.id.replace("/", "_"), registry=measure.registry)
    fields = {name: getattr(measure.config, name) for name in type(measure.config).model_fields}
    wires = {}
    values = dict(given)
    for name, taker in measure.ports.items():
        kind = _kind_for(taker, values[name])
        if isinstance(kind, Tensor):
            values[name] = _joined_tensors(values[name])
        elif name == "prediction":
            values[name] = [_unwrapped(one) for one in values[name]]
        wires[name] = graph.input(name, str(kind))
    graph.output("rows", graph.node(measure.component.id, name="metric", inputs=wires, config=fields))
    with mg.open(graph, device="cpu", cache_bytes=0) as pipeline:
        rows: Sequence[Any] = pipeline.run(**values)["rows"]
    return rows


def _kind_for(port: Port, values: Sequence[Any]) -> Any:
    """The alternative that values are read as: tensors as a tensor where one is taken, all else as records where they are."""
    records = [kind for kind in port.types if not isinstance(kind, Tensor)]
    return port.tensor if port.tensor is not None and (not records or hasattr(values[0], "detach")) else records[0]


def _joined_tensors(values: Sequence[Any]) -> Any:
    """One tensor of those of all records: each as a run gives it, with an axis of one record, or as plain lists."""
    import torch

    parts = [one if isinstance(one, torch.Tensor) else torch.tensor(one) for one in values]
    if unlike := [part for part in parts if part.shape[1:] != parts[0].shape[1:]]:
        raise InputError(f"outputs of unlike shapes cannot be scored together: {list(parts[0].shape)} and {list(unlike[0].shape)}")
    return torch.cat(parts)


def _unwrapped(value: Any) -> Any:
    """A record of what a run gave as a tensor, or JSON of one: without the axis of one record."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list) and value[0] and isinstance(value[0][0], int | float):
        return value[0]
    return value[0].numpy() if hasattr(value, "detach") else value


def _broken(measure: Measure, found: str) -> PluginError:
    return PluginError(f"plugin '{measure.component.plugin}': {measure.component.id} breaks its declaration: it gave {found}")


# -- intervals ----------------------------------------------------------------------------------------------------------


def interval_of(scored: Scored, *, clusters: Sequence[Any] | None = None, seed: int = 0) -> intervals.Interval:
    """The figure with its interval.

    clusters  by record of all that were scored, those left out among them: what it belongs to, as `clusters_of` gives it
    """
    mine = None if clusters is None else [clusters[index] for index in scored.kept]
    measure = scored.measure
    return intervals.bootstrap(scored.rows, measure.summary, of_sums=measure.config.of_sums, clusters=mine, seed=seed)


def difference_of(one: Scored, other: Scored, *, clusters: Sequence[Any] | None = None, seed: int = 0) -> intervals.Interval | None:
    """How much more `one` has than `other`, over the records that both have an output for; None when there is no such record."""
    both = sorted({*one.kept} & {*other.kept})
    if not both:
        return None
    mine = None if clusters is None else [clusters[index] for index in both]
    rows, others, measure = _of(one, both), _of(other, both), one.measure
    return intervals.paired_difference(rows, others, measure.summary, of_sums=measure.config.of_sums, clusters=mine, seed=seed)


def _of(scored: Scored, records: Sequence[int]) -> NDArray[numpy.float64]:
    """The rows of some of its records."""
    places = {index: place for place, index in enumerate(scored.kept)}
    return scored.rows[[places[index] for index in records]]


def clusters_of(columns: Sequence[Mapping[str, Any]], names: Iterable[str]) -> list[str] | None:
    """What each record belongs to: its value in the first of these columns in which several records share one.

    columns  by record;  names  such as the inputs that take pictures, or the column that a user names

    None where no column repeats, so that each record stands for itself. A record without a value stands for itself too.
    """
    for name in names:
        values = [_told(record[name]) if record.get(name) is not None else f"record {index}" for index, record in enumerate(columns)]
        if len(set(values)) < len(values):
            return values
    return None


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=repr)
