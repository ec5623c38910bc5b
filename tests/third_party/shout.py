"""Texts that shout: a plugin of one component."""

from modelgraft import component, hookimpl


@component("shout/louder", kind="preprocess", inputs={"text": "text"}, outputs={"text": "text"})
def louder(text: list[str], *, marks: int = 1) -> list[str]:
    """Write in capitals, with exclamation marks."""
    return [record.upper() + "!" * marks for record in text]


@hookimpl
def register_components(register) -> None:
    register(louder)
