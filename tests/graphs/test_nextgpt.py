"""NExT-GPT as shipped graphs, from the published layout of what was trained, beside transformers, peft and diffusers themselves.

The weights are tiny and random: the published ones are not here. Photographs and speech are real.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy
import pytest
import torch
import transformers
from PIL import Image
from skimage import data

import modelgraft as mg
from modelgraft.engine.modules.grafting import count_adapters
from support import nextgpt, painting, sounding
from support.sampling import WHOLE
from support.sounds import tone

pytestmark = [
    pytest.mark.slow,  # it imports diffusers, transformers and peft
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
CLOSE = {"rtol": 0.0, "atol": 2e-5}  # float32 through two layers, a residual stream of order ten
GREEDY: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": 6}
GENERATORS = {f"{medium}_{part}" for medium in ("image", "video", "audio") for part in ("words", "other", "draw", "decode")}
SECONDS = 0.117  # 11 frames, which are no whole latents: the sound is cut behind them
PHOTOS = {"cat": data.chelsea, "rocket": data.rocket}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> nextgpt.Whole:
    """A tiny one; what warns while it is made belongs to its makers."""
    return nextgpt.whole(tmp_path_factory.mktemp("nextgpt"))


@pytest.fixture(scope="module")
def text(whole: nextgpt.Whole) -> mg.Pipeline:
    """The graph that answers with text."""
    return mg.open("nextgpt/text", params=whole.params | GREEDY)


def photo(name: str) -> Image.Image:
    return Image.fromarray(PHOTOS[name]())


def embedded(whole: nextgpt.Whole, pieces: list[str | torch.Tensor]) -> torch.Tensor:
    """float[1 tokens width]: texts by the model's own table, vectors as they are."""
    table = whole.model.get_input_embeddings()
    rows = [table(torch.tensor(whole.ids(piece))) if isinstance(piece, str) else piece[None] for piece in pieces]
    return torch.cat(rows)[None]


def theirs(whole: nextgpt.Whole, pieces: list[str | torch.Tensor], count: int) -> Any:
    """What transformers and peft write, greedily, with all hidden states."""
    given = embedded(whole, pieces)
    told = {
        "max_new_tokens": count,
        "do_sample": False,
        "output_hidden_states": True,
        "return_dict_in_generate": True,
        "output_logits": True,
    }
    with torch.no_grad():
        return whole.model.generate(inputs_embeds=given, attention_mask=torch.ones(given.shape[:2]), **told)


def projected(whole: nextgpt.Whole, text: mg.Pipeline, **media: Any) -> dict[str, list[torch.Tensor]]:
    """The objects among the words: the towers' vectors by the map of the published file."""
    with mg.open("imagebind", params={"checkpoint": whole.params["imagebind"]}) as bind:
        names = {"image": "vision", "audio": "audio", "video": "video"}
        found = {
            name: [bind.run(outputs=[names[name]], **{names[name]: one})[names[name]] for one in given] for name, given in media.items()
        }
    with torch.no_grad():
        return {name: [whole.project(vector)[0] for vector in vectors] for name, vectors in found.items()}


def test_an_answer_about_several_objects_is_that_of_transformers_and_peft(whole: nextgpt.Whole, text: mg.Pipeline):
    """Two pictures at one place and a sound at another: logits, tokens, and hidden states of what is written."""
    shown = {"image": [photo("cat"), photo("rocket")], "audio": [tone(2.5)]}
    found = text.run(prompt="<image><image> beside <audio> there", **shown, outputs=["text", "llm.logits", "llm.ids", "say.text"])
    vectors = projected(whole, text, **shown)
    pieces = ["<s>### Human:<Img>", vectors["image"][0] + vectors["image"][1], "</Img><s>beside<Img>", vectors["audio"][0]]
    answer = theirs(whole, [*pieces, "</Img><s>there\n### Assistant:"], GREEDY["max_new_tokens"])
    torch.testing.assert_close(found["llm.logits"], answer.logits[0], **CLOSE)
    assert found["llm.ids"].tolist() == answer.sequences.tolist()
    assert found["text"] == whole.tokenizer.decode(answer.sequences[0], skip_special_tokens=True)


def wishing(whole: nextgpt.Whole, *media: str, bias: float = 900.0) -> list[Any]:
    """Biases by which an answer begins with the complete spans of `media` and then ends; the first token comes with `bias`."""
    chain = [token.format(number) for medium in media for token, count, _ in [nextgpt.MEDIA[medium]] for number in range(count)]
    ids = [*whole.tokenizer.convert_tokens_to_ids(chain), whole.tokenizer.eos_token_id]
    return [[ids[:1], bias], *([ids[:end], 2000.0 * end] for end in range(2, len(ids) + 1))]


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion."""
    folder = tmp_path_factory.mktemp("painter")
    painting.save(folder, steps_offset=1, clip_sample=False)
    return folder


@pytest.fixture(scope="module")
def filmer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of films."""
    folder = tmp_path_factory.mktemp("filmer")
    sounding.save(folder, sounding.film(steps_offset=1, clip_sample=False))
    return folder


@pytest.fixture(scope="module")
def sounder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny AudioLDM."""
    folder = tmp_path_factory.mktemp("sounder")
    sounding.save(folder, sounding.audioldm(steps_offset=1, clip_sample=False))
    return folder


@pytest.fixture(scope="module")
def params(whole: nextgpt.Whole, painter: Path, filmer: Path, sounder: Path) -> dict[str, Any]:
    """Of the whole graph."""
    generators = {"pictures": str(painter), "films": str(filmer), "sounds": str(sounder)}
    sizes = {"steps": 3, "frames": 3, "height": 16, "width": 24, "seconds": SECONDS}
    return whole.params | GREEDY | generators | sizes | {"max_new_tokens": 50}


NOISE = {"image": (4, 8, 12), "video": (4, 3, 8, 12), "audio": (5, 6, 3)}  # what each medium is made of


def noisy(folder: Path) -> Path:
    """The whole graph, with the noise that media are made of as inputs."""
    path = folder / "noisy.yaml"
    text: dict[str, Any] = {"modelgraft": 1, "extends": "nextgpt"}
    for medium, shape in NOISE.items():
        text[f"inputs.{medium}_noise"] = f"float[batch {' '.join(map(str, shape))}]"
        text[f"nodes.{medium}_draw.in.latents"] = f"inputs.{medium}_noise"
    path.write_text(json.dumps(text))
    return path


def noises() -> dict[str, torch.Tensor]:
    return {f"{medium}_noise": sounding.noise(1, *shape) for medium, shape in NOISE.items()}


def words(whole: nextgpt.Whole, pieces: list[str | torch.Tensor], answer: list[int], medium: str) -> torch.Tensor:
    """What the published layer makes of the spans of a medium, by one pass of transformers and peft over prompt and answer."""
    table, (token, count, _) = whole.model.get_input_embeddings(), nextgpt.MEDIA[medium]
    written = torch.tensor(answer)
    first = whole.tokenizer.convert_tokens_to_ids(token.format(0))
    with torch.no_grad():
        given = torch.cat([embedded(whole, pieces), table(written)[None]], 1)
        hidden = whole.model(inputs_embeds=given, output_hidden_states=True).hidden_states[-1][0, -len(answer) :]
        places = [place for place, one in enumerate(answer) if one == first]
        spans = [slice(place, place + count) for place in places]
        return whole.outputs[medium](torch.stack([hidden[span] for span in spans]), torch.stack([table(written[span]) for span in spans]))


def test_what_is_asked_for_is_that_of_diffusers(
    whole: nextgpt.Whole, painter: Path, filmer: Path, sounder: Path, params: dict[str, Any], tmp_path: Path
):
    """An answer with two pictures, a film and a sound: the published layers, and the library's own pipelines with the same noise."""
    forced = params | {"nodes.llm.with.sequence_bias": wishing(whole, "image", "video", "image", "audio"), "max_objects": 4}
    outputs = ["llm.ids", "image_words", "video_words", "audio_words.vector", "images", "videos", "sounds", "conversation"]
    with mg.open(mg.load(noisy(tmp_path), params=forced)) as pipeline:
        found = pipeline.run(prompt="draw a cat", **noises(), outputs=outputs)
    ids = found["llm.ids"][0].tolist()
    spans = [[name.format(number) for number in range(count)] for name, count, _ in (nextgpt.MEDIA[m] for m in ("image", "video", "audio"))]
    assert whole.tokenizer.convert_ids_to_tokens(ids) == [*spans[0], *spans[1], *spans[0], *spans[2], "</s>"]
    asked = {medium: words(whole, ["<s>### Human: draw a cat\n### Assistant:"], ids, medium) for medium in nextgpt.MEDIA}
    torch.testing.assert_close(torch.stack(found["image_words"]), asked["image"], **CLOSE)
    torch.testing.assert_close(torch.stack(found["video_words"]), asked["video"], **CLOSE)
    torch.testing.assert_close(torch.stack(found["audio_words.vector"]), asked["audio"][:, 0], **CLOSE)
    pictures = [theirs_of("StableDiffusionPipeline", painter, "image", one[None])["images"][0] for one in asked["image"]]
    assert len(found["images"]) == 2
    for mine, their in zip(found["images"], pictures, strict=True):
        assert apart(mine, their) <= 1
    size = {"num_frames": 3, "height": 16, "width": 24}
    frames = theirs_of("TextToVideoSDPipeline", filmer, "video", asked["video"], **size)["frames"][0]
    (film,) = found["videos"]
    assert film.frames.shape == (3, 16, 24, 3)
    assert apart(film.frames, numpy.stack([numpy.asarray(frame) for frame in frames])) <= 1
    (sound,) = found["sounds"]
    wanted = theirs_of("AudioLDMPipeline", sounder, "audio", asked["audio"][:, 0], audio_length_in_s=SECONDS, output_type="np")["audios"]
    torch.testing.assert_close(torch.from_numpy(sound.samples), torch.from_numpy(wanted), rtol=0, atol=1e-4)
    (message,) = found["conversation"]
    assert message["role"] == "assistant"
    assert [part["type"] for part in message["content"]] == ["image", "video", "image", "audio"]
    assert apart(message["content"][2]["image"], found["images"][1]) == 0


def apart(mine: Any, theirs: Any) -> float:
    """The largest difference of two pictures or films of 8 bits a colour."""
    return float(numpy.abs(numpy.asarray(mine, float) - numpy.asarray(theirs, float)).max())


def theirs_of(kind: str, folder: Path, medium: str, embeds: torch.Tensor, **more: Any) -> Any:
    """What a pipeline of diffusers makes of prompt embeddings, pushed away from an empty text."""
    theirs = getattr(diffusers, kind).from_pretrained(folder)
    theirs.set_progress_bar_config(disable=True)
    told = {"num_inference_steps": 3, "guidance_scale": 7.5, "output_type": "pil", "latents": noises()[f"{medium}_noise"], **more}
    with torch.no_grad():
        if medium == "audio":
            blank = theirs.tokenizer("", return_tensors="pt")
            away = torch.nn.functional.normalize(theirs.text_encoder(**blank).text_embeds, dim=-1)
        else:
            away = theirs.text_encoder(theirs.tokenizer("", padding="max_length", max_length=77, return_tensors="pt").input_ids)[0]
        return theirs(prompt_embeds=embeds, negative_prompt_embeds=away, **told)


def first(whole: nextgpt.Whole, text: mg.Pipeline, **record: Any) -> tuple[float, int]:
    """The likeliest first token, and how much the first signal of a picture would have to gain to be it."""
    logits = text.run(outputs=["llm.logits"], **record)["llm.logits"][0]
    return float(logits.max() - logits[whole.tokenizer.convert_tokens_to_ids("[IMG0]")]), int(logits.argmax())


def test_what_nobody_asks_for_is_neither_run_nor_loaded(whole: nextgpt.Whole, params: dict[str, Any]):
    """An answer without signals leaves every generator on the disk, and gives no picture."""
    with mg.open("nextgpt", params=params) as pipeline:
        found = pipeline.run(prompt="say hello")
        assert found["images"] == []
        assert GENERATORS.isdisjoint(pipeline._loader.loaded())


def test_a_batch_is_answered_as_its_records_are_alone(whole: nextgpt.Whole, text: mg.Pipeline, params: dict[str, Any]):
    """Records of unlike numbers of objects, of which the bias lets one ask for a picture, and the other not; the same again."""
    records = [{"prompt": "draw a cat"}, {"prompt": "draw it beside <image>", "image": [photo("cat")]}]
    (low, _), (high, said) = sorted(first(whole, text, **record) for record in records)
    forced = [*wishing(whole, "image", bias=(low + high) / 2), [[said, whole.tokenizer.eos_token_id], 9000.0]]
    with mg.open(mg.load("nextgpt", params=params | {"nodes.llm.with.sequence_bias": forced}), seed=11) as pipeline:
        batch = {"prompt": [record["prompt"] for record in records], "image": [record.get("image", []) for record in records]}
        together, again = pipeline.run(**batch), pipeline.run(**batch)
        alone = [pipeline.run(**record) for record in records]
    assert sorted(map(len, together["images"])) == [0, 1]
    for row, one in enumerate(alone):
        assert one["text"] == together["text"][row] == again["text"][row]
        for others in (together["images"][row], again["images"][row]):
            apart = [numpy.abs(numpy.asarray(a, float) - numpy.asarray(b, float)).max() for a, b in zip(one["images"], others, strict=True)]
            assert max(apart, default=0) <= 1  # a rounding of 8 bits: other batches add up in another order


FAILING = {
    "a model of films": ("diffusers.UNet3DConditionModel", ["image", "text", "audio"], "[no video: "),
    "decoders of latents": ("diffusers.models.autoencoders.vae.Decoder", ["text", "text", "text"], "[no image: "),
    "a vocoder": ("transformers.SpeechT5HifiGan", ["image", "video", "text"], "[no audio: "),
    "the encoder of what is pushed away from": ("transformers.CLIPTextModel", ["text", "text", "audio"], "[no image: "),
}


@pytest.mark.parametrize("part", FAILING)
def test_where_a_part_of_a_generator_fails_the_words_stay(
    whole: nextgpt.Whole, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch, part: str
):
    """Out of memory in the middle: what others make is there, and the conversation says what is not."""
    module, kinds, told = FAILING[part]

    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("no room for it")

    monkeypatch.setattr(f"{module}.forward", fail)
    forced = params | {"nodes.llm.with.sequence_bias": wishing(whole, "image", "video", "audio")}
    with mg.open(mg.load("nextgpt", params=forced)) as pipeline:
        found = pipeline.run(prompt="draw a cat")
    assert [len(found[name]) for name in ("images", "videos", "sounds")] == [kind != "text" for kind in kinds]
    content = found["conversation"][0]["content"]
    assert [one["type"] for one in content] == kinds
    assert next(one["text"] for one in content if one["type"] == "text").startswith(told)


def test_states_come_of_the_pass_that_writes(whole: nextgpt.Whole, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    """The decoder is called once for the prompt and once for each token, whether somebody reads states or not; of the last, once more."""
    counts, forced = [], params | {"nodes.llm.with.sequence_bias": wishing(whole, "image")}
    calls, forward = [0], transformers.LlamaModel.forward

    def counting(self: Any, *args: Any, **options: Any) -> Any:
        calls[0] += 1
        return forward(self, *args, **options)

    monkeypatch.setattr(transformers.LlamaModel, "forward", counting)
    with mg.open(mg.load("nextgpt", params=forced)) as pipeline:
        for outputs in (["text", "llm.ids"], ["images", "llm.ids"]):
            calls[0] = 0
            ids = pipeline.run(prompt=f"draw a cat{len(counts)}", outputs=outputs)["llm.ids"][0]
            counts.append((calls[0], len(ids)))
    plain, tapped = counts
    assert plain == (5, 5)  # the prompt, four signals; nothing is read behind the end token
    assert tapped == (6, 5)  # and the end token, whose state is one of those that were written


def test_a_vicuna_that_has_been_given_tokens_before_is_told_by_the_checker(whole: nextgpt.Whole, tmp_path: Path):
    """Embeddings of another number of tokens than those that were trained: one problem, before anything is loaded."""
    base = transformers.AutoModelForCausalLM.from_pretrained(whole.params["language"])
    base.resize_token_embeddings(base.config.vocab_size + 4, mean_resizing=False)
    base.save_pretrained(tmp_path / "vicuna")
    whole.tokenizer.save_pretrained(tmp_path / "vicuna")
    graph = mg.load("nextgpt/text", params=whole.params | GREEDY | {"language": str(tmp_path / "vicuna")})
    rows = base.config.vocab_size
    found = rf"the adapter of llm holds embeddings of {rows + 34} tokens, and llm has {rows + 38}"
    with pytest.raises(mg.GraphError, match=found) as told:
        mg.check(graph)
    assert len(told.value.problems) == 1
    assert "as it was before tokens were added to it" in told.value.problems[0].hint


def test_a_painter_of_another_width_is_told_by_the_checker(painter: Path, params: dict[str, Any], tmp_path: Path):
    """As Stable Diffusion 2 is to the published projection: before anything is loaded."""
    shutil.copytree(painter, tmp_path / "wide")
    config = tmp_path / "wide" / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"cross_attention_dim": 1024}))
    told = r"image_words.prompt_embeds gives float\[batch 77 20\], but image_draw.states takes float\[batch 77 1024\]"
    with pytest.raises(mg.GraphError, match=told):
        mg.check(mg.load("nextgpt", params=params | {"pictures": str(tmp_path / "wide")}))


PUBLISHED = {
    "see": 632_829_440, "hear": 86_235_648, "seen": 4_198_400, "image_words": 31_958_784, "video_words": 32_090_112,
    "audio_words": 31_788_544, "image_draw": 859_520_964, "image_other": 123_060_480, "video_draw": 1_411_233_860,
    "video_other": 340_387_840, "audio_draw": 739_139_080, "audio_other": 125_302_016, "audio_waves": 55_264_897,
}  # fmt: skip
GENERATED = {"image": 1_066_235_307, "video": 1_835_275_563, "audio": 975_082_866}  # whole pipelines of the literature


def test_a_plan_counts_the_published_parts():
    """To the unit, without weights: those of the literature, and 38 rows more of embeddings and head for the language model."""
    steps = {step.node.name: step for step in mg.plan(mg.load("nextgpt")).steps}
    counts = {name: step.parameters.total for name, step in steps.items()}
    assert {name: counts[name] for name in PUBLISHED} == PUBLISHED
    assert steps["llm"].parameters.trainable == 33_554_432
    assert counts["llm"] == 6_738_415_616 + 2 * 38 * 4096 + 33_554_432
    bind = mg.plan(mg.load("imagebind"))
    assert bind.totals.parameters == 1_200_781_057


@pytest.mark.parametrize("medium", GENERATED)
def test_generators_of_a_plan_are_whole_but_for_encoders_of_what_nobody_shows(medium: str):
    """Their numbers add up to those of the published pipelines with the half of the VAE that a generator does not need."""
    steps = {step.node.name: step for step in mg.plan(mg.load("nextgpt")).steps}
    vae: Any = steps[f"{medium}_decode"].node.config
    with torch.device("meta"):
        built = diffusers.AutoencoderKL.from_config(vae.vae)
    half = sum(parameter.numel() for part in (built.encoder, built.quant_conv) for parameter in part.parameters())
    parts = [steps[f"{medium}_{part}"].parameters.total for part in ("other", "draw", "decode", "waves") if f"{medium}_{part}" in steps]
    assert sum(parts) + half == GENERATED[medium]


def test_the_updates_of_a_real_vicuna_are_as_many_as_planned():
    """Built by peft in a LLaMA of seven thousand million numbers, without memory."""
    (node,) = [step.node for step in mg.plan(mg.load("nextgpt/text")).steps if step.node.name == "llm"]
    assert count_adapters(node, registry=None) == 33_554_432


ON_ONNX = ("image", "video", "audio") if WHOLE else ("image",)  # each generator has a test of its own where its parts are sessions


@pytest.mark.whole(
    "tests/plugins/test_onnx_parts.py::test_a_part_gives_torchs_numbers",
    "tests/plugins/test_llm_onnx.py::test_one_graph_with_its_cache_in_place_gives_torchs_logits",
    "tests/plugins/test_diffusion.py::test_the_unet_may_be_a_session",
    "tests/graphs/test_onnx_adapters.py::test_an_export_holds_the_updates",
)
def test_it_is_the_same_on_onnx(whole: nextgpt.Whole, params: dict[str, Any], tmp_path: Path):
    """Towers, projections, the decoder with its updates, and the parts of the generators are exported; all of it is as on torch."""
    forced = params | {"nodes.llm.with.sequence_bias": wishing(whole, *ON_ONNX)}
    noise = {f"{medium}_noise": noises()[f"{medium}_noise"] for medium in ON_ONNX}
    record = {"prompt": "draw it beside <image>", "image": [photo("rocket")], **noise}
    made = {"image": "images", "video": "videos", "audio": "sounds"}
    outputs = ["text", *(made[medium] for medium in ON_ONNX), "llm.ids", "llm.states", "image_words"]
    found = []
    for backend in ("torch", "onnx"):
        with mg.open(mg.load(noisy(tmp_path), params=forced), backend=backend) as pipeline:
            found.append(pipeline.run(**record, outputs=outputs))
    on_torch, on_onnx = found
    assert on_onnx["llm.ids"].tolist() == on_torch["llm.ids"].tolist()
    for name in ("llm.states", "image_words"):
        mine, theirs = (torch.stack(list(one[name])) for one in (on_onnx, on_torch))
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-4)
    assert apart(on_onnx["images"][0], on_torch["images"][0]) <= 2  # of 255: a rounding, and another order of sums
    if "video" in ON_ONNX:
        assert apart(on_onnx["videos"][0].frames, on_torch["videos"][0].frames) <= 2
    if "audio" in ON_ONNX:
        sounds = (torch.from_numpy(one["sounds"][0].samples) for one in (on_onnx, on_torch))
        torch.testing.assert_close(*sounds, rtol=0, atol=1e-3)


def encoded(theirs: Any, caption: str, medium: str) -> torch.Tensor:
    """What the text encoder of a generator makes of a caption; that of sounds has the length 1."""
    with torch.no_grad():
        if medium == "audio":
            vector: torch.Tensor = theirs.text_encoder(**theirs.tokenizer(caption, return_tensors="pt")).text_embeds
            return torch.nn.functional.normalize(vector, dim=-1)
        ids = theirs.tokenizer(caption, padding="max_length", max_length=77, return_tensors="pt").input_ids
        states: torch.Tensor = theirs.text_encoder(ids)[0][0]
        return states


KINDS = {"image": "StableDiffusionPipeline", "video": "TextToVideoSDPipeline", "audio": "AudioLDMPipeline"}
PLACES = {"image": "pictures", "video": "films", "audio": "sounds"}  # their params


@pytest.mark.parametrize("medium", KINDS)
def test_projections_are_drawn_to_the_text_encoders(whole: nextgpt.Whole, params: dict[str, Any], medium: str):
    """The published loss of a batch of captions: one pass of transformers and peft, the published layer, the generator's own encoder."""
    captions, (token, count, _) = ["a cat", "dogs on the grass"], nextgpt.MEDIA[medium]
    told = {name: params[name] for name in ("checkpoint", "language", "lora_rank", "lora_alpha")} | {"generator": params[PLACES[medium]]}
    graph = "nextgpt/train_decoding" + ("" if medium == "image" else f"_{medium}")
    with mg.open(graph, params=told) as pipeline:
        found = torch.stack(list(pipeline.run(text=captions)["loss"]))
    theirs, lost = getattr(diffusers, KINDS[medium]).from_pretrained(params[PLACES[medium]]), []
    for caption in captions:
        signals = "".join(token.format(number) for number in range(count))
        ids = whole.ids(f"### Human: {caption}\n### Assistant: {caption}{signals}\n###")
        away = words(whole, ["<s>"], ids, medium)[0] - encoded(theirs, caption, medium)
        lost.append(((away**2).sum(-1) ** 0.5).mean())
    torch.testing.assert_close(found, torch.stack(lost), **CLOSE)
