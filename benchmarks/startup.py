"""How long light commands take, whole process, against importing the libraries that they stand on.

    python benchmarks/startup.py [--runs 7]

Prints one row per command: the fastest of the runs, and its ratio to the baseline in the same minute. The goal is 2.5.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

BASELINE = ("-c", "import pydantic, yaml, networkx, typer, rich")
COMMANDS = (
    ("--version",),
    ("check", "blip2"),
    ("plan", "blip2"),
    ("show", "blip2", "--format", "svg"),
    ("components",),
    ("plugins", "list"),
    ("graphs",),
    ("schema",),
    ("explain", "blip2", "qformer"),
)


def seconds(words: tuple[str, ...]) -> float:
    """Run a process and give how long it took."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    every = {BASELINE: "import pydantic, yaml, networkx, typer, rich"}
    every |= {("-m", "modelgraft", *words): "modelgraft " + " ".join(words) for words in COMMANDS}
    best = dict.fromkeys(every, float("inf"))
    for _ in range(runs):  # interleaved, so that another job on the machine slows all of them
        for words in every:
            best[words] = min(best[words], seconds(words))
    print(f"{'process':50} {'seconds':>8} {'ratio':>6}")
    for words, name in every.items():
        print(f"{name:50} {best[words]:8.3f} {best[words] / best[BASELINE]:6.2f}")


if __name__ == "__main__":
    main()
