"""The script that `modelgraft export` writes beside its segments: they run with onnxruntime and numpy alone."""

from __future__ import annotations

SCRIPT = '''\
"""Run the exported segments with onnxruntime alone.

    python run.py NODE.PORT=FILE.npy ...     tensors in; writes NODE.PORT.npy for whatever can be computed from them (_ for /)
    python run.py NODE=FILE.npy [--new 20]   what a language model writes after a prompt, greedily: int64[tokens] token ids,
                                             or float[1 tokens width] embeddings; writes NODE.ids.npy
    python run.py NODE=FILE.npy GIVER.PORT=FILE.npy --medium ID     the same of one that looks at media (its `media` in manifest.json):
                                             float[1 images latents width], whose places in the prompt the token ID marks
"""
import argparse, json, pathlib, platform
import numpy, onnxruntime

here = pathlib.Path(__file__).parent


def saturates():
    """Whether this processor adds pairs of 8-bit products in 16 bits, which overflow: x86 without VNNI."""
    told = pathlib.Path("/proc/cpuinfo")
    return platform.machine().lower() in ("x86_64", "amd64", "i686") and not (told.exists() and "vnni" in told.read_text(errors="replace"))


def opened(part, graph="model.onnx"):
    options = onnxruntime.SessionOptions()
    if part["weights"].startswith("8 bits dynamic") and saturates():
        options.add_session_config_entry("session.x64quantprecision", "1")  # both factors unsigned: slower, and right
    return onnxruntime.InferenceSession(here / part["folder"] / graph, options, providers=["CPUExecutionProvider"])


def look(part, media, prompt, marker):
    """Keys and values of the media, and the number of the medium that each token of the prompt sees."""
    session, images = opened(part, "media.onnx"), media if media.ndim == 4 else media[:, None]
    vectors = images.reshape(1, -1, images.shape[-1]).astype(part["layout"]["dtype"].removeprefix("torch."))
    feed = dict(zip([entry.name for entry in session.get_outputs()], session.run(None, {"media": vectors})))
    feed["medium"] = numpy.repeat(numpy.arange(1, images.shape[1] + 1), images.shape[2])[None]
    return feed, numpy.cumsum(prompt == marker)[None]


def write(part, prompt, new, media=None, marker=None):
    session, layout, ids, held = opened(part), part["layout"], [], 0
    kind = layout["dtype"].removeprefix("torch.")
    table = numpy.load(here / part["folder"] / "embeddings.npy", mmap_mode="r")
    embeds = table[prompt][None] if prompt.dtype.kind == "i" else prompt
    wanted = [entry.name for entry in session.get_inputs()]
    empty = numpy.zeros((1, layout["kv_heads"], 0, layout["head_width"]), kind)
    past = {name: empty for name in wanted if name.startswith("past.")}
    pairs, seen = look(part, media, prompt, marker) if media is not None else ({}, numpy.zeros((1, 1), int))
    while len(ids) < new:
        count, held = embeds.shape[1], held + embeds.shape[1]
        feed = {
            "inputs_embeds": embeds.astype(kind), "position_ids": numpy.arange(held - count, held)[None],
            "seqlens_k": numpy.array([held - 1], "int32"), "total": numpy.array([held], "int32"), "last": numpy.array([count - 1]),
            "attention_mask": numpy.ones((1, held), "int64"), "seen": seen, **past, **pairs,
        }
        logits, *present = session.run(None, {name: feed[name] for name in wanted})
        past = dict(zip(past, present))
        ids.append(int(logits[0].argmax()))
        embeds, seen = table[ids[-1:]][None], seen[:, -1:]
    return numpy.array(ids)


def compute(parts, values, words):
    results = {}
    for part in parts:
        wires, name = part["wires"], part["nodes"][0]
        if part["style"] == "tensors" and all(source in values for source in wires.values()):
            found = opened(part).run(None, {port: values[source] for port, source in wires.items()})
            results |= zip(part["gives"], found)
            values |= results
        elif part["style"] in ("grouped", "growing") and name in values:
            results[f"{name}.ids"] = write(part, values[name], words.new)
        elif part["style"].startswith("gated") and {name, part["media"]} <= values.keys() and words.medium is not None:
            results[f"{name}.ids"] = write(part, values[name], words.new, values[part["media"]], words.medium)
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("values", nargs="+", metavar="NAME=FILE.npy")
    parser.add_argument("--new", type=int, default=20, help="tokens that a language model writes")
    parser.add_argument("--medium", type=int, help="the token that marks a medium in a prompt")
    words, given = parser.parse_args(), {}
    parts = json.loads((here / "manifest.json").read_text())["segments"]
    known = {name for part in parts for name in (*part["wires"].values(), *part["gives"], *part["nodes"], part.get("media"))}
    for word in words.values:
        name, _, file = word.partition("=")
        if not file or name not in known:
            parser.error(f"'{word}' is no NAME=FILE.npy, or has a NAME that is none of: {', '.join(sorted(known - {None}))}")
        try:
            given[name] = numpy.load(file)
        except (OSError, ValueError) as error:
            parser.error(f"{file} cannot be read: {error}")
    try:
        results = compute(parts, dict(given), words)
    except Exception as error:
        shapes = ", ".join(f"{name} {value.dtype}{list(value.shape)}" for name, value in given.items())
        parser.error(f"cannot be computed from {shapes}: {str(error).strip().splitlines()[0]} (see `ports` in manifest.json)")
    if not results:
        parser.error("nothing can be computed from these values: see `wires` and `nodes` in manifest.json")
    for name, value in results.items():
        numpy.save(name.replace("/", "_") + ".npy", value)
'''
