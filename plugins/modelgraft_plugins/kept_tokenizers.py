"""Tokenizers of transformers, kept in the cache as they were built: the next start opens one without transformers.

transformers builds a tokenizer from its files by rules of its own (classes, legacy flags, begin tokens); what comes out is
a tokenizer of the package `tokenizers` that is written down whole. One whose class does more than that one is not kept: where it
does more as it writes texts, such as CLIP's, it is kept for those who cut texts into tokens alone. What Whisper's leaves out of
texts is known here. Files that ask for no rule, such as those that our reader of GGUF writes, are opened as they are, and
transformers, whose import takes as long as that of torch, is not needed. Any plugin may import this module.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from modelgraft.plugin import Keeper, KeptItem, cache_root, complaint_of_note, digest_of, give_back_freed, kept, seals
from modelgraft_plugins import tiktoken_files

Inner = Any  # a tokenizer of transformers, or Kept: the former are not annotated

FILES = (".json", ".model", ".spm", ".txt", ".jinja", ".tiktoken")  # what the files of a tokenizer end with
WEIGHTS = ".index.json"  # what lies beside them and grows with the model
READING, WRITING = ("__call__", "_encode_plus", "convert_tokens_to_ids"), ("decode", "_decode")  # calls that a class may change
WHISPER = "WhisperTokenizer"  # whose class leaves times out of texts, and what was said before
BEFORE, START = "<|startofprev|>", "<|startoftranscript|>"  # its tokens around what was said before
TIMES = re.compile(r"<\|\d+\.\d+\|>")
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")  # in transformers' own order
# settings without rules
PLAIN = frozenset({"tokenizer_class", "clean_up_tokenization_spaces", "model_max_length", "chat_template", *NAMED})
PLAIN_MODEL = "llama"  # for which transformers takes such files as they are: for qwen2 it makes them anew, those of mistral it may mend
LEGACY = ("special_tokens_map.json", "added_tokens.json", "tokenizer.model")  # files that may say something else
ENDLESS = int(1e30)  # as transformers writes that there is no most
SHORT = 5  # tokens that the texts of the proof are cut to
PROOF = ("", "a", "Hello, world! 3.14", "  two  spaces\nand a line", "naïve façade — 漢字 🙂", "<s>x</s> [INST] <image>")


@dataclass(frozen=True, slots=True)
class Encoded:
    """As the call of a tokenizer of transformers gives it."""

    input_ids: list[int]


class Keeps(Keeper):
    """The tokenizers that are kept, for `modelgraft cache`."""

    kind = "tokenizers"

    def items(self) -> Iterator[KeptItem]:
        """Each a file under the digest of what it was made of."""
        folder = cache_root() / "tokenizers"
        for path in sorted(folder.glob("[!.]*.json")):
            yield KeptItem(self.kind, path.stem, path, "", folder / ".lock")

    def complaints(self, item: KeptItem) -> Iterator[tuple[Path, str]]:
        """What its seal says."""
        yield item.path, complaint_of_note(item.path)


class Kept:
    """A tokenizer as transformers builds it, with the attributes and calls of one that this package reads."""

    def __init__(self, facts: Mapping[str, Any], inner: Any) -> None:
        """inner: of the package `tokenizers`, which has no types."""
        self.facts, self._inner = facts, inner
        self._inner.no_truncation()
        self._inner.no_padding()
        self.added_tokens_encoder: dict[str, int] = dict(facts["added"])
        self.unk_token, self.unk_token_id = facts["unk_token"], facts["unk_token_id"]
        self.special_tokens_map: dict[str, str] = dict(facts["special"])

    def rows(self, texts: Sequence[str], *, most: int | None, add_special_tokens: bool) -> list[list[int]]:
        """The ids of each text, as many as `most` with those that are put around it; None: all."""
        if most is not None:
            self._inner.enable_truncation(most, direction=self.facts["filling"]["cuts"])
        try:
            return [self._inner.encode(text, add_special_tokens=add_special_tokens).ids for text in texts]
        finally:
            self._inner.no_truncation()

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Encoded:
        """The ids of a text."""
        return Encoded(self._inner.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of ids."""
        hears = self.facts["hears"]
        if hears and skip_special_tokens and len(ids) and ids[0] == self._inner.token_to_id(BEFORE):
            start, ids = self._inner.token_to_id(START), list(ids)
            ids = ids[ids.index(start) :] if start in ids else []
        text: str = self._inner.decode(ids, skip_special_tokens=skip_special_tokens)
        return TIMES.sub("", text) if hears else text

    def to_text(self) -> str:
        """The whole tokenizer as a document of the package `tokenizers`."""
        text: str = self._inner.to_str()
        return text

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """The id of a token, that of the unknown token for one that is not there."""
        found: int | None = self._inner.token_to_id(token)
        return self.unk_token_id if found is None else found

    def add_tokens(self, tokens: list[str], *, special_tokens: bool) -> None:
        """Add tokens behind those there are."""
        (self._inner.add_special_tokens if special_tokens else self._inner.add_tokens)(tokens)
        self.added_tokens_encoder |= {token: self._inner.token_to_id(token) for token in tokens}


@dataclass(frozen=True, slots=True)
class Filling:
    """How a tokenizer fills up the rows of a batch, and cuts them.

    number  of the token that fills up; None: it has none
    side    where it fills up, "left" or "right";  cuts  where it cuts what is too long
    most    tokens of a text, by what its files say; very many where they do not
    """

    number: int | None
    side: str
    cuts: str
    most: int


def filling_of(inner: Inner) -> Filling:
    """That of an open tokenizer. One without a token for it fills up with the end of a text."""
    if isinstance(inner, Kept):
        return Filling(**inner.facts["filling"])
    number = inner.eos_token_id if inner.pad_token_id is None else inner.pad_token_id
    return Filling(number, inner.padding_side, inner.truncation_side, int(inner.model_max_length))


def rows_of(inner: Inner, texts: Sequence[str], *, most: int | None = None, add_special_tokens: bool = True) -> list[list[int]]:
    """The ids of each of some texts, cut to `most` with those that are put around it; None: all of them."""
    if isinstance(inner, Kept):
        return inner.rows(texts, most=most, add_special_tokens=add_special_tokens)
    cut = {} if most is None else {"truncation": True, "max_length": most}
    found: list[list[int]] = inner(list(texts), add_special_tokens=add_special_tokens, verbose=False, **cut).input_ids
    return found


def open_tokenizer(folder: Path, *, writes: bool = True, build: Callable[[Path], Inner] | None = None) -> Inner:
    """Open the tokenizer of a folder, from the cache where it is kept; otherwise keep it there for the next time.

    writes  texts are made of ids as well; False: `decode` may give them with marks that the class takes away
    build   makes it of the files, where they are no such as transformers opens by itself

    Raises what `AutoTokenizer.from_pretrained` raises for files that cannot be read.
    """
    if build is None and (plain := _as_it_lies(folder)) is not None:
        return plain
    place = _place_of(folder)
    found = _read(place, folder)
    if found is not None and (found.facts["writes"] or not writes):
        return found
    inner = (build or _from_files)(folder)
    if found is None:
        _keep(inner, place)
    return inner


def _as_it_lies(folder: Path) -> Kept | None:
    """A tokenizer.json whose settings name tokens of it and do nothing else; None where transformers has a say."""
    own, model = (_mapping_in(folder / name) for name in ("tokenizer_config.json", "config.json"))
    says_more = not own.keys() <= PLAIN or any((folder / name).exists() for name in LEGACY)
    if says_more or own.get("tokenizer_class") != "PreTrainedTokenizerFast" or model.get("model_type") != PLAIN_MODEL:
        return None
    named = {name: own[name] for name in NAMED if name in own}
    if own.get("clean_up_tokenization_spaces") is not False or not all(isinstance(token, str) for token in named.values()):
        return None
    try:
        inner = _parsed((folder / "tokenizer.json").read_text(encoding="utf-8"))
    except Exception:  # noqa: BLE001 the package tokenizers raises Exception itself; transformers then says what is wrong
        return None
    tokens = sorted(inner.get_added_tokens_decoder().items())
    added, special = {token.content: number for number, token in tokens}, {token.content for _, token in tokens if token.special}
    if inner.truncation or inner.padding or inner.post_processor is None or not special >= {*named.values()}:
        return None  # of tokens that are named but not special it makes special ones
    unknown = named.get("unk_token")
    filling = Filling(
        added.get(named.get("pad_token", named.get("eos_token", ""))), "right", "right", int(own.get("model_max_length", ENDLESS))
    )
    more = {"filling": asdict(filling), "hears": False, "writes": True}
    return Kept({"added": added, "unk_token": unknown, "unk_token_id": added.get(unknown or ""), "special": named, **more}, inner)


def _parsed(text: str) -> Any:
    """A tokenizer of the package `tokenizers`, which has no types. What reading it took is given back: twice what it is itself."""
    from tokenizers import Tokenizer

    made = Tokenizer.from_str(text)
    give_back_freed()
    return made


def _from_files(folder: Path) -> Inner:
    if (made := tiktoken_files.open_tokenizer(folder)) is not None:
        return made
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, config=_plain_config(folder))


def _plain_config(folder: Path) -> Any | None:
    """The config of a model as one of a type that transformers does not know, where the tokenizer names its class itself.

    Of the model only the type is then asked for, and the class of its config would import the compiler of torch. None: the usual one.
    """
    own, model = (_mapping_in(folder / name) for name in ("tokenizer_config.json", "config.json"))
    if not own.get("tokenizer_class") or "auto_map" in own or not isinstance(model.get("model_type"), str):
        return None
    from transformers import PreTrainedConfig

    asked = {key: model[key] for key in ("model_type", "tokenizer_class") if key in model}  # others it would look at, and warn of
    return PreTrainedConfig.from_dict(asked, name_or_path=str(folder))


def _mapping_in(path: Path) -> Mapping[str, Any]:
    """What a JSON file holds; nothing where it is missing, broken or no mapping."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _place_of(folder: Path) -> Path:
    """Where the tokenizer of a folder is kept: under the contents of its files, and the versions that read them."""
    listed = sorted(path for path in folder.iterdir() if path.suffix in FILES and not path.name.endswith(WEIGHTS) and path.is_file())
    facts = [[path.name, digest_of(path)] for path in listed]
    versions = [version("transformers"), version("tokenizers"), digest_of(Path(__file__)), digest_of(Path(tiktoken_files.__file__))]
    return cache_root() / "tokenizers" / f"{hashlib.sha256(json.dumps([facts, versions]).encode()).hexdigest()[:32]}.json"


def _read(place: Path, folder: Path) -> Kept | None:
    """What is kept there, if it is whole: one that was cut or changed is built anew, and that is said."""
    try:
        found = seals.read_sealed(place)
        return Kept(found["facts"], _parsed(found["tokenizer"]))
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 the package tokenizers raises Exception itself for what it cannot take
        kept.remark(f"the tokenizer of {folder} was kept and is broken ({error}): it is built again")
        return None


def _keep(inner: Inner, place: Path) -> None:
    """Write a tokenizer down, if it is proven that it then does the same."""
    if not _leaves(inner, READING):
        return
    text = _read_sooner(inner.backend_tokenizer.to_str())
    facts = {
        "added": inner.added_tokens_encoder,
        "unk_token": inner.unk_token,
        "unk_token_id": inner.unk_token_id,
        "special": inner.special_tokens_map,
        "filling": asdict(filling_of(inner)),
        "hears": type(inner).__name__ == WHISPER,
        "writes": False,
    }
    kept = Kept(facts, _parsed(text))
    if not _reads_alike(inner, kept):
        return
    facts["writes"] = _writes_plainly(inner) and _writes_alike(inner, kept)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not correctness
        seals.write_sealed(place, {"facts": facts, "tokenizer": text})


def _read_sooner(text: str) -> str:
    """The document of a tokenizer with a text for each merge in the place of a pair: that is read in four fifths of the time.

    It stays as it is where such a text could be taken for another thing.
    """
    document = json.loads(text)
    pairs = document["model"].get("merges") or ()
    if not all(isinstance(pair, list) and " " not in "".join(pair) and not pair[0].startswith("#version") for pair in pairs):
        return text
    document["model"]["merges"] = [" ".join(pair) for pair in pairs]
    return json.dumps(document, ensure_ascii=False) if pairs else text


def _writes_plainly(inner: Inner) -> bool:
    """Whether its class adds nothing to the texts that the tokenizer inside makes, or what is known here."""
    if inner.clean_up_tokenization_spaces and type(inner.backend_tokenizer.model).__name__ != "BPE":  # which it leaves alone
        return False
    return type(inner).__name__ == WHISPER or _leaves(inner, WRITING)


def _leaves(inner: Inner, calls: Sequence[str]) -> bool:
    """Whether its class leaves these calls as they are in that for tokenizers of the package `tokenizers`."""
    from transformers import PreTrainedTokenizerFast

    if not isinstance(inner, PreTrainedTokenizerFast):
        return False
    own = type(inner).__mro__[: type(inner).__mro__.index(PreTrainedTokenizerFast)]
    return not any(name in vars(kind) for kind in own for name in calls)


def _reads_alike(inner: Inner, kept: Kept) -> bool:
    """Whether both give the same ids."""
    for text in PROOF:
        for special in (True, False):
            if inner(text, add_special_tokens=special).input_ids != kept(text, add_special_tokens=special).input_ids:
                return False
            short, same = (rows_of(one, [text], most=SHORT, add_special_tokens=special) for one in (inner, kept))
            if short != same:
                return False
    tokens = [*kept.added_tokens_encoder, "a", "no such token"]
    return all(inner.convert_tokens_to_ids(token) == kept.convert_tokens_to_ids(token) for token in tokens)


def _writes_alike(inner: Inner, kept: Kept) -> bool:
    """Whether both give the same texts."""
    rows = [kept(text, add_special_tokens=special).input_ids for text in PROOF for special in (True, False)]
    if kept.facts["hears"]:
        words, marks = kept("a").input_ids, [kept.convert_tokens_to_ids(token) for token in (BEFORE, START, "<|0.00|>")]
        known = [mark for mark in marks if mark is not None]
        rows += [[*known, *words], [*known[:1], *words, *known[1:], *words], [*known[:1], *words], [*words, *known]]
    return all(
        inner.decode(ids, skip_special_tokens=skip) == kept.decode(ids, skip_special_tokens=skip) for ids in rows for skip in (True, False)
    )
