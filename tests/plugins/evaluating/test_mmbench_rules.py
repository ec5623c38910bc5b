"""MMBench's rules: letters and hits as its own toolkit has them, on answers and groups that it was asked about once.

tests/oracles/mmbench_* holds what `can_infer`, `prefetch_circular_group`, `eval_circular_group` and `report_acc` of open-compass/VLMEvalKit
said; `meta` in each file names the version. None of its code is here.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from modelgraft_plugins.evaluating.mmbench.circular import Asked, by_chance, by_rules, groups, hit, is_whole
from modelgraft_plugins.evaluating.mmbench.extraction import letter_of
from modelgraft_plugins.evaluating.mmbench.judging import Unread, judged
from modelgraft_plugins.evaluating.mmbench.prompts import TEMPLATES, Question, prompt_of, suggested
from modelgraft_plugins.evaluating.mmbench.reporting import report
from modelgraft_plugins.evaluating.suites import Answer
from support.oracles import home_of

FILES = ("mmbench_eval.json", "mmbench_matching/meta.json", "mmbench_awkward/meta.json")
EVAL, MATCHING, AWKWARD = (json.loads(home_of(name).read_text(encoding="utf-8")) for name in FILES)


def options_of(row):
    """The options of a row of an oracle."""
    return {letter: row[letter] for letter in "ABCDE" if row.get(letter) is not None}


def asked(row):
    """A row of an oracle with what the rules read."""
    options = options_of(row)
    return Asked(index=row["index"], letter=letter_of(row["prediction"], options), right=row["GT"], options=len(options))


def test_letters_are_those_of_the_toolkit_on_its_answers():
    """Whatever is said: letters, texts, refusals, numbers."""
    wrong = [
        case for case in EVAL["extraction"] if letter_of(case["answer"], EVAL["option_sets"][case["options"]]) != (case["result"] or "")
    ]
    assert EVAL["extraction"]
    assert wrong == []


def test_letters_are_those_of_the_toolkit_on_awkward_answers():
    """Articles, letters of other scripts, options that are letters or marks or parts of each other, missing letters."""
    wrong = [case for case in AWKWARD["answers"] if letter_of(case["answer"], AWKWARD["options"][case["options"]]) != case["letter"]]
    assert len(AWKWARD["answers"]) >= 60
    assert wrong == []


def test_letters_are_those_of_the_fixture():
    """The cases of the card."""
    assert [letter_of(case["prediction"], case["choices"]) for case in MATCHING["extraction"]] == [
        case["answer"] or "" for case in MATCHING["extraction"]
    ]


def test_the_options_are_left_as_they_are():
    """The toolkit writes them in small letters for who comes after it."""
    options = {"A": "Yes", "B": "No"}
    assert letter_of("yes", options) == "A"
    assert options == {"A": "Yes", "B": "No"}


@pytest.mark.parametrize("case", EVAL["circular"], ids=lambda case: case["about"])
def test_hits_are_those_of_the_toolkit(case):
    """By rules alone, without a judge, and with one that is always right or always wrong."""
    group = [asked(row) for row in case["rows"]]
    assert [row.letter for row in group] == [letter or "" for letter in case["extracted"]]
    assert by_rules(group) == (None if case["prefetch"] is None else bool(case["prefetch"]["hit"]))
    assert hit(group) == bool(case["without_judge"]["hit"])
    for one in case["judged"]:
        replies = [row.right if "right letter" in one["judge_reply"] else "Z" for row in group]
        settled = [
            Asked(index=row.index, letter=row.letter or reply, right=row.right, options=row.options)
            for row, reply in zip(group, replies, strict=True)
        ]
        assert hit(settled) == bool(one["hit"])
        if by_rules(group) is not None:
            assert one["calls"] == 0  # the two passes agree on when nobody need be asked


@pytest.mark.parametrize("case", MATCHING["circular"], ids=lambda case: str(case["rows"][0]["index"]))
def test_hits_are_those_of_the_fixture(case):
    """A group with an answer that cannot be read is wrong."""
    ((_, group),) = groups(asked(row) for row in case["rows"]).items()
    assert hit(group) == bool(case["hit"])


class Scripted:
    """Stands for the runs of a judge: each try gives the next reply."""

    opening = SimpleNamespace(seed=5)

    def __init__(self, replies):
        self.replies, self.prompts, self.seeds = list(replies), [], []

    def ask(self, name, graph, items, *, gives, takes, seed):
        assert name == f"judge-{len(self.prompts) + 1}"
        self.prompts.append([item.inputs["question"] for item in items])
        self.seeds.append(seed)
        reply = self.replies.pop(0)
        return [Answer(id=item.id, facts={}, outputs={"answer": reply}) for item in items]


@pytest.mark.parametrize("case", EVAL["judge"], ids=lambda case: case["about"])
def test_a_judge_is_asked_and_read_as_the_toolkit_does(case):
    """The same words, as often, and the same letter of its reply."""
    letter, runs = letter_of(case["prediction"], case["options"]), Scripted(case["judge_replies"])
    if not letter:
        letter = judged([Unread("1", "x:1", case["question"], case["options"], case["prediction"])], "judge.yaml", runs)["1"]
    assert (letter, len(runs.prompts)) == (case["opt"], case["judge_calls"])
    assert [prompt for (prompt,) in runs.prompts] == [case["prompt"]] * case["judge_calls"]


def test_a_judge_that_never_says_anything_leaves_none_of_the_options():
    """After three tries with three seeds; nothing is drawn at random."""
    runs = Scripted(["", "A B", "perhaps"])
    assert judged([Unread("1", "x:1", "which?", {"A": "x1", "B": "x2"}, "hm")], "judge.yaml", runs) == {"1": "Z"}
    assert runs.seeds == [5, 6, 7]


def test_only_what_is_still_unread_is_asked_again():
    """A reply that was read is kept."""

    class Slow(Scripted):
        def ask(self, name, graph, items, **others):
            self.prompts.append([item.id for item in items])
            return [Answer(id=item.id, facts={}, outputs={"answer": "A" if int(item.id) < len(self.prompts) else "?"}) for item in items]

    runs = Slow([])
    unread = [Unread(str(number), "x:1", "which?", {"A": "x1", "B": "x2"}, "hm") for number in range(4)]
    assert judged(unread, "judge.yaml", runs) == {"0": "A", "1": "A", "2": "A", "3": "Z"}
    assert runs.prompts == [["0", "1", "2", "3"], ["1", "2", "3"], ["2", "3"]]


# -- groups and reports ---------------------------------------------------------------------------------------------------


def test_a_question_is_its_index_modulo_a_million():
    """Its rows in the order of rotations, whatever that of the file; copies without a first row are no question."""
    rows = [Asked(index=index, letter="A", right="A", options=2) for index in (1_000_007, 9, 7, 2_000_011)]
    found = groups(rows)
    assert {question: [row.index for row in group] for question, group in found.items()} == {7: [7, 1_000_007], 9: [9]}
    assert [is_whole(group) for group in found.values()] == [True, False]


def test_always_the_same_letter_is_never_right():
    """Under CircularEval; a question with one row alone is right by that row."""
    rows = [Asked(index=1 + turn * 1_000_000, letter="A", right="AB"[turn], options=2) for turn in (0, 1)]
    assert hit(rows) is False
    assert hit(rows[:1]) is True


def test_chance_is_what_letters_drawn_at_random_would_get():
    """One of two options in both orders, one of four in all four."""
    two = [Asked(index=index, letter="", right="A", options=2) for index in (1, 1_000_001)]
    four = [Asked(index=2 + turn * 1_000_000, letter="", right="A", options=4) for turn in range(4)]
    assert by_chance([two]) == 0.25
    assert by_chance([two, four]) == pytest.approx((1 / 4 + 1 / 256) / 2)


def made(rows, *, with_split):
    """A report on questions of one row each that were right or not."""
    answers, letters = [], []
    for row in rows:
        facts = {"index": row["index"], "category": row["category"], "l2-category": row["l2-category"], "picture": str(row["index"])}
        facts |= {"split": row["split"]} if with_split else {}
        answers.append(Answer(id=str(row["index"]), facts={**facts, "read_by": "rules"}, outputs={"answer": "A"}))
        letters.append(Asked(index=row["index"], letter="A", right="A" if row["hit"] else "B", options=2))
    found = report(answers, letters, mode="generate", judge="", prompt="default")
    return {score.group: score.value for score in found.scores if score.metric == "CircularEval accuracy"}


def expected(line, of_split):
    """A line of the toolkit's report by the names of ours."""
    short = {abbreviation: name for name, abbreviation in EVAL["report"]["abbreviations"].items()}
    named = {key: f"ability {short[key]}" if key in short else f"category {key}" for key in line if key not in ("split", "Overall")}
    return {f"{name}{of_split}": line[key] for key, name in named.items() if line[key] is not None}


def test_a_report_by_split_is_that_of_the_toolkit():
    """Overall, every ability and every category of each split; what a split has nothing of is left out."""
    got, wanted = made(EVAL["report"]["rows"], with_split=True), {}
    for line in EVAL["report"]["with_split"]:
        wanted |= {f"split {line['split']}": line["Overall"], **expected(line, f" of {line['split']}")}
    hits = [row["hit"] for row in EVAL["report"]["rows"]]
    assert got == pytest.approx({"": sum(hits) / len(hits), **wanted}, abs=1e-12)


def test_a_report_without_splits_is_that_of_the_toolkit():
    """One line for all."""
    (line,) = EVAL["report"]["without_split"]
    assert made(EVAL["report"]["rows"], with_split=False) == pytest.approx({"": line["Overall"], **expected(line, "")}, abs=1e-12)


# -- prompts --------------------------------------------------------------------------------------------------------------


WITH_HINT = {
    "default": "Hint: Look up.\nQuestion: What is it?\nOptions:\nA. a cat\nB. a dog\n"
    "Please select the correct answer from the options above. \n",
    "llava": "Look up.\nWhat is it?\nA. a cat\nB. a dog\nAnswer with the option's letter from the given choices directly.",
    "qwen_vl": "Context: Look up.\nQuestion: What is it?\nOptions: A. a cat\nB. a dog\nAnswer:",
    "openflamingo": "Hint: Look up.\nQuestion: What is it?\nOptions:\nA. a cat\nB. a dog\n"
    "Please select the correct answer from the options above. \nAnswer: ",
    "kosmos2": "<grounding> Question: Hint: Look up.\nWhat is it?\nA. a cat\nB. a dog\n\n"
    "Answer with the option’s letter from the given choices directly. Answer: ",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_prompts_are_those_of_the_toolkits(template):
    """With a hint, and without one."""
    question = Question(text="What is it?", options={"A": "a cat", "B": "a dog"}, hint="Look up.")
    assert prompt_of(template, question) == WITH_HINT[template]
    without = WITH_HINT[template].replace("Context: Look up.", "Context: N/A").replace("Hint: Look up.\n", "").replace("Look up.\n", "")
    assert prompt_of(template, Question(text="What is it?", options={"A": "a cat", "B": "a dog"})) == without


def test_a_chinese_question_asks_for_the_letter_in_chinese():
    """As LLaVA does; a judge is asked in Chinese too."""
    question = Question(text="这是什么?", options={"A": "猫", "B": "狗"})
    assert prompt_of("llava", question) == "这是什么?\nA. 猫\nB. 狗\n请直接回答选项字母。"
    assert Unread("1", "x:1", question.text, question.options, "好").prompt.endswith(
        "问题: 这是什么??\n选项: A. 猫\nB. 狗\n答案: 好\n输出: "
    )


@pytest.mark.parametrize(
    ("words", "template"),
    [
        (["llava"], "llava"),
        (["mine", "liuhaotian/llava-v1.5-7b"], "llava"),
        (["mine", "Qwen/Qwen-VL-Chat"], "qwen_vl"),
        (["openflamingo"], "openflamingo"),
        (["mine", "microsoft/kosmos-2-patch14-224"], "kosmos2"),
        (["blip2", "Salesforce/blip2-opt-2.7b"], "default"),
    ],
)
def test_a_graph_suggests_its_prompt(words, template):
    """By its name, or a source of it."""
    assert suggested(words) == template
