"""Where weights and configs come from, as the kernel sees it: what a source says of itself, and who finds one.

The kernel reads no checkpoint and knows no folder, hub or archive. Whoever calls it hands in `Sources`, which finds what `from:`
names; configs, checks and plans ask the `Source` that comes back. Nothing here reads a weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from modelgraft.kernel.words.errors import Problem, SourceError
from modelgraft.kernel.words.wording import option

NO_WEIGHTS_HINT = f"name a checkpoint, or ask for random ones: {option('init', 'random')}"


class Source(Protocol):
    """What is known of a source, or of a part of one, without reading its weights."""

    @property
    def text(self) -> str:
        """The source as written."""

    @property
    def whole(self) -> str:
        """The text that names the whole source, to be put before `#part`."""

    @property
    def part(self) -> str:
        """The part, or "" for the whole."""

    @property
    def kind(self) -> str:
        """Of the grammar of `from:`: hub, folder, file, preset or archive."""

    @property
    def named(self) -> tuple[str, ...]:
        """What tells it from other sources by name: equal for two that name the same part of the same thing."""

    @property
    def root(self) -> Mapping[str, Any]:
        """The whole config.json; empty when there is none."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The JSON config of the part; empty when there is none."""

    @property
    def folder(self) -> Path | None:
        """Its folder on this machine in Hugging Face layout, or None."""

    @property
    def has_weights(self) -> bool:
        """There are weights on this machine."""

    @property
    def is_recorded(self) -> bool:
        """The configs are those that a plugin has recorded, and there are no weights on this machine."""

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The files of weights, shards in the order of their names."""

    @property
    def keys(self) -> Mapping[str, str]:
        """Key of the part -> key in the files; empty when the files do not say their keys without being read."""

    def at(self, part: str) -> Source:
        """The same source seen at another part; "" is the whole. Raises SourceError `unknown-part`."""

    def json(self, name: str) -> Mapping[str, Any] | None:
        """A JSON file of the source such as `preprocessor_config.json`, or None when it has none."""

    def path(self, name: str = "") -> Path | None:
        """A file of the source, if it is on this machine; without a name its folder, or the file that it is."""

    def shape(self, key: str) -> tuple[int, ...] | None:
        """The shape of one tensor, by its key in the part; None without weights or when there is no such tensor."""

    def tensor_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shapes of all tensors of the part; empty when the files do not say them without being read."""

    def identity(self) -> str:
        """Tell contents apart: equal texts, equal contents. Raises SourceError or OSError when it cannot tell."""

    def states(self, component: str, *, is_graft: bool = False) -> Mapping[str, Any] | None:
        """The config of a component, or of an adapter (is_graft), where modelgraft has trained the source and it says so; else None."""

    def lacks_weights(self, *, offline: bool) -> str:
        """Why it has no weights and will get none, as a sentence; "" where it has some, or where they come when it is opened."""


class Sources(Protocol):
    """Who finds sources, and knows what numbers a config can hold."""

    def find(self, text: str, *, folder: Path | None, trusted: bool) -> Source:
        """Find what a text names.

        folder   the folder of the document that names it, or None when that may name no files
        trusted  the user named it: it may lead anywhere

        Raises SourceError with what is wrong and a way out.
        """

    def too_large(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
        """Give (field, key within it, what it holds, what is wanted) for each size in a config that nothing can have."""


class NoSources:
    """Who finds nothing: for graphs whose nodes have no `from:`."""

    def find(self, text: str, *, folder: Path | None, trusted: bool) -> Source:  # noqa: ARG002 as Sources has it
        """Raise SourceError `source-not-found`."""
        raise SourceError(Problem("source-not-found", f"nobody looks for '{text}' here", hint="check the graph with modelgraft.check"))

    def too_large(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:  # noqa: ARG002 as Sources has it
        """Take every size."""
        return iter(())
