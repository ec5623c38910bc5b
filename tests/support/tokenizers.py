"""Small tokenizers, trained on a few sentences, in the layout of published checkpoints."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

SENTENCES = (
    "a photo of a cat and a dog on the grass",
    "Question: how many cats are there? Answer: two cats, one of them grey.",
    "USER: what do you see in the picture? ASSISTANT: I see a red car near the house.",
    "the quick brown fox jumps over the lazy dog while the sun is setting",
    "describe the picture in one short sentence; name the colours you see",
)


def byte_level(
    *,
    begin: str | None,
    end: str,
    pad: str | None = None,
    prefix: bool = False,
    suffix: bool = False,
    extra: tuple[str, ...] = ("<image>",),
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer.

    begin, end, pad  the special tokens; ids follow the order pad, begin, end
    prefix, suffix   put `begin` before and `end` behind every text, as OPT and LLaMA, and as T5 do
    """
    specials = list(dict.fromkeys(token for token in (pad, begin, end, *extra) if token))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=len(alphabet) + 60, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    single = " ".join([*([begin] if prefix and begin else []), "$A", *([end] if suffix else [])])
    used = [(token, tokenizer.token_to_id(token)) for token in specials]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=used)
    named = {"bos_token": begin, "eos_token": end, "pad_token": pad or end}
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, additional_special_tokens=list(extra), **{name: token for name, token in named.items() if token}
    )
    made.padding_side = "left"  # not an argument above: InstructBLIP's processor would hand that to the Q-Former's tokenizer too
    return made


def word_piece() -> PreTrainedTokenizerFast:
    """Train a lower-casing WordPiece tokenizer with BERT's special tokens."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=150, special_tokens=specials, show_progress=False))
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"
    )


def clip_bpe() -> CLIPTokenizer:
    """Make CLIP's tokenizer of a small vocabulary: letters, letters at the end of a word, and the merges of a few words."""
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in ("photo", "cat", "dog", "of", "the", "grass"):
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            merge = pieces[0], pieces[1]
            pieces[:2] = ["".join(merge)]
            if merge not in merges:
                merges.append(merge)
                vocabulary.append(pieces[0])
    ids = {token: index for index, token in enumerate(dict.fromkeys([*vocabulary, "<|startoftext|>", "<|endoftext|>"]))}
    assert all(left + right in ids for left, right in merges)
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=19)


def words_tokenizer(count: int) -> PreTrainedTokenizerFast:
    """A tokenizer of one token per word, `w3` for id 3, that puts the last but one around the beginning and the last around the end."""
    words = {f"w{index}": index for index in range(count - 2)} | {"<start>": count - 2, "<end>": count - 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w1"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    around = [("<start>", count - 2), ("<end>", count - 1)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=around)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="w1", bos_token="<start>", eos_token="<end>", pad_token="<end>", model_max_length=64
    )


PIECES = (
    "▁a",
    "▁photo",
    "▁of",
    "▁cat",
    "▁dog",
    "▁the",
    "s",
    "▁",
    "a",
    "c",
    "o",
    "t",
    "▁grass",
    "?",
    "g",
    "r",
    "p",
    "h",
    "d",
    "f",
    "e",
    "n",
    "i",
)


def sentence_pieces(path: Path) -> list[tuple[str, float]]:
    """Write a small file of SentencePiece, as BEiT-3 and XLM-RoBERTa have them, and give its pieces with their scores."""
    from transformers.convert_slow_tokenizer import import_protobuf

    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((piece, -2.0 - 0.37 * place) for place, piece in enumerate(PIECES))]
    proto = import_protobuf().ModelProto()
    proto.trainer_spec.model_type = 1
    for place, (piece, score) in enumerate(pieces):
        kind = 1 if place > 2 else 2 if piece == "<unk>" else 3
        proto.pieces.add(piece=piece, score=score, type=kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(proto.SerializeToString())
    return pieces
