"""The work of detect/phrases: an OWL-ViT or OWLv2 as transformers has it, on the pictures and phrases of each record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from modelgraft.plugin import LoadContext, NodeRuntime, Problem, SourceError, eight_bits, on_white

if TYPE_CHECKING:
    from modelgraft_plugins.detecting import PhrasesFound

CORNERS = ("x0", "y0", "x1", "y1")


def load(config: PhrasesFound, context: LoadContext) -> Namer:
    """Open model and processor. Raises SourceError where the source holds no such detector, or no weights."""
    import transformers

    whole: Any = transformers  # its classes are only partly annotated
    node = context.node
    if context.weights is None:
        raise SourceError(
            Problem("no-weights", f"{node.name} has no source with weights", node.place, "name an OWL-ViT or OWLv2 as `from`")
        )
    folder = context.weights.folder
    try:
        processor = whole.AutoProcessor.from_pretrained(folder, local_files_only=True)
        model = whole.AutoModelForZeroShotObjectDetection.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    except Exception as error:  # files from elsewhere may hold anything
        said = " ".join(str(error).split())[:200]
        found = f"{node.name}: transformers cannot open the detector of {folder}: {said}"
        raise SourceError(Problem("source-damaged", found, node.place, "take a folder that holds a whole OWL-ViT or OWLv2")) from error
    return Namer(config, model.eval().to(context.device), processor, context.device)


class Namer:
    """Finds what phrases name, record by record: each has phrases of its own."""

    def __init__(self, config: PhrasesFound, model: Any, processor: Any, device: str) -> None:
        self.config, self._model, self._processor, self._device = config, model, processor, device
        self.runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take what tells whether a run goes on."""
        self.runtime = runtime

    def __call__(self, image: list[Image.Image], phrases: list[list[str]]) -> list[list[dict[str, Any]]]:
        """Give the boxes of each picture."""
        found = list[list[dict[str, Any]]]()
        for picture, wanted in zip(image, phrases, strict=True):
            if self.runtime is not None:
                self.runtime.check()
            found.append(self._boxes(picture, list(dict.fromkeys(wanted))) if wanted else [])
        return found

    def _boxes(self, picture: Image.Image, phrases: Sequence[str]) -> list[dict[str, Any]]:
        whole = on_white(eight_bits(picture, "detect/phrases"))
        longest = int(self._model.config.text_config.max_position_embeddings)
        told = {"padding": "max_length", "truncation": True, "max_length": longest}
        given = self._processor(text=[list(phrases)], images=whole, return_tensors="pt", text_kwargs=told).to(self._device)
        with torch.inference_mode():
            seen = self._model(**given)
        (rows,) = self._processor.post_process_grounded_object_detection(
            seen, threshold=self.config.least_score, target_sizes=[(whole.height, whole.width)], text_labels=[list(phrases)]
        )
        boxes = zip(rows["boxes"].tolist(), rows["scores"].tolist(), rows["text_labels"], strict=True)
        return [found for box, score, text in boxes if (found := _within(box, score, text, whole.size)) is not None]


def _within(box: Sequence[float], score: float, text: str, size: tuple[int, int]) -> dict[str, Any] | None:
    """A box as far as it is on the picture; None where it is not."""
    places = [min(max(place, 0.0), float(side)) for place, side in zip(box, size * 2, strict=True)]
    is_there = places[0] < places[2] and places[1] < places[3]
    return {**dict(zip(CORNERS, places, strict=True)), "text": text, "score": score} if is_there else None
