"""What SpeechGPT is trained on: instructions with units of speech, as text.

Source: arXiv 2305.11000, 3.1 and appendix; the rows that its authors show: `[Human]: ... <eoh>. [SpeechGPT]: ...; [ta] ...; [ua] <sosp>...
<eosp><eoa>.`, where the transcript stands without a mark of its own. What is written here, speechgpt/reply reads.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import InputError, LoadContext, NodeRuntime
from modelgraft_plugins.speechgpt.prompts import INPUT, TURN, span, written

if TYPE_CHECKING:
    from torch import Tensor

    from modelgraft_plugins.speechgpt import Chain, OfUnits, Pair

END = "<eoa>"
MARKS = re.compile(r"\[\s*(?:tq|ta|ua|Human|SpeechGPT)\s*\]|<\s*(?:sosp|eosp|eoh|eoa|ea|eos|/?s|\d+)\s*>")  # what words must not hold
FORMS = ("speech-speech", "speech-text", "text-speech", "text-text")


def pair(config: Pair, context: LoadContext) -> Pairs:
    """Make what writes instructions across media."""
    return Pairs(config, context.node.name)


def chain(config: Chain, context: LoadContext) -> Chains:
    """Make what writes instructions that are answered step by step."""
    return Chains(config, context.node.name)


class _Drawing:
    """Draws by the seed of the run and the words of a record, so that a batch gives what its records give alone."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the seed of the run."""
        self.runtime = runtime

    def drawn(self, among: Sequence[str], what: str, words: str) -> str:
        """One of some."""
        seed = 0 if self.runtime is None else self.runtime.node_seed()
        return among[zlib.crc32(f"{seed} {what} {words}".encode()) % len(among)]

    def words(self, text: str, what: str) -> str:
        """Words in one line. Raises InputError for none, and for marks in them."""
        line = " ".join(text.split())
        if not line:
            raise InputError(f"{self.node}: the {what} has no words")
        if (mark := MARKS.search(line)) is not None:
            raise InputError(f"{self.node}: the {what} holds {mark[0]}, which the model reads as a mark and not as words")
        return line

    def spoken(self, config: OfUnits, units: Tensor, what: str) -> str:
        """Units as text. Raises InputError for none."""
        if not (units >= 0).any():
            raise InputError(f"{self.node}: the {what} has no units: its sound is too short, or there is none")
        return span(config, self.node, units.tolist())


class Pairs(_Drawing):
    """Writes instructions across media."""

    def __init__(self, config: Pair, node: str) -> None:
        super().__init__(node)
        self.config = config

    def __call__(self, text: list[str], units: Tensor) -> dict[str, list[str]]:
        """Give an instruction for each pair."""
        rows = [self._row(said, units[row]) for row, said in enumerate(text)]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _row(self, text: str, units: Tensor) -> dict[str, str]:
        config, words = self.config, self.words(text, "text")
        speech = self.spoken(config, units, "speech")
        task = self.drawn(("transcribe", "speak"), "task", words) if config.task == "drawn" else config.task
        request = self.drawn(config.transcribe if task == "transcribe" else config.speak, "request", words).strip()
        given, answer = (speech, words) if task == "transcribe" else (words, speech)
        dialogue = TURN.replace("{question}", f"{request} This {INPUT} {given}")
        return {
            "prompt": config.introduction + dialogue,
            "answer": answer + END,
            "task": task,
            "speech": speech,
            "plain_text": f"{dialogue}{answer}{END}",
        }


class Chains(_Drawing):
    """Writes instructions that are answered step by step."""

    def __init__(self, config: Chain, node: str) -> None:
        super().__init__(node)
        self.config = config

    def __call__(self, instruction: list[str], response: list[str], asked: Tensor, answered: Tensor) -> dict[str, list[str]]:
        """Give an instruction for each record."""
        rows = [self._row(*record) for record in zip(instruction, response, asked, answered, strict=True)]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _row(self, instruction: str, response: str, asked: Tensor, answered: Tensor) -> dict[str, str]:
        question, reply = self.words(instruction, "instruction"), self.words(response, "response")
        form = self.drawn(FORMS, "form", question) if self.config.form == "drawn" else self.config.form
        is_heard, is_spoken = form.startswith("speech"), form.endswith("speech")
        prompt = self._prompt(question, asked, is_heard=is_heard, wants="speech" if is_spoken else "text")
        steps = [*([question] if is_heard else []), f"[ta] {reply}"]
        if is_spoken:
            steps.append(f"[ua] {self.spoken(self.config, answered, 'response')}")
        answer = f"{'; '.join(steps)}{END}."
        return {
            "prompt": self.config.introduction + prompt,
            "answer": answer,
            "form": form,
            "plain_text": prompt + answer,
        }

    def _prompt(self, question: str, asked: Tensor, *, is_heard: bool, wants: Any) -> str:
        """The human's turn, by the template of its form."""
        from modelgraft_plugins.speechgpt import Prompt

        writer = Prompt.model_validate({"wants": wants, "units": self.config.units, "introduction": ""})
        if is_heard:
            self.spoken(self.config, asked, "instruction")
        return written(writer, self.node, None if is_heard else question, asked.tolist() if is_heard else None)
