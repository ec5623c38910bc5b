"""A plugin of toys that see and hear just enough to be scored: colours, and how long a sound is."""

from __future__ import annotations

import numpy
import torch

from modelgraft import component, hookimpl

COLOURS = ("red", "green", "blue")


def colour_of(picture) -> int:
    """Which of the three a picture has most of."""
    return int(numpy.asarray(picture.convert("RGB")).reshape(-1, 3).mean(axis=0).argmax())


@component("toy/caption", kind="head", inputs={"image": "image"}, outputs={"text": "text"})
def caption(image):
    """Say which colour a picture has."""
    return [f"A {COLOURS[colour_of(one)]} square." for one in image]


@component("toy/answer", kind="head", inputs={"image": "image", "question": "text"}, outputs={"text": "text"})
def answer(image, question):
    """Say the colour, whatever is asked; a question that shouts is refused."""
    if any(one.isupper() for one in question):
        raise ValueError("do not shout")
    return [COLOURS[colour_of(one)] for one in image]


@component("toy/hear", kind="head", inputs={"audio": "audio"}, outputs={"text": "text"})
def hear(audio):
    """A word for each tenth of a second."""
    return [" ".join(["la"] * round(10 * one.samples.shape[-1] / one.sample_rate_hz)) for one in audio]


@component("toy/see", kind="encoder", inputs={"image": "image"}, outputs={"vector": "float[batch 3]"})
def see(image):
    """The mean colour."""
    return torch.tensor(numpy.stack([numpy.asarray(one.convert("RGB"), dtype=numpy.float32).reshape(-1, 3).mean(axis=0) for one in image]))


@component("toy/read", kind="encoder", inputs={"texts": "list[text]"}, outputs={"vectors": "float[batch texts 3]"})
def read(texts):
    """How often each text names each colour, and a little of all."""
    rows = [[[0.1 + text.lower().count(colour) for colour in COLOURS] for text in those] for those in texts]
    return torch.tensor(rows, dtype=torch.float32)


@component("toy/name", kind="head", inputs={"image": "image"}, outputs={"label": "label"})
def name(image):
    """The colour as a label."""
    return [COLOURS[colour_of(one)] for one in image]


@hookimpl
def register_components(register) -> None:
    for subject in (caption, answer, hear, see, read, name):
        register(subject)
