"""A plugin of somebody else with a suite: words that are to be written in capitals."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import ClassVar, Literal

from modelgraft import Config, hookimpl
from modelgraft_plugins.evaluating.suites import Data, Field, Item, Report, Score, Suite


class Capitals(Suite):
    """Does the graph write in capitals?

    A table of words and what they should be.
    """

    gives: ClassVar = {"word": Field(type="text", names=("text",)), "hint": Field(type="text", is_needed=False)}
    takes: ClassVar = {"loud": Field(type="text", names=("text",))}

    class Settings(Config):
        """How the words are asked."""

        style: Literal["plain", "polite"] = "plain"

    def open(self, data, *, note):
        text = Path(data).read_text()
        return Data(files=(Path(data),), digest=hashlib.sha256(text.encode()).hexdigest(), items=lambda: self.items(text))

    def items(self, text):
        please = "please " if self.settings.style == "polite" else ""
        for number, row in enumerate(csv.DictReader(text.splitlines()), 2):
            inputs = {"word": please + row["word"], "hint": "loud"}
            yield Item(id=row["id"], place=f"words.csv:{number}", inputs=inputs, facts={"wanted": row["wanted"]}, group=row["group"])

    def report(self, answers):
        right = [answer.outputs.get("loud") == answer.facts["wanted"] for answer in answers]
        return Report(scores=[Score(metric="right", value=sum(right) / len(right), n=len(right), unit="%")], rows=[{"right": right}])


@hookimpl(optionalhook=True)
def register_suites(register) -> None:
    register("capitals", "support.capitals:Capitals")
