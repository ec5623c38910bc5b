"""Environments to install into: empty ones, that see what this one has installed beside."""

from __future__ import annotations

import site
import subprocess
import sys
from pathlib import Path

import modelgraft

ROOT = Path(__file__).parents[2]


def build_wheel(project: Path, folder: Path) -> Path:
    """Build a project without fetching anything: its build back end is installed here."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        str(folder),
        str(project),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(iter(folder.glob("*.whl")))


def scratch_environment(folder: Path) -> Path:
    """Make an environment and give its Python: what is installed here can be imported there, what it installs comes first."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, capture_output=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    asked = subprocess.run([python, "-c", "import site; print(site.getsitepackages()[0])"], check=True, capture_output=True, text=True)
    here = [*site.getsitepackages(), str(Path(modelgraft.__file__).parents[1])]
    # `addsitedir` also follows the .pth files of editable installs.
    lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in here)
    (Path(asked.stdout.strip()) / "beside.pth").write_text(lines, encoding="utf-8")
    return python


def install(python: Path, wheel: Path) -> None:
    """Install a wheel there, alone."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--force-reinstall",
        str(wheel),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
