"""What is known of a family of checkpoints, on one card: data that a plugin registers and every reader of checkpoints looks up.

    FamilyCard      a family: its wholes, towers, language models and image processors, each by `model_type`, and its graph
    WholeCard       a model of several parts: which there are, and what it decides for them
    PartCard        where the config and the tensors of a part lie
    TowerCard       an encoder: what its config means, and how it is run
    LanguageCard    a language model: what its config means
    PictureCard     an image processor: what it does where its file is silent
    LayoutCard      files in a layout of their own, such as those of its authors: how they look in that of Hugging Face

A card says what published files leave out or have under another name. What files state themselves stands on no card.
Functions on a card take and give plain values, so that a card is light: it imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from modelgraft.kernel.shelf.registry import Card
from modelgraft.kernel.words.errors import PluginError
from modelgraft.kernel.words.guard import shown

Facts = Mapping[str, Any]  # a config as in config.json, or numbers by our words

EVERY = "*"  # the model_type of a card that speaks of whatever no other knows
WIDTHS = ("hidden_size", "d_model", "n_embd", "embed_dim", "emb_dim")  # what families without a card call it, as BART does d_model
AUTO = "auto"  # the style of a tower that is run as transformers runs it


@dataclass(frozen=True, slots=True)
class PartCard:
    """A part of a whole: what `#name` behind a source means.

    config    key of its sub-config; "": it has none of its own, and reads that around it
    kind      model_type of that sub-config where files leave it out
    also      another name that files have for its tensors
    strip     a prefix that all its tensors have in files of former times
    language  it is a language model, which by itself has its body under `model.` and its head beside it: files that nest it keep the
              head at the root, and may leave out the inner `model.`. "nested": only where it stands below a `model.` itself
    """

    config: str = ""
    kind: str = ""
    also: str = ""
    strip: str = ""
    language: Literal["", "always", "nested"] = ""


@dataclass(frozen=True, slots=True)
class WholeCard:
    """A model of several parts, by its `model_type`.

    parts        by the names that `#part` has
    pictures     its image processor where its files name none: a PictureCard
    layer        (key, value where it is silent): the layer of the eye that gives the tokens
    select       (key, value where it is silent): "default" leaves the class token out
    ends         of its eye, layer -1 is what it gives at its end, behind its last norm, not what the last layer gives
    tied         it owns the output head: whether that is the embedding table where the config is silent; None: the language model does
    tied_inside  its head is tied as well where only the config of its language model says so, as files from before transformers 5 do
    keeps        it does to the logits last what its language model does by itself: a scale, a soft cap
    begin        where the begin token goes: at the start, or before the first text, after media that lead
    begin_token  the token that every text begins with, in place of what the tokenizer puts around it, where its files name none
    inner        only the config of the language model inside rules how it writes
    reads        "both": the tokens of a prompt see each other in both directions, as those of an encoder do; "media": those of one medium
    language_config, language_state    make the config and the tensors of the language model from those of the whole
    obeyed, idle    keys of its config that are read, and that change nothing, where language_config reads the config of the whole
    components   further facts by the id of the component that reads them
    """

    parts: Mapping[str, PartCard] = field(default_factory=dict)
    pictures: str = ""
    layer: tuple[str, int] | None = None
    select: tuple[str, str] | None = None
    ends: bool = False
    tied: bool | None = None
    tied_inside: bool = False
    keeps: bool = False
    begin: Literal["start", "text"] = "start"
    begin_token: str = ""
    inner: bool = False
    reads: Literal["onward", "both", "media"] = "onward"
    language_config: Callable[[Facts], dict[str, Any]] | None = None
    language_state: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    obeyed: frozenset[str] = frozenset()
    idle: frozenset[str] = frozenset()
    components: Mapping[str, Facts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TowerCard:
    """An encoder, by the `model_type` of its config.

    medium        what it reads: image, text, audio, queries
    style         how it is run; several model types may share one. "auto": as transformers runs it
    architecture  its class in transformers
    defaults      our word -> what its config means where it is silent
    names         our word -> its key, where they differ
    settings      our word -> key of the class's config; every word of the style, where it is not "auto"
    fixed         further keys of the class's config
    lead          tokens before the patches, such as a class token; "key" or "key+1" where its config says how many
    pooled        it gives one vector beside the tokens; "word": where that word, or key of its config, is true or silent
    any_size      it takes pictures of any size, with positions interpolated; "key": where that key of its config is true
    count         the parameters, by our words; None: by building it
    steps         how it is run up to a layer: see the plugin that serves its medium
    obeyed, idle  further keys of its config that are read, and that change nothing
    more          further facts for the plugin that serves its medium
    """

    medium: str
    style: str = AUTO
    architecture: str = "AutoModel"
    defaults: Facts = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    fixed: Facts = field(default_factory=dict)
    lead: int | str = 0
    pooled: bool | str = True
    any_size: bool | str = False
    count: Callable[[Facts], int] | None = None
    steps: Any = None  # Any: each plugin has a protocol of its own for it
    obeyed: frozenset[str] = frozenset()
    idle: frozenset[str] = frozenset()
    more: Facts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LanguageCard:
    """A language model, by its `model_type`.

    defaults       what its configs leave out, by their own keys
    count          the parameters, every shared tensor once, of a config with its defaults; None: no formula
    decoder_count  the same of its decoder alone
    names          our word -> its key, where they differ
    former         a key of older configs -> that of later ones
    crosses        it is an encoder-decoder
    even           its heads must share the width, also where it is not known by a formula
    last           what it does to its logits last where its config is silent: (key, value)
    more           further facts for the plugin that serves language models
    """

    defaults: Facts = field(default_factory=dict)
    count: Callable[[Facts], int] | None = None
    decoder_count: Callable[[Facts], int] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    former: Mapping[str, str] = field(default_factory=dict)
    crosses: bool = False
    even: bool = False
    last: tuple[str, float] | None = None
    more: Facts = field(default_factory=dict)

    def facts(self, config: Facts) -> dict[str, Any]:
        """A config with the defaults filled in; an explicit null counts as left out where there is a default."""
        given = {self.former.get(key, key): value for key, value in config.items()}
        return {**self.defaults, **{key: value for key, value in given.items() if value is not None or key not in self.defaults}}

    def read(self, config: Facts, word: str) -> Any:
        """The value of one of our words, or None. One without defaults may have another common name for its width."""
        facts, name = self.facts(config), self.names.get(word, word)
        if word == "hidden_size" and not self.defaults:
            name = next((other for other in WIDTHS if facts.get(other) is not None), name)
        return facts.get(name)


@dataclass(frozen=True, slots=True)
class PictureCard:
    """An image processor, by its name in files without the endings: `CLIP`, `Siglip`.

    defaults   what a file means where it is silent, by the fields of the component that prepares pictures
    is_square  a size that is one number is both sides; otherwise it is the shorter side
    own        key that its class alone reads -> what becomes of it: "size": one number that goes over the size; "square": the size is
               a square of the class's own; "patches": of as many whole patches as fit, in place of a size
    """

    defaults: Facts
    is_square: bool = True
    own: Mapping[str, Literal["size", "square", "patches"]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TensorOrigin:
    """A tensor of a layout, as it comes out of a tensor of a file; what is given is done in this order.

    key    of the tensor in the file
    rows   (first, last + 1) of its first axis, such as the queries of a matrix that holds queries, keys and values
    shape  that it is read in, -1 for what is over
    pick   (axis, place): the slice of that axis alone, such as the queries of each head where a head has its queries, keys and values
    axes   their new order
    into   the shape in the end, -1 for what is over, such as that of a matrix whose rows were put in another order
    lead   rows of zeros that are put before those of the second axis
    """

    key: str
    rows: tuple[int, int] | None = None
    shape: tuple[int, ...] | None = None
    pick: tuple[int, int] | None = None
    axes: tuple[int, ...] | None = None
    into: tuple[int, ...] | None = None
    lead: int = 0


Shapes = Mapping[str, tuple[int, ...]]  # of the tensors of a file, by key


@dataclass(frozen=True, slots=True)
class LayoutCard:
    """Files in a layout of their own, seen as if they were in that of Hugging Face; tensors are taken as they are asked for.

    name     whose layout, in messages
    knows    (config.json or {}, shapes or {}) -> these are such files. Every source is asked, so it must be sure: files that are
             known by their tensors alone are those of which it can place every tensor
    config   the same -> the config.json that they would have, its model_type with it; a ValueError says what is not served
    tensors  (that config, shapes) -> key in the layout of Hugging Face -> where it comes from; what is not placed is refused
    files    (config.json or {}, that config) -> further JSON files that they would have, such as preprocessor_config.json
    idle     how keys begin that are no part of the model, such as the state of an optimiser
    """

    name: str
    knows: Callable[[Facts, Shapes], bool]
    config: Callable[[Facts, Shapes], dict[str, Any]]
    tensors: Callable[[Facts, Shapes], dict[str, TensorOrigin]]
    files: Callable[[Facts, Facts], Mapping[str, Facts]] | None = None
    idle: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FamilyCard(Card):
    """A family of checkpoints: all that is known of it beside its files.

    name       in messages and lists;  doc  what it is, in one line
    graphs     model type -> the graph that a checkpoint of it becomes: the name of a shipped one, or the text of one whose parameter
               `checkpoint` is to be filled in; a function gives it from the config
    layouts    of files that are not in that of Hugging Face
    table      its statements give way to those of other cards: it lists what is known of many families, one thing of each
    """

    wholes: Mapping[str, WholeCard] = field(default_factory=dict)
    towers: Mapping[str, TowerCard] = field(default_factory=dict)
    languages: Mapping[str, LanguageCard] = field(default_factory=dict)
    pictures: Mapping[str, PictureCard] = field(default_factory=dict)
    graphs: Mapping[str, str | Callable[[Facts], str]] = field(default_factory=dict)
    layouts: tuple[LayoutCard, ...] = ()
    table: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no card of its kind: all cards are read together, so that one such would end every command."""
        for rows, wanted in (("wholes", WholeCard), ("towers", TowerCard), ("languages", LanguageCard), ("pictures", PictureCard)):
            _refuse_others(f"{rows} of the family {shown(self.name)}", getattr(self, rows), wanted)
        for kind, whole in self.wholes.items():
            _refuse_others(f"parts of the whole {shown(kind)} of the family {shown(self.name)}", whole.parts, PartCard)
        _refuse_others(f"layouts of the family {shown(self.name)}", {str(at): row for at, row in enumerate(self.layouts)}, LayoutCard)


def _refuse_others(place: str, rows: Any, wanted: type) -> None:
    if not isinstance(rows, Mapping):
        raise PluginError(f"{place}: found {shown(rows)}; wanted: a mapping from a name to a {wanted.__name__}")
    for name, row in rows.items():
        if not isinstance(name, str) or not isinstance(row, wanted):
            raise PluginError(f"{place}: found {shown(name)}: {shown(row)}; wanted: a {wanted.__name__} under a name")
