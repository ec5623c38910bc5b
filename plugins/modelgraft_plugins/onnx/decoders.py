"""Language models on ONNX Runtime: an exported graph decodes, and around it the component's loop reads and writes.

The module is needed to export it, and never again: what the loop must know of it stands in the manifest, and the input
embeddings are read from the checkpoint, or from a file of the export where they stand in none. What a module offers is
`Decodes` below. There are five styles of decoder graphs: "grouped" (decoding.py: its cache is updated
in place), "growing" and "crossing" (growing.py), "gated" and "gated-growing" (gated.py: the first two, looking at media).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from modelgraft.plugin import Decoder, LoadContext, Loaded, Loop, Parity, driving, in_torch, loop_of, note_memory, parity_of, resolve
from modelgraft_plugins.onnx import gated, proofs, store, tuned
from modelgraft_plugins.onnx.decoding import Layout, OnnxDecoder
from modelgraft_plugins.onnx.exporting import open_fresh
from modelgraft_plugins.onnx.growing import CrossingDecoder, GrowingDecoder
from modelgraft_plugins.onnx.keys import OPSET
from modelgraft_plugins.onnx.precision import TOLERANCES, bring
from modelgraft_plugins.onnx.stepping import Rows

# Prompts of the parity gate: two batches of unequal lengths, none as long as the traced one, then tokens one by one.
PROMPTS = ((3, 9, 4), (1,))
STEPS = 4
MOST_IDS = 50  # tokens of the gate are drawn from the first so many of a vocabulary
TABLE = "embeddings.safetensors"
CROSSING = ("decoder.onnx", "crossing.onnx", "encoder.onnx")

Embed = Callable[[Tensor], Tensor]  # int64[n] -> float32[n width], the input embeddings


@dataclass(frozen=True, slots=True)
class DecoderGraph:
    """What was exported: the style, its sizes, and what a user must know about it."""

    style: str
    layout: Layout
    remark: str = ""


class Decodes(Protocol):
    """A module whose decoder can be exported."""

    def export_decoder(self, folder: Path, *, half: bool) -> DecoderGraph:
        """Write the graphs: model.onnx, with media.onnx where it is gated, or those of CROSSING.

        Raises ExportError when the model cannot be exported.
        """
        ...

    def torch_decoder(self) -> Decoder:
        """The same decoder in torch, for the parity gate."""
        ...

    def embed(self, ids: Tensor) -> Tensor:
        """The input embeddings, int64[n] -> float[n width]."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """What a loop must know of the model beside its config, as plain values."""
        ...


def load(context: LoadContext, open_host: Callable[[], Loaded], *, key: str, precision: str) -> tuple[Loaded, store.Entry]:
    """Give a language model whose decoder runs on ONNX Runtime, and the export that it runs.

    open_host  loads the node on torch; called only when its export is not kept

    Nobody can take weights from it: `Loaded.state` is None.
    """
    node = context.node
    (loop, decoder, embed, remarks), entry, said = proofs.opened(  # which lets go of the module before sessions open
        key,
        partial(_open, context),
        build=lambda folder: _build(open_host(), context, precision, folder),
        prove=lambda kept: _compared(open_host().state, kept.folder, kept.manifest, precision),
    )
    facts = entry.manifest
    warnings = [*facts["warnings"], *(f"{node.name}: {text}" for text in (*said, facts["remark"], *remarks) if text)]
    at_home = replace(context, device="cpu", dtype="float32")  # where prompts are embedded
    loop.prepare(at_home)
    call = in_torch(driving(loop, {"decoder": decoder, "embed": embed}, node), at_home)
    return Loaded(call, bind=loop.bind, warnings=tuple(warnings), loop=loop, is_shared=False), entry


def _open(context: LoadContext, entry: store.Entry) -> tuple[Loop, Decoder, Embed, list[str]]:
    """The loop of a node, the decoder that an export is, the embeddings, and what a user must know of the sessions."""
    node, facts, remarks = context.node, entry.manifest, list[str]()

    def session(graph: str) -> Any:
        opened, said = tuned.session(entry.folder, context.device, graph=graph, count=context.threads)
        remarks.extend(said)
        return opened

    loop = loop_of(node, facts["facts"], resolve)
    embed = _embedding(entry.folder, facts["embeddings"], context)
    decoder = _decoder(entry.folder, facts, session, embed=embed, device=context.device)
    return loop, decoder, embed, remarks


def _embedding(folder: Path, where: Mapping[str, str], context: LoadContext) -> Embed:
    """The input embeddings, as `_keep_table` has noted where they stand; they are mapped, not read."""
    if "key" in where and context.weights is not None:
        table = context.weights.tensor(where["key"])
    else:
        from safetensors.torch import load_file

        table = load_file(store.proven_file(folder, where["file"]))["table"] if where else torch.zeros(0, 0)
    note_memory("cpu", table.nbytes)
    return Rows(table)


def _keep_table(module: Decodes, vocabulary: int, context: LoadContext, folder: Path) -> Mapping[str, str]:
    """Note under which key the checkpoint holds the input embeddings; write them into a file when it holds them nowhere."""
    with torch.no_grad():
        table = module.embed(torch.arange(vocabulary))
    weights = context.weights
    for key in weights.keys() if weights is not None else ():
        if weights is not None and weights.shape(key) == tuple(table.shape) and torch.equal(weights.tensor(key).to(table.dtype), table):
            return {"key": key}
    from safetensors.torch import save_file

    save_file({"table": table.contiguous()}, folder / TABLE)
    return {"file": TABLE}


def _decoder(
    folder: Path,
    manifest: Mapping[str, Any],
    session: Callable[[str], Any],
    *,
    embed: Embed,
    device: str,
) -> Decoder:
    layout = _layout(manifest)
    if manifest["style"] == "crossing":
        sessions = {graph.removesuffix(".onnx"): session(graph) for graph in CROSSING if (folder / graph).is_file()}
        return CrossingDecoder(sessions, layout, device=device)
    if manifest["style"] in gated.STYLES:
        return gated.STYLES[manifest["style"]](session(store.GRAPH), layout, embed, device=device, media=session(gated.MEDIA))
    kind = OnnxDecoder if manifest["style"] == "grouped" else GrowingDecoder
    return kind(session(store.GRAPH), layout, embed, device=device)


def _layout(manifest: Mapping[str, Any]) -> Layout:
    facts = dict(manifest["layout"])
    return Layout(**{**facts, "dtype": getattr(torch, str(facts["dtype"]).removeprefix("torch."))})


def _build(host: Loaded, context: LoadContext, precision: str, folder: Path) -> Mapping[str, Any]:
    module: Decodes = host.state
    store.tell(1, "tracing")
    made = module.export_decoder(folder, half=precision == "float16")
    facts, reads_prompts = module.facts(), made.style != "crossing" or (folder / "encoder.onnx").is_file()
    manifest: dict[str, Any] = {
        "node": context.node.name,
        "component": context.node.component.id,
        "opset": OPSET,
        "precision": precision,
        "style": made.style,
        "remark": made.remark,
        "layout": {**asdict(made.layout), "dtype": str(made.layout.dtype)},
        "facts": facts,
        "embeddings": _keep_table(module, facts["vocabulary"], context, folder) if reads_prompts else {},
    }
    reduced = bring(sorted(folder.glob("*.onnx")), precision, lambda: _compared(module, folder, manifest, precision))
    warnings = [*host.warnings, *(f"{context.node.name}: {text}" for text in reduced.warnings)]
    return {**manifest, "weights": reduced.weights, "warnings": warnings, "parity": asdict(reduced.parity)}


def _compared(module: Decodes, folder: Path, manifest: Mapping[str, Any], precision: str) -> Parity:
    """How far the decoder that a folder holds is from its module."""
    sessions = _decoder(folder, manifest, lambda graph: open_fresh(folder / graph), embed=module.embed, device="cpu")
    return prove(module, sessions, DecoderGraph(manifest["style"], _layout(manifest)), precision)


def prove(module: Decodes, exported: Decoder, made: DecoderGraph, precision: str) -> Parity:
    """Compare an exported decoder with torch: prompts of unequal lengths, then several tokens."""
    generator = torch.Generator().manual_seed(7)
    ids = min(MOST_IDS, made.layout.vocab)

    def prompt(length: int) -> Tensor:
        if made.style == "crossing":
            return torch.randn(length, made.layout.width, generator=generator)
        return module.embed(torch.randint(0, ids, (length,), generator=generator)).detach()

    def answer(decoder: Decoder, case: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if isinstance(exported, gated.GatedDecoder | gated.GatedGrowingDecoder):
            gated.rehearse(decoder, case, media_size=exported.media_size)
        return _answer(decoder, case, ids)

    cases = [tuple(prompt(length) for length in lengths) for lengths in PROMPTS]
    return parity_of(
        lambda *case: answer(module.torch_decoder(), case),
        lambda *case: answer(exported, case),
        cases,
        tolerance=TOLERANCES[precision][0],
        writes=True,
    )


def _answer(decoder: Decoder, prompts: tuple[Tensor, ...], ids: int) -> tuple[Tensor, ...]:
    """The logits of the prompts, and of tokens that do not depend on them: from the first `ids` of the vocabulary."""
    with torch.no_grad():
        logits = [decoder.prefill(prompts, room=STEPS).float().clone()]
        for step in range(STEPS):
            tokens = torch.tensor([(7 * step + 3 * row + 1) % ids for row in range(len(prompts))])
            logits.append(decoder.step(tokens).float().clone())
    return tuple(logits)
