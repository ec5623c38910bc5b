"""The files from which programs read ViT-B/16 and LLaVA, each made of the same random checkpoint the way the program's makers show.

    python -m benchmarks.peers.seeing_weights

What is made lies beside the environments of the peers, is made once for their pins, and is 5 GB. Builders that want torch run with
ours behind them.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import checkpoints
from benchmarks.peers import environment
from benchmarks.peers.seeing import BUILDERS, SEERS
from benchmarks.peers.weights import NotMade, made, run

LAYOUT = "1"  # of the files that builders are asked for; another number makes all anew
MISSING = "its weights are not made: python -m benchmarks.peers.seeing_weights makes them"
CHECKPOINTS = {"ViT-B/16": "vit", "LLaVA": "llava"}
EYE = """
class Eye(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = transformers.ViTModel.from_pretrained(source, add_pooling_layer=False).eval()
    def forward(self, pixels):
        return self.model(pixel_values=pixels).last_hidden_state
"""
EXPORT = f"""
import sys, torch, transformers
source, target = sys.argv[1:]
{EYE}"""
EXPORT += """sizes = {"pixels": {0: torch.export.Dim("batch", min=1, max=64)}}
torch.onnx.export(Eye(), (torch.randn(2, 3, 224, 224),), target, input_names=["pixels"], dynamic_shapes=sizes, external_data=False)
"""
QUANTISE = """
import sys
from onnxruntime.quantization import quantize_dynamic
quantize_dynamic(*sys.argv[1:])
"""
BEHIND = """
import os, site, sys
for folder in sys.argv.pop(1).split(os.pathsep):
    site.addsitedir(folder)
sys.modules["diffusers"] = None  # ours wants another huggingface_hub
"""
CONVERT = f"""
import numpy as np, openvino, torch, transformers
source, target, precision = sys.argv[1:]
{EYE}"""
CONVERT += """found = openvino.convert_model(Eye(), example_input=torch.randn(2, 3, 224, 224), input=[-1, 3, 224, 224])
if precision == "int8":
    import nncf
    draw = np.random.default_rng(0)
    shown = [draw.standard_normal((1, 3, 224, 224), dtype=np.float32) for _ in range(4)]
    found = nncf.quantize(found, nncf.Dataset(shown, lambda one: [one]), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(shown))
openvino.save_model(found, target, compress_to_fp16=False)
"""
WHOLE = """
import runpy
source, target = sys.argv[1:]
task = ["--task", "image-text-to-text", "--weight-format", "fp32"]
sys.argv = ["optimum-cli", "export", "openvino", "--model", source, *task, target]
try:
    runpy.run_module("optimum.commands.optimum_cli", run_name="__main__", alter_sys=True)
except SystemExit as end:
    if end.code:
        raise
import json, pathlib
folder = pathlib.Path(target)
if not (folder / "preprocessor_config.json").is_file():  # the pipeline wants the part about pictures in a file of its own
    settings = json.loads((folder / "processor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(settings.get("image_processor", settings)))
"""


def of(model: str, program: str, precision: str, *, build: bool = True) -> str:
    """What a program opens for a model in a precision, made if it is not there. Raises NotMade."""
    checkpoint = _folder() / f"{CHECKPOINTS[model]}-{checkpoints.LAYERS}"
    if not checkpoint.exists():
        if not build:
            raise NotMade(MISSING)
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        checkpoints.made_aside(CHECKPOINTS[model], checkpoint.parent)
    distribution = SEERS[model][program].distribution
    if distribution == "modelgraft":
        return f"{checkpoint}|{precision}"
    if distribution == "transformers":
        return str(checkpoint)
    if why := environment.found(SEERS[model])[program].why:
        raise NotMade(why)
    name, make = _maker(model, program, precision)
    target = _folder() / name
    if not target.exists():
        if not build:
            raise NotMade(MISSING)
        made(target, lambda aside: make(checkpoint, aside))
    return str(target / "model.xml" if (target / "model.xml").is_file() else target)


def _folder() -> Path:
    """For the pins of all that build."""
    text = "\0".join([*(environment.pins(name).read_text(encoding="utf-8") for name in ("genai", "openvino", "optimum")), LAYOUT])
    return environment.home() / f"weights-seeing-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


Maker = Callable[[Path, Path], None]


def _maker(model: str, program: str, precision: str) -> tuple[str, Maker]:
    """The name of what is made, and how."""
    makers: Mapping[tuple[str, str], Maker] = {
        ("ViT-B/16", "onnxruntime"): lambda source, target: _exported(source, target, precision),
        ("ViT-B/16", "OpenVINO"): lambda source, target: _converted(source, target, precision),
        ("LLaVA", "OpenVINO"): lambda source, target: _theirs(WHOLE, str(source), str(target)),
    }
    ending = ".onnx" if program == "onnxruntime" else ""
    return f"{CHECKPOINTS[model]}-{program.lower()}-{precision}{ending}", makers[model, program]


def _exported(source: Path, target: Path, precision: str) -> None:
    if precision == "float32":
        run([sys.executable, "-c", EXPORT, str(source), str(target)])
    else:
        run([sys.executable, "-c", QUANTISE, of("ViT-B/16", "onnxruntime", "float32"), str(target)])


def _converted(source: Path, target: Path, precision: str) -> None:
    target.mkdir()
    _theirs(CONVERT, str(source), str(target / "model.xml"), precision)


def _theirs(code: str, *words: str) -> None:
    """A program of the builder's Python, with our packages behind its own."""
    found = environment.found(BUILDERS)["optimum-intel"]
    if found.why:
        raise NotMade(found.why)
    behind = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    run([found.python, "-c", BEHIND + code, behind, *words])


def make_all() -> dict[str, str]:
    """What every side of the table opens, or why there is nothing; those that are not there are made."""
    from benchmarks.rivals_seeing import SIDES

    found = dict[str, str]()
    for side in SIDES:
        try:
            found[side.name] = of(side.model, side.program, side.precision)
        except NotMade as why:
            found[side.name] = f"not made: {why}"
    return found


if __name__ == "__main__":
    for name_, what in make_all().items():
        print(f"{name_:44} {what}")
