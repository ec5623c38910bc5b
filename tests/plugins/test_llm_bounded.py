"""Answers of a given form, answers that are one of given texts, and settings of single records: alone and in batches, torch and onnx."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import transformers as hf

import modelgraft as mg
from modelgraft.kernel.words.errors import InputError, ModelgraftError
from modelgraft_plugins.llm import CausalConfig
from support.tokenizers import byte_level

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]  # of exporters
PROMPTS = ["a cat sits on", "the", "how many are there? so many"]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"enum": ["cat", "dog"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "tame": {"type": "boolean"},
    },
    "required": ["name", "count", "tame"],
    "additionalProperties": False,
}
GRAPH = """\
modelgraft: 1
name: bounded
inputs: {{prompt: text, texts: "optional[list[text]]", settings: "optional[object]"}}
nodes:
  llm:
    use: llm/causal
    from: ./llm
    with: {config}
    in: {{prompt: inputs.prompt, continuations: inputs.texts, settings: inputs.settings}}
outputs: {{text: llm.text}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model with random weights, which would say anything."""
    torch.manual_seed(4)
    sizes = {
        "vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**sizes))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path_factory.mktemp("bounded")
    model.save_pretrained(path / "llm")
    byte_level(begin="<s>", end="</s>", pad="<pad>", prefix=True, extra=()).save_pretrained(path / "llm")
    return path


def opened(folder: Path, *, backend: str = "torch", **config: Any) -> mg.Pipeline:
    path = folder / "bounded.yaml"
    path.write_text(GRAPH.format(config=json.dumps({"max_new_tokens": 60, **config}, ensure_ascii=False)))
    return mg.open(path, backend=backend)


EITHER = pytest.mark.parametrize("backend", ["torch", pytest.param("onnx", marks=pytest.mark.slow)])


@EITHER
@pytest.mark.parametrize("more", [{}, {"temperature": 1.5}], ids=["greedy", "drawn"])
@pytest.mark.parametrize(
    "pattern", ["yes|no|I do not know", r"[0-9]{1,3} (cat|dog)s?", r"(red|green)(, (red|green)){2}", "naïve façade 漢字|🙂{2,3}"]
)
def test_answers_match_an_expression(folder: Path, backend: str, more: dict[str, Any], pattern: str):
    """Whole, in every record; a record alone answers as in the batch."""
    with opened(folder, backend=backend, matching=pattern, **more) as pipeline:
        texts = pipeline.run(prompt=PROMPTS)["text"]
        assert all(re.fullmatch(pattern, text) for text in texts), texts
        assert [pipeline.run(prompt=prompt)["text"] for prompt in PROMPTS] == texts


@pytest.mark.parametrize("seed", range(3))
def test_answers_are_documents_of_a_schema(folder: Path, seed: int):
    with opened(folder, json_schema=SCHEMA, temperature=1.2, max_new_tokens=120) as pipeline:
        for text in pipeline.run(prompt=PROMPTS, seed=seed)["text"]:
            jsonschema.validate(json.loads(text), SCHEMA)


def test_an_answer_that_is_cut_is_told(folder: Path):
    with opened(folder, matching="[a-z]{40}", max_new_tokens=7) as pipeline:
        result = pipeline.run(prompt=PROMPTS[:2])
    assert not any(re.fullmatch("[a-z]{40}", text) for text in result["text"])
    assert [warning for warning in result.warnings if "ended before it matches" in warning] == [
        f"llm: the answer of record {row} ended before it matches `matching`: raise max_new_tokens (7)" for row in range(2)
    ]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"matching": "("}, r"llm.matching: '\(' is not understood"),
        ({"json_schema": {"type": "nothing"}}, "llm.json_schema is not understood: Invalid type: nothing"),
        ({"matching": "abc", "suppress_tokens": list(range(3, 320))}, "the answer of record 0 cannot go on"),
    ],
)
def test_a_form_that_cannot_be_is_told(folder: Path, config: dict[str, Any], told: str):
    with opened(folder, **config) as pipeline, pytest.raises(ModelgraftError, match=told):
        pipeline.run(prompt="a")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"matching": "a", "json_schema": {}}, "matching and json_schema both say what the answer may be"),
        ({"matching": "a", "choices": ["a"]}, "matching and choices both say"),
        ({"matching": "a", "beams": 3}, "matching bounds one answer, and beams: 3"),
        ({"choices": ["a", ""]}, "an empty text cannot be judged"),
        ({"prompt": "{settings}"}, "takes settings of single records"),
    ],
)
def test_bounds_that_exclude_each_other_are_refused(config: dict[str, Any], told: str):
    with pytest.raises(ValueError, match=told):
        CausalConfig(**config)


@EITHER
def test_the_answer_is_the_likeliest_choice(folder: Path, backend: str):
    """As the whole texts, read by transformers behind the prompt, are likely: by the sum or the mean of their tokens."""
    choices = [" yes", " no", " it is quite impossible to say", "?"]
    model, tokenizer = hf.LlamaForCausalLM.from_pretrained(folder / "llm").eval(), hf.AutoTokenizer.from_pretrained(folder / "llm")
    totals = torch.empty(len(PROMPTS), len(choices))
    means = torch.empty_like(totals)
    for row, prompt in enumerate(PROMPTS):
        before = tokenizer(prompt).input_ids
        for place, choice in enumerate(choices):
            ids = tokenizer(prompt + choice).input_ids
            with torch.no_grad():
                each = model(torch.tensor([ids])).logits[0].log_softmax(-1)[torch.arange(len(before) - 1, len(ids) - 1), ids[len(before) :]]
            totals[row, place], means[row, place] = each.sum(), each.mean()
    for config, likely in (({}, totals), ({"choose": "mean"}, means)):
        wanted = [choices[place] for place in likely.argmax(-1).tolist()]
        with opened(folder, backend=backend, choices=choices, **config) as pipeline:
            found = pipeline.run(prompt=PROMPTS, outputs=["text", "llm.likelihoods", "llm.ids"])
            assert found["text"] == wanted
            torch.testing.assert_close(found["llm.likelihoods"], totals, rtol=0, atol=1e-3)
            assert [pipeline.run(prompt=prompt)["text"] for prompt in PROMPTS] == wanted
    with opened(folder, backend=backend, choose="sum") as pipeline:
        some = [choices, choices[1:3], choices[2:3]]
        wanted = [texts[int(totals[row, [choices.index(text) for text in texts]].argmax())] for row, texts in enumerate(some)]
        assert pipeline.run(prompt=PROMPTS, texts=some)["text"] == wanted


@EITHER
def test_records_have_settings_of_their_own(folder: Path, backend: str):
    """Each answers as alone in a graph with these settings; what is filled up is filled up as ever."""
    settings: list[dict[str, Any]] = [
        {"max_new_tokens": 4},
        {"temperature": 0.9, "top_p": 0.8, "seed": 3, "max_new_tokens": 9},
        {"matching": "[ab]{3}c"},
        {"beams": 3, "max_new_tokens": 5},
        {},
    ]
    prompts = [*PROMPTS, "and so", "a"]
    alone = []
    for prompt, own in zip(prompts, settings, strict=True):
        config = {name: value for name, value in own.items() if name != "seed"}
        with opened(folder, backend=backend, **{"max_new_tokens": 12, **config}) as pipeline:
            seeds = {"settings": {"seed": own["seed"]}} if "seed" in own else {}
            alone.append(pipeline.run(prompt=prompt, **seeds, outputs=["text", "llm.ids", "llm.logits"]))
    with opened(folder, backend=backend, max_new_tokens=12) as pipeline:
        found = pipeline.run(prompt=prompts, settings=settings, outputs=["text", "llm.ids", "llm.logits"])
    assert found["text"] == [one["text"] for one in alone]
    for row, one in enumerate(alone):
        ids = one["llm.ids"][0].tolist()
        assert found["llm.ids"][row].tolist() == ids + [-1] * (found["llm.ids"].shape[1] - len(ids))
        torch.testing.assert_close(found["llm.logits"][row], one["llm.logits"][0], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"temprature": 1}, "there is no setting 'temprature'. Did you mean 'temperature'"),
        ({"temperature": -1}, r"llm.settings of record 0: temperature is -1: input should be greater than or equal to 0$"),
        ({"stop": " "}, r"llm.settings of record 0: stop is ' ': input should be a list$"),
        ({"stop": [""]}, r"llm.settings of record 0: stop: an empty string would end every answer at once$"),
        ({"seed": "three"}, "seed is 'three', wanted a whole number"),
        ("hot", "are 'hot', wanted an object"),
    ],
)
def test_settings_that_are_none_are_told(folder: Path, settings: Any, told: str):
    with opened(folder) as pipeline, pytest.raises((InputError, ModelgraftError), match=told):
        pipeline.run(prompt="a", settings=settings)


def test_pieces_of_a_record_are_those_of_its_answer(folder: Path):
    """A stream tells of the record in the batch, whichever settings it has."""
    settings = [{"max_new_tokens": 3}, {"max_new_tokens": 6}, {"max_new_tokens": 3}]
    with opened(folder) as pipeline, pipeline.stream(prompt=PROMPTS, settings=settings) as events:
        heard = [(event.record, event.text) for event in events if event.kind == "token"]
        texts = events.result["text"]
    assert ["".join(text for record, text in heard if record == row) for row in range(3)] == texts
