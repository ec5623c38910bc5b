"""The towers of `plain.py` as graphs, put together without tracing: the same steps, in the operators of ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelgraft_plugins.vision.plain import Head, Tower

if TYPE_CHECKING:
    from modelgraft_plugins.graph_writing import GraphWriting, Value
    from modelgraft_plugins.vision.modules import Encoder

FILTERS: dict[str, dict[str, Any]] = {
    "hf": {"mode": "cubic", "cubic_coeff_a": -0.75, "coordinate_transformation_mode": "half_pixel"}
}  # as torch's bicubic


def write(eye: Encoder, graph: GraphWriting, pixels: Value) -> Value | dict[str, Value] | None:
    """What an eye gives for pixels float[batch channels height width]; None for places that are brought to other grids in other ways."""
    tower = eye.tower
    assert isinstance(tower, Tower)
    if tower.fits and tower.way not in FILTERS:
        return None
    tokens, pooled = _Writing(tower, graph.within("tower")).seen(pixels, depth=None if eye.is_whole else eye.depth)
    if eye.drop:
        tokens = graph.node("Slice", [tokens, graph.numbers(eye.drop), graph.numbers(2**31 - 1), graph.numbers(1)])
    return {"tokens": tokens, "pooled": pooled} if pooled is not None and eye.has_pooled else tokens


class _Writing:
    """A tower in a graph."""

    def __init__(self, tower: Tower, graph: GraphWriting) -> None:
        self.tower, self.sizes, self.kind, self.graph = tower, tower.sizes, tower.kind, graph

    def seen(self, pixels: Value, *, depth: int | None) -> tuple[Value, Value | None]:
        """See Tower.forward."""
        kind, hidden = self.kind, self._entered(pixels)
        for layer in range(self.sizes.layers if depth is None else depth):
            hidden = self._layer(hidden, f"{kind.layers}.{layer}")
        if depth is not None:
            return hidden, None
        if not kind.is_normed:
            return hidden, self._norm(self._first(hidden), kind.after)
        tokens = self._norm(hidden, kind.after)
        if kind.first:
            return tokens, self._first(tokens)
        return tokens, self._headed(tokens, self.tower.head) if self.sizes.has_head else None

    def _entered(self, pixels: Value) -> Value:
        """See Tower.entered."""
        graph, kind, width = self.graph, self.kind, self.sizes.width
        cut = graph.convolution(pixels, kind.patches, stride=self.sizes.patch)  # [batch width rows columns]
        flat = graph.node("Reshape", [cut, graph.numbers(0, 0, -1)])
        x = graph.node("Transpose", [flat], perm=[0, 2, 1])
        if kind.first:
            token = graph.tensor(kind.first, (1, 1, width))
            x = graph.node("Concat", [self._for_each(token, pixels), x], axis=1)
        x = graph.node("Add", [x, self._places(cut)])
        return self._norm(x, kind.before) if kind.before else x

    def _places(self, cut: Value) -> Value:
        """The table of places, or what it is on the grid of a map of patches."""
        graph, sizes, lead = self.graph, self.sizes, self.sizes.lead
        rows, columns = sizes.grid
        if not self.tower.fits:
            return graph.tensor(self.kind.places, (1, rows * columns + lead, sizes.width))

        def as_map(table: Any) -> Any:
            return table.reshape(-1, sizes.width)[lead:].T.reshape(1, sizes.width, rows, columns)

        table = graph.tensor(self.kind.places, (1, sizes.width, rows, columns), make=as_map, of="map")
        wanted = graph.node("Concat", [graph.numbers(1, sizes.width), graph.node("Shape", [cut], start=2, end=4)], axis=0)
        drawn = graph.node("Resize", [table, None, None, wanted], **FILTERS[self.tower.way])
        flat = graph.node("Transpose", [graph.node("Reshape", [drawn, graph.numbers(0, 0, -1)])], perm=[0, 2, 1])
        if not lead:
            return flat
        first = graph.tensor(
            self.kind.places, (1, lead, sizes.width), make=lambda table: table.reshape(1, -1, sizes.width)[:, :lead], of="lead"
        )
        return graph.node("Concat", [first, flat], axis=1)

    def _layer(self, x: Value, place: str) -> Value:
        """See Layer."""
        first, second, attention, last, scales = self.kind.halves
        mixed = self._attended(self._norm(x, f"{place}.{first}"), f"{place}.{attention}", last)
        x = self.graph.node("Add", [self._scaled(mixed, place, scales, 0), x])
        fed = self._fed(self._norm(x, f"{place}.{second}"), f"{place}.mlp")
        return self.graph.node("Add", [self._scaled(fed, place, scales, 1), x])

    def _scaled(self, x: Value, place: str, scales: tuple[str, ...], half: int) -> Value:
        return self.graph.node("Mul", [x, self.graph.vector(f"{place}.{scales[half]}.lambda1")]) if scales else x

    def _attended(self, x: Value, place: str, last: str) -> Value:
        """See Attention."""
        parts = [self.graph.linear(x, f"{place}.{kind}_proj") for kind in "qkv"]
        return self.graph.linear(self.graph.attention(*parts, heads=self.sizes.heads), f"{place}.{last}")

    def _fed(self, x: Value, place: str) -> Value:
        """See FeedForward."""
        return self.graph.linear(self.graph.activated(self.graph.linear(x, f"{place}.fc1"), self.sizes.activation), f"{place}.fc2")

    def _headed(self, tokens: Value, head: Head) -> Value:
        """See Head."""
        graph, width = self.graph, self.sizes.width
        weight, bias = head.attention.in_proj_weight, head.attention.in_proj_bias
        for part, kind in enumerate("qkv"):  # three matrices in one, which the graph has as three
            rows = slice(part * width, (part + 1) * width)
            graph.tensors |= {graph.full(f"head.{kind}.weight"): weight[rows], graph.full(f"head.{kind}.bias"): bias[rows]}
        query = self._for_each(graph.linear(graph.tensor("head.probe", (1, 1, width)), "head.q"), tokens)
        mixed = graph.attention(query, graph.linear(tokens, "head.k"), graph.linear(tokens, "head.v"), heads=self.sizes.heads)
        mixed = graph.linear(mixed, "head.attention.out_proj")
        fed = self._fed(self._norm(mixed, "head.layernorm"), "head.mlp")
        return self._first(graph.node("Add", [mixed, fed]))

    def _norm(self, x: Value, name: str) -> Value:
        return self.graph.norm(x, name, epsilon=self.sizes.epsilon)

    def _first(self, tokens: Value) -> Value:
        """float[batch tokens width] -> float[batch width] of the first."""
        return self.graph.node("Gather", [tokens, self.graph.number(0)], axis=1)

    def _for_each(self, one: Value, x: Value) -> Value:
        """float[1 1 width] for each record of x."""
        graph = self.graph
        batch = graph.node("Shape", [x], start=0, end=1)
        return graph.node("Expand", [one, graph.node("Concat", [batch, graph.numbers(1, self.sizes.width)], axis=0)])
