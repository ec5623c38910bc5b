"""What a stage leaves: a file for each trained node, which any graph names by `from`, and a card that says how it came about."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from modelgraft.commands import file_aside
from modelgraft.plugin import Config, InputError, SpaceOf, TypeOf
from modelgraft_plugins.training.checkpoints import CHECKPOINTS, file_name, take_best, tensors_of
from modelgraft_plugins.training.identity import digest_of

if TYPE_CHECKING:
    from modelgraft_plugins.training.stage import StageRun
    from modelgraft_plugins.training.stepping import Stepper

CARD = "card.json"
TOKENIZER = (  # what the tokenizer of a language model and its templates are read from
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model",
    "sentencepiece.bpe.model", "qwen.tiktoken", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
    "generation_config.json",
)  # fmt: skip


def write_trained(run: StageRun, stepper: Stepper, *, metrics: Mapping[str, str], seconds: float) -> None:
    """Write the trained files, and the card last: where it is, the stage is done."""
    if run.stage["best"] is not None and run.progress.best is not None:
        take_best(run.folder / CHECKPOINTS, stepper)
    files = {name: _write(run, stepper, name) for name in stepper.modules}
    _write_tokenizers(run)
    facts = {
        "graph": run.solved.name,
        "stage": run.stage.name,
        "doc": run.stage["doc"],
        "files": {name: path.name for name, path in files.items()},
        "trained": {name: {"kind": one.kind, "parameters": _count(stepper, name)} for name, one in run.resolved.trained.items()},
        "steps": run.progress.step,
        "records": len(run.data.rows),
        "skipped": len(run.progress.skipped),
        "metrics": {key: _number(value) for key, value in metrics.items() if value and key not in ("part", "step", "epoch")},
        "best": {run.resolved.best[0]: run.progress.best, "step": run.progress.best_step} if run.progress.best is not None else None,
        "weights": f"of step {run.progress.best_step}"
        if run.stage["best"] is not None and run.progress.best is not None
        else "of the last step",
        "graph_hash": digest_of(run.facts, "nodes.", "losses.", "trained."),
        "data_hash": run.data.rows.digest,
        "seconds": round(seconds, 1),
        "licence": "as the data and the weights that it began with allow: say it here before you hand these files on",
    }
    with file_aside(run.folder / "card.md") as aside:
        aside.write_text(_as_text(facts), encoding="utf-8")
    with file_aside(run.folder / CARD) as aside:
        aside.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def trained_in(folder: Path) -> list[tuple[str, str, str]]:
    """What a stage has trained by its card: node, file and tuning. Raises InputError for a card that cannot be read."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        return [(name, file, card["trained"][name]["kind"]) for name, file in card["files"].items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / CARD} cannot be read, so that nobody knows what was trained there: {error}") from error


def _write(run: StageRun, stepper: Stepper, name: str) -> Path:
    module, tuning = stepper.modules[name], run.resolved.trained[name]
    tensors = tensors_of(module)
    if tuning.kind == "lora":
        chosen = {one.name for one in stepper.trained if one.node == name}
        tensors = {key: tensor for key, tensor in tensors.items() if key in chosen}
    path = run.folder / file_name(name)
    node = run.solved.nodes[name]
    about: dict[str, Any] = {
        "component": f"{node.component.id}@{node.component.version}",
        "tuning": tuning.kind,
        "config": config_of(node.config),
    }
    if tuning.kind == "lora":
        about["adapters"] = [{"component": one.component.id, "config": config_of(one.config)} for one in node.adapters]
    facts = {"modelgraft": json.dumps(about, default=str, sort_keys=True)}  # one entry: several are written in an order of chance
    with file_aside(path) as aside:
        save_file(tensors, aside, metadata=facts)
    return path


def _write_tokenizers(run: StageRun) -> None:
    """Put the tokenizers of language models beside their trained files, which are no checkpoint without them."""
    begun: dict[str, str] = {}
    for name, tuning in run.resolved.trained.items():
        node = run.solved.nodes[name]
        if node.component.kind != "llm" or tuning.kind == "lora" or node.source is None:
            continue
        home = node.source.path()
        around = home if home is None or home.is_dir() else home.parent
        for word in TOKENIZER:
            file = node.source.path(word) or (around / word if around is not None else None)
            if file is None or not file.is_file():
                continue
            if word in begun and file.read_bytes() != (run.folder / word).read_bytes():
                run.asked.note(
                    f"{run.stage.name}: {word} is that of {begun[word]}; {name} has another, so give it a folder of its own to run it"
                )
                continue
            begun.setdefault(word, name)
            with file_aside(run.folder / word) as aside:
                shutil.copyfile(file, aside)


def config_of(config: Config) -> dict[str, Any]:
    """The config as another graph takes it from the file: without what is the default, and without what follows from wires there."""
    follows = {
        name for name, field in type(config).model_fields.items() if any(isinstance(mark, TypeOf | SpaceOf) for mark in field.metadata)
    }
    return config.model_dump(mode="json", exclude=follows, exclude_defaults=True)


def _number(text: str) -> float | None:
    """A number of the table; None for what is none, which JSON does not hold."""
    value = float(text)
    return value if math.isfinite(value) else None


def _count(stepper: Stepper, name: str) -> int:
    return sum(one.parameter.numel() for one in stepper.trained if one.node == name)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _as_text(facts: Mapping[str, Any]) -> str:
    rows = [f"| {name} | {facts['files'][name]} | {one['kind']} | {one['parameters']:,} |" for name, one in facts["trained"].items()]
    numbers = [f"- {key}: {'no number' if value is None else f'{value:.6g}'}" for key, value in facts["metrics"].items()]
    return "\n".join(
        [
            f"# {facts['graph']}, stage {facts['stage']}",
            "",
            facts["doc"] or "Trained by modelgraft.",
            "",
            "| node | file | tuned | parameters |",
            "|---|---|---|---:|",
            *rows,
            "",
            f"{_counted(facts['steps'], 'step')} over {_counted(facts['records'], 'record')}, {facts['skipped']:,} left out. At the end:",
            "",
            *numbers,
            *([f"- best: {facts['best']}; the files hold the weights {facts['weights']}"] if facts["best"] else []),
            "",
            f"Graph {facts['graph_hash'][:16]}, data {facts['data_hash'][:16]}.",
            "",
            f"Licence: {facts['licence']}.",
            "",
        ]
    )
