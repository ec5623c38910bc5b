"""Every family put together from parts, beside the library that knows it whole: time on torch, answers compared first.

    python -m benchmarks.families [--minutes 7] [--quick] [--json]

Random weights of real widths and few layers (`family_checkpoints.py`); a process for each family, in which both sides take turns.
`composed.py` has BLIP-2 and LLaVA at full depth, and memory.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import family_checkpoints, family_sides, measuring, tables
from benchmarks.family_sides import Pair
from benchmarks.measuring import Sample
from benchmarks.tables import Asked, Row, Table, Timer

LAYERS = 2
ROUNDS = 25
DEEPER = {"idefics": 3}  # layers: it looks at the picture before every third
LEAST = 6  # rounds: of fewer there is no interval
CLOSE = 1e-4  # of the largest number: what float32 may differ by
STARTING_S = 8  # of a process: imports, the checkpoint, loading it twice


@dataclass(frozen=True, slots=True)
class Family:
    """What is done with it, and the two sides; or why there is no other side."""

    does: str
    sides: Callable[[Path], Pair] | None
    why: str = ""


def _language(kind: str) -> Family:
    return Family("goes on with a text", family_sides.written(kind))


EYES = {
    "dinov2": ("Dinov2Model", "bit.image_processing_pil_bit:BitImageProcessorPil"),
    "dinov2-registers": ("Dinov2WithRegistersModel", "bit.image_processing_pil_bit:BitImageProcessorPil"),
    "dinov3": ("DINOv3ViTModel", "bit.image_processing_pil_bit:BitImageProcessorPil"),
    "aimv2": ("Aimv2VisionModel", "clip.image_processing_pil_clip:CLIPImageProcessorPil"),
}
ASKED_IN_CHAT = f"user: <image>{{}}{family_checkpoints.TURN}"
QWEN_PICTURES = "qwen2_vl.image_processing_pil_qwen2_vl:Qwen2VLImageProcessorPil"
ASKS, CHOOSES, SEES = "answers about a picture", "chooses a text for a picture", "sees a picture"
FAMILIES: Mapping[str, Family] = {
    "blip2": Family(ASKS, family_sides.asked("blip2", "Blip2ForConditionalGeneration")),
    "blip2-t5": Family(ASKS, family_sides.asked("blip2", "Blip2ForConditionalGeneration")),
    "instructblip": Family(ASKS, family_sides.asked("instructblip", "InstructBlipForConditionalGeneration")),
    "llava": Family(ASKS, family_sides.asked("llava", "LlavaForConditionalGeneration", "USER: <image>\n{} ASSISTANT:")),
    "paligemma": Family(ASKS, family_sides.asked("", "PaliGemmaForConditionalGeneration", "<image>{}", is_imported=True)),
    "kosmos2": Family(ASKS, family_sides.asked("kosmos1", "Kosmos2ForConditionalGeneration")),  # which is the line alone, as theirs is
    **{name: Family(ASKS, None, "nobody publishes Kosmos-1: Kosmos-2, which has a row, is its like") for name in ("kosmos", "kosmos1")},
    "idefics2": Family(ASKS, None, "its eye is that of idefics3, and a resampler of a few latents follows it"),
    "idefics3": Family(ASKS, family_sides.asked("", "Idefics3ForConditionalGeneration", ASKED_IN_CHAT, is_imported=True, is_listed=True)),
    "llava_next": Family(
        ASKS, family_sides.asked("", "LlavaNextForConditionalGeneration", ASKED_IN_CHAT, is_imported=True, is_listed=True)
    ),
    "gemma3": Family(
        ASKS,
        family_sides.asked(
            "", "Gemma3ForConditionalGeneration", ASKED_IN_CHAT.replace("<image>", "<start_of_image>"), is_imported=True, is_listed=True
        ),
    ),
    "internvl": Family(ASKS, None, "its processor wants a part for films, and that torchvision, which comes with another build of torch"),
    "idefics": Family(ASKS, family_sides.asked("idefics", "IdeficsForVisionText2Text")),
    "qwen2_vl": Family(ASKS, family_sides.native("Qwen2VLForConditionalGeneration", QWEN_PICTURES, family_sides.as_qwen)),
    "qwen2_5_vl": Family(ASKS, family_sides.native("Qwen2_5_VLForConditionalGeneration", QWEN_PICTURES, family_sides.as_qwen)),
    "qwen3_vl": Family(ASKS, family_sides.native("Qwen3VLForConditionalGeneration", QWEN_PICTURES, family_sides.as_qwen3)),
    "pixtral": Family(ASKS, None, "its eye and its language model are those of mistral3, and its class has no faster way to either"),
    "mistral3": Family(
        ASKS,
        family_sides.native(
            "Mistral3ForConditionalGeneration", "pixtral.image_processing_pil_pixtral:PixtralImageProcessorPil", family_sides.as_mistral
        ),
    ),
    "flamingo": Family(ASKS, None, "nobody publishes it whole: idefics is its like in transformers"),
    "openflamingo": Family(ASKS, None, "its own package, open-flamingo 2.0.1, wants torch 2.0.1: two versions of torch would be compared"),
    "clip": Family(CHOOSES, family_sides.chosen("clip", "CLIPModel", True)),
    "siglip": Family(CHOOSES, family_sides.chosen("siglip", "SiglipModel", "max_length")),
    "vit": Family("names a picture", family_sides.labelled),
    **{name: Family(SEES, family_sides.seen(*eye)) for name, eye in EYES.items()},
    "siglip2": Family(
        SEES,
        family_sides.seen("Siglip2VisionModel", "siglip2.image_processing_pil_siglip2:Siglip2ImageProcessorPil", "pooler_output", "pooled"),
    ),
    "nfnet": Family("names a picture", None, "timm, which knows it, wants torchvision, which comes with another build of torch"),
    "imagebind": Family("embeds six media", None, "its own code wants torch 1.13: two versions of torch would be compared"),
    "coca": Family("captions a picture", None, "open_clip, which knows it, wants torchvision, which comes with another build of torch"),
    "beit3": Family("reads a picture and a text", None, "its own code stands on torchscale, and that on fairscale, which is archived"),
    "omnimae": Family("sees a picture or a film", None, "its own code wants torch 1.12: two versions of torch would be compared"),
    "fromage": Family("writes, and finds pictures", None, "its own code is made for one checkpoint and torch 1.12"),
    "minigpt4": Family(ASKS, None, "it is BLIP-2 with another language model, and BLIP-2 is measured"),
    "mmgpt": Family(ASKS, None, "it is OpenFlamingo with LoRA, whose own package wants another torch"),
    "otter": Family(ASKS, None, "it is OpenFlamingo with another prompt, whose own package wants another torch"),
    "pandagpt": Family("answers about any medium", None, "its own code wants CUDA and deepspeed: two versions of torch would be compared"),
    "shikra": Family(ASKS, None, "it is LLaVA with another vocabulary of answers, and LLaVA is measured"),
    "llama_adapter": Family(ASKS, None, "its own code is made for CUDA, fairscale and torch 2.0: two versions of torch would be compared"),
    "mplug_owl": Family(ASKS, None, "its own code wants transformers 4.28, and no later one has it: two versions would be compared"),
    "nextgpt": Family("answers in any medium", None, "its own code wants CUDA and deepspeed; its parts are measured in `replies`"),
    "qwen_vl": Family(ASKS, None, "its own code is fetched from a hub with its weights, and wants transformers 4.32"),
    "simvlm": Family("captions a picture", None, "nobody publishes it"),
    "pali": Family("captions a picture", None, "nobody publishes it: PaliGemma, which goes back to it, has a row"),
    "wav2vec2": Family("writes what it hears", None, "its encoder, which takes the time, is measured in the table of encoders"),
    "mrope": Family("goes on with a text", None, "they stand inside Qwen2-VL and its followers, which have rows"),
    "hubert": Family("hears", None, "its encoder is that of wav2vec 2.0, which is measured in the table of encoders"),
    "speechgpt": Family(
        "hears and speaks", None, "its own code wants fairseq, which does not build here: its parts have rows of their own"
    ),
    "whisper": Family("writes what it hears", family_sides.heard),
    "qwen2_audio": Family("answers about a sound", family_sides.asked_of_sounds),
    "voxtral": Family("answers about a sound", None, "its tokenizer comes with a further library: its ear is measured as Whisper's is"),
    "diffusion": Family("makes sounds and films out of noise", None, "their loop is that of stable_diffusion, which is measured"),
    "vocoder": Family(
        "makes a sound of mel bands or codes", None, "each is one module of transformers, with nothing around it that takes time"
    ),
    "stable_diffusion": Family("paints a picture, diffusers beside it", family_sides.painted),
    "bert": Family("reads a text", family_sides.read),
    "t5": Family("answers a text", family_sides.written("T5ForConditionalGeneration", "llm/seq2seq")),
    **{kind: _language("AutoModelForCausalLM") for kind in family_checkpoints.LANGUAGES},
}
QUICK = ("llava", "vit", "flamingo", "gpt2")


def work(name: str, folder: Path, seconds: float, layers: int, rounds: int) -> dict[str, Any]:
    """Both sides of a family in this process: their samples, or how their answers differ."""
    sides = FAMILIES[name].sides
    assert sides is not None
    theirs, ours = sides(family_checkpoints.make(name, folder, layers=layers))
    given = [(theirs(), ours()) for _ in range(2)]
    if off := [difference(one, other) for one, other in given if difference(one, other)]:
        return {"why": f"the answers differ: {off[0]}"}
    alternatives: dict[str, Callable[[], Sample]] = {
        "theirs": lambda: measuring.timed(theirs),
        "ours": lambda: measuring.timed(ours),
    }
    found = measuring.interleave(alternatives, rounds, seconds=seconds, least=min(rounds, LEAST))
    return {"samples": found, "equal": "tokens" if isinstance(given[0][0], str) else f"within {CLOSE:.0e}"}


def difference(theirs: Any, ours: Any) -> str:
    """What is not the same of two answers, or an empty string: texts word by word, tensors relative to the largest number."""
    if isinstance(theirs, str):
        if not theirs.split():
            return "they say nothing"
        return "" if theirs.split() == ours.split() else f"{theirs[:80]!r} and {ours[:80]!r}"
    if tuple(theirs.shape) != tuple(ours.shape):
        return f"shapes {tuple(theirs.shape)} and {tuple(ours.shape)}"
    largest, off = float(theirs.abs().max()), float((theirs - ours).abs().max())
    if largest == 0:
        return "they hold nothing but zeros"
    return "" if off <= CLOSE * largest else f"{off / largest:.1e} of the largest number"


def rows(asked: Asked) -> list[Row]:
    """One family after the other; its checkpoint goes when it is done."""
    names = [name for name in FAMILIES if not asked.is_quick or name in QUICK]
    left = [name for name in names if FAMILIES[name].sides is not None]
    timer, found = Timer(asked.seconds), list[Row]()
    for name in names:
        family = FAMILIES[name]
        line: Row = {"family": name, "does": family.does}
        if family.sides is None:
            found.append({**line, "why": family.why})
            continue
        share = max(0.0, timer.left() / len(left) - STARTING_S)
        left.remove(name)
        found.append({**line, **measured(name, asked, share)})
        tables.told(f"  {name}: {tables.shown(found[-1].get('wall')) or found[-1]['why']}")
    return found


def measured(name: str, asked: Asked, seconds: float) -> Row:
    """The figures of a family, or why there are none."""
    folder = asked.folder / name
    layers, rounds = DEEPER.get(name, LAYERS), 2 if asked.is_quick else ROUNDS
    words = ("--worker", name, str(folder), f"{seconds:.1f}", str(layers), str(rounds))
    try:
        found = measuring.child("families", *words, threads=1, cache=folder / "cache")
    except RuntimeError as error:
        return {"why": str(error).splitlines()[-1][:300]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if "why" in found:
        return {"why": found["why"]}
    return {**measuring.side_by_side(found["samples"]["ours"], found["samples"]["theirs"]), "equal": found["equal"]}


TABLE = Table(
    name="families",
    title="Families: put together from parts, beside the same model whole",
    says=f"One thread, torch, float32, random weights of real widths and {LAYERS} layers; transformers' own model and processor (of "
    f"stable_diffusion: diffusers' pipeline) read the same records. Ratios are ours to theirs: below 1 the graph is quicker. "
    f"Answers have {family_sides.NEW} tokens. At so few layers what stands around a model weighs more than it does in use.",
    columns={
        "family": "family", "does": "what it does", "theirs_ms": "whole, ms", "ours_ms": "graph, ms", "wall": "wall ratio",
        "cpu": "CPU ratio", "equal": "equal", "rounds": "rounds",
    },
    rows=rows,
    minutes=3.0,
)  # fmt: skip

if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _, _, named, where, seconds_given, depth, most = sys.argv
        print(json.dumps(work(named, Path(where), float(seconds_given), int(depth), int(most))))
    else:
        tables.alone(TABLE)
