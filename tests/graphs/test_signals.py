"""Whole graphs whose language model asks others: who is loaded and called for it, and what comes back where."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

import modelgraft as mg
from modelgraft.installed.discovery import assemble
from modelgraft_plugins import formats, llm, onnx, routers
from modelgraft_plugins import torch as torch_backend
from support import checkpoints, signalling
from support.running import graph_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

SMALLER = pytest.mark.whole("tests/plugins/test_taps.py::test_greedy_answers_are_tapped_as_they_are_written")
REGISTRY = assemble({
    "routers": routers, "torch": torch_backend, "onnx": onnx, "llm": llm, "formats": formats, "signalling": signalling.plugin(),
})  # fmt: skip
BRANCHES = """
  asks:
    use: router/signal-tokens
    with: {media: {image: {tokens: "[IMG{}]", count: 2}, sound: "[AUD]", hits: "[RET]"}}
    in: {pieces: llm.pieces, states: llm.states}
  draw: {use: toy/draw, in: {states: asks.image_states}, lazy: true}
  picture: {use: toy/picture, in: {colour: draw}}
  hum: {use: toy/hum, in: {states: asks.sound_states}, lazy: true, runtime: {keep: false}}
  sound: {use: toy/sound, in: {wave: hum, text: asks.sound_text}, runtime: {failure: mark}}
  find: {use: toy/find, in: {text: asks.hits_text}}
  reply:
    use: router/interleave
    with: {media: {image: image, sound: audio, hits: "list[image]"}}
    in: {parts: asks.parts, image: picture, sound: sound, hits: find}
outputs: {conversation: reply.conversation, text: reply.text}
"""
SAID = f"""
modelgraft: 1
inputs: {{said: text}}
nodes:
  llm: {{use: toy/spell, in: {{text: inputs.said}}}}{BRANCHES}"""


def opened(folder: Path, text: str = SAID, **more: Any) -> mg.Pipeline:
    signalling.Draw.loads.clear()
    signalling.Draw.calls.clear()
    return mg.open(graph_of(REGISTRY, folder, text), init="random", cache_bytes=0, **more)


def told(conversation: Any) -> list[Any]:
    """The parts of the one message, in a form that can be compared."""
    (message,) = conversation
    assert message["role"] == "assistant"
    return [_plain(part) for part in message["content"]]


def _plain(part: dict[str, Any]) -> Any:
    value = part[part["type"]]
    if part["type"] == "text":
        return value
    return ("image", value.size, value.getpixel((0, 0))) if part["type"] == "image" else ("audio", value.samples.tolist())


REPLIES = [
    "A cat|[IMG0]|[IMG1]| that purrs|[AUD]|, and again|[IMG0]|[IMG1]|.",
    "Nothing to see.",
    "two words|[RET]| of silence|[AUD]|",
    "[IMG0]|[IMG1]",
]


def shade(place: int) -> tuple[str, tuple[int, int], tuple[int, int, int]]:
    """The picture of a span whose first token stands at a place: the sigmoid of an eighth of it."""
    value = int(255 * torch.sigmoid(torch.tensor(place / 8)).item())
    return ("image", (2, 2), (value, value, value))


def test_results_come_back_in_the_order_of_the_text(tmp_path):
    """Two pictures and a sound in one reply; each branch is called once for all records, and nobody else is bothered."""
    with opened(tmp_path) as pipeline:
        result = pipeline.run(said=REPLIES)
        first, nothing, found, bare = map(told, result["conversation"])
        assert [part if isinstance(part, str) else part[0] for part in first] == [
            "A cat",
            "image",
            " that purrs",
            "audio",
            ", and again",
            "image",
            ".",
        ]
        assert (first[1], first[5]) == (shade(1), shade(6))
        assert first[3][1] == [[pytest.approx(torch.sigmoid(torch.tensor(4 / 8)).item())] * 3]
        assert nothing == ["Nothing to see."]
        assert found == [
            "two words",
            ("image", (1, 1), (0, 0, 0)),
            ("image", (1, 1), (1, 0, 0)),
            " of silence",
            "[no sound: it could not be made]",
        ]
        assert bare == [shade(0)]
        assert result["text"] == ["A cat that purrs, and again.", "Nothing to see.", "two words of silence", ""]
        assert sorted(signalling.Draw.calls) == [("draw", 3), ("hum", 2)]
        assert [text for text in result.warnings if "out of memory" in text]
        alone = [pipeline.run(said=reply) for reply in REPLIES]
        assert [told(one["conversation"]) for one in alone] == [first, nothing, found, bare]
        assert [one["text"] for one in alone] == result["text"]


def test_what_nobody_asks_is_not_loaded_and_what_is_not_kept_goes(tmp_path):
    """Loads, calls and releases: lazily, once, and under the ledger."""
    with opened(tmp_path) as pipeline:
        ready = dict(signalling.Draw.loads)
        for _ in range(2):
            pipeline.run(said="Nothing.")
        assert (ready, dict(signalling.Draw.loads), signalling.Draw.calls) == ({}, {}, [])
        with pipeline.stream(said=[REPLIES[0], "Nothing."]) as events:
            heard = [(event.kind, event.node) for event in events if event.kind in ("node-loaded", "node-released")]
        assert ("node-released", "hum") in heard
        assert ("node-released", "draw") not in heard
        assert dict(signalling.Draw.loads) == {"draw": 1, "hum": 1}
        pipeline.run(said=REPLIES[3])
        assert dict(signalling.Draw.loads) == {"draw": 1, "hum": 1}
        pipeline.run(said=REPLIES[2])
        assert dict(signalling.Draw.loads) == {"draw": 1, "hum": 2}
        assert "draw" in pipeline._loader.loaded()
        assert "hum" not in pipeline._loader.loaded()


def test_generators_take_turns_under_a_limit(tmp_path):
    """With room for one of them the picture's goes for the sound's, and the results are the same."""
    text = SAID.replace("lazy: true, runtime: {keep: false}", "lazy: true")
    with opened(tmp_path, text) as pipeline:
        wanted = [told(one) for one in pipeline.run(said=REPLIES)["conversation"]]
    with opened(tmp_path, text, max_memory=4 * signalling.WEIGHTS + 100) as pipeline:
        with pipeline.stream(said=REPLIES) as events:
            heard = [event.node for event in events if event.kind == "node-released"]
        assert [told(one) for one in events.result["conversation"]] == wanted
        assert heard in (["draw"], ["hum"])


LETTERS = ["[IMG0]", "[IMG1]", "[AUD]", "[RET]"]
WRITTEN = """
modelgraft: 1
inputs: {prompt: text}
nodes:
  llm:
    use: llm/causal
    from: ./model
    with:
      prompt: "{prompt}"
      max_new_tokens: 7
      min_new_tokens: 7
      extra_tokens: ["[IMG0]", "[IMG1]", "[AUD]", "[RET]"]
      states: {layers: [0, -1], at: ["[IMG0]", "[IMG1]", "[AUD]", "[RET]"]}
      sequence_bias: %s
    in: {prompt: inputs.prompt}%s"""
PROMPTS = ["a photo of", "a cat and a dog on it", "one"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[checkpoints.Checkpoint, Path]:
    folder = tmp_path_factory.mktemp("signals")
    return checkpoints.llama(folder / "model"), folder


def written(made: tuple[checkpoints.Checkpoint, Path], *, outputs: str = "", **more: Any) -> mg.Pipeline:
    """A tiny language model that is made to write words and signals in turn: word, a picture, word, a sound, what it likes."""
    checkpoint, folder = made
    size, words = len(checkpoint.processor), checkpoint.processor("cat dog", add_special_tokens=False).input_ids
    one, two, sound, _ = range(size, size + 4)
    chain = [words[0], one, two, words[-1], sound]
    bias = [[[token], -200.0] for token in range(size, size + 4)]
    bias += [[[before, after], 600.0] for before, after in pairwise(chain)]
    bias += [[[words[0]], 100.0]]
    return opened(folder, WRITTEN % (bias, BRANCHES) + outputs, **more)


OUTPUTS = ["conversation", "text", "llm.text", "llm.ids", "llm.states", "asks.image_states", "asks.parts"]


@pytest.mark.parametrize("beams", [1, 2])
def test_a_language_model_asks_with_the_states_of_its_own_pass(made, beams, tmp_path):
    """Both layers at the tokens' own positions, as transformers has them when it reads prompt and answer at once; media come back."""
    checkpoint, _ = made
    text = WRITTEN.replace("min_new_tokens: 7", f"min_new_tokens: 7\n      beams: {beams}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "WRITTEN", text)
        with written(made) as pipeline:
            found = pipeline.run(prompt=PROMPTS, outputs=OUTPUTS)
            alone = [pipeline.run(prompt=prompt, outputs=OUTPUTS) for prompt in PROMPTS]
    model = signals_model(checkpoint)
    for row, prompt in enumerate(PROMPTS):
        ids = found["llm.ids"][row].tolist()
        asked = checkpoint.processor(prompt).input_ids
        with torch.no_grad():
            output = model(torch.tensor([[*asked, *ids]]), output_hidden_states=True)
        place = len(asked) + ids.index(len(checkpoint.processor))
        spans = found["asks.image_states"][row]
        assert len(spans) >= 1
        for layer, index in ((0, 0), (-1, 1)):
            torch.testing.assert_close(spans[0][index], output.hidden_states[layer][0, place : place + 2], atol=1e-5, rtol=1e-5)
        assert "[IMG" not in found["text"][row]
        assert found["text"][row].replace(" ", "") == found["llm.text"][row].replace(" ", "")
        assert told(alone[row]["conversation"]) == told(found["conversation"][row])
        kinds = [part["type"] for part in found["conversation"][row][0]["content"]]
        assert kinds[:4] == ["text", "image", "text", "audio"]


def signals_model(checkpoint: checkpoints.Checkpoint) -> Any:
    """The model with rows for the added tokens, each the mean of the others, as the source lacks them."""
    model = checkpoint.model
    if model.get_input_embeddings().num_embeddings > len(checkpoint.processor):
        return model
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        mean = table.weight.detach().mean(0, keepdim=True).expand(4, -1)
        table.weight = torch.nn.Parameter(torch.cat([table.weight.detach(), mean]))
    return model


def test_words_stream_while_they_are_written_and_signals_do_not_show(made, monkeypatch):
    """Pieces come before the generators have drawn, join to the text, and hold no signal; a span that the end cuts is told."""
    read, waited, draw = Event(), [], signalling.Draw.forward
    monkeypatch.setattr(signalling.Draw, "forward", lambda self, states: waited.append(read.wait(timeout=60)) or draw(self, states))
    with written(made) as pipeline:
        with pipeline.stream(prompt=PROMPTS[0]) as events:
            pieces = []
            for event in events:
                if event.kind == "token":
                    pieces.append(event.text)
                    read.set()
        text = pipeline.run(prompt=PROMPTS[0])["text"]
    assert waited
    assert all(waited)
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")
    assert len(pieces) > 1
    assert not any("[" in piece for piece in pieces)


def test_a_span_that_the_longest_answer_cuts_is_told_and_left_out(made):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "WRITTEN", WRITTEN.replace("new_tokens: 7", "new_tokens: 2"))
        with written(made) as pipeline:
            result = pipeline.run(prompt=PROMPTS[0])
    assert any(
        "record 1 of 1 holds a broken span of image: [IMG0], wanted [IMG0] to [IMG1] in their order; it is left out" in text
        for text in result.warnings
    )
    assert [part["type"] for part in result["conversation"][0]["content"]] == ["text"]


FORCED = """
modelgraft: 1
inputs: {prompt: text}
nodes:
  llm:
    use: llm/causal
    from: ./model
    with: {max_new_tokens: 0, extra_tokens: ["[RET]"], states: {at: ["[RET]"]}}
    in: {prompt: inputs.prompt}
  asks:
    use: router/signal-tokens
    with: {media: {hits: "[RET]"}}
    in: {pieces: llm.pieces, states: llm.states, prompt_pieces: llm.prompt_pieces, prompt_states: llm.prompt_states}
  find: {use: toy/find, in: {text: asks.hits_text}}
  reply: {use: router/interleave, with: {media: {hits: "list[image]"}}, in: {parts: asks.parts, hits: find}}
outputs: {conversation: reply.conversation, vector: asks.hits_vector}
"""


@pytest.mark.parametrize("backend", ["torch", pytest.param("onnx", marks=[pytest.mark.slow, SMALLER])])
def test_a_prompt_that_ends_with_a_signal_asks_though_nothing_is_written(made, backend):
    """As FROMAGe is made to retrieve: the query is the last state at [RET], of one pass; what the prompt asked earlier does not count."""
    checkpoint, folder = made
    prompts = ["a photo of a cat [RET]", "a dog [RET] and one", "show a dog [RET] then a cat[RET]"]
    with opened(folder, FORCED, backend=backend, **({"fallback": "torch"} if backend == "onnx" else {})) as pipeline:
        found = pipeline.run(prompt=prompts)
        alone = [pipeline.run(prompt=prompt) for prompt in prompts]
    assert [len(vectors) for vectors in found["vector"]] == [1, 0, 1]
    table = checkpoint.model.get_input_embeddings().weight.detach()[: len(checkpoint.processor)]
    embed = torch.cat([table, table.mean(0, keepdim=True)])
    for row in (0, 2):
        pieces = prompts[row].split("[RET]")[:-1]
        ids = list(checkpoint.processor(pieces[0]).input_ids)
        for piece in pieces[1:]:
            ids += [len(table), *checkpoint.processor(piece, add_special_tokens=False).input_ids]
        with torch.no_grad():
            output = checkpoint.model(inputs_embeds=embed[[*ids, len(table)]][None], output_hidden_states=True)
        torch.testing.assert_close(found["vector"][row][0], output.hidden_states[-1][0, -1], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(alone[row]["vector"][0], found["vector"][row][0], atol=1e-4, rtol=1e-4)
    assert [told(one) for one in found["conversation"]] == [["[no hits: it could not be made]"], [""], ["[no hits: it could not be made]"]]


@SMALLER
@pytest.mark.slow
def test_the_same_on_onnx(made):
    """Words, asks and media of torch, from an exported language model."""
    with written(made) as pipeline:
        wanted = pipeline.run(prompt=PROMPTS, outputs=OUTPUTS)
    with written(made, backend="onnx", fallback="torch") as pipeline:
        found = pipeline.run(prompt=PROMPTS, outputs=OUTPUTS)
    assert found["text"] == wanted["text"]
    assert found["asks.parts"] == wanted["asks.parts"]
    for mine, theirs in zip(found["asks.image_states"], wanted["asks.image_states"], strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
