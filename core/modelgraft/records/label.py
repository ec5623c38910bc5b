"""Names of classes: texts, with a colour of their own."""

from __future__ import annotations

from modelgraft.records.text import TextType


class LabelType(TextType):
    """The name of a class."""

    name, meaning = "label", "a class name"
    is_spoken = False
    colour = ("#a21caf", "#e07de8")
