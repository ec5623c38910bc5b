"""Models and contexts of llama.cpp: what is read goes in as tokens or embeddings, logits and hidden states come out.

A context has one memory for all its sequences: a copy of one costs nothing until the two part. What a token does not look at is passed
over cheaply, and the state of a sequence goes from one context to another, which between memories of one sequence each it does not.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelgraft.plugin import ExportError, InputError
from modelgraft_plugins.llamacpp.library import Library

AT_ONCE = 512  # tokens that are read in one call at most, as llama.cpp has it
LEAST_AT_ONCE = 64  # fewer cost more each (q4_1, one thread of Zen 3, tokens a second: 92 by 32, 126 by 64, 123 by 512)
PRODUCTS = 10**11  # of one call, about: two seconds of a core; between calls a stop is looked for
ENDS_AT_ONCE = 128  # of those whose logits are wanted: each takes the width of the vocabulary
STEP = 256  # llama.cpp lays memory out in so many tokens
SPARE = 8  # there are so many sequences at least, and a multiple of it: rows may become more
MOST_SEQUENCES = 256  # of one context (LLAMA_MAX_SEQ)
FULL = 1  # what llama_decode gives where there is no room

Array = Any  # of numpy; its shapes stand in words


class Model:
    """The weights of a file, mapped, as llama.cpp computes with them."""

    def __init__(self, library: Library, path: Path) -> None:
        """Raises ExportError for a file that llama.cpp does not take."""
        self.library, self.native = library, library.native
        library.complaints()
        settings = self.native.llama_model_default_params()
        settings.n_gpu_layers = 0
        self.pointer = self.native.llama_model_load_from_file(os.fsencode(path), settings)
        if not self.pointer:
            raise ExportError(f"llama.cpp does not read {path.name}: {library.complaints() or 'it does not say why'}")
        self._finalizer = weakref.finalize(self, self.native.llama_model_free, self.pointer)
        self.width: int = self.native.llama_model_n_embd(self.pointer)
        self.vocabulary: int = self.native.llama_vocab_n_tokens(self.native.llama_model_get_vocab(self.pointer))
        self.bytes: int = self.native.llama_model_size(self.pointer)
        self.window: int = self.native.llama_model_n_swa(self.pointer)
        most = PRODUCTS // max(self.native.llama_model_n_params(self.pointer), 1) // LEAST_AT_ONCE * LEAST_AT_ONCE
        self.at_once = min(max(most, LEAST_AT_ONCE), AT_ONCE)  # tokens of a prompt that are read in one call
        self.remembered = self._remembered()

    @property
    def weights(self) -> str:
        """How the file holds them, as llama.cpp names it, where the file does not say by most of its tensors: "Q4_1", "F16", "all F32"."""
        told = ctypes.create_string_buffer(256)
        self.native.llama_model_desc(self.pointer, told, len(told))
        return told.value.decode("utf-8", "replace").split(" ", 2)[-1].removeprefix("(guessed) ")

    @property
    def is_float32(self) -> bool:
        """Whether no weight is rounded: then the memory is not either."""
        return "F32" in self.weights

    def _remembered(self) -> int:
        """How many numbers are remembered of a token: keys and values of all layers, whose heads may have widths of their own."""
        native, kind = self.native, self._stated("general.architecture")
        usual = self.width // max(native.llama_model_n_head(self.pointer), 1)
        widths = (self._stated(f"{kind}.attention.{name}_length") for name in ("key", "value"))
        each = sum(int(width) if width else usual for width in widths)
        return int(native.llama_model_n_layer(self.pointer) * native.llama_model_n_head_kv(self.pointer) * each)

    def _stated(self, name: str) -> str:
        """What the file states under a name; "" where it states nothing."""
        told = ctypes.create_string_buffer(256)
        length = self.native.llama_model_meta_val_str(self.pointer, name.encode(), told, len(told))
        return told.value.decode("utf-8", "replace") if length >= 0 else ""

    def close(self) -> None:
        """Give the weights back; no context may be open."""
        self._finalizer()


class Context:
    """Memory of a model for some sequences, and what it computed last.

    rows    how many sequences there may be;  most  tokens that all together may have
    states  hidden states in front of the head are given beside the logits
    """

    def __init__(self, model: Model, *, rows: int, most: int, threads: int, states: bool = False) -> None:
        """Raises InputError for more rows than there can be, and where there is no memory for them."""
        if rows > MOST_SEQUENCES:
            raise InputError(f"llama.cpp reads at most {MOST_SEQUENCES} rows at once, and these are {rows}: run smaller batches")
        self.model, self.native, self.states = model, model.native, states
        self.rows = min(-(-rows // SPARE) * SPARE, MOST_SEQUENCES)
        self.most = -(-most // STEP) * STEP
        self.at_once = min(ENDS_AT_ONCE, model.at_once) if states else model.at_once
        self.steps = 0 if states else min(ENDS_AT_ONCE, model.at_once)  # rows that `step` takes
        settings = self._settings(threads)
        self.pointer = self.native.llama_init_from_model(model.pointer, settings)
        if not self.pointer:
            said = model.library.complaints() or "it does not say why"
            raise InputError(f"llama.cpp opens no memory for {self.most:,} tokens of {rows} rows: {said}")
        self._finalizer = weakref.finalize(self, self.native.llama_free, self.pointer)
        self.memory = self.native.llama_get_memory(self.pointer)
        self._batch = _Batch(self.native, self.at_once)

    def _settings(self, threads: int) -> Any:
        settings = self.native.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max, settings.n_batch, settings.n_ubatch = self.most, self.rows, self.at_once, self.at_once
        settings.n_outputs_max = max(ENDS_AT_ONCE, self.rows)
        settings.n_threads = settings.n_threads_batch = threads
        settings.embeddings, settings.kv_unified, settings.no_perf = self.states, True, True
        if self.states:
            settings.pooling_type = self.native.LLAMA_POOLING_TYPE_NONE
        if self.model.is_float32:
            settings.type_k = settings.type_v = self.native.GGML_TYPE_F32
            settings.flash_attn_type = self.native.LLAMA_FLASH_ATTN_TYPE_DISABLED  # it computes in 16 bits, 1e-3 away
        return settings

    @property
    def bytes(self) -> int:
        """What the memory for tokens takes."""
        return self.model.remembered * self.most * (4 if self.model.is_float32 else 2)

    def read(
        self, given: Array, positions: Array, sequences: Array, wanted: Array, *, check: Callable[[], None] = lambda: None
    ) -> tuple[Array, Array | None]:
        """Read on, in the order given.

        given      int32[n] tokens, or float32[n width] embeddings
        positions  int32[n], each behind those that its sequence has;  sequences  int32[n]
        wanted     bool[n]: whose logits are given
        check      raises where the run was stopped: asked before each piece but the first
        returns    float32[wanted vocabulary], and float32[wanted width] where states are given; copies

        Raises InputError where there is no room.
        """
        count = int(wanted.sum())
        logits = np.empty((count, self.model.vocabulary), np.float32)
        states = np.empty((count, self.model.width), np.float32) if self.states else None
        done = 0
        for place in _pieces(wanted, self.at_once):
            if place.start:
                check()
            self._decode(given[place], positions[place], sequences[place], wanted[place])
            kept = wanted[place]
            new = int(kept.sum())
            if not new:
                continue
            told = len(kept) if self.states else new  # with states every token is given
            found = self._array(self.native.llama_get_logits(self.pointer), told, self.model.vocabulary)
            logits[done : done + new] = found[kept] if self.states else found
            if states is not None:
                found = self._array(self.native.llama_get_embeddings(self.pointer), told, self.model.width)
                states[done : done + new] = found[kept]
            done += new
        return logits, states

    def step(self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int], logits: Array) -> None:
        """Read a token of each sequence, as `read` does, into float32[tokens vocabulary]. Not where states are given, nor of many."""
        self._decode_batch(self._batch.filled(tokens, positions, sequences, True), len(tokens))
        ctypes.memmove(logits.ctypes.data, self.native.llama_get_logits(self.pointer), logits.nbytes)

    def _decode(self, given: Array, positions: Array, sequences: Array, wanted: Array) -> None:
        self._decode_batch(self._batch.filled(given, positions, sequences, wanted), len(positions))

    def _decode_batch(self, batch: Any, count: int) -> None:
        self.model.library.complaints()
        code = self.native.llama_decode(self.pointer, batch)
        if code == FULL:
            raise InputError(f"llama.cpp has no room for {count} more tokens in a memory of {self.most:,}")
        if code:
            raise RuntimeError(f"llama_decode gave {code}: {self.model.library.complaints() or 'it does not say why'}")

    def _array(self, pointer: Any, rows: int, width: int) -> Array:
        return np.ctypeslib.as_array(pointer, (rows, width))

    def copy(self, source: int, target: int) -> None:
        """Let a sequence go on from what another holds."""
        self.forget(target)
        self.native.llama_memory_seq_cp(self.memory, source, target, -1, -1)

    def forget(self, sequence: int, start: int = -1) -> None:
        """Forget the tokens of a sequence from a position on; all of them where none is given."""
        if not self.native.llama_memory_seq_rm(self.memory, sequence, start, -1):
            raise InputError("this model cannot take tokens back: its states have let go of what was before them")

    def clear(self) -> None:
        """Forget everything."""
        self.native.llama_memory_clear(self.memory, False)

    def taken_out(self, sequence: int) -> Any:
        """What a sequence holds, as bytes that another context of the model takes."""
        size = self.native.llama_state_seq_get_size(self.pointer, sequence)
        held = (ctypes.c_uint8 * size)()
        if self.native.llama_state_seq_get_data(self.pointer, held, size, sequence) != size:
            raise RuntimeError(f"llama.cpp gives no state of {size:,} bytes: {self.model.library.complaints()}")
        return held

    def put_in(self, held: Any, sequence: int) -> None:
        """Let a sequence hold what `taken_out` gave. Raises InputError where there is no room."""
        if not self.native.llama_state_seq_set_data(self.pointer, held, len(held), sequence):
            raise InputError(f"llama.cpp takes no state of {len(held):,} bytes: {self.model.library.complaints() or 'it does not say why'}")

    def close(self) -> None:
        """Give the memory back."""
        self._finalizer()


class _Batch:
    """What llama_decode takes, made once: arrays that are filled for every call."""

    def __init__(self, native: Any, most: int) -> None:
        self.positions, self.sequences, self.tokens = (np.empty(most, np.int32) for _ in range(3))
        self.counts, self.wanted = np.ones(most, np.int32), np.empty(most, np.int8)
        step = self.sequences.itemsize
        self.places = np.arange(most, dtype=np.uintp) * step + self.sequences.ctypes.data  # of the one sequence that each is of
        self.batch, self.types = native.llama_batch(), dict(native.llama_batch._fields_)
        self.known = _pointer(self.tokens, self.types["token"])
        for name, array in (("pos", self.positions), ("n_seq_id", self.counts), ("seq_id", self.places), ("logits", self.wanted)):
            setattr(self.batch, name, _pointer(array, self.types[name]))

    def filled(self, given: Any, positions: Any, sequences: Any, wanted: Any) -> Any:
        """The same with these. given: numbers of tokens, or embeddings, float32[n width], which must live until they were read."""
        count, batch = len(positions), self.batch
        self.positions[:count], self.sequences[:count], self.wanted[:count] = positions, sequences, wanted
        batch.n_tokens = count
        if np.ndim(given) == 1:
            self.tokens[:count] = given
            batch.token, batch.embd = self.known, None
        else:
            batch.token, batch.embd = None, _pointer(given, self.types["embd"])
        return batch


def _pointer(array: Array, kind: Any) -> Any:
    return ctypes.cast(array.ctypes.data, kind)


def _pieces(wanted: Array, most: int) -> list[slice]:
    """Stretches of at most so many tokens, of which not too many are wanted."""
    if len(wanted) <= min(most, ENDS_AT_ONCE):
        return [slice(0, len(wanted))]
    found, start, ends = list[slice](), 0, 0
    for place, one in enumerate(wanted):
        if place - start == most or (one and ends == ENDS_AT_ONCE):
            found.append(slice(start, place))
            start, ends = place, 0
        ends += bool(one)
    return [*found, slice(start, len(wanted))]
