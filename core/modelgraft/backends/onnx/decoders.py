"""Language models on ONNX Runtime: the module keeps tokenizer, embeddings and loop, its decoder is an exported graph.

What a module offers for it is `Decodes` below. There are three styles of decoder graphs: "grouped" (decoding.py: its cache
is updated in place), "growing" and "crossing" (growing.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from modelgraft.backends.base import LoadContext, Loaded
from modelgraft.backends.onnx import store
from modelgraft.backends.onnx.decoding import Layout, OnnxDecoder
from modelgraft.backends.onnx.exporting import open_fresh
from modelgraft.backends.onnx.growing import CrossingDecoder, GrowingDecoder
from modelgraft.backends.onnx.keys import OPSET, ExportError
from modelgraft.backends.onnx.parity import Parity, compare
from modelgraft.backends.onnx.precision import reduce
from modelgraft.generation.decoder import Decoder

# Prompts of the parity gate: two batches of unequal lengths, none as long as the traced one, then tokens one by one.
PROMPTS = ((3, 9, 4), (1,))
STEPS = 4
MOST_IDS = 50  # tokens of the gate are drawn from the first so many of a vocabulary
CROSSING = ("decoder.onnx", "crossing.onnx", "encoder.onnx")


@dataclass(frozen=True, slots=True)
class DecoderGraph:
    """What was exported: the style, its sizes, and what a user must know about it."""

    style: str
    layout: Layout
    remark: str = ""


class Decodes(Protocol):
    """A module whose decoder can be exported."""

    decoder: Decoder | None  # what it uses in place of its own

    def export_decoder(self, folder: Path, *, half: bool) -> DecoderGraph:
        """Write the graphs: model.onnx, or those of CROSSING. Raises ExportError when the model cannot be exported."""
        ...

    def torch_decoder(self) -> Decoder:
        """The same decoder in torch, for the parity gate."""
        ...

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """The input embeddings, int64[n] -> float[n width]."""
        ...

    def release_decoder(self) -> None:
        """Free the weights that only `torch_decoder` reads."""
        ...

    def start_ids(self) -> Sequence[int]:
        """What every answer of a crossing decoder begins with."""
        ...


def load(host: Loaded, context: LoadContext, *, key: str, precision: str) -> tuple[Loaded, store.Entry]:
    """Give a language model, loaded by torch, a decoder on ONNX Runtime; and the export that it runs.

    From then on the host holds its embeddings alone, so nobody can take its weights from it: `Loaded.state` is None.
    """
    module: Decodes = host.state
    entry, complaint = store.find(key)
    if entry is None:
        entry = store.make(key, lambda folder: _build(module, context, precision, folder))
    remarks = [f"{context.node.name}: {text}" for text in (complaint, entry.manifest.get("remark", "")) if text]

    def session(graph: str) -> Any:
        opened, said = store.session(entry.folder, context.device, graph=graph, count=context.threads)
        remarks.extend(said)
        return opened

    module.decoder = _decoder(module, entry.folder, entry.manifest, session, context.device)
    module.release_decoder()
    return replace(host, state=None, warnings=(*host.warnings, *remarks)), entry


def _decoder(module: Decodes, folder: Path, manifest: Mapping[str, Any], session: Callable[[str], Any], device: str) -> Decoder:
    facts = dict(manifest["layout"])
    layout = Layout(**{**facts, "dtype": getattr(torch, str(facts["dtype"]).removeprefix("torch."))})
    if manifest["style"] == "crossing":
        sessions = {graph.removesuffix(".onnx"): session(graph) for graph in CROSSING if (folder / graph).is_file()}
        return CrossingDecoder(sessions, layout, module.start_ids, device=device)
    kind = OnnxDecoder if manifest["style"] == "grouped" else GrowingDecoder
    return kind(session(store.GRAPH), layout, module.embed, device=device)


def _build(module: Decodes, context: LoadContext, precision: str, folder: Path) -> Mapping[str, Any]:
    store.tell(1, "tracing")
    made = module.export_decoder(folder, half=precision == "float16")
    store.tell(2, f"bringing to {precision}")
    for graph in sorted(folder.glob("*.onnx")):
        reduce(graph, precision)
    manifest: dict[str, Any] = {
        "node": context.node.name,
        "component": context.node.component.id,
        "opset": OPSET,
        "precision": precision,
        "style": made.style,
        "remark": made.remark,
        "layout": {**asdict(made.layout), "dtype": str(made.layout.dtype)},
    }
    store.tell(3, "comparing with torch")
    exported = _decoder(module, folder, manifest, lambda graph: open_fresh(folder / graph), "cpu")
    parity = prove(module, exported, made, precision)
    if not parity.holds:
        raise ExportError(f"the export differs from torch: {parity}")
    return {**manifest, "parity": asdict(parity)}


def prove(module: Decodes, exported: Decoder, made: DecoderGraph, precision: str) -> Parity:
    """Compare an exported decoder with torch: prompts of unequal lengths, then several tokens."""
    generator = torch.Generator().manual_seed(7)
    ids = min(MOST_IDS, made.layout.vocab)

    def prompt(length: int) -> torch.Tensor:
        if made.style == "crossing":
            return torch.randn(length, made.layout.width, generator=generator)
        return module.embed(torch.randint(0, ids, (length,), generator=generator)).detach()

    cases = [tuple(prompt(length) for length in lengths) for lengths in PROMPTS]
    return compare(
        lambda *case: _answer(module.torch_decoder(), case, ids), lambda *case: _answer(exported, case, ids), cases, precision=precision
    )


def _answer(decoder: Decoder, prompts: tuple[torch.Tensor, ...], ids: int) -> tuple[torch.Tensor, ...]:
    """The logits of the prompts, and of tokens that do not depend on them: from the first `ids` of the vocabulary."""
    with torch.no_grad():
        logits = [decoder.prefill(prompts, room=STEPS).float().clone()]
        for step in range(STEPS):
            tokens = torch.tensor([(7 * step + 3 * row + 1) % ids for row in range(len(prompts))])
            logits.append(decoder.step(tokens).float().clone())
    return tuple(logits)
