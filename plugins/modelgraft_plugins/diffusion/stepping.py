"""What every denoising loop is told, whatever model it asks and whatever comes of its latents. Light.

A kind of model is a config that derives from `Denoising` and says which part it is, what latents it has, and what it is asked with;
and a module that holds the part (`unet.py`, `transformer.py`). The loop in `denoising.py` is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from modelgraft import Config, Ports, Space, port
from modelgraft_plugins.diffusion.spaces import latents, prediction_of, schedule_space

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source


@dataclass(frozen=True, slots=True)
class Asked:
    """One thing that a model reads beside latents and a time, such as the states of a text.

    name   of the input port of the node, and of the input of the part
    away   the port of what the answer is pushed from under guidance; "": it is asked with the same
    unsaid what is asked with where nothing comes to that port; "": it must
    axes   behind `batch`;  away_axes  those of `away`, where their names differ: none needs to be known of the other
    space  what it means
    """

    name: str
    away: str
    axes: str
    away_axes: str = ""
    space: Space | None = None
    unsaid: Literal["", "zeros"] = ""

    def ports(self, *, guided: bool) -> dict[str, Any]:
        """The inputs of a node."""
        found = {self.name: port(f"float[batch {self.axes}]", space=self.space)}
        if guided and self.away:
            kind = f"float[batch {self.away_axes or self.axes}]"
            found[self.away] = port(f"optional[{kind}]" if self.unsaid else kind, space=self.space)
        return found


class Denoising(Config):
    """The steps from noise to latents.

    scheduler   its config, as in scheduler/scheduler_config.json, with its class under _class_name
    trained     the config of the scheduler that the model was trained with; schedulers that do not go with it are refused
    steps       how often the model is asked
    guidance    how far the answer is pushed from what is to be avoided towards what is asked for; 1 asks for that alone
    eta         how much noise DDIM adds at each step; other schedulers have none such
    strength    begin with `start` under so much noise: 1 hides it, 0 keeps it; None: begin with noise alone
    seed        of what is drawn; None: that of the run
    preview     tell a small picture of the latents after every so many steps, as an event; 0: none
    """

    part: ClassVar[str] = "model"
    axes: ClassVar[str] = "channels rows columns"  # of latents, behind `batch`: names of fields and properties

    scheduler: dict[str, Any] = Field({}, description="the config of the scheduler, with its class under _class_name")
    trained: dict[str, Any] = Field({}, description="the config of the scheduler that the model was trained with")
    steps: int = Field(50, gt=0, le=1000)
    guidance: float = Field(7.5, ge=1)
    eta: float = Field(0.0, ge=0, le=1)
    strength: float | None = Field(None, gt=0, le=1, description="how far `start` is hidden by noise before the first step")
    seed: int | None = Field(None, ge=0, le=2**62, description="of what is drawn; None: that of the run")
    preview: int = Field(0, ge=0, description="steps between two pictures of how far it is; 0: none")
    scale: float = Field(0.18215, gt=0, description="what latents are multiplied with; worked out from the VAE beside the model")
    shift: float = Field(0.0, description="what was taken from latents before; worked out from the VAE beside the model")

    def asked(self) -> tuple[Asked, ...]:
        """What the model reads beside latents and a time, in the order of its part."""
        return ()

    @property
    def is_guided(self) -> bool:
        """It is asked twice: for what is wanted, and for what is to be avoided."""
        return self.guidance > 1

    @property
    def grid(self) -> tuple[int, ...]:
        """The sizes of the latents of one record."""
        return tuple(int(getattr(self, name)) for name in self.axes.split())

    @property
    def places(self) -> int:
        """How many places a model of flow matching attends to; some schedulers shift their times by it."""
        return 0

    def ports(self) -> Ports:
        """What is asked for in, and what is to be avoided under guidance; noise or a start where they are given; latents out."""
        grid = latents(f"batch {self.axes}", self.scale, self.shift)
        inputs: dict[str, Any] = {}
        for one in self.asked():
            inputs |= one.ports(guided=self.is_guided)
        if self.strength is not None:
            inputs["start"] = grid
        inputs["latents"] = port(f"optional[{grid}]", doc="the noise to begin with")
        inputs["schedule"] = port("optional[object]", space=schedule_space(self.trained), doc="of diffusion/scheduler")
        return Ports.of(inputs, {"latents": grid})

    def parts(self) -> Mapping[str, Ports]:
        """The model, as one call: latents, a time and what it is asked with in, its answer out."""
        grid = f"float[batch {self.axes}]"
        asked = {one.name: f"float[batch {one.axes}]" for one in self.asked()}
        return {self.part: Ports.of({"sample": grid, "time": "float[batch]", **asked}, {"noise": grid})}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """A scheduler that takes the answers for something else than the model gives."""
        if not self.scheduler and "schedule" not in node.wired:
            yield "config-mismatch", f"{node.name} has no scheduler", "name a folder in the layout of diffusers with `from`"
        elif self.scheduler and self.trained:
            mine, theirs = schedule_space(self.trained), schedule_space(self.scheduler)
            for fact, wanted, found in mine.differences(theirs):
                said = f"{node.name}: the model was trained with {fact} {wanted!r}, and its scheduler has {found!r}"
                yield "space-mismatch", said, f"take a scheduler of {fact} {wanted!r}, or leave `scheduler` out"


def scheduler_beside(source: Source, *, name: str) -> dict[str, Any]:
    """The configs of the scheduler that lies beside a model. Raises ValueError when there is none."""
    found = source.root.get("scheduler_config")
    if found is None:
        raise ValueError(
            f"there is no scheduler/scheduler_config.json beside the {name}: name the whole folder with #{source.part} behind it"
        )
    return {"scheduler": found, "trained": found}


def prediction(config: Denoising) -> str | None:
    """What the model answers: epsilon, v_prediction, sample or flow."""
    return prediction_of(config.trained)


def refuse_other(config: Mapping[str, Any], wanted: str | tuple[str, ...]) -> None:
    """Raise ValueError for the config of another class than those that are served."""
    found = config.get("_class_name")
    names = (wanted,) if isinstance(wanted, str) else wanted
    if found not in names:
        raise ValueError(f"the config is of class {found!r}, and {' or '.join(names)} is what is served")
