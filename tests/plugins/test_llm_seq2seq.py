"""llm/seq2seq against transformers: T5 and gated T5, and Whisper's decoder on a memory from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import InputError
from modelgraft_plugins import llm
from support import checkpoints
from support.open_part import Part, configured, open_part
from support.tokenizers import byte_level

REGISTRY = assemble({"llm": llm})
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32; a tied T5 of random numbers has logits of about 6
TEXTS = ["a photo of", "Question: how many cats are there? Answer: one or two", "x"]
START, PLAIN = "<|startoftranscript|>", "<|notimestamps|>"


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> checkpoints.Checkpoint:
    """A tied T5."""
    return checkpoints.t5(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> checkpoints.Checkpoint:
    """A Whisper whose encoder has other sizes than its decoder; its timestamps follow the last token, as in the real one."""
    folder = tmp_path_factory.mktemp("whisper")
    tokenizer = byte_level(begin=None, end="<|endoftext|>", extra=(START,))
    tokenizer.add_tokens([PLAIN], special_tokens=True)
    config = hf.WhisperConfig(
        vocab_size=len(tokenizer), d_model=24, encoder_layers=3, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=3,
        encoder_ffn_dim=40, decoder_ffn_dim=37, num_mel_bins=8, max_source_positions=20, max_target_positions=30, pad_token_id=0,
        bos_token_id=0, eos_token_id=0, decoder_start_token_id=tokenizer.convert_tokens_to_ids(START),
    )  # fmt: skip
    model = hf.WhisperForConditionalGeneration(config)
    checkpoints.randomise(model, seed=3)
    given = {"no_timestamps_token_id": len(tokenizer) - 1, "suppress_tokens": [5, 9, 11, 263], "begin_suppress_tokens": [0, 183]}
    for name, value in {**given, "is_multilingual": False, "max_length": 30, "return_timestamps": False}.items():
        setattr(model.generation_config, name, value)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return checkpoints.Checkpoint(folder, model, tokenizer)


def opened(folder: Path | str, **config: Any) -> Part:
    """The component on a checkpoint."""
    return open_part(REGISTRY, "llm/seq2seq", str(folder), **config)


def reference(checkpoint: checkpoints.Checkpoint, texts: list[str], **settings: Any) -> list[str]:
    """What transformers writes, one prompt at a time."""
    answers = []
    for text in texts:
        ids = checkpoint.processor(text, return_tensors="pt", return_token_type_ids=False)
        written = checkpoint.model.generate(**ids, **{"max_new_tokens": 12, "do_sample": False, **settings})
        answers.append(checkpoint.processor.decode(written[0], skip_special_tokens=True))
    return answers


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [({}, {}), ({"beams": 3}, {"num_beams": 3}), ({"repetition_penalty": 1.7}, {"repetition_penalty": 1.7}), ({"min_new_tokens": 5},) * 2],
)
def test_t5_writes_what_transformers_writes(t5, ours, theirs):
    """A batch of unequal prompts, against one prompt at a time."""
    assert opened(t5.folder, max_new_tokens=12, **ours)(TEXTS)["text"] == reference(t5, TEXTS, **theirs)


@pytest.mark.parametrize("layers", [1, 3])
def test_a_decoder_may_have_other_layers_than_its_encoder(layers, tmp_path):
    """Two layers read, one or three write."""
    tokenizer = checkpoints.t5_tokenizer()
    config = checkpoints.t5_config(tokenizer)
    config.num_decoder_layers = layers
    model = hf.T5ForConditionalGeneration(config).eval()
    checkpoints.randomise(model, seed=4)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    saved = checkpoints.Checkpoint(tmp_path, model, tokenizer)
    wanted = reference(saved, TEXTS, use_cache=False)  # the cache that transformers 5.23 makes has as many layers as the encoder
    assert opened(tmp_path, max_new_tokens=12)(TEXTS)["text"] == wanted


def test_first_logits_of_t5(t5):
    """The logits after the start token, padding or not."""
    found = opened(t5.folder, max_new_tokens=0)(TEXTS)
    with torch.no_grad():
        start = torch.tensor([[t5.model.config.decoder_start_token_id]])
        rows = [t5.model(**t5.processor(text, return_tensors="pt"), decoder_input_ids=start).logits[:, -1] for text in TEXTS]
    torch.testing.assert_close(found["logits"], torch.cat(rows), **CLOSE)
    assert found["text"] == ["", "", ""]


def test_an_own_head_is_kept_when_the_file_has_one(tmp_path):
    """Flan-T5 files hold a head beside the embeddings; transformers 5 builds it tied all the same."""
    checkpoint = checkpoints.t5(tmp_path)
    model = checkpoint.model
    model.lm_head = torch.nn.Linear(26, model.config.vocab_size, bias=False)
    checkpoints.randomise(model, seed=8)
    model.save_pretrained(tmp_path)
    part = opened(tmp_path, max_new_tokens=12)
    assert part.node.config.tie_word_embeddings is False
    assert part(TEXTS)["text"] == reference(checkpoint, TEXTS)
    assert part.module.state_dict().keys() == {f"model.{name}" for name in model.state_dict()}


def test_whisper_hears_what_transformers_hears(whisper):
    """Start tokens, suppressed tokens and the longest answer come from the source; the encoder is left to another node."""
    features = torch.randn(3, 8, 40, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        memory = whisper.model.model.encoder(features).last_hidden_state
        wanted = whisper.processor.batch_decode(whisper.model.generate(features), skip_special_tokens=True)
    part = opened(whisper.folder)
    assert part.outputs["text"] == "text"
    assert {name: str(port) for name, port in part.node.in_ports.items()} == {
        "memory": "float[batch frames 24]",
        "continuations": "optional[list[text]]",
        "settings": "optional[object]",
        "target": "optional[text]",
        "memory_mask": "optional[bool[batch frames]]",
    }
    assert part.node.config.max_new_tokens == 28  # 30 positions, less two start tokens
    assert part(memory)["text"] == wanted
    assert not [name for name in part.module.state_dict() if "encoder." in name.replace("encoder_attn", "")]


def masked(part: Part, memory: torch.Tensor, mask: torch.Tensor) -> Any:
    """What is written of those vectors of a memory that are there."""
    return part.loop.run([memory, None, None, None, mask], part.module.parts(["decoder"]), wanted=frozenset({"text", "logits"}))


def test_of_a_memory_with_a_mask_what_is_there_is_read(t5):
    """Records with fewer vectors than others answer as each alone, whatever stands in the places that are not theirs."""
    memory = torch.randn(3, 20, 26, generator=torch.Generator().manual_seed(8))
    lengths = (20, 7, 13)
    mask = torch.arange(20) < torch.tensor(lengths)[:, None]
    part = opened(t5.folder, encoder="none", max_new_tokens=12)
    alone = [part(memory[row : row + 1, :length]) for row, length in enumerate(lengths)]
    both = masked(part, memory, mask)
    assert both["text"] == [one["text"][0] for one in alone]
    torch.testing.assert_close(both["logits"], torch.cat([one["logits"] for one in alone]), **CLOSE)


def test_whisper_reads_memories_of_one_length(whisper):
    """Its attention has no mask, so a batch of unlike lengths is refused; of like ones what is masked is left out."""
    memory, part = torch.randn(2, 20, 24, generator=torch.Generator().manual_seed(8)), opened(whisper.folder)
    mask = torch.arange(20) < torch.tensor([[7], [7]])
    assert masked(part, memory, mask)["text"] == part(memory[:, :7])["text"]
    mask[1, 7] = True
    with pytest.raises(InputError, match="memory_mask leaves 7, 8 vectors of the records of a batch, and whisper reads equally many"):
        masked(part, memory, mask)


def test_whisper_judges_what_may_be_said(whisper):
    """Texts behind its start tokens, by the decoder alone: as transformers has them when it reads both at once."""
    features = torch.randn(2, 8, 40, generator=torch.Generator().manual_seed(2))
    part, texts = opened(whisper.folder), [[" a cat", "s"], [" one"]]
    start = part.loop.start_ids()
    with torch.no_grad():
        memory = whisper.model.model.encoder(features).last_hidden_state
        found = part(memory, texts)["likelihoods"]
        for row, some in enumerate(texts):
            for place, text in enumerate(some):
                tokens = whisper.processor(text, add_special_tokens=False).input_ids
                begun = torch.tensor([[*start, *tokens]])
                logits = whisper.model(input_features=features[row : row + 1], decoder_input_ids=begun).logits[0, len(start) - 1 : -1]
                wanted = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).sum()
                torch.testing.assert_close(found[row, place], wanted, rtol=0.0, atol=1e-4)
    assert torch.isinf(found[1, 1])


def test_the_start_may_be_given_as_tokens(whisper):
    """By their strings, and the decoder by its name as a part."""
    memory = torch.randn(2, 20, 24, generator=torch.Generator().manual_seed(7))
    wanted = opened(whisper.folder)(memory)["text"]
    assert opened(f"{whisper.folder}#decoder", decoder_prompt=(START, PLAIN))(memory)["text"] == wanted
    assert opened(whisper.folder, decoder_prompt=(START,))(memory)["text"] != wanted


def test_an_unknown_start_token_is_named(whisper):
    """With its own text."""
    with pytest.raises(InputError, match=r"decoder_prompt: the tokenizer has no token '<\|xx\|>'"):
        opened(whisper.folder, decoder_prompt=(START, "<|xx|>"))(torch.zeros(1, 20, 24))


def test_each_component_names_the_other_for_the_wrong_family(t5, tmp_path):
    """An encoder-decoder in llm/causal, a decoder in llm/seq2seq."""
    with pytest.raises(ValueError, match="t5 model, an encoder-decoder: use llm/seq2seq"):
        configured(REGISTRY, "llm/causal", str(t5.folder))
    checkpoint = checkpoints.llama(tmp_path)
    with pytest.raises(ValueError, match="llama model, a decoder without an encoder: use llm/causal"):
        configured(REGISTRY, "llm/seq2seq", str(checkpoint.folder))


def test_an_answer_that_is_given_to_a_t5_is_read_behind_its_start_token(t5):
    """Beside shorter ones; with the end token, which is learnt too, and with the states of its own tokens, of every layer."""
    part = opened(t5.folder, states={"layers": [0, 1, -1]})
    wanted = ("target_logits", "target_ids", "target_states")
    answers = ["a cat", "two dogs and one cat", "no"]
    found = part.loop.run([TEXTS, None, None, answers], part.module.parts(["decoder"]), wanted=frozenset(wanted))
    for row, (text, answer) in enumerate(zip(TEXTS, answers, strict=True)):
        read, labels = t5.processor(text, return_tensors="pt").input_ids, t5.processor(answer, return_tensors="pt").input_ids
        count = labels.shape[1]
        assert found["target_ids"][row].tolist() == [*labels[0].tolist(), *[-100] * (found["target_ids"].shape[1] - count)]
        with torch.no_grad():
            theirs = t5.model(input_ids=read, labels=labels, output_hidden_states=True)
            behind = torch.cat([torch.tensor([[t5.model.config.decoder_start_token_id]]), labels], 1)
            hidden = t5.model(input_ids=read, decoder_input_ids=behind, output_hidden_states=True).decoder_hidden_states
        torch.testing.assert_close(found["target_logits"][row, :count], theirs.logits[0], rtol=1e-5, atol=5e-5)
        for layer, number in enumerate((0, 1, -1)):
            torch.testing.assert_close(found["target_states"][row, layer, :count], hidden[number][0, 1:], rtol=1e-5, atol=5e-5)


def test_an_answer_that_is_given_to_a_speech_decoder_stands_behind_its_forced_tokens(whisper):
    """On a memory from elsewhere; one that is longer than what it reads is refused, and so is none."""
    part = opened(whisper.folder, encoder="none", decoder_prompt=(START, PLAIN))
    memory, parts = torch.randn(1, 20, 24), part.module.parts(["decoder"])

    def taught(answers: list[str] | None) -> dict[str, Any]:
        return part.loop.run([memory, None, None, answers, None], parts, wanted=frozenset({"target_logits", "target_ids"}))

    found, labels = taught(["a cat"]), whisper.processor("a cat", add_special_tokens=False).input_ids
    starts = whisper.processor.convert_tokens_to_ids([START, PLAIN])
    with torch.no_grad():
        given = torch.tensor([[*starts, *labels]])
        theirs = whisper.model(encoder_outputs=(memory,), decoder_input_ids=given).logits[0, 1:]
    torch.testing.assert_close(found["target_logits"][0], theirs, **CLOSE)
    assert found["target_ids"].tolist() == [[*labels, whisper.processor.eos_token_id]]
    with pytest.raises(InputError, match=r"node\.target: the answer to learn has 3\d tokens .*; whisper has 30 positions: shorten it"):
        taught(["a" * 31])
    with pytest.raises(InputError, match=r"node\.target_logits tells of the text that node\.target gets, and nothing is wired into it"):
        taught(None)
