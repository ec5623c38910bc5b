"""The script that `modelgraft export` writes beside its segments: they run with onnxruntime and numpy alone.

What is more than a call of a graph stands in a script of its own beside its segment, which the component brings along
(`Assembling.script`): a module with `options(parser)` and `compute(part, values, words, opened, folder)`.
"""

from __future__ import annotations

SCRIPT = '''\
"""Run the exported segments with onnxruntime alone.

    python run.py NODE.PORT=FILE.npy ...     tensors in; writes NODE.PORT.npy for whatever can be computed from them (_ for /)
"""
import argparse, importlib.util, json, os, pathlib, platform
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # or onnxruntime tells its makers of each session
import numpy, onnxruntime

here = pathlib.Path(__file__).parent


def saturates():
    """Whether this processor adds pairs of 8-bit products in 16 bits, which overflow: x86 without VNNI."""
    told = pathlib.Path("/proc/cpuinfo")
    return platform.machine().lower() in ("x86_64", "amd64", "i686") and not (told.exists() and "vnni" in told.read_text(errors="replace"))


def opened(part, graph="model.onnx"):
    options = onnxruntime.SessionOptions()
    if part["weights"].startswith("8 bits dynamic") and saturates():
        options.add_session_config_entry("session.x64quantprecision", "1")  # both factors unsigned: slower, and right
    return onnxruntime.InferenceSession(here / part["folder"] / graph, options, providers=["CPUExecutionProvider"])


def script_of(part):
    """The module beside a segment; None where its graph is all there is."""
    if not part.get("script"):
        return None
    spec = importlib.util.spec_from_file_location("script", here / part["folder"] / part["script"])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compute(parts, scripts, values, words):
    results = {}
    for part, script in zip(parts, scripts):
        wires = part["wires"]
        if script is not None:
            results.update(script.compute(part, values, words, opened, here / part["folder"]))
        elif all(source in values for source in wires.values()):
            found = opened(part).run(None, {port: values[source] for port, source in wires.items()})
            results |= zip(part["gives"], found)
            values |= results
    return results


if __name__ == "__main__":
    parts = json.loads((here / "manifest.json").read_text())["segments"]
    scripts = [script_of(part) for part in parts]
    own = {script.__doc__: script for script in scripts if script is not None}
    parser = argparse.ArgumentParser(description=__doc__ + "".join(own), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("values", nargs="+", metavar="NAME=FILE.npy")
    for script in own.values():
        script.options(parser)
    words, given = parser.parse_args(), {}
    known = {name for part in parts for name in (*part["wires"].values(), *part["gives"], *part["nodes"], *part.get("beside", {}).values())}
    for word in words.values:
        name, _, file = word.partition("=")
        if not file or name not in known:
            parser.error(f"'{word}' is no NAME=FILE.npy, or has a NAME that is none of: {', '.join(sorted(known))}")
        try:
            given[name] = numpy.load(file)
        except (OSError, ValueError) as error:
            parser.error(f"{file} cannot be read: {error}")
    try:
        results = compute(parts, scripts, dict(given), words)
    except Exception as error:
        shapes = ", ".join(f"{name} {value.dtype}{list(value.shape)}" for name, value in given.items())
        parser.error(f"cannot be computed from {shapes}: {str(error).strip().splitlines()[0]} (see `ports` in manifest.json)")
    if not results:
        parser.error("nothing can be computed from these values: see `wires` and `nodes` in manifest.json")
    for name, value in results.items():
        numpy.save(name.replace("/", "_") + ".npy", value)
'''
