"""The script beside an exported language model: it writes greedily with onnxruntime and numpy alone. See `Assembling.script`."""

from __future__ import annotations

SCRIPT = '''\
"""
    python run.py NODE=FILE.npy [--new 20]   what a language model writes after a prompt, greedily: int64[tokens] token ids,
                                             or float[1 tokens width] embeddings; writes NODE.ids.npy
    python run.py NODE=FILE.npy GIVER.PORT=FILE.npy --medium ID     the same of one that looks at media (`beside` in manifest.json):
                                             float[1 images latents width], whose places in the prompt the token ID marks
"""
import numpy


def options(parser):
    parser.add_argument("--new", type=int, default=20, help="tokens that a language model writes")
    parser.add_argument("--medium", type=int, help="the token that marks a medium in a prompt")


def compute(part, values, words, opened, folder):
    name, shown = part["nodes"][0], part["beside"].get("media")
    if name not in values or part["style"] == "crossing":
        return {}
    if shown is None:
        return {f"{name}.ids": write(part, values[name], words.new, opened, folder)}
    if shown not in values or words.medium is None:
        return {}
    return {f"{name}.ids": write(part, values[name], words.new, opened, folder, values[shown], words.medium)}


def look(part, media, prompt, marker, opened):
    """Keys and values of the media, the number of the medium that each token of the prompt sees, and what new tokens see."""
    session, images = opened(part, "media.onnx"), media if media.ndim == 4 else media[:, None]
    vectors = images.reshape(1, -1, images.shape[-1]).astype(part["layout"]["dtype"].removeprefix("torch."))
    feed = dict(zip([entry.name for entry in session.get_outputs()], session.run(None, {"media": vectors})))
    feed["medium"] = numpy.repeat(numpy.arange(1, images.shape[1] + 1), images.shape[2])[None]
    marks, how = prompt == marker, part.get("attends", "last")
    if how != "next":
        seen = numpy.cumsum(marks)
        return feed, seen[None], seen[None, -1:]
    ahead = numpy.cumsum(marks) + (1 - marks)  # the first medium at or behind each token, none behind the last
    return feed, (ahead * (ahead <= marks.sum()))[None], numpy.zeros((1, 1), int)


def write(part, prompt, new, opened, folder, media=None, marker=None):
    session, layout, ids, held = opened(part), part["layout"], [], 0
    kind = layout["dtype"].removeprefix("torch.")
    table = numpy.load(folder / "embeddings.npy", mmap_mode="r")
    embeds = table[prompt][None] if prompt.dtype.kind == "i" else prompt
    wanted = {entry.name: len(entry.shape) for entry in session.get_inputs()}
    empty = numpy.zeros((1, layout["kv_heads"], 0, layout["head_width"]), kind)
    past = {name: empty for name in wanted if name.startswith("past.")}
    nothing = numpy.zeros((1, 1), int)
    pairs, seen, new_seen = look(part, media, prompt, marker, opened) if media is not None else ({}, nothing, nothing)
    axes = layout.get("axes") or 0
    given, blocks = [entry.name for entry in session.get_outputs()], numpy.zeros((1, 0), int)
    while len(ids) < new:
        count, held = embeds.shape[1], held + embeds.shape[1]
        places = numpy.arange(held - count, held)[None]
        together = 0 if layout.get("reads") == "both" and not ids else -1  # of a prompt whose tokens see each other
        blocks = numpy.concatenate([blocks, numpy.full((1, count), together)], 1)
        feed = {
            "inputs_embeds": embeds.astype(kind), "position_ids": numpy.stack([places] * axes, -1) if axes else places,
            "seqlens_k": numpy.array([held - 1], "int32"), "total": numpy.array([held], "int32"),
            "last": numpy.full([1] * wanted.get("last", 1), count - 1),
            "places": numpy.array([[count - 1]]), "deep": numpy.zeros((1, count, layout.get("deep") or 1, embeds.shape[-1]), kind),
            "attention_mask": numpy.ones((1, held), "int64"), "blocks": blocks, "seen": seen, **past, **pairs,
        }
        found = dict(zip(given, session.run(None, {name: feed[name] for name in wanted})))
        past = {name: found[name.replace("past.", "present.", 1)] for name in past}
        ids.append(int(found["logits"].ravel().argmax()))
        embeds, seen = table[ids[-1:]][None], new_seen
    return numpy.array(ids)
'''
