"""What can be known of the devices of this machine without importing torch, which takes seconds."""

from __future__ import annotations

import sys
from pathlib import Path

# What drivers of GPUs that torch may find put there: NVIDIA's, its boards', the one of Windows' Linux, AMD's.
DRIVERS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvhost-gpu", "/dev/nvmap", "/dev/dxg", "/dev/kfd")


def has_no_gpu() -> bool:
    """Whether this machine surely has no GPU for torch. False where that cannot be said: torch must be asked."""
    return sys.platform == "linux" and not any(Path(place).exists() for place in DRIVERS)
