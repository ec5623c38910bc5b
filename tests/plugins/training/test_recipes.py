"""The recipes that ship: tiny weights begin with the loss of the reference class, and what a recipe says that it trains changes, alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
import torch
import transformers as hf
from PIL import Image

import modelgraft as mg
from support import checkpoints, flamingo, fromage, imagebind, nextgpt, pali, simvlm, stages
from support.dialogues import DIALOGUES
from support.fixed_stages import FIXED, blip2_stage2_made
from support.grafted_stages import GRAFTED
from support.opened import NOT_RUN, RUNS, opens, run_of
from support.oracles import oracle
from support.recipes import GRAPHS, Recipe, Wanted, drawn, trained, unlike
from support.sounds import tone
from support.tokenizers import clip_bpe

ASKED = (("what is it?", "a cat"), ("where?", "on the old mat"), ("why so?", "it sleeps"), ("who?", "nobody knows"))
ANSWERED = [{"image": drawn(seed), "prompt": prompt, "answer": answer} for seed, (prompt, answer) in enumerate(ASKED)]


def llava_made(folder: Path):
    made = checkpoints.llava(folder / "llava")
    return {"checkpoint": str(made.folder)}, made


def llava_loss(made, records, _seen):
    prompts = [f"USER: <image>\n{row['prompt']} ASSISTANT:" for row in records]
    made.processor.tokenizer.padding_side = "right"
    end = made.processor.tokenizer.eos_token
    whole = [f"{prompt} {row['answer']}{end}" for prompt, row in zip(prompts, records, strict=True)]
    pictures = [row["image"] for row in records]
    given = made.processor(images=pictures, text=whole, return_tensors="pt", padding=True)
    labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    for row, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
        labels[row, : made.processor(images=picture, text=prompt, return_tensors="pt")["input_ids"].shape[1]] = -100
    loss = made.model(**given, labels=labels).loss
    loss.backward()
    return Wanted({"say": float(loss.detach())}, made.model)


def message(role, *parts):
    """One with texts and pictures."""
    told = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part} for part in parts]
    return {"role": role, "content": told}


TALKS = (  # of the first the picture stands before the words, of the second behind them, the third is about none
    ((drawn(0), "what is it?"), "a cat", ("where?",), "on the old mat"),
    (("who?", drawn(1)), "nobody", ("why so?",), "it sleeps", ("is it?",), "yes"),
    (("say more",), "no"),
)
TOLD = [
    {"conversation": [message("assistant", part) if isinstance(part, str) else message("user", *part) for part in talk]} for talk in TALKS
]
SYSTEM = "Be kind."  # the usual one is longer than what the tiny model reads


def dialogues_loss(made, _records, _seen):
    """The whole dialogue in Vicuna's words; what stands behind each ASSISTANT: up to the end token has labels."""
    tokenizer = made.processor.tokenizer
    tokenizer.padding_side, end = "right", tokenizer.eos_token
    wholes, spans, pictures = [], [], []
    for talk in TALKS:
        text, own = f"{SYSTEM} ", []
        for question, answer in zip(talk[::2], talk[1::2], strict=True):
            pictures += [part for part in question if not isinstance(part, str)]
            text += "USER: " + "\n".join(part if isinstance(part, str) else "<image>" for part in question) + " ASSISTANT:"
            own.append((text, f"{text} {answer}{end}"))
            text = own[-1][1]
        wholes.append(text)
        spans.append(own)

    def length(text):
        shown = pictures[: text.count("<image>")] or None  # all are of one size
        return made.processor(images=shown, text=text, return_tensors="pt")["input_ids"].shape[1]

    given = made.processor(images=pictures, text=wholes, return_tensors="pt", padding=True)
    labels = torch.full_like(given["input_ids"], -100)
    for row, own in enumerate(spans):
        for before, behind in own:
            labels[row, length(before) : length(behind)] = given["input_ids"][row, length(before) : length(behind)]
    loss = made.model(**given, labels=labels).loss
    loss.backward()
    return Wanted({"say": float(loss.detach())}, made.model)


CAPTIONS = ("a red car near the house", "a cat", "two dogs and a cat", "the sea")
ASKING = [{"image": record["image"], "question": record["prompt"], "answer": record["answer"]} for record in ANSWERED]
PAIRS = [{"image": drawn(seed), "text": text} for seed, text in enumerate(CAPTIONS)]


def clip_made(folder: Path):
    made = checkpoints.clip(folder / "clip")
    return {"checkpoint": str(made.folder)}, made


def clip_loss(made, records, _seen):
    given = made.processor(
        images=[row["image"] for row in records], text=[row["text"] for row in records], return_tensors="pt", padding=True
    )
    loss = made.model(**given, return_loss=True).loss
    loss.backward()
    return Wanted({"contrast": float(loss.detach())}, made.model)


def blip2_made(folder: Path):
    made = checkpoints.blip2(folder / "blip2")
    return {"checkpoint": str(made.folder)}, made


def blip2_loss(made, records, _seen):
    """The places of pictures, a begin token, the caption and its end; labels are those of caption and end."""
    tokenizer = made.processor.tokenizer
    slots = [tokenizer.convert_tokens_to_ids("<image>")] * made.model.config.num_query_tokens + [tokenizer.bos_token_id]
    rows = [[*tokenizer(row["text"], add_special_tokens=False).input_ids, tokenizer.eos_token_id] for row in records]
    pixels = made.processor.image_processor([row["image"] for row in records], return_tensors="pt")["pixel_values"]
    loss = made.model(pixel_values=pixels, **behind(slots, rows, pad=tokenizer.pad_token_id)).loss
    loss.backward()
    return Wanted({"say": float(loss.detach())}, made.model)


def behind(slots, rows, *, pad):
    """Answers behind what each of them begins with, filled up on the right, as a model of transformers takes them."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*slots, *row, *[pad] * (longest - len(row))] for row in rows])
    labels = torch.tensor([[*[-100] * len(slots), *row, *[-100] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * (len(slots) + len(row)) + [0] * (longest - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def idefics_made(folder: Path):
    made = checkpoints.idefics(folder / "idefics")
    return {"checkpoint": str(made.folder)}, made


def idefics_loss(made, records, _seen):
    tokenizer = made.processor.tokenizer
    slots = [tokenizer.bos_token_id, *tokenizer.convert_tokens_to_ids(list(OPEN))]
    rows = [[*tokenizer(row["text"], add_special_tokens=False).input_ids, tokenizer.eos_token_id] for row in records]
    given = behind(slots, rows, pad=tokenizer.pad_token_id)
    pixels = made.processor(images=[row["image"] for row in records], text=["a"] * len(records), return_tensors="pt")["pixel_values"]
    seen = torch.ones(*given["input_ids"].shape, 1)
    seen[:, :2] = 0  # nothing before the picture; each text ends behind what it is asked for
    labels = given.pop("labels")
    logits = made.model(**given, pixel_values=pixels, image_attention_mask=seen).logits  # its own loss knows nothing of added tokens
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    loss.backward()
    return Wanted({"say": float(loss.detach())}, made.model)


OPEN = ("<fake_token_around_image>", "<image>", "<fake_token_around_image>")


def flamingo_made(folder: Path):
    made = flamingo.tiny(folder)
    return made.params(trained=False), made


def flamingo_loss(made, records, _seen):
    """The language model alone: the gates are closed."""
    model = hf.AutoModelForCausalLM.from_pretrained(made.language)
    tokenizer = hf.AutoTokenizer.from_pretrained(made.language)
    slots = tokenizer("<image>").input_ids
    end = tokenizer.convert_tokens_to_ids("<|endofchunk|>")
    rows = [[*tokenizer(row["text"], add_special_tokens=False).input_ids, end] for row in records]
    loss = model(**behind(slots, rows, pad=0)).loss
    return Wanted({"say": float(loss.detach())})


def coca_made(folder: Path):
    given = oracle("coca_openclip").config
    words = clip_bpe()
    words.save_pretrained(folder / "coca")
    checkpoints.clip_pictures(given["vision_cfg"]["image_size"]).save_pretrained(folder / "coca")
    halves = {name: {**given[name], "vocab_size": len(words), "context_length": 77} for name in ("text_cfg", "multimodal_cfg")}
    config = {"model_type": "coca", **given, **halves}
    (folder / "coca" / "config.json").write_text(json.dumps(config))
    return {"checkpoint": str(folder / "coca")}, None


def simvlm_made(folder: Path):
    made = simvlm.saved(folder / "simvlm")
    return {"checkpoint": str(made.folder), "size": 48}, made


def omnimae_made(folder: Path):
    (folder / "config.json").write_text(json.dumps(OMNIMAE))
    return {"checkpoint": str(folder), "size": 32}, None


OMNIMAE = {
    "model_type": "omnimae", "image_size": 32, "num_frames": 4, "patch_size": [2, 8, 8], "embed_dim": 24, "depth": 2, "num_heads": 4,
    "decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2,
}  # fmt: skip


def fromage_made(folder: Path):
    return fromage.tiny(folder).params, None


def imagebind_made(folder: Path):
    return {"checkpoint": str(imagebind.checkpoint(folder / "imagebind"))}, None


def wav2vec2_made(folder: Path):
    model = hf.Wav2Vec2ForPreTraining(hf.Wav2Vec2Config(**EAR))
    checkpoints.randomise(model, seed=5)
    model.eval().save_pretrained(folder / "ear")
    return {"checkpoint": str(folder / "ear")}, model


def pali_made(folder: Path):
    made = pali.saved(folder / "pali")
    return {"checkpoint": str(folder / "pali")}, made


def nextgpt_made(folder: Path):
    return nextgpt.whole(folder).params, None


def vector(seed: int) -> torch.Tensor:
    return torch.randn(384, generator=torch.Generator().manual_seed(seed))


def emoji_made(_folder: Path):
    return {}, None


def emoji_loss(_made, records, _seen):
    """It begins with a picture of zeros, whatever is asked for: the loss is the mean square of the pixels from -1 to 1."""
    pixels = [numpy.asarray(row["image"].resize((8, 8), Image.Resampling.LANCZOS)) / 127.5 - 1 for row in records]
    return Wanted({"unveil": float(numpy.mean(numpy.square(pixels)))})


EAR = {
    "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 3, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "conv_dim": [6, 7], "conv_stride": [5, 2], "conv_kernel": [10, 3], "codevector_dim": 12,
    "proj_codevector_dim": 9, "num_codevectors_per_group": 5, "num_codevector_groups": 3, "num_negatives": 4, "mask_time_prob": 0.5,
    "mask_time_length": 3, "feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True,
}  # fmt: skip
POINTED = [  # as kosmos2/grit writes captions
    {"image": record["image"], "text": text}
    for record, text in zip(
        PAIRS,
        ("<grounding><phrase>a cat</phrase><object><patch_index_0001><patch_index_0003></object> sat", "Answer:", "What is this?"),
        strict=False,
    )
]
SHOWN = [{"image": [record["image"]], "text": record["text"]} for record in PAIRS]
HEARD = [{"audio": tone(0.2, hertz=hertz)} for hertz in (97.0, 220.0, 440.0, 910.0)]
NAMED = [{"image": record["image"], "text": vector(seed), "style": vector(seed + 9)} for seed, record in enumerate(PAIRS)]
SEEN = [{"vision": drawn(seed), "audio": tone(2.0, hertz=hertz)} for seed, hertz in enumerate((97.0, 220.0, 440.0, 910.0))]

BEIT3_NODES = frozenset({"both", "see", "read", "see_guess", "read_guess", "both_patch", "both_word"})
CLIP_NODES = frozenset({"vision", "vision_proj", "text", "text_proj", "contrast"})
RECIPES = [
    Recipe("llava/train", "align", llava_made, llava_loss, ANSWERED, frozenset({"project"})),
    Recipe("llava/train", "instruct", llava_made, llava_loss, ANSWERED, frozenset({"project", "llm"})),
    Recipe(
        "llava/train_dialogues",
        "train",
        llava_made,
        dialogues_loss,
        TOLD,
        frozenset({"project", "llm"}),
        params={"nodes.llm.with.system": SYSTEM},
    ),
    Recipe("clip/train", "train", clip_made, clip_loss, PAIRS, CLIP_NODES),
    Recipe("blip2/train", "train", blip2_made, blip2_loss, PAIRS, frozenset({"queries", "qformer", "project"})),
    Recipe("blip2/stage2", "train", blip2_stage2_made, blip2_loss, PAIRS, frozenset({"queries", "qformer", "project"})),
    Recipe(
        "blip2/train_prefix",
        "train",
        stages.blip2_t5_made,
        stages.blip2_t5_loss,
        PAIRS,
        frozenset({"queries", "qformer", "project"}),
        rate=0.01,
        falls=0.97,  # each step cuts the captions anew
    ),
    Recipe("idefics/train", "train", idefics_made, idefics_loss, PAIRS, frozenset({"resampler", "llm"})),
    Recipe("flamingo/train", "train", flamingo_made, flamingo_loss, PAIRS, frozenset({"resampler", "llm"})),
    # the losses of those without a reference are compared below: with tensors of a fixture in place of pictures, texts and sounds
    Recipe("coca/train", "train", coca_made, None, PAIRS, frozenset({"vision", "pool", "words", "decode", "contrast"}), init="random"),
    Recipe("simvlm/pretrain", "train", simvlm_made, stages.simvlm_loss, PAIRS, frozenset({"stem", "read", "write"})),
    Recipe("omnimae/rebuild", "train", omnimae_made, None, [{"image": drawn(0)}], frozenset({"see", "guess", "head"}), init="random"),
    Recipe("fromage/train", "train", fromage_made, None, PAIRS, frozenset({"prefix", "key", "query", "read", "contrast"}), rate=0.01),
    Recipe(
        "imagebind/align", "audio", imagebind_made, None, SEEN, frozenset({"hear"}), falls=0.98
    ),  # an eye of random numbers sees its pictures nearly alike
    Recipe("nextgpt/train_encoding", "train", nextgpt_made, None, SHOWN, frozenset({"seen", "watched", "heard"}), rate=0.03, falls=0.97),
    Recipe("wav2vec2/pretrain", "train", wav2vec2_made, stages.wav2vec2_loss, HEARD, frozenset({"ear", "guess", "quantizer"})),
    Recipe("grafted/draw_train", "train", emoji_made, emoji_loss, NAMED, frozenset({"draw"}), falls=0.5, params={"side": 8}),
    Recipe("kosmos2/train", "train", stages.kosmos2_made, stages.kosmos2_loss, POINTED, frozenset({"vision", "latents", "llm"})),
    Recipe("pali/train", "train", pali_made, stages.pali_loss, ASKING, frozenset({"project", "llm"})),
    Recipe("pali/train_decoder_only", "train", pali_made, stages.pali_decoder_only_loss, ASKING, frozenset({"project", "read", "llm"})),
    Recipe("beit3/pretrain", "train", stages.beit3_made, stages.beit3_loss, PAIRS, BEIT3_NODES),
]


@pytest.mark.parametrize("recipe", [*RECIPES, *FIXED, *DIALOGUES, *GRAFTED], ids=lambda recipe: f"{recipe.graph}-{recipe.stage}")
def test_a_recipe_trains(recipe: Recipe, tmp_path: Path):
    """Losses and gradients of its first step are those of the reference; its loss falls; what it does not train stays to the bit, and
    what it does is opened by the graphs that run it."""
    params, made = recipe.make(tmp_path)
    found = trained(recipe, params, tmp_path)
    assert sum(found.sums[-3:]) < recipe.falls * sum(found.sums[:3])
    assert found.changed == recipe.trained
    assert not found.idle
    if recipe.reference is not None:
        wanted = recipe.reference(made, recipe.records, found.seen)
        torch.testing.assert_close(found.first, dict(wanted.losses), atol=1e-4, rtol=1e-4)
        assert wanted.model is None or not unlike(found, wanted.model, atol=1e-4)
    for graph, nodes in RUNS.get(recipe.graph, {}).items() if recipe.runs else ():
        assert not opens(graph, nodes, {**params, **recipe.params}, found.folder), graph
    left = {file.stem for file in found.folder.glob("*.safetensors")} - run_of(recipe.graph)
    assert left == {*NOT_RUN.get(recipe.graph, {})} & left


def test_every_recipe_says_what_runs_it():
    """But for the head of `glimpse`, whose trained file ships."""
    recipes = {path.relative_to(GRAPHS).with_suffix("").as_posix() for path in GRAPHS.rglob("*.yaml") if "\ntraining:" in path.read_text()}
    assert recipes - {*RUNS, *NOT_RUN} == {"grafted/look"}


GIVEN = """
modelgraft: 1
params: {checkpoint: none}
inputs: {text: text, answer: "optional[text]"}
nodes: {llm: {use: llm/causal, from: "${checkpoint}", with: {max_new_tokens: 3}, in: {prompt: inputs.text, target: inputs.answer}}}
outputs: {text: llm.text, logits: llm.target_logits, ids: llm.target_ids}
"""


def test_a_given_answer_is_read_beside_one_that_is_written(tmp_path: Path):
    """Its logits are those of a model of transformers; the answer that is written is the same as without it; unwired it is refused."""
    made = checkpoints.llama(tmp_path / "llama")
    graph = tmp_path / "given.yaml"
    graph.write_text(GIVEN)
    with mg.open(mg.load(graph, params={"checkpoint": str(made.folder)})) as pipeline:
        found = pipeline.run(text=["what is it?", "a"], answer=[" a cat", " two dogs"])
        alone = pipeline.run(text=["what is it?", "a"], outputs=["text"])
    assert list(found["text"]) == list(alone["text"])
    for row, whole in enumerate(("what is it? a cat</s>", "a two dogs</s>")):
        ids = made.processor(whole, return_tensors="pt").input_ids
        count = int((found["ids"][row] >= 0).sum())
        assert found["ids"][row, :count].tolist() == ids[0, -count:].tolist()
        with torch.no_grad():
            wanted = made.model(ids).logits[0, -count - 1 : -1]
        torch.testing.assert_close(found["logits"][row, :count], wanted, atol=1e-5, rtol=0)
    with (
        mg.open(mg.load(graph, params={"checkpoint": str(made.folder)})) as pipeline,
        pytest.raises(mg.InputError, match=r"llm.target_logits tells of the text that llm.target gets, and nothing is wired into it"),
    ):
        pipeline.run(text="a", outputs=["logits"])
