"""The words of `training:`: each key with what it takes, its default and a sentence. Reader, schema and docs read this table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TUNES: Mapping[str, str] = {
    "frozen": "stays as it is, in eval mode",
    "partial": "the parameters that `parts` names are trained",
    "full": "all of its parameters are trained",
    "lora": "what is grafted into it is trained: LoRA, gated cross-attention and other adapters",
}
SCHEDULES = ("cosine", "linear", "constant")
OPTIMIZERS = ("adamw", "adam", "sgd")
COMPUTES_IN = ("float32", "bfloat16", "float16")
BETTER = ("higher", "lower")
FEATURES = ("off", "float32", "float16")
NEW_RATE, BACKBONE_RATE = 1e-3, 1e-5  # 100 : 1, as nanoVLM has it between its projector and its backbones (models/config.py)


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a stage.

    types    what its value may be;  words  the only texts among those
    least, most  bounds of a number;  default  None: nothing
    by_node  it may be a mapping by node, with `default` for the others
    """

    types: tuple[type, ...]
    doc: str
    default: Any = None
    words: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    by_node: bool = False


NUMBER = (int, float)

# Keys that a stage has; written in `training` itself they hold for every stage that does not say otherwise.
STAGE_KEYS: Mapping[str, Key] = {
    "doc": Key((str,), "One sentence: what the stage is for.", ""),
    "data": Key(
        (str,), "What is trained on: JSON lines, .csv, .tsv, .parquet, .arrow, a folder or a pattern, as `modelgraft map` reads them."
    ),
    "valid": Key(
        (str, int, float), "What is evaluated on: data of its own, or the share of the data that is held out.", None, least=0, most=1
    ),
    "columns": Key((dict,), "The column that feeds an input of the graph, by input; without it that of the same name."),
    "train": Key(
        (dict, list),
        "What is trained: nodes, or how each is tuned: frozen, partial, full or lora. Left out: what has weights and is not `frozen`.",
    ),
    "losses": Key((dict, list), "The losses and their weights in the sum; left out: all of the section `losses`, each with the weight 1."),
    "watch": Key((list,), "Outputs of nodes, one number for each record, whose means an evaluation tells beside the losses."),
    "metrics": Key((list,), "Metrics of an evaluation, as `eval` names them: `word_f1:prediction=NODE.PORT,references=COLUMN`."),
    "best": Key((str,), "What tells the best evaluation, whose weights are then what the stage gives: `loss`, or a name of its table."),
    "better": Key((str,), "Whether higher or lower is better of `best`. Left out: as a metric says; of all else lower.", None, BETTER),
    "optimizer": Key((str,), "The rule of the updates.", "adamw", OPTIMIZERS),
    "learning_rate": Key(
        NUMBER,
        f"Of all that is trained, or by node with `default`. Left out: {NEW_RATE:g}, and {BACKBONE_RATE:g} for encoders, language models "
        "and generators that are trained as a whole or in part.",
        None,
        least=0,
        by_node=True,
    ),
    "weight_decay": Key(NUMBER, "Decoupled decay of matrices; of vectors, norms and biases there is none.", 0.01, least=0, by_node=True),
    "betas": Key((list,), "Of Adam.", (0.9, 0.999)),
    "eps": Key(NUMBER, "Of Adam.", 1e-8, least=0),
    "momentum": Key(NUMBER, "Of SGD.", 0.0, least=0, most=1),
    "schedule": Key((str,), "How the learning rate goes on after the warm-up: to 0, or constant.", "cosine", SCHEDULES),
    "warmup": Key(NUMBER, "Steps in which the learning rate rises from 0; below 1 a share of all steps.", 0.03, least=0),
    "clip": Key(NUMBER, "The most that the norm of all gradients may be; 0: no limit.", 1.0, least=0),
    "accumulate": Key((int,), "Batches whose gradients are added to one step.", 1, least=1),
    "precision": Key(
        (str,),
        "What forward passes compute in; weights that are trained stay in float32. float16 is for GPUs: losses are scaled there.",
        "float32",
        COMPUTES_IN,
    ),
    "batch": Key((int,), "Records in a batch.", 8, least=1),
    "steps": Key((int,), "Updates of the weights.", None, least=1),
    "epochs": Key(NUMBER, "Passes over the data, where `steps` is not said.", 1, least=0),
    "seed": Key((int,), "Of the order of the records and of everything that is drawn.", 0),
    "shuffle": Key((bool,), "Another order of the records in each epoch.", default=True),
    "bucket": Key((bool,), "Records of like lengths of text share a batch.", default=True),
    "features": Key((str,), "Keep what frozen parts make of a record, in this precision, so that they run once.", "off", FEATURES),
    "evaluate": Key((int,), "Steps between evaluations on `valid`; left out: at the end of the stage alone.", None, least=1),
    "patience": Key((int,), "Evaluations that are no better in `best`, else in the loss, after which the stage ends.", None, least=1),
    "save": Key((int,), "Steps between checkpoints.", 200, least=1),
}
TUNE_KEYS: Mapping[str, str] = {
    "tune": f"One of: {', '.join(TUNES)}.",
    "parts": "Of partial: names of parameters or of modules in the node, with * for any letters, or of what the module offers.",
}
STAGES = "stages"  # the one key of `training` that no stage has
STAGES_DOC = "The stages by name, in the order in which they are trained; without them there is one, `train`."
