"""Language models on ONNX Runtime: the module keeps tokenizer, embeddings and loop, its decoder is an exported graph.

A module whose decoder can be exported has
    export_decoder(path, half) -> Layout     writes the graph that decoding.py describes
    torch_decoder() -> Decoder               the same decoder in torch, for the parity gate
    embed(ids) -> Tensor                     its input embeddings
    decoder                                  an attribute: what it uses in place of its own
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from modelgraft.backends.base import LoadContext, Loaded
from modelgraft.backends.onnx import store
from modelgraft.backends.onnx.decoding import Layout, OnnxDecoder
from modelgraft.backends.onnx.exporting import OPSET, ExportError
from modelgraft.backends.onnx.parity import Parity, compare
from modelgraft.backends.onnx.precision import reduce
from modelgraft.backends.onnx.runtime import open_session
from modelgraft.generation.decoder import Decoder

# Prompts of the parity gate: two batches of unequal lengths, none as long as the traced one, then tokens one by one.
PROMPTS = ((3, 9, 4), (1,))
STEPS = 4


class Decodes(Protocol):
    """See above."""

    decoder: Decoder | None

    def export_decoder(self, path: Path, *, half: bool) -> Layout:
        """Write the graph; raises ExportError when the model cannot be exported."""
        ...

    def torch_decoder(self) -> Decoder:
        """The decoder in torch."""
        ...

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """int64[n] -> float[n width]."""
        ...


def load(host: Loaded, context: LoadContext, *, key: str, precision: str) -> Loaded:
    """Give a language model, loaded by torch, a decoder on ONNX Runtime.

    Only the embeddings of the host are read from then on: where its weights are mapped from a file, the rest takes no memory.
    """
    module: Decodes = host.state
    entry, complaint = store.find(key)
    if entry is None:
        entry = store.make(key, lambda folder: _build(module, context, precision, folder))
    session, remarks = store.session(entry.folder, context.device)
    module.decoder = OnnxDecoder(session, layout_of(entry.manifest), module.embed, device=context.device)
    said = (f"{context.node.name}: {complaint}",) if complaint else ()
    return replace(host, warnings=(*host.warnings, *said, *remarks))


def layout_of(manifest: Mapping[str, Any]) -> Layout:
    """The layout that a manifest records."""
    facts = dict(manifest["layout"])
    return Layout(**{**facts, "dtype": getattr(torch, str(facts["dtype"]).removeprefix("torch."))})


def _build(module: Decodes, context: LoadContext, precision: str, folder: Path) -> Mapping[str, Any]:
    path = folder / store.GRAPH
    layout = module.export_decoder(path, half=precision == "float16")
    reduce(path, precision)
    parity = prove(module, OnnxDecoder(open_session(path, device="cpu"), layout, module.embed, device="cpu"), precision)
    if not parity.holds:
        raise ExportError(f"the export differs from torch: {parity}")
    return {
        "node": context.node.name,
        "component": context.node.component.id,
        "opset": OPSET,
        "precision": precision,
        "layout": {**asdict(layout), "dtype": str(layout.dtype)},
        "parity": {"absolute": parity.absolute, "relative": parity.relative, "tolerance": parity.tolerance, "sizes": parity.sizes},
    }


def prove(module: Decodes, exported: Decoder, precision: str) -> Parity:
    """Compare an exported decoder with torch: prompts of unequal lengths, then several tokens."""
    table = torch.Generator().manual_seed(7)
    cases = [tuple(module.embed(torch.randint(0, 50, (length,), generator=table)) for length in lengths) for lengths in PROMPTS]
    return compare(lambda *case: _answer(module.torch_decoder(), case), lambda *case: _answer(exported, case), cases, precision=precision)


def _answer(decoder: Decoder, prompts: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The logits of the prompts and of tokens that do not depend on them."""
    with torch.no_grad():
        logits = [decoder.prefill(prompts, room=STEPS).float().clone()]
        for step in range(STEPS):
            tokens = torch.tensor([(7 * step + 3 * row + 1) % 50 for row in range(len(prompts))])
            logits.append(decoder.step(tokens).float().clone())
    return tuple(logits)
