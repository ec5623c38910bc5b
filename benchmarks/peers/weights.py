"""The files from which programs read the language model of `describe`, each made by the program's own builder.

    python -m benchmarks.peers.weights [--again]

They begin with the same numbers: the published GGUF of 4-bit blocks (q4_1), and what modelgraft reads from it as a checkpoint in the
layout of Hugging Face. What is made lies beside the environments of the peers, is made once for their pins, and is 2 GB. Builders
that want torch and transformers run in our Python, with the environment of their program behind it.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import ROOT
from benchmarks.peers import environment
from benchmarks.peers.programs import PROGRAMS

BUILD_S = 1800
LAYOUT = "1"  # of the files that builders are asked for; another number makes all anew
TYPES = {"f16": 1, "q4_0": 2, "q8_0": 7}  # numbers that llama.cpp has for its types of files
GENAI = {"float32": "fp32", "int8": "int8", "int4": "int4"}
BEHIND = """
import runpy, sys
site, module, *words = sys.argv[1:]
sys.path.append(site)
sys.argv = [module, *words]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
REQUANTISE = """
import ctypes, os, sys
import llama_cpp as native
if built := os.environ.get("LLAMA_CPP_LIB_PATH"):
    ctypes.CDLL(f"{built}/libggml.so").ggml_backend_load_all_from_path(built.encode())
source, target, kind = sys.argv[1:]
settings = native.llama_model_quantize_default_params()
settings.ftype, settings.allow_requantize = int(kind), True
sys.exit(native.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(settings)))
"""
FIND = """
import modelgraft as mg
from modelgraft.sources import archives
from benchmarks import onnx_sides
graph = mg.load("describe")
text = graph.params["language"].default
with onnx_sides.opened(graph, "torch", None) as pipeline:
    pipeline.run(image=onnx_sides._photographs()[0])  # fetches and converts, if this is the first time
print(text, archives.member(text), onnx_sides.checkpoint_of(mg.check(mg.load("describe")), "sentence"), sep="\\n")
"""


class NotMade(Exception):
    """Why there are no weights for a program; one line."""


@dataclass(frozen=True, slots=True)
class Original:
    """The model that all read: its source as a graph names it, the file, and the checkpoint that was read from it."""

    source: str
    gguf: Path
    checkpoint: Path


def original(cache: Path) -> Original:
    """Find it, or fetch it, by a process of its own; it is noted in the cache. Raises NotMade."""
    from benchmarks.measuring import environment as surroundings

    noted = cache / "original.txt"
    if noted.is_file():
        source, gguf, checkpoint = noted.read_text(encoding="utf-8").splitlines()
        if Path(gguf).is_file() and Path(checkpoint).is_dir():
            return Original(source, Path(gguf), Path(checkpoint))
    words = [sys.executable, "-c", FIND]
    done = subprocess.run(words, cwd=ROOT, env=surroundings(1, cache), capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotMade(_last(done.stderr))
    source, gguf, checkpoint = done.stdout.strip().splitlines()[-3:]
    noted.write_text(f"{source}\n{gguf}\n{checkpoint}\n", encoding="utf-8")
    return Original(source, Path(gguf), Path(checkpoint))


def of(program: str, precision: str, model: Original, *, build: bool = True) -> str:
    """What a program opens for a precision, made if it is not there. Raises NotMade."""
    if program == "modelgraft, llamacpp":
        file, bindings = of("llama.cpp", precision, model, build=build), environment.found(PROGRAMS)["llama.cpp"]
        if bindings.why:
            raise NotMade(bindings.why)
        return f"{file}|{_packages(Path(bindings.python))}"
    if PROGRAMS[program].distribution == "modelgraft":
        return f"{model.source}|{precision}"
    if PROGRAMS[program].distribution == "transformers":
        return str(model.checkpoint)
    owner, places = "llama.cpp" if precision in TYPES else program, environment.found(PROGRAMS)
    if why := places[program].why or places[owner].why:
        raise NotMade(why)
    if precision == "q4_1":
        return str(model.gguf)
    name, make = _maker(program, precision)
    target = _folder(owner, model) / name
    if not target.exists():
        if not build:
            raise NotMade("its weights are not made: python -m benchmarks.peers.weights makes them")
        made(target, lambda aside: make(model, aside))
    return f"{target}|{precision}" if program == "CTranslate2" else str(target)


def _folder(program: str, model: Original) -> Path:
    """For the pins of a program and a model."""
    text = "\0".join([environment.pins(PROGRAMS[program].environment).read_text(encoding="utf-8"), model.source, LAYOUT])
    return environment.home() / f"weights-{PROGRAMS[program].environment}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


Maker = Callable[[Original, Path], None]


def _maker(program: str, precision: str) -> tuple[str, Maker]:
    """The name of what is made, and how."""
    if precision in TYPES:
        return f"{precision}.gguf", lambda model, target: _requantise(model, target, precision)
    makers: Mapping[str, Maker] = {
        "onnxruntime-genai": lambda model, target: _behind(
            program, "onnxruntime_genai.models.builder", "-i", str(model.checkpoint), "-o", str(target), "-p", GENAI[precision],
            "-e", "cpu", "-c", str(target.parent / "cache"),
        ),
        "mobius": lambda model, target: _mobius(model, target, precision),
        "CTranslate2": lambda model, target: _behind(
            program, "ctranslate2.converters.transformers", "--model", str(model.checkpoint), "--output_dir", str(target),
            "--copy_files", "tokenizer.json",
        ),
    }  # fmt: skip
    return ("checkpoint" if program == "CTranslate2" else f"{program}-{precision}"), makers[program]


def _mobius(model: Original, target: Path, precision: str) -> None:
    """From the checkpoint, or from the file with its 4-bit blocks kept: then the settings come from the other, as it writes none."""
    ending = ("--ep", "cpu", "--runtime", "ort-genai")
    if precision == "float32":
        _behind("mobius", "mobius", "build", "--config", str(model.checkpoint), str(target), *ending)
    else:
        _behind("mobius", "mobius", "build-gguf", str(model.gguf), "--output", str(target), "--keep-quantized", *ending)
        for settings in Path(of("mobius", "float32", model)).glob("*.json"):
            shutil.copy(settings, target)


def _requantise(model: Original, target: Path, precision: str) -> None:
    python = environment.found(PROGRAMS)["llama.cpp"].python
    run([python, "-c", REQUANTISE, str(model.gguf), str(target), str(TYPES[precision])])


def _behind(program: str, module: str, *words: str) -> None:
    """A module of a program, run by our Python."""
    packages = _packages(Path(environment.found(PROGRAMS)[program].python))
    run([sys.executable, "-c", BEHIND, str(packages), module, *words])


def _packages(python: Path) -> Path:
    """Where the packages of an environment lie, for a Python that has it behind its own."""
    sites = sorted(python.parent.parent.glob("lib/python*/site-packages")) or [python.parent.parent / "Lib" / "site-packages"]
    return sites[0]


def run(words: list[str]) -> None:
    from benchmarks.measuring import environment as surroundings

    try:
        cache = environment.home() / "builders"
        done = subprocess.run(words, env=surroundings(2, cache), capture_output=True, text=True, check=False, timeout=BUILD_S)
    except subprocess.TimeoutExpired as error:
        raise NotMade(f"its builder took more than {BUILD_S} s") from error
    if done.returncode:
        raise NotMade(f"its builder ended with {done.returncode}: {_last(done.stderr)}")


def made(target: Path, make: Callable[[Path], None]) -> None:
    """Made aside, so that what is there is whole."""
    aside = target.with_name(f"part-{target.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    for old in (aside,):
        shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(missing_ok=True)
    make(aside)
    aside.rename(target)


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-300:] if lines else "it said nothing"


def make_all(*, again: bool = False) -> dict[str, str]:
    """What every side of the table opens, or why there is nothing; those that are not there are made."""
    from benchmarks.measuring import usual_cache
    from benchmarks.rivals import SIDES

    model, found = original(usual_cache()), dict[str, str]()
    if again:
        for folder in environment.home().glob("weights-*"):
            shutil.rmtree(folder)
    for side in SIDES:
        try:
            found[side.name] = of(side.program, side.precision, model)
        except NotMade as why:
            found[side.name] = f"not made: {why}"
    return found


def main() -> None:
    """Make what is missing, and say what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="make them anew")
    for name, what in make_all(again=parser.parse_args().again).items():
        print(f"{name:32} {what}")


if __name__ == "__main__":
    main()
