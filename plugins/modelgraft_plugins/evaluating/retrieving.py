"""Search between pictures and texts: recall at 1, 5 and 10, and the median rank, both ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field as Option

from modelgraft.plugin import Config, InputError
from modelgraft_plugins.evaluating.captioning import Captioning
from modelgraft_plugins.evaluating.measuring import Wanted, score_of, scored_by
from modelgraft_plugins.evaluating.suites import Answer, Data, Field, Item, Note, Report, Score, Suite

WITHIN = (1, 5, 10)  # as papers give recall
WAYS = {"predictions": "pictures to texts", "references": "texts to pictures"}


class Retrieving(Suite):
    """Search between pictures and texts by vectors: recall at 1, 5 and 10 and the median rank, both ways.

    The graph gives a vector for a picture and one for each of its texts, such as clip with --output picture=vision_proj --output
    texts=text_proj. Data: as of captioning: COCO, Karpathy's splits, or {"image": "a.jpg", "references": ["A cat.", ...]} per line.
    Every picture and every text of the data is searched; a tie counts against.
    """

    gives: ClassVar[Mapping[str, Field]] = {
        "image": Field(type="image", names=("picture", "photo")),
        "texts": Field(type="list[text]", names=("labels", "captions", "text")),
    }
    takes: ClassVar[Mapping[str, Field]] = {
        "picture": Field(type="float[batch width]", names=("image_vector", "image_embedding"), doc="the vector of the picture"),
        "texts": Field(type="float[batch texts width]", names=("text_vectors", "text_embeddings"), doc="the vectors of its texts"),
    }

    class Settings(Config):
        """Where the pictures are."""

        images: str | None = Option(None, description="The folder of the pictures; else they lie beside the data.")
        split: str = Option("test", description="Of a file of Karpathy's: train, restval, val or test.")

    settings: Settings

    def open(self, data: str, *, note: Note) -> Data:
        """Read pictures and their texts, as the suite of captions does."""
        of_captions = Captioning(Captioning.Settings.model_validate(self.settings.model_dump())).read(data, note=note)

        def items() -> Iterator[Item]:
            for item in of_captions.items():
                texts = list(item.facts.get("references", ()))
                given = {} if item.error else {"image": item.inputs["image"], "texts": texts}
                yield replace(item, inputs=given, facts={"image": item.facts.get("image"), "texts": len(texts)})

        return replace(of_captions, items=items)

    def report(self, answers: Sequence[Answer]) -> Report:
        """Recall and ranks of both ways, over the pictures and texts that have vectors."""
        scores = []
        counts = {"pictures": 0, "texts": 0}
        rows: list[dict[str, Any]] = []
        for queries, way in WAYS.items():
            wanted = [
                Wanted(metric="recall", called=f"R@{k}", fields={"k": k, "queries": queries}, unit="%") for k in WITHIN
            ]  # fmt: skip
            wanted.append(Wanted(metric="median_rank", called="median rank", fields={"queries": queries}))
            for one in wanted:
                scored = scored_by(one, answers, output="picture", references=_vectors)
                if scored is None:
                    continue
                scores.append(_of(way, score_of(one, scored)))
                counts = {"pictures": len(scored.kept), "texts": sum(len(_vectors(answers[index])) for index in scored.kept)}
                if one.metric == "median_rank":
                    rows += [
                        {"id": answers[index].id, "way": way, "rank": rank[0]}
                        for index, rank in zip(scored.kept, scored.rows.tolist(), strict=True)
                    ]
        failed = sum(bool(answer.error) for answer in answers)
        notes = [f"{failed} records failed and are not among what is searched, which makes the search easier"] if failed else []
        return Report(scores=scores, counts=counts, notes=notes, rows=rows)


def _of(way: str, score: Score) -> Score:
    return replace(score, group=way)


def _vectors(answer: Answer) -> Sequence[Any]:
    """The vectors of the texts of a picture: of a batch, those behind are of texts that other pictures have more of."""
    if not answer.outputs:
        return []
    found: Sequence[Any] = answer.outputs["texts"][0]  # JSON of a tensor has an axis for the one record
    if len(found) < answer.facts["texts"]:
        raise InputError(
            f"{answer.id}: the graph gave {len(found)} vectors for {answer.facts['texts']} texts; it takes all texts of a picture"
        )
    return found[: answer.facts["texts"]]
