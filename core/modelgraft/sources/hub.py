"""Checkpoints that the Hugging Face tools keep on this machine, found without importing them.

Layout of their cache: `models--ORG--NAME/refs/REVISION` names a commit, `models--ORG--NAME/snapshots/COMMIT` is the folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from modelgraft.kernel.words.errors import Problem, SourceError
from modelgraft.records.homes import home_read

CONFIGS = ("*.json", "*.txt", "*.model", "*.jinja")  # configs, tokenizers and chat templates
WEIGHTS = ("*.safetensors",)


def hub_cache() -> Path:
    """The cache folder of the Hugging Face tools, by the same variables that they read."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if folder := os.environ.get(name):
            return home_read(folder)
    if home := os.environ.get("HF_HOME"):
        return home_read(home) / "hub"
    return home_read(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" / "hub"


def find_snapshot(name: str, revision: str = "") -> Path | None:
    """The folder of a checkpoint that was downloaded before, or None. Without a revision: `main`, else the only one."""
    home = hub_cache() / f"models--{name.replace('/', '--')}"
    snapshots = home / "snapshots"
    wanted = revision or "main"
    ref = home / "refs" / wanted
    commit = ref.read_text().strip() if ref.is_file() else wanted
    if (snapshots / commit).is_dir():
        return snapshots / commit
    if revision or not snapshots.is_dir():
        return None
    there = sorted(snapshots.iterdir())
    return there[0] if len(there) == 1 else None


def is_offline() -> bool:
    """The user told the Hugging Face tools to stay offline."""
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def download(name: str, revision: str = "", *, weights: bool) -> Path:
    """Fetch a checkpoint with the Hugging Face client, which resumes what was cut: its configs, and its weights if asked.

    Raises SourceError `source-not-found`, with what the client said.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise SourceError(Problem("source-not-found", f"'{name}' is not on this machine, and huggingface_hub is not installed")) from error
    patterns = [*CONFIGS, *(WEIGHTS if weights else ())]
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
    except Exception as error:
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise not_found(name, f"and it could not be fetched: {said}") from error


def not_found(name: str, why: str) -> SourceError:
    """The error of a hub id that leads nowhere."""
    return SourceError(Problem(
        "source-not-found",
        f"the checkpoint '{name}' is not on this machine ({hub_cache()}), {why}",
        hint=f"check the name; fetch it where there is a network (`hf download {name}`), or name a folder: ./{name.rpartition('/')[2]}",
    ))  # fmt: skip
