"""Names of the tensors of CLIP in the files of its authors, and of open_clip, beside those of Hugging Face layout.

Light: any plugin may import it. The blocks are those of every transformer in that code, so CoCa's towers have them too.

    placed("visual.transformer.resblocks.0.ln_1.weight", (768,), VISION)
    # {"vision_model.encoder.layers.0.layer_norm1.weight": TensorOrigin("visual.transformer.resblocks.0.ln_1.weight")}
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from modelgraft.plugin import TensorOrigin

Shapes = Mapping[str, tuple[int, ...]]
TURNED = (1, 0)  # axes of a matrix that stands on its side: published ones are multiplied from the right

BLOCK: Mapping[str, str] = {  # within a block
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip
FUSED = ("q_proj", "k_proj", "v_proj")  # rows of one matrix, in this order
VISION: Mapping[str, str] = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.": "vision_model.pre_layrnorm.",
    "visual.ln_post.": "vision_model.post_layernorm.",
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
}
TEXT: Mapping[str, str] = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.": "text_model.final_layer_norm.",
    "transformer.resblocks.": "text_model.encoder.layers.",
}
PROJECTIONS: Mapping[str, str] = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
_IN_BLOCK = re.compile(rf"(\d+)\.({'|'.join(map(re.escape, BLOCK))})\.(weight|bias)")
_IN_PROJ = re.compile(r"(\d+)\.attn\.in_proj_(weight|bias)")


def blocks(key: str, shape: tuple[int, ...], *, behind: str, to: str) -> dict[str, TensorOrigin]:
    """Where a tensor of a block goes, by its key behind `resblocks.`: under `to`, queries, keys and values apart; {}: it is none.

    behind  what stands before it in the file;  shape  of the tensor
    """
    if (fused := _IN_PROJ.fullmatch(key)) is not None:
        width = shape[0] // len(FUSED)
        rows = [(at * width, (at + 1) * width) for at in range(len(FUSED))]
        return {
            f"{to}{fused[1]}.self_attn.{name}.{fused[2]}": TensorOrigin(behind + key, rows=row)
            for name, row in zip(FUSED, rows, strict=True)
        }
    own = _IN_BLOCK.fullmatch(key)
    return {f"{to}{own[1]}.{BLOCK[own[2]]}.{own[3]}": TensorOrigin(behind + key)} if own is not None else {}


def placed(key: str, shape: tuple[int, ...], names: Mapping[str, str], *, before: str = "") -> dict[str, TensorOrigin]:
    """Where a tensor goes, by a table of names such as VISION, TEXT or PROJECTIONS; {}: nowhere.

    before  what stands before all its keys in the file, such as `module.`
    """
    own = key.removeprefix(before)
    if own in names:
        return {names[own]: TensorOrigin(key, axes=TURNED if own in PROJECTIONS else None)}
    for start, to in names.items():
        inside = own.removeprefix(start)
        if start.endswith("resblocks.") and own.startswith(start):
            return blocks(inside, shape, behind=key.removesuffix(inside), to=to)
        if start.endswith(".") and own.startswith(start) and inside in ("weight", "bias"):
            return {to + inside: TensorOrigin(key)}
    return {}
