"""From the values of a template's fields to what a model reads: token ids, with embeddings in the places of media."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelgraft.plugin import Array, InputError
from modelgraft_plugins import long_texts
from modelgraft_plugins.llm import dialogues, standing
from modelgraft_plugins.llm.config import LanguageConfig
from modelgraft_plugins.llm.dialogues import USER, Learnt, Turn
from modelgraft_plugins.llm.embedded import cut, is_embedded, joined, spliced
from modelgraft_plugins.llm.ports import TARGET
from modelgraft_plugins.llm.ragged import Beside, Ragged, deep_of
from modelgraft_plugins.llm.standing import Medium
from modelgraft_plugins.llm.template import Field
from modelgraft_plugins.llm.tokens import Tokenizer, as_letters

NOTHING = {"type": "text", "text": ""}  # what a message without parts says: templates look at the first part
SLOT = -1  # the id of a place for an embedding, where the tokenizer has no placeholder
Value = Any  # a text, a conversation or float[tokens width]: what a field of one record holds


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one record reads.

    ids    one id per position; SLOT or the placeholder's where an embedding goes
    media  float[tokens width]: the embeddings in order, None when there are none
    places where they go, as many as media has rows
    given  the tokens of each text that is judged behind it
    learnt the places of all answers of a conversation, where they are to be learnt
    shown  the media, with their places: where one stands in several pieces, each of them
    deep   float[layers tokens width]: what is added to the media behind the first layers of the decoder, None for nothing
    """

    ids: list[int]
    media: Array | None
    places: list[int]
    given: tuple[tuple[int, ...], ...] = ()
    shown: tuple[Medium, ...] = ()
    deep: Array | None = None
    learnt: Learnt | None = None

    @property
    def said(self) -> list[int]:
        """The ids that are tokens."""
        return [token for token in self.ids if token != SLOT]

    @property
    def tokens(self) -> list[int]:
        """The places that are tokens, not embeddings."""
        taken = frozenset(self.places)
        return [place for place, token in enumerate(self.ids) if token != SLOT and place not in taken]

    def embed(self, table: Callable[[Any], Any], device: str) -> Array:
        """float[tokens width]: embedded tokens with the media in their places; device: of what embeds in torch."""
        return spliced(table, self.ids, self.media, self.places, device=device)


class PromptWriter:
    """Writes prompts for one node."""

    def __init__(self, config: LanguageConfig, tokenizer: Tokenizer, *, node: str) -> None:
        self.config, self.tokenizer, self.node = config, tokenizer, node

    def write(self, record: Mapping[str, Value], *, shown: int = 0, given: Sequence[str] = (), learns: bool = False) -> Prompt:
        """Write the prompt of one record, by field.

        shown   how many media are there beside the fields, which the model looks at: their placeholders are words like others
        given   texts that are judged behind the prompt
        learns  it is a whole conversation, whose answers are looked for

        Raises InputError when media and their places do not match, or nothing is left to read.
        """
        record, media, beside = self._media(record)
        if shown:
            self._refuse_unmarked(media)
        around = "".join(told.words or "" for told in beside if told is not None)
        text, is_chat, turns = (self._dialogue if learns else self._text)(record, len(media) or shown, around=around)
        is_chat = is_chat and self.config.taught is None  # what one of those that ship has written is a text like others
        self._refuse_endless(text)
        segments = text.split(self.tokenizer.placeholder) if media else [text]
        if any(one is not None for one in beside):
            segments, shares = self._spelt(segments, media, beside)
        else:
            is_talk = any(isinstance(value, list | tuple) for value in record.values())
            shares = self._shares(media, len(segments) - 1, may_split=is_talk)
        sizes = [len(share) for share in shares]
        ids, places = self._tokenise(segments, sizes, is_chat=is_chat)
        if not ids:
            hint = "write something, or use a model whose texts begin with a token of their own"
            raise InputError(f"{self.node}: the prompt is empty, and the tokenizer puts no begin token before a text; {hint}")
        behind = tuple(self._behind(text, segments, sizes, ids, is_chat=is_chat) for text in given)

        def begun(part: str) -> list[int]:
            """The ids of a beginning of the text."""
            own = part.split(self.tokenizer.placeholder) if media else [part]
            inside = sizes[: len(own) - 1]
            if any(one is not None for one in beside):
                own, some = self._spelt(own, media[: len(own) - 1], beside[: len(own) - 1])
                inside = [len(share) for share in some]
            return self._tokenise(own, inside, is_chat=is_chat)[0]

        return Prompt(
            ids,
            joined(shares) if shares else None,
            places,
            behind,
            self._seen(places, media, beside),
            deep_of(media, beside),
            dialogues.learnt(ids, text, turns, begun, marks=self.tokenizer.named_ids) if learns else None,
        )

    def _behind(self, text: str, segments: list[str], sizes: list[int], ids: list[int], *, is_chat: bool) -> tuple[int, ...]:
        """The tokens of a text behind the prompt, whose tokens are `ids`: as they would be written together.

        Where its first letters would melt into the prompt's last token the text is tokenised by itself: an answer begins with a token.
        """
        if sizes and self.tokenizer.placeholder in text:
            raise InputError(
                f"{self.node}: '{text}' is to be judged behind the prompt, and holds '{self.tokenizer.placeholder}': leave it out"
            )
        together, _ = self._tokenise([*segments[:-1], segments[-1] + text], sizes, is_chat=is_chat)
        return tuple(together[len(ids) :] if together[: len(ids)] == ids else self.tokenizer.plain(text))

    def _media(self, record: Mapping[str, Value]) -> tuple[dict[str, Value], list[Array], list[Beside | None]]:
        """The record with a placeholder for each of several media, the media of all fields in their order, and what is said of each.

        Raises InputError where a branch gave nothing for one of several.
        """
        media: list[Array] = []
        beside: list[Beside | None] = []
        written = dict(record)
        several = {field.name for field in self.config.fields if field.many}
        for name, value in record.items():
            if isinstance(value, Ragged):
                media += value.media
                beside += value.beside
                written[name] = self.tokenizer.placeholder * len(value.media)
                continue
            found = value if name in several else [value] if is_embedded(value) else []
            if lost := [number for number, medium in enumerate(found, 1) if not is_embedded(medium)]:
                raise InputError(f"{self.node}.{name}: there are {len(found)} media, and no embeddings of number {lost[0]}")
            media += found
            beside += [None] * len(found)
            if name in several:
                written[name] = self.tokenizer.placeholder * len(found)
        return written, media, beside

    def _seen(self, places: Sequence[int], media: Sequence[Array], beside: Sequence[Beside | None]) -> tuple[Medium, ...]:
        """The media with their places, where anybody asks where they stand."""
        if self.config.reads != "media" and all(told is None or told.grid is None for told in beside):
            return ()
        return standing.shown(places, [len(medium) for medium in media], beside, node=self.node)

    # -- text ---------------------------------------------------------------------------------------------------------

    def _text(self, record: Mapping[str, Value], media: int, *, around: str = "") -> tuple[str, bool, list[Turn]]:
        """The whole text with a placeholder for each medium, whether it went through the chat template, and no answers.

        around  what will stand around the media: its marks are no words of a user either
        """
        conversation = next((value for value in record.values() if isinstance(value, list | tuple)), None)
        if conversation is not None:
            return self._chat(self._messages(conversation, media, around=around)), True, []
        ready = next((value for name, value in record.items() if self._holds_places(name, value)), None) if media else None
        if not self.config.chat:
            return ready if ready is not None else self._fill(record), False, []
        guarded = self._guarded(around)
        own = [token for token in guarded if token != self.tokenizer.placeholder]
        text = self._fill(record, guarded) if ready is None else as_letters(ready, own)
        return self._chat([{"role": USER, "content": self._parts(text, media)}]), True, []

    def _dialogue(self, record: Mapping[str, Value], media: int, *, around: str) -> tuple[str, bool, list[Turn]]:
        """The same of a whole conversation, with its answers. Raises InputError where there is none."""
        conversation = next((value for value in record.values() if isinstance(value, list | tuple)), None)
        if conversation is None:
            name = f"{self.node}.{TARGET}"
            found = f"{self.node}.target_logits tells of the text that {name} gets, and nothing is wired into it"
            raise InputError(f"{found}: wire a text, or give as the prompt a conversation that holds answers")
        messages = self._messages(conversation, media, around=around)
        stops = () if self.config.taught is None else self.config.taught.stop
        text, answers = dialogues.turns(messages, self._chat, stops=stops, node=self.node)
        return text, True, answers

    def _messages(self, conversation: Sequence[Mapping[str, Any]], media: int, *, around: str) -> list[Mapping[str, Any]]:
        """The messages of a conversation as a chat template gets them."""
        self._refuse_unasked(conversation)
        self._refuse_unseen(conversation, media)
        guarded = self._guarded(around)
        marks = [token for token in guarded if token in (self.tokenizer.placeholder, self.config.mark)]
        return [dialogues.spelt_out(message, guarded, marks) for message in dialogues.with_media(conversation, media)]

    def _parts(self, text: str, media: int) -> list[dict[str, str]]:
        """A text as the parts of a message, the media where their placeholders stand: a chat template may write more around them."""
        pieces = text.split(self.tokenizer.placeholder) if media else [text]
        told = [[{"type": "image"}] * (number > 0) + [{"type": "text", "text": piece}] * bool(piece) for number, piece in enumerate(pieces)]
        return [part for parts in told for part in parts] or [{"type": "text", "text": ""}]

    def _holds_places(self, name: str, value: Value) -> bool:
        """A text that says itself where the media stand."""
        is_own = isinstance(value, str) and not any(field.many or field.ragged for field in self.config.fields if field.name == name)
        return is_own and self.tokenizer.placeholder in value

    def _refuse_endless(self, text: str) -> None:
        """A text far beyond the context is refused before it is cut into tokens."""
        limit = self.config.max_position_embeddings
        most = limit or long_texts.MOST_TOKENS
        if long_texts.more_than(text, most, lambda piece: len(self.tokenizer.plain(piece))):
            has = f"{self.node}: the prompt is too long: its {len(text):,} letters are more than {most:,} tokens"
            why = f"{self.config.kind or 'the model'} has {limit:,} positions" if limit else "no more are read at once"
            raise InputError(f"{has}, and {why}: shorten it")

    def _refuse_unmarked(self, media: Sequence[Array]) -> None:
        """Media beside the fields are marked by a token, which stands for nothing else."""
        placeholder = self.tokenizer.placeholder
        if self.tokenizer.placeholder_id is None:
            found = f"{self.node}: the tokenizer has no token '{placeholder}', which marks where the media stand"
            raise InputError(f"{found}; set `placeholder` to the one that the model was trained with")
        if media:
            raise InputError(f"{self.node}: '{placeholder}' marks the media of its adapter, so that its fields take texts, not embeddings")

    def _refuse_unasked(self, conversation: Sequence[Mapping[str, Any]]) -> None:
        """A template may write a conversation that nobody asked anything in, and the answer would be to nothing."""
        roles = [message["role"] for message in conversation]
        if USER not in roles:
            found = f"{self.node}: the conversation is of {', '.join(map(repr, dict.fromkeys(roles)))}, and no message of it is the user's"
            raise InputError(f"{found}: add one with the role '{USER}', which is answered")

    def _refuse_unseen(self, conversation: Sequence[Mapping[str, Any]], media: int) -> None:
        """A picture that nothing embeds would be left out of the prompt, and the answer would be about nothing."""
        shown = [part["type"] for message in conversation for part in message["content"] if part["type"] != "text"]
        if shown and not media:
            if any(field.many or field.ragged for field in self.config.fields):
                raise InputError(
                    f"{self.node}: the conversation shows {len(shown)} media, and 0 are given: give each that it shows, in order"
                )
            way_out = 'wire an encoder into a field, such as prompt: "{image}{talk}"'
            raise InputError(f"{self.node}: the conversation shows {', '.join(shown)}, and no field brings embeddings: {way_out}")

    def _guarded(self, around: str) -> list[str]:
        """What a user cannot write into a conversation but as letters: the marks of roles and media."""
        template = self.tokenizer.chat_template(self.config.chat_template)
        return self.tokenizer.guarded((template or "") + around, *([self.config.mark] if self.config.mark else []))

    def _fill(self, record: Mapping[str, Value], guarded: Sequence[str] = ()) -> str:
        """The template with its fields. guarded: tokens that the texts of fields hold as letters alone."""
        several = {field.name for field in self.config.fields if field.many or field.ragged}  # which hold placeholders already
        written = {
            name: self.tokenizer.placeholder if is_embedded(value) else str(value) if name in several else as_letters(str(value), guarded)
            for name, value in record.items()
        }
        return "".join(written[piece.name] if isinstance(piece, Field) else piece for piece in self.config.pieces)

    def _chat(self, conversation: Sequence[Mapping[str, Any]], *, asks: bool = True) -> str:
        chat_template = self.tokenizer.chat_template(self.config.chat_template)
        if chat_template is None:
            raise InputError(
                f"{self.node}: the tokenizer has no chat template for a conversation: give a text, or set chat_template, say to vicuna_v1"
            )
        knows_parts = "image" in chat_template
        messages = [
            {"role": message["role"], "content": self._content(message["content"] or [NOTHING], knows_parts=knows_parts)}
            for message in conversation
        ]
        if self.config.system is not None and messages[0]["role"] != "system":
            text: Any = [{"type": "text", "text": self.config.system}] if knows_parts else self.config.system
            messages.insert(0, {"role": "system", "content": text})
        written = self.tokenizer.chat(messages, template=chat_template, asks=asks)
        return self._placed(written, conversation) if knows_parts else written

    def _placed(self, written: str, conversation: Sequence[Mapping[str, Any]]) -> str:
        """A written conversation with placeholders where its template marks media; a text that holds the mark would be one."""
        mark, media = self.config.mark, sum(part["type"] != "text" for message in conversation for part in message["content"])
        if mark is None:
            return written
        if written.count(mark) != media:
            found = f"{self.node}: the written conversation has {mark!r} {written.count(mark)} times, and it shows {media} media"
            raise InputError(f"{found}: a text that holds it would be one; leave it out")
        return written.replace(mark, self.tokenizer.placeholder)

    def _content(self, parts: Sequence[Mapping[str, Any]], *, knows_parts: bool) -> Any:
        """The parts as the template takes them: without the media themselves, or as one string."""
        if knows_parts:
            return [dict(part) if part["type"] == "text" else {"type": part["type"]} for part in parts]
        return "".join(part["text"] if part["type"] == "text" else self.tokenizer.placeholder for part in parts)

    # -- media --------------------------------------------------------------------------------------------------------

    def _shares(self, media: Sequence[Array], places: int, *, may_split: bool) -> list[Array]:
        """Which embeddings go to which place; `may_split`: one field holds the media of a whole conversation, in equal shares."""
        if len(media) == places:
            return list(media)
        if media:
            whole = joined(media)
            if places and (len(whole) == places or (may_split and len(media) == 1 and len(whole) % places == 0)):
                return cut(whole, [len(whole) // places] * places)
        count, sizes = len(media), " + ".join(str(len(medium)) for medium in media)
        places_said = f"{places} place{'s' if places != 1 else ''} for media ('{self.tokenizer.placeholder}')"
        raise InputError(
            f"{self.node}: the prompt has {places_said}, but there {'is' if count == 1 else 'are'} {count}, of {sizes} embeddings"
        )

    def _spelt(self, segments: Sequence[str], media: Sequence[Array], beside: Sequence[Beside | None]) -> tuple[list[str], list[Array]]:
        """The text with the words of each medium in its place, and what stands in the places then.

        What words begin and end with is not written again where it stands around the place already.
        Raises InputError where there are not as many places as media, and for words that do not fit the embeddings of theirs.
        """
        places = len(segments) - 1
        if places != len(media):
            raise InputError(self._other_number(places, len(media)))
        spelt, shares = [segments[0]], list[Array]()
        for number, (medium, told, after) in enumerate(zip(media, beside, segments[1:], strict=True), 1):
            first, *more = [""] * 2 if told is None or told.words is None else told.words.split(self.tokenizer.placeholder)
            if not more or len(medium) % len(more):
                found = f"'{self.tokenizer.placeholder}' {len(more)} times, and it has {len(medium)} embeddings"
                way_out = "write it once for each of them, or for runs of equal length"
                raise InputError(f"{self.node}: the words of medium {number} hold {found}: {way_out}")
            if spelt[-1].endswith(first) and after.startswith(more[-1]):  # a chat template has written what stands around it
                first, more[-1] = "", ""
            spelt[-1] += first
            spelt += more
            spelt[-1] += after
            shares += cut(medium, [len(medium) // len(more)] * len(more))
        return [self._edged(text) for text in spelt], shares

    def _edged(self, text: str) -> str:
        """A text between media: where two edges of them meet there is one, and a word does not stand close to it."""
        edge = self.config.media_edge
        return text if edge is None else re.sub(rf"{re.escape(edge)}(?=[^\s<])", f"{edge} ", text.replace(edge * 2, edge))

    def _other_number(self, places: int, media: int) -> str:
        there = f"{media} media are given" if media != 1 else "1 medium is given"
        found = f"{self.node}: the prompt has {places} place{'s' if places != 1 else ''} for media ('{self.tokenizer.placeholder}')"
        return f"{found}, and {there}: write it once for each, where it is to stand"

    # -- ids ----------------------------------------------------------------------------------------------------------

    def _tokenise(self, segments: list[str], sizes: list[int], *, is_chat: bool) -> tuple[list[int], list[int]]:
        lead = 0
        if self.config.begin == "text" and not is_chat:
            while lead < len(sizes) and segments[lead] == "":
                lead += 1
        slot = SLOT if self.tokenizer.placeholder_id is None else self.tokenizer.placeholder_id
        ids = [slot] * sum(sizes[:lead])
        places = list(range(len(ids)))
        rest = self._whole(segments[lead:], is_chat=is_chat) if slot != SLOT else self._pieces(segments[lead:], is_chat=is_chat)
        waiting = iter(sizes[lead:])
        for token in rest:
            if token == slot and len(segments) > 1:
                size = next(waiting)
                places += range(len(ids), len(ids) + size)
                ids += [slot] * size
            else:
                ids.append(token)
        return ids, places

    def _whole(self, segments: list[str], *, is_chat: bool) -> list[int]:
        text = self.tokenizer.placeholder.join(segments)
        if is_chat:
            return self.tokenizer.plain(text)
        return self.tokenizer.full(text) if self.config.begin_token is None else self.tokenizer.plain(self.config.begin_token + text)

    def _pieces(self, segments: list[str], *, is_chat: bool) -> list[int]:
        """Each text between media by itself."""
        if len(segments) == 1:
            return self._whole(segments, is_chat=is_chat)
        own = self.config.begin_token
        ids: list[int] = [] if is_chat else list(self.tokenizer.before) if own is None else self.tokenizer.plain(own)
        for index, segment in enumerate(segments):
            ids += ([SLOT] if index else []) + self.tokenizer.plain(segment)
        return ids if is_chat or own is not None else [*ids, *self.tokenizer.after]
