"""Drawings as values: notebooks display them, and they can be written into files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelgraft.kernel.words.errors import InputError, nearest
from modelgraft.kernel.words.graph import SolvedGraph
from modelgraft.kernel.words.plan import Plan
from modelgraft.records.writing import check_writable, file_named, write_value
from modelgraft.tools import draw

PNG = "png"  # the format that is no text, and needs an extra
DRAWING_ENDINGS: Mapping[str, str] = {".svg": "svg", ".html": "html", ".png": PNG, ".mmd": "mermaid", ".dot": "dot"}  # of files


class Drawing:
    """A graph, or a plan, as a drawing.

    run        what a run spent, to be laid over
    is_folded  inner graphs are one box each; the reader of a page folds and unfolds them
    """

    def __init__(self, subject: SolvedGraph | Plan, *, run: draw.Spent | None = None, is_folded: bool = False) -> None:
        drawn = draw.picture(subject)
        self._whole = draw.lay_over(drawn, run) if run is not None else drawn
        self._shown = draw.fold(self._whole, draw.clusters(self._whole)) if is_folded else self._whole

    def text(self, form: str) -> str:
        """The drawing as text: mermaid, dot, svg or html. Raises InputError for another form."""
        if form not in draw.FORMATS:
            there = ", ".join(draw.FORMATS)
            raise InputError(f"there is no drawing '{form}' in text; there are: {there}. {nearest(form, draw.FORMATS)}".rstrip())
        return draw.FORMATS[form](self._shown if form != "html" else self._whole)

    def png(self) -> bytes:
        """The drawing as a picture, twice the size of the SVG. Raises InputError where the extra `png` is not installed."""
        return draw.draw_png(draw.draw_svg(self._shown))

    def save(self, path: str | Path, *, form: str = "") -> None:
        """Write a file; its ending says what when `form` does not: .svg, .html, .png, .mmd or .dot.

        Raises InputError for another ending, and for a file that cannot be written.
        """
        target = file_named(path)
        form = form or DRAWING_ENDINGS.get(target.suffix.lower(), "")
        if not form:
            raise InputError(f"'{target}': a drawing goes into a file that ends in {', '.join(DRAWING_ENDINGS)}")
        check_writable(target)
        write_value(self.png() if form == PNG else self.text(form), target)

    def __repr__(self) -> str:
        nodes = sum(box.role == "node" for box in self._whole.boxes)
        return f"<Drawing {self._whole.name}: {nodes} node{'s' * (nodes != 1)}>"

    def _repr_html_(self) -> str:
        """The drawing, for notebooks; a larger one can be scrolled."""
        return f'<div style="overflow:auto;max-height:80vh">{draw.draw_svg(self._shown)}</div>'
