"""What a session takes. Onnxruntime does not tell, so it is measured from outside.

On the host it is the size of the files that a session opens: the graph, and the weights beside it, which are mapped or copied,
packed as they lie there. What its arena takes for values while it runs is not in it. On a GPU it is what the device has less
afterwards, and at least those files: others may have freed something meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from modelgraft.plugin import note_memory


@contextlib.contextmanager
def noted(device: str, folder: Path, names: Sequence[str]) -> Iterator[None]:
    """Note what the session that is opened within the block takes."""
    before = _free(device)
    yield
    size = 0
    for name in names:
        with contextlib.suppress(OSError):
            size += (folder / name).stat().st_size
    block = (folder, *names) if device == "cpu" else None  # on a GPU each session has its own
    note_memory(device, max(size, before - _free(device)), block=block)


def _free(device: str) -> int:
    """The bytes that a GPU has left; 0 on the host, where others take and free all the time."""
    if device == "cpu":
        return 0
    import torch

    return int(torch.cuda.mem_get_info(device)[0]) if torch.cuda.is_available() else 0
