"""What a plugin says of a backend beforehand: all that checks and plans know of it, and nothing of its code is imported for it."""

from __future__ import annotations

import re
from dataclasses import dataclass

UNCHOSEN = "auto"  # a backend or a device that nobody has chosen
USUAL = "torch"  # the backend that "auto" means


@dataclass(frozen=True, slots=True)
class BackendCard:
    """A backend as it is registered.

    target      where its class lies, as "package.module:Class"
    fuses       connected exportable nodes on it become one node with `parts`, which it loads as one call
    exports     it can write what it runs into a folder that runs without modelgraft
    precisions  the dtypes and precisions that weights may have on it; none: it does not tell
    devices     the kinds of devices that it knows, such as ("cpu", "cuda"); none: it does not tell
    heeds       keys of `runtime` that not every backend obeys, and this one does: "threads";  opens  endings of files for parts: ".onnx"
    """

    target: str
    fuses: bool = False
    exports: bool = False
    precisions: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    heeds: tuple[str, ...] = ()
    opens: tuple[str, ...] = ()

    def takes(self, device: str) -> bool:
        """Whether a device is one of its kinds, with a number or without; whether this machine has it is not asked."""
        kind = re.sub(r":[0-9]{1,3}$", "", device)
        return not self.devices or device in (UNCHOSEN, *self.devices) or (kind != "cpu" and kind in self.devices)

    @property
    def devices_in_words(self) -> str:
        """The devices that it takes, such as "auto, cpu, cuda or cuda:1"."""
        known = [UNCHOSEN, *self.devices, *(f"{kind}:1" for kind in self.devices if kind != "cpu")]
        return f"{', '.join(known[:-1])} or {known[-1]}"
