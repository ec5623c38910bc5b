"""Whoever imports modelgraft keeps its settings: random numbers, streams, logs, warnings, modules that it builds meanwhile."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import random
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

import modelgraft as mg
from modelgraft.engine.modules.building import parameters_without_memory
from modelgraft.engine.modules.seeding import seeded
from modelgraft_plugins.onnx.quiet import muted


def drawn():
    """Something of everything that draws."""
    layers = [torch.nn.Linear(5, 7), torch.nn.Embedding(3, 5), torch.nn.MultiheadAttention(6, 2), torch.nn.Conv2d(3, 2, 3)]
    found = [parameter for layer in layers for parameter in layer.parameters()]
    cut, like = torch.nn.init.trunc_normal_(torch.empty(9)), torch.zeros(4)
    found += [cut, torch.randn(3, 5), torch.rand(7), torch.randint(0, 9, (5,)), torch.randint(9, (4,)), torch.randperm(7)]
    found += [torch.bernoulli(torch.full((9,), 0.5)), torch.normal(0.0, 1.0, (3, 2)), torch.normal(like, like + 1), torch.rand_like(like)]
    return [*found, torch.randn_like(like), like.clone().exponential_(), torch.multinomial(torch.ones(9), 3), torch.dropout(cut, 0.5, True)]


def test_seeded_numbers_are_those_of_the_seed_and_the_program_keeps_its_own():
    """Equal, to the last bit, to what manual_seed gives; the generator of the program has not moved."""
    torch.manual_seed(5)
    expected = drawn()
    torch.manual_seed(9)
    with seeded(5):
        found = drawn()
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    after = torch.randn(3)
    torch.manual_seed(9)
    assert torch.equal(after, torch.randn(3))


def beside(work):
    """Call work again and again in another thread while the block lasts; what it gave is in the list."""

    @contextlib.contextmanager
    def running():
        found, stop = [], threading.Event()

        def go():
            while not stop.is_set():
                found.append(work())

        thread = threading.Thread(target=go)
        thread.start()
        try:
            yield found
        finally:
            stop.set()
            thread.join()

    return running()


def test_other_threads_build_whole_modules_from_their_own_numbers():
    """While one thread builds without memory and from a seed, another one does neither."""
    generator, expected = torch.Generator().manual_seed(3), []
    torch.manual_seed(3)
    with beside(lambda: (torch.nn.Linear(2, 2).weight.device.type, torch.randn(1).item())) as found:
        for _ in range(20):
            with parameters_without_memory():
                assert torch.nn.Linear(50, 50).weight.is_meta
            with seeded(4):
                torch.nn.Linear(50, 50)
    for _ in found:
        torch.nn.init.kaiming_uniform_(torch.empty(2, 2), generator=generator)
        torch.empty(2).uniform_(generator=generator)
        expected.append(("cpu", torch.randn(1, generator=generator).item()))
    assert found == expected


def test_other_threads_are_heard_while_one_is_muted(caplog, capsys):
    """What they print, log and warn of arrives; what the muted one says is kept."""
    log = logging.getLogger("of the host")

    def say():
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            warnings.warn("theirs", UserWarning, stacklevel=1)
        print("theirs")
        print("theirs", file=sys.stderr)
        log.error("theirs")
        return len(seen)

    filters, out, disabled = list(warnings.filters), sys.stdout, logging.root.manager.disable
    with beside(say) as found, muted() as heard:
        for _ in range(50):
            print("mine")
            log.error("mine")
            log.critical("mine, above the level")
            warnings.warn("mine", UserWarning, stacklevel=1)
            time.sleep(0.001)
    said = capsys.readouterr()
    assert said.out == "theirs\n" * len(found)
    assert said.err == "theirs\n" * len(found)
    assert "".join(heard) == "mine\n" * 50
    told = [record.message for record in caplog.records]
    assert told.count("theirs") == len(found)
    assert (told.count("mine"), told.count("mine, above the level")) == (0, 50)
    assert set(found) == {1}
    assert (warnings.filters, sys.stdout, logging.root.manager.disable) == (filters, out, disabled)


def settings():
    """What belongs to the process, and a library might change."""
    import locale

    return {
        "torch": (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype(), torch.random.get_rng_state().tolist()),
        "tf32": (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.are_deterministic_algorithms_enabled()),
        "random": (random.getstate(), numpy.random.get_state()[1].tolist(), numpy.geterr()),
        "pillow": (Image.MAX_IMAGE_PIXELS, Image.core is not None),
        "python": (list(warnings.filters), logging.root.level, logging.root.manager.disable, sys.getrecursionlimit(), locale.setlocale(0)),
        "streams": (sys.stdout, sys.stderr, sys.excepthook, threading.excepthook),
        "process": (dict(os.environ), Path.cwd()),
    }


def test_a_graph_with_pictures_and_new_parts_leaves_the_settings_of_the_program(tmp_path):
    """Checked, opened with random weights, run on a picture, and closed."""
    # Libraries that change settings when they are first imported, by whomever: sympy and torch's schedulers add to the filters of
    # warnings, torch's compiler names its cache in the environment.
    for library in ("torch._dynamo", "torch.optim.lr_scheduler", "transformers.activations"):
        importlib.import_module(library)
    (tmp_path / "eye.yaml").write_text(EYE)
    before = settings()
    with mg.open(str(tmp_path / "eye.yaml"), init="random") as pipeline:
        for _ in range(2):
            pipeline.run(image=numpy.zeros((9, 9, 3), numpy.uint8), rows=torch.ones(1, 3, 224))
    after = settings()
    assert after == before


EYE = """# A picture beside a part that is new.
modelgraft: 1
inputs: {image: image, rows: "float[batch tokens 224]"}
nodes:
  pixels: {use: vision/preprocess, from: "preset:clip-vit-b-32", in: {image: inputs.image}}
  score: {use: projector/linear, with: {in_features: 224, out_features: 2}, in: {x: inputs.rows}}
outputs: {pixels: pixels, score: score}
"""


@pytest.mark.parametrize("wrong", [False, True])
def test_streams_are_put_back_after_an_error(wrong):
    """In the order in which they were taken."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        with contextlib.suppress(ValueError), muted(), muted() as heard:
            print("kept")
            if wrong:
                raise ValueError
        print("said")
    assert (stream.getvalue(), heard) == ("said\n", ["kept", "\n"])
