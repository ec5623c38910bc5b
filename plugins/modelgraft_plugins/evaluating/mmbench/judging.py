"""Answers that no rule reads are put to a judge: any graph from text to text. After three tries an answer counts as none of the options.

The toolkit of MMBench draws an option at random when its judge fails; here nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelgraft_plugins.evaluating.mmbench.extraction import NONE_OF_THEM, UNREAD, letter_of
from modelgraft_plugins.evaluating.mmbench.prompts import is_chinese, option_lines
from modelgraft_plugins.evaluating.running import Runs
from modelgraft_plugins.evaluating.suites import Field, Item

TRIES = 3
GIVES = {"question": Field(type="text", names=("prompt", "text"), doc="the answer and the options, and what to do with them")}
TAKES = {"answer": Field(type="text", names=("text",), doc="a letter")}

_ENGLISH = (
    "You are an AI assistant who will help me to match an answer with several options of a single-choice question. "
    "You are provided with a question, several options, and an answer, and you need to find which option is most similar to the answer. "
    "If the meaning of all options are significantly different from the answer, output Z. "
    "Your should output a single uppercase character in A, B, C, D (if they are valid options), and Z. \n"
    "Example 1: \nQuestion: What is the main object in image?\nOptions: A. teddy bear B. rabbit C. cat D. dog\n"
    "Answer: a cute teddy bear\nYour output: A\n"
    "Example 2: \nQuestion: What is the main object in image?\nOptions: A. teddy bear B. rabbit C. cat D. dog\n"
    "Answer: Spider\nYour output: Z\n"
    "Example 3: \nQuestion: {question}?\nOptions: {options}\nAnswer: {answer}\nYour output: "
)
_CHINESE = (
    "你是一个帮助我匹配答案与单选题中多个选项的 AI 助手。你会被提供：一个问题，多个选项，一个答案。你的任务是找到与答案意义最相近的选项。"
    "如果所有选项的意义都与答案显著不同，则输出 Z。你应该输出一个单个的大写字母，例如 A, B, C, D（如果它们是有效选项），或 Z。"
    "例 1:问题: 图中最主要的物体是什么?\n选项: A. 泰迪熊 B. 兔子 C. 猫 D. 狗\n答案: 一只可爱的泰迪熊\n输出: A\n"
    "例 2: \n问题: 图中最主要的物体是什么?\n选项: A. 泰迪熊 B. 兔子 C. 猫 D. 狗\n答案: 蜘蛛\n输出: Z\n"
    "例 3: \n问题: {question}?\n选项: {options}\n答案: {answer}\n输出: "
)


@dataclass(frozen=True, slots=True)
class Unread:
    """An answer that no rule reads, with its question."""

    id: str
    place: str
    question: str
    options: Mapping[str, str]
    answer: str

    @property
    def prompt(self) -> str:
        """What the judge is asked: the words that MMBench's toolkit uses."""
        form = _CHINESE if is_chinese(self.question) else _ENGLISH
        return form.format(question=self.question, options=option_lines(self.options), answer=self.answer)


def prove(graph: str, runs: Runs) -> None:
    """Raise GraphError for a judge that has problems, or that cannot judge."""
    runs.prove(graph, gives=GIVES, takes=TAKES)


def judged(unread: Sequence[Unread], graph: str, runs: Runs) -> dict[str, str]:
    """The letters that a judge reads, by id. Its replies are read by the same rules; what stays unread after all tries is NONE_OF_THEM."""
    found: dict[str, str] = {}
    for number in range(TRIES):
        open_ = [one for one in unread if one.id not in found]
        if not open_:
            break
        items = [Item(id=one.id, place=one.place, inputs={"question": one.prompt}) for one in open_]
        replies = runs.ask(f"judge-{number + 1}", graph, items, gives=GIVES, takes=TAKES, seed=runs.opening.seed + number)
        options = {one.id: one.options for one in open_}
        read = {
            reply.id: letter_of(reply.outputs["answer"], options[reply.id]) for reply in replies if reply.id in options and not reply.error
        }
        found |= {id: letter for id, letter in read.items() if letter != UNREAD}
    return {one.id: found.get(one.id, NONE_OF_THEM) for one in unread}
