"""Recipes of language models that learn: NExT-GPT's later stages and SpeechGPT's three, beside transformers and peft."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import transformers as hf
from torch.nn import functional

from support import nextgpt, speechgpt
from support.checkpoints import randomise
from support.fixed_stages import Records, Seen
from support.recipes import Recipe, Wanted, drawn
from support.tokenizers import byte_level, clip_bpe

CAPTIONS = ("a red car", "a cat", "dogs on the grass", "the sea")
SIGNALS = "[IMG0][IMG1][IMG2][IMG3]"
CAPTIONED = [{"text": caption} for caption in CAPTIONS]
ASKED = (  # an answer, and what it asks for; the third asks for nothing
    (f"here is a car {SIGNALS} and one {SIGNALS}", {"image": ["a red car", "cars"]}),
    ("a film " + "".join(f"[VID{number}]" for number in range(24)), {"video": ["a cat"]}),
    ("no", {}),
    (f"hear {''.join(f'[AUD{number}]' for number in range(8))} or see it {SIGNALS}", {"audio": ["the sea"], "image": ["the sea"]}),
)
BEFORE = [  # as nextgpt/mosit writes what is said before an answer
    {"role": role, "content": [{"type": "text", "text": text}]}
    for role, text in (("user", "hi"), ("assistant", f"no {SIGNALS}"), ("user", "draw"))
]
DRAWN = [
    {
        "image": [drawn(seed)],
        "prompt": BEFORE if seed == 0 else "do it",
        "text": text,
        **{f"{medium}_captions": asks for medium, asks in asked.items()},
    }
    for seed, (text, asked) in enumerate(ASKED)
]


def answered(rows: Sequence[tuple[torch.Tensor, torch.Tensor]], model: Any) -> torch.Tensor:
    """The mean loss of a batch of (prompt float[tokens width], answer int64[tokens]), each read by itself."""
    lost, count = torch.zeros(()), 0
    for prompt, answer in rows:
        embedded = torch.cat([prompt, model.get_input_embeddings()(answer)])[None]
        logits = model(inputs_embeds=embedded).logits[0, len(prompt) - 1 : -1]
        lost, count = lost + functional.cross_entropy(logits, answer, reduction="sum"), count + len(answer)
    return lost / count


# -- NExT-GPT -----------------------------------------------------------------------------------------------------------


INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
}


def decoding_made(folder: Path) -> tuple[dict[str, Any], Any]:
    """What does not see, and the text encoder of a generator of pictures, as diffusers saves it."""
    whole = nextgpt.whole(folder)
    words = clip_bpe()
    words.model_max_length = 77
    ids = {"eos_token_id": words.eos_token_id, "bos_token_id": words.bos_token_id}
    sizes = {"hidden_size": 20, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2}
    encoder = hf.CLIPTextModel(hf.CLIPTextConfig(vocab_size=len(words), **sizes, **ids))
    randomise(encoder, seed=8)
    encoder.eval().save_pretrained(folder / "generator" / "text_encoder")
    words.save_pretrained(folder / "generator" / "tokenizer")
    (folder / "generator" / "model_index.json").write_text(json.dumps(INDEX))
    told = {name: value for name, value in whole.params.items() if name != "imagebind"}
    return {**told, "generator": str(folder / "generator")}, (whole, encoder, words)


def drawing_loss(made: Any, medium: str, prompts: Sequence[str], captions: Sequence[str]) -> torch.Tensor:
    """How far the published layer is from the text encoder, over the signals at the end of each prompt."""
    whole, encoder, words = made
    lost = []
    for prompt, caption in zip(prompts, captions, strict=True):
        ids = torch.tensor([*whole.ids("<s>"), *whole.ids(prompt)])
        places = torch.isin(ids, torch.tensor(whole.tokenizer.convert_tokens_to_ids(signals_of(medium))))
        table = whole.model.get_input_embeddings()(ids)
        states = whole.model(inputs_embeds=table[None], output_hidden_states=True).hidden_states[-1][0]
        with torch.no_grad():
            said = encoder(words(caption, padding="max_length", max_length=77, return_tensors="pt").input_ids)[0][0]
        lost.append((whole.outputs[medium](states[places][None], table[places][None])[0] - said).norm(dim=-1).mean())
    return torch.stack(lost).mean()


def signals_of(medium: str) -> list[str]:
    """The tokens that ask for a medium."""
    token, count, _ = nextgpt.MEDIA[medium]
    return [token.format(number) for number in range(count)]


def decoding_loss(medium: str) -> Callable[[Any, Records, Seen], Wanted]:
    """The second stage."""

    def loss(made: Any, records: Records, _seen: Seen) -> Wanted:
        captions, signals = [record["text"] for record in records], "".join(signals_of(medium))
        found = drawing_loss(made, medium, [f"### Human: {one}\n### Assistant: {one}{signals}\n###" for one in captions], captions)
        found.backward()
        return Wanted({"loss": float(found.detach())}, made[0].outputs[medium])

    return loss


def instructed_made(folder: Path) -> tuple[dict[str, Any], Any]:
    """All of it, with the text encoders of generators: that of pictures also makes films."""
    told, (whole, encoder, words) = decoding_made(folder)
    tokenizer = byte_level(begin="<s>", end="</s>", pad="<pad>", prefix=True, suffix=True, extra=())
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "max_position_embeddings": 520}
    sizes = {"hidden_size": 20, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2, "projection_dim": 24}
    clap = hf.ClapTextModelWithProjection(hf.ClapTextConfig(**sizes, **ids))
    randomise(clap, seed=9)
    clap.eval().save_pretrained(folder / "sounds" / "text_encoder")
    tokenizer.save_pretrained(folder / "sounds" / "tokenizer")
    index = {"_class_name": "AudioLDMPipeline", "text_encoder": ["transformers", "ClapTextModelWithProjection"]}
    (folder / "sounds" / "model_index.json").write_text(json.dumps({**INDEX, **index, "tokenizer": ["transformers", "RobertaTokenizer"]}))
    generators = {"pictures": told["generator"], "films": told["generator"], "sounds": str(folder / "sounds")}
    return {**whole.params, **generators}, (whole, encoder, words, clap, tokenizer)


def instructing_loss(made: Any, records: Records, seen: Seen) -> Wanted:
    """The third: answers behind what is seen, updates by peft; and the signals in them beside what the text encoders say of captions."""
    whole, encoder, words, clap, tokenizer = made
    seen_by, table = whole.project(seen["see.embedding"].value.detach()), whole.model.get_input_embeddings()
    lost, count, apart = torch.zeros(()), 0, {medium: list[torch.Tensor]() for medium in nextgpt.MEDIA}
    for row, (text, record) in enumerate(zip(seen["say.text"], records, strict=True)):
        before, after = (table(torch.tensor(whole.ids(piece))) for piece in f"<s>{text}".split("<object>"))
        answer = torch.tensor([*whole.ids(f" {record['text']}\n###"), whole.tokenizer.eos_token_id])
        embedded = torch.cat([before, seen_by[row][None], after, table(answer)])
        found = whole.model(inputs_embeds=embedded[None], output_hidden_states=True)
        behind = len(embedded) - len(answer)
        lost = lost + functional.cross_entropy(found.logits[0, behind - 1 : -1], answer, reduction="sum")
        count += len(answer)
        states = found.hidden_states[-1][0, behind:]
        for medium, (_, size, _) in nextgpt.MEDIA.items():
            places = torch.isin(answer, torch.tensor(whole.tokenizer.convert_tokens_to_ids(signals_of(medium)))).nonzero().flatten()
            for caption, span in zip(record.get(f"{medium}_captions", ()), places.reshape(-1, size), strict=True):
                made_of = whole.outputs[medium](states[span][None], table(answer[span])[None])[0]
                with torch.no_grad():
                    if medium == "audio":
                        said = functional.normalize(clap(**tokenizer(caption, return_tensors="pt")).text_embeds, dim=-1)[0]
                    else:
                        said = encoder(words(caption, padding="max_length", max_length=77, return_tensors="pt").input_ids)[0][0]
                apart[medium].append((made_of - said).norm(dim=-1).mean())
    losses = {"caption": lost / count, **{medium: torch.stack(each).mean() for medium, each in apart.items()}}
    (losses["caption"] + losses["image"] + 2 * losses["video"] + losses["audio"]).backward()
    found = {name: float(loss.detach()) for name, loss in losses.items()}
    return Wanted(found, torch.nn.ModuleList([whole.model, whole.project, *whole.outputs.values()]))


# -- SpeechGPT ----------------------------------------------------------------------------------------------------------

HEARD = ("<sosp><3><7><0><eosp>", "<sosp><5><9><eosp>", "<sosp><11><5><2><1><eosp>")
TOLD = [
    {"prompt": f"[Human]: Write it down. This is input: {speech} <eoh>. [SpeechGPT]: ", "answer": f"{words}<eoa>", "speech": speech}
    for speech, words in zip(HEARD, ("a red car", "two dogs", "the sea"), strict=True)
]
CHAINED = [
    {"prompt": f"[Human]: {speech} <eoh>. [SpeechGPT]: ", "answer": f"a colour; [ta] {words}; [ua] {HEARD[0]}<eoa>."}
    for speech, words in zip(HEARD, ("red", "two dogs", "the sea"), strict=True)
]


def speechgpt_made(*, words: bool = False, chain: Literal["", "new", "saved"] = "") -> Callable[[Path], tuple[dict[str, Any], Any]]:
    """A LLaMA that has the units, or is given `words`; for the chain with new updates, or those that peft has saved."""

    def make(folder: Path) -> tuple[dict[str, Any], Any]:
        tokenizer = speechgpt.tokenizer(words=not words)
        model = speechgpt.llama(tokenizer)
        randomise(model, seed=4)
        model.eval().save_pretrained(folder / "language")
        tokenizer.save_pretrained(folder / "language")
        given = [f"<0>..<{speechgpt.UNITS - 1}>", *speechgpt.WORDS[speechgpt.UNITS :]] if words else []
        params: dict[str, Any] = {"checkpoint": str(folder / "language"), **({} if chain else {"words": given})}
        if chain == "saved":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of transformers, for what peft asks it
                model = speechgpt.adapter(folder / "adapter", model)
            params["nodes.llm.adapters"] = [{"use": "adapter/lora", "from": str(folder / "adapter")}]
        return params, (tokenizer, model)

    return make


def speechgpt_loss(name: str, prompt: str | None, answer: str, *, has_grads: bool = True) -> Callable[[Any, Records, Seen], Wanted]:
    """Of the answer of each record behind its prompt; the end token is learnt too."""

    def loss(made: Any, records: Records, _seen: Seen) -> Wanted:
        tokenizer, model = made
        rows = []
        for record in records:
            ids = tokenizer(record[prompt] if prompt else "").input_ids
            said = [*tokenizer(record[answer], add_special_tokens=False).input_ids, tokenizer.eos_token_id]
            rows.append((model.get_input_embeddings()(torch.tensor(ids)), torch.tensor(said)))
        found = answered(rows, model)
        found.backward()
        return Wanted({name: float(found.detach())}, model if has_grads else None)

    return loss


DIALOGUES = [
    Recipe("nextgpt/train_decoding", "train", decoding_made, decoding_loss("image"), CAPTIONED, frozenset({"words"})),
    Recipe("nextgpt/train_decoding_video", "train", decoding_made, decoding_loss("video"), CAPTIONED, frozenset({"words"})),
    Recipe(
        "nextgpt/train_instruct", "train", instructed_made, instructing_loss, DRAWN,
        frozenset({"seen", "watched", "heard", "llm", "image_words", "video_words", "audio_words"}),
    ),
    Recipe("speechgpt/train", "adapt", speechgpt_made(), speechgpt_loss("units", None, "speech"), TOLD, frozenset({"llm", "speak"})),
    Recipe("speechgpt/train", "adapt", speechgpt_made(words=True), None, TOLD, frozenset({"llm", "speak"})),
    Recipe("speechgpt/train", "cross", speechgpt_made(), speechgpt_loss("say", "prompt", "answer"), TOLD, frozenset({"llm"})),
    Recipe(
        "speechgpt/train_chain", "chain", speechgpt_made(chain="saved"), speechgpt_loss("say", "prompt", "answer"), CHAINED,
        frozenset({"llm"}),
    ),
    Recipe(  # new updates change nothing at first
        "speechgpt/train_chain", "chain", speechgpt_made(chain="new"), speechgpt_loss("say", "prompt", "answer", has_grads=False), CHAINED,
        frozenset({"llm"}), rate=0.02,
    ),
]  # fmt: skip
