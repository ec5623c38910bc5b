"""How a node is loaded: its GGUF file opened by llama.cpp, compared with torch once, and put behind the loop of its component."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from modelgraft.plugin import (
    TOLERANCES,
    Assembling,
    Backend,
    Decoder,
    ExportError,
    GraphError,
    InputError,
    LoadContext,
    Loaded,
    Loop,
    Node,
    NodeRuntime,
    Parity,
    Problem,
    Remembering,
    current_listener,
    driving,
    in_numpy,
    is_driven,
    loop_of,
    note_memory,
    option,
    parity_of,
    resolve,
)
from modelgraft_plugins.cores import threads
from modelgraft_plugins.llamacpp import notes
from modelgraft_plugins.llamacpp.decoder import LlamaDecoder
from modelgraft_plugins.llamacpp.library import library
from modelgraft_plugins.llamacpp.native import Model

COMPONENT = "llm/causal"
TABLE = "model.embed_tokens.weight"  # the input embeddings, as what reads GGUF files names them
LAST = (-1,)  # the one layer whose hidden states llama.cpp gives: what the head reads
STATES = frozenset({"states", "prompt_states"})
# Largest accepted difference from torch, which computes with the very weights in float32, relative to the largest logit, and why.
ACCEPTED: Mapping[str, tuple[float, str]] = {
    "F32": TOLERANCES["float32"],
    "F16": TOLERANCES["float16"],
    "BF16": (6e-2, "8 bits of mantissa"),
}
OF_BLOCKS = (0.2, "what is multiplied by weights in blocks is rounded to 8 bits in blocks; outliers of trained models reach 0.14 (SmolLM2)")


def load(context: LoadContext, shared: Mapping[str, Loaded], host: Backend) -> Loaded:
    """Load one node, as `LlamaCppBackend.load` says. host: the torch backend."""
    node = context.node
    try:
        return _opened(context, shared, host)
    except ExportError as error:
        found = f"{node.name} ({node.component.id}) cannot run on the llamacpp backend: {error}"
        if context.fallback != "torch":
            hint = f"let it stay on torch: {option('fallback', 'torch')}, or nodes.{node.name}.runtime: {{backend: torch}} in the graph"
            raise GraphError(Problem("not-exportable", found, node.place, hint, node=node.name)) from error
        loaded = host.load(replace(context, precision=""), shared)
        return replace(loaded, warnings=(*loaded.warnings, f"{found}; it stays on torch"))


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """A decoder in its parts, as its loop calls them."""

    decoder: LlamaDecoder
    parts: Mapping[str, Any]


def _opened(context: LoadContext, shared: Mapping[str, Loaded], host: Backend) -> Loaded:
    node, path = context.node, _file(context)
    config: Any = node.config  # whose fields another plugin declares
    model = Model(library(), path)
    try:
        _refuse(context, model)
        made = _parts(context, model)
        at_home = replace(context, dtype="float32", precision="")
        loop = loop_of(node, _facts(context), resolve)
        told = list[str]()

        def giving(wanted: frozenset[str]) -> Callable[..., Any]:
            layers = config.states.layers
            if wanted & STATES and layers != LAST:
                raise ExportError(f"llama.cpp gives the hidden states of layer -1 alone, and states.layers is {list(layers)}")
            variant = type(loop).variant(node.config, wanted) if isinstance(loop, Assembling) else ""
            told.extend(_proven(context, shared, host, made, model, variant))
            return in_numpy(driving(loop, made.parts, wanted), at_home)

        call = giving(frozenset(node.out_ports))
        loop.prepare(at_home)
    except BaseException:
        model.close()
        raise
    note_memory("cpu", model.bytes)

    def bind(runtime: NodeRuntime) -> None:
        made.decoder.check = runtime.check
        loop.bind(runtime)

    return Loaded(
        call,
        bind=bind,
        close=lambda: _close(loop, made.decoder, model),
        warnings=tuple(f"{node.name}: {text}" for text in told),
        loop=loop,
        giving=giving if node.component.taps else None,
        is_shared=False,
        arrays=True,
    )


def _close(loop: Loop, decoder: LlamaDecoder, model: Model) -> None:
    loop.close()
    decoder.close()
    model.close()


def _file(context: LoadContext) -> Path:
    """The GGUF file of a node. Raises ExportError for what is none, or is not run from it as it stands."""
    node = context.node
    if node.component.id != COMPONENT or not is_driven(node):
        raise ExportError(f"llama.cpp runs decoders ({COMPONENT}) of .gguf files")
    if node.adapters:
        raise ExportError(f"its adapter {node.adapters[0].component.id} changes layers of torch, which llama.cpp does not have")
    if node.share is not None:
        raise ExportError(f"it shares the weights of {node.share}, and llama.cpp reads a file: give it a `from` of its own")
    config: Any = node.config  # whose fields another plugin declares
    if config.reads != "onward":
        raise ExportError(f"reads is {config.reads}, and llama.cpp lets each token see those before it")
    if config.hears:
        raise ExportError("its first layers hear inner layers of an eye, which llama.cpp does not hand them")
    if config.added:
        raise ExportError(f"its embeddings and head get rows for {len(config.added)} tokens that the file lacks")
    origin = None if context.weights is None else context.weights.view.origin
    if origin is None or origin.suffix.lower() != ".gguf" or node.source is None or node.source.part:
        said = "no weights of its own" if node.source is None or context.weights is None else node.source.text
        raise ExportError(f"its source is {said}, and llama.cpp opens a .gguf file, whole")
    return origin


def _refuse(context: LoadContext, model: Model) -> None:
    """Raise InputError for a precision that is not the file's, ExportError for what llama.cpp would leave out."""
    node = context.node
    if context.precision and not model.is_float32:
        found = f"{node.name}: precision is {context.precision}, and its file holds {model.weights}, which llama.cpp runs as it stands"
        raise InputError(f"{found}: leave precision out, or name a file in {context.precision}")
    window = context.weights.view.root.get("sliding_window") if context.weights is not None else None
    if window and not model.window:
        raise ExportError(f"it looks back {window:,} tokens, and llama.cpp lets it look back to the first")


def _noted(context: LoadContext) -> Node:
    """The node as notes know it: what a first use converts is in the file that was opened, and not in the one that was named."""
    assert context.weights is not None
    return replace(context.node, source=context.weights.view)


def _facts(context: LoadContext) -> Mapping[str, Any]:
    """What the module says of itself: kept from when it was compared, else built without memory."""
    if (known := notes.facts(_noted(context))) is not None:
        return known
    import torch

    component = context.node.component
    with torch.device("meta"):
        facts: Mapping[str, Any] = resolve(component.module or "", component)(context.node.config).facts()
    return facts


def _parts(context: LoadContext, model: Model) -> _Opened:
    """The decoder, and its input embeddings, read row by row from what was converted of the file."""
    assert context.weights is not None
    table = context.weights.table(TABLE)
    if table.numbers.shape != (model.vocabulary, model.width):
        raise ExportError(f"its embeddings are {list(table.numbers.shape)}, and llama.cpp has [{model.vocabulary}, {model.width}]")

    decoder = LlamaDecoder(model, threads=context.threads or threads())
    kept: Decoder = Remembering(decoder, table)
    return _Opened(decoder, {"decoder": kept, "embed": table})


def _proven(
    context: LoadContext, shared: Mapping[str, Loaded], host: Backend, made: _Opened, model: Model, variant: str
) -> tuple[str, ...]:
    """See that the parts give what torch does, where that is not known; gives what a user must know. Raises ExportError."""
    node = _noted(context)
    if notes.read(node, variant=variant):
        return ()
    current_listener()(1, 2, "opening in torch, to compare llama.cpp with it, step")
    loaded = host.load(replace(context, precision="", fallback=None, device="cpu", dtype="float32"), shared)
    current_listener()(2, 2, "comparing llama.cpp with torch, step")
    parity, facts = _compared(loaded, made.parts, model, variant), dict(loaded.state.facts())
    loaded.close()
    del loaded
    gc.collect()
    if not parity.holds:
        raise ExportError(f"what it gives differs from torch: {parity}")
    said = notes.write(node, asdict(parity), f"{model.weights}, as the file holds them", told=facts, variant=variant)
    return (said,) if said else ()


def _compared(loaded: Loaded, parts: Mapping[str, Any], model: Model, variant: str) -> Parity:
    import torch

    from modelgraft.plugin import in_turn  # not at the top: it brings torch

    loop = loaded.loop
    assert isinstance(loop, Assembling)
    torch_parts = loaded.state.parts(())
    tolerance, _ = next((found for name, found in ACCEPTED.items() if name in model.weights.split()), OF_BLOCKS)
    with in_turn(loaded.state, torch.float32), torch.no_grad():
        return parity_of(
            lambda *case: loop.rehearse(torch_parts, case, variant=variant),
            lambda *case: loop.rehearse(parts, case, variant=variant),
            loop.rehearsals(torch_parts),
            tolerance=tolerance,
            writes=True,
        )
