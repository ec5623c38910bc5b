"""MTCNN: three small networks, each of which looks closer at what the one before it took for a face.

Source: arXiv 1604.02878, in the sizes and with the weights of facenet-pytorch, whose names the layers have. Pictures are from -1 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

FACTOR = 0.709  # from one size of the picture to the next: about half of its area
SURE = (0.6, 0.7)  # how sure the first and the second network must be
CELL, STRIDE = 12, 2  # what one place of the first network looks at, and how far places stand apart, in pixels
BATCH = 512  # crops that are looked at together
MOST_PLACES = 20_000  # of the first network that are looked at closer, the surest


class Convolutions(nn.Module):
    """Convolutions, each with a PReLU, and pools between them: what all three networks begin with."""

    def __init__(self, channels: tuple[int, ...], kernels: tuple[int, ...], pools: tuple[int, ...]) -> None:
        super().__init__()
        for index, (before, after, kernel) in enumerate(zip((3, *channels), channels, kernels, strict=False), 1):
            setattr(self, f"conv{index}", nn.Conv2d(before, after, kernel))
            setattr(self, f"prelu{index}", nn.PReLU(after))
        self.depth, self.pools = len(channels), pools

    def look(self, x: Tensor) -> Tensor:
        """Apply them in their order. A pool of 0 is none."""
        for index in range(1, self.depth + 1):
            x = getattr(self, f"prelu{index}")(getattr(self, f"conv{index}")(x))
            if size := self.pools[index - 1]:
                x = functional.max_pool2d(x, size, 2, ceil_mode=True)
        return x


class First(Convolutions):
    """The first network, which looks at every place."""

    def __init__(self) -> None:
        super().__init__((10, 16, 32), (3, 3, 3), (2, 0, 0))
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Say how sure it is of a face (float[batch rows columns]), and how each box must move (float[batch 4 rows columns])."""
        found = self.look(x)
        return self.conv4_1(found).softmax(1)[:, 1], self.conv4_2(found)


class Closer(Convolutions):
    """The second and the third network, which look at crops of one size."""

    def __init__(self, channels: tuple[int, ...], kernels: tuple[int, ...], pools: tuple[int, ...], *, width: int, hidden: int) -> None:
        super().__init__(channels, kernels, pools)
        at = self.depth + 1
        setattr(self, f"dense{at}", nn.Linear(width, hidden))
        setattr(self, f"prelu{at}", nn.PReLU(hidden))
        setattr(self, f"dense{at + 1}_1", nn.Linear(hidden, 2))
        setattr(self, f"dense{at + 1}_2", nn.Linear(hidden, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Say how sure it is of a face (float[crops]), and how each box must move (float[crops 4])."""
        at = self.depth + 1
        flat = self.look(x).permute(0, 3, 2, 1).flatten(1)  # columns, rows, channels: as they were trained
        hidden = getattr(self, f"prelu{at}")(getattr(self, f"dense{at}")(flat))
        return getattr(self, f"dense{at + 1}_1")(hidden).softmax(1)[:, 1], getattr(self, f"dense{at + 1}_2")(hidden)


def networks() -> tuple[First, Closer, Closer]:
    """The three, without weights. The third has marks of eyes, nose and mouth too, which nothing here reads."""
    second = Closer((28, 48, 64), (3, 3, 2), (3, 3, 0), width=576, hidden=128)
    third = Closer((32, 64, 64, 128), (3, 3, 3, 2), (3, 3, 2, 0), width=1152, hidden=256)
    return First(), second, third


def fill(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Fill a network strictly, but for the marks."""
    network.load_state_dict({name: tensor for name, tensor in weights.items() if not name.startswith("dense6_3.")})
    network.eval().requires_grad_(requires_grad=False)


def faces(picture: Tensor, trio: tuple[First, Closer, Closer], *, least_score: float, least_pixels: int) -> tuple[Tensor, Tensor]:
    """Find the faces of a picture.

    picture  float[3 height width], from 0 to 255
    returns  boxes float[faces 4] as left, top, right, bottom in pixels, on the picture; and how sure each is, float[faces], surest first
    """
    height, width = picture.shape[1:]
    pixels = (picture[None] - 127.5) / 128
    boxes = _everywhere(pixels, trio[0], least_pixels)
    for network, side, sure, overlap in ((trio[1], 24, SURE[1], 0.7), (trio[2], 48, least_score, 0.7)):
        if not len(boxes):
            break
        crops, boxes = _crops(pixels, _square(boxes), side)
        looked = [network(crops[start : start + BATCH]) for start in range(0, len(crops), BATCH)]
        if not looked:
            break
        scores, moves = (torch.cat(parts) for parts in zip(*looked, strict=True))
        kept = scores >= sure
        boxes, scores, moves = boxes[kept], scores[kept], moves[kept]
        is_last = side == 48
        boxes = _moved(boxes, moves) if is_last else boxes
        chosen = apart(boxes, scores, overlap, of_smaller=is_last)
        boxes, scores = boxes[chosen], scores[chosen]
        boxes = boxes if is_last else _moved(boxes, moves[chosen])
    else:
        edges = torch.tensor([width, height, width, height], dtype=boxes.dtype)
        return torch.minimum(boxes.clamp(min=0), edges), scores
    return torch.zeros(0, 4), torch.zeros(0)


def apart(boxes: Tensor, scores: Tensor, overlap: float, *, of_smaller: bool = False) -> Tensor:
    """The numbers of the boxes that stay when each is compared with surer ones: those that overlap one by more are left out. Surest first.

    of_smaller  the share is of the smaller box of two; otherwise of both together
    """
    order = scores.argsort(descending=True, stable=True)
    kept = list[int]()
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    areas = sides[:, 0] * sides[:, 1]
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        corners = torch.maximum(boxes[best, :2], boxes[order, :2]), torch.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = (corners[1] - corners[0]).clamp(min=0).prod(1)
        whole = torch.minimum(areas[best], areas[order]) if of_smaller else areas[best] + areas[order] - shared
        order = order[shared <= overlap * whole]
    return torch.tensor(kept, dtype=torch.int64)


def _everywhere(pixels: Tensor, network: First, least_pixels: int) -> Tensor:
    """Boxes that the first network takes for faces, on the picture in ever smaller sizes."""
    height, width = pixels.shape[2:]
    scale, boxes, scores, moves = CELL / least_pixels, list[Tensor](), list[Tensor](), list[Tensor]()
    while min(height, width) * scale >= CELL:
        small = functional.interpolate(pixels, (int(height * scale + 1), int(width * scale + 1)), mode="area")
        sure, move = network(small)
        rows, columns = (sure[0] >= SURE[0]).nonzero(as_tuple=True)
        corner = torch.stack([columns, rows], 1) * STRIDE + 1.0
        here = torch.cat([(corner / scale).floor(), ((corner + CELL - 1) / scale).floor()], 1)
        chosen = apart(here, sure[0, rows, columns], 0.5)[:MOST_PLACES]
        boxes.append(here[chosen])
        scores.append(sure[0, rows, columns][chosen])
        moves.append(move[0, :, rows, columns].T[chosen])
        scale *= FACTOR
    if not boxes:
        return torch.zeros(0, 4)
    whole, sure_, moved = torch.cat(boxes), torch.cat(scores), torch.cat(moves)
    chosen = apart(whole, sure_, 0.7)
    return _moved(whole[chosen], moved[chosen])


def _moved(boxes: Tensor, moves: Tensor) -> Tensor:
    """Boxes whose corners go by parts of their sides."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return boxes + moves * sides.repeat(1, 2)


def _square(boxes: Tensor) -> Tensor:
    """The squares around the same middles, as long as the longer side."""
    sides = boxes[:, 2:] - boxes[:, :2]
    middle, half = boxes[:, :2] + sides / 2, sides.amax(1, keepdim=True) / 2
    return torch.cat([middle - half, middle + half], 1)


def _crops(pixels: Tensor, boxes: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """What is in boxes, as far as it is on the picture, at one size (float[crops 3 side side]); and the boxes that are on it."""
    height, width = pixels.shape[2:]
    crops, kept = list[Tensor](), list[int]()
    for number, (left, top, right, bottom) in enumerate(boxes.trunc().int().tolist()):
        x0, y0, x1, y1 = max(left, 1) - 1, max(top, 1) - 1, min(right, width), min(bottom, height)
        if x1 > x0 and y1 > y0:
            crops.append(functional.interpolate(pixels[:, :, y0:y1, x0:x1], (side, side), mode="area"))
            kept.append(number)
    return torch.cat(crops) if crops else torch.zeros(0, 3, side, side), boxes[kept]
