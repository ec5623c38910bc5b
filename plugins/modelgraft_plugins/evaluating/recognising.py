"""Speech written down, against transcripts of people: word and character error rates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field as Option

from modelgraft.plugin import Config, InputError, home_read
from modelgraft_plugins.evaluating.measuring import Wanted, rehearse, score_of, scored_by
from modelgraft_plugins.evaluating.reading import as_data, file_in, folder_of, rows_of, texts_of
from modelgraft_plugins.evaluating.suites import Answer, Data, Field, Item, Note, Report, Suite
from modelgraft_plugins.intervals import FEWEST

TRANSCRIPTS = "*.trans.txt"  # of LibriSpeech: a line of ID and words for each sound beside it
SOUNDS = (".flac", ".wav")


class Recognising(Suite):
    """Speech written down: word error rate, character error rate.

    Data: a folder as LibriSpeech has it (SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt beside the sounds), or a record per line:
    {"audio": "a.wav", "text": "go forward ten metres"}; more than one transcript may be right. Sounds lie beside the data, or in --sounds.
    """

    gives: ClassVar[Mapping[str, Field]] = {"audio": Field(type="audio", names=("sound", "speech"))}
    takes: ClassVar[Mapping[str, Field]] = {"transcript": Field(type="text", names=("text",))}

    class Settings(Config):
        """Where the sounds are, and what is compared."""

        sounds: str | None = Option(None, description="The folder of the sounds; else they lie beside the data.")
        text: Literal["plain", "whisper", "whisper_english", "as_is"] = Option(
            "plain", description="How both sides are normalised before they are compared, as of metric/wer."
        )

    settings: Settings

    def asking(self) -> Mapping[str, Any]:
        """What is compared decides nothing of what is heard."""
        return {"sounds": self.settings.sounds}

    def open(self, data: str, *, note: Note) -> Data:
        """Read sounds and transcripts."""
        rehearse(*self._figures())
        path, folder = home_read(data), folder_of(data, self.settings.sounds)
        if path.is_dir():
            files = sorted(path.rglob(TRANSCRIPTS))
            if not files:
                raise InputError(f"the folder '{path}' holds no {TRANSCRIPTS} of LibriSpeech; other data are a file of a record per line")
            items = [item for file in files for item in _spoken(file)]
        else:
            files = [path]
            items = [_line(row.place, row.columns, folder, row.error) for row in rows_of(data, note=note)]
        return as_data(data, items, files=files, media="audio", option="--sounds DIR")

    def _figures(self) -> tuple[Wanted, Wanted]:
        fields = {"text": self.settings.text}
        return Wanted(metric="wer", called="WER", fields=fields, unit="%"), Wanted(metric="cer", called="CER", fields=fields, unit="%")

    def report(self, answers: Sequence[Answer]) -> Report:
        """The error rates of all; what one speaker said is drawn together, where enough are known."""
        speakers = [answer.facts.get("speaker") or answer.id for answer in answers]
        is_told = len(set(speakers)) < len(answers)
        clusters = speakers if is_told and len(set(speakers)) >= FEWEST else None
        wanted = self._figures()
        found = [scored_by(one, answers, output="transcript", references=lambda answer: answer.facts.get("texts")) for one in wanted]
        scores = [score_of(one, scored, clusters=clusters) for one, scored in zip(wanted, found, strict=True) if scored is not None]
        notes = [f"both sides are normalised as text={self.settings.text} of metric/wer"]
        if clusters is not None:
            notes.append(f"intervals draw whole speakers, of {len(set(speakers))}")
        words = found[0]
        rows, counts = [], {}
        if words is not None:
            rows = [
                {"id": answers[index].id, "transcript": answers[index].outputs["transcript"], "errors": errors, "words": count}
                for index, (errors, count) in zip(words.kept, words.rows.tolist(), strict=True)
            ]
            counts = {"words": int(words.rows[:, 1].sum()), "records without an error": int((words.rows[:, 0] == 0).sum())}
        return Report(scores=scores, counts=counts, notes=notes, rows=rows)


def _spoken(file: Path) -> Iterator[Item]:
    """The sounds beside a file of transcripts."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the transcripts '{file}' cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        id, _, text = line.strip().partition(" ")
        if not id:
            continue
        place = f"{file.name}:{number}"
        sound = next((path for ending in SOUNDS if (path := file.with_name(f"{id}{ending}")).exists()), file.with_name(f"{id}{SOUNDS[0]}"))
        facts = {"texts": [text.strip()], "speaker": id.partition("-")[0]}
        yield Item(id=id, place=place, inputs={"audio": str(sound)}, facts=facts)


def _line(place: str, columns: Mapping[str, Any], folder: Path, error: str) -> Item:
    if error:
        return Item(id=place, place=place, error=error)
    try:
        texts = texts_of(columns, "references", "text", "transcript", "sentence")
        if texts is None:
            raise ValueError("it has no `text`: what is said")
        audio = file_in(folder, columns.get("audio"), column="audio")
    except ValueError as problem:
        return Item(id=place, place=place, error=str(problem))
    facts = {"texts": texts, "speaker": str(columns.get("speaker", ""))}
    return Item(id=str(columns.get("id", place)), place=place, inputs={"audio": audio}, facts=facts)
