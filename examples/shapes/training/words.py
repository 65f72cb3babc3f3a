"""The two tokenizers: a LLaMA BPE with byte fallback for the language model and a BERT
WordPiece for the Q-Former, both trained on the questions, the answers and english.txt."""

import json
import random
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer, LlamaTokenizer

import scenes

HERE = Path(__file__).resolve().parent
BPE_PIECES = 760  # with the three special pieces and the 256 bytes
WORDPIECES = 700


def corpus(seed: int = 0, images: int = 600) -> list[str]:
    rng = random.Random(seed)
    lines = []
    for _ in range(images):
        scene = scenes.random_scene(rng)
        for kind in scenes.QUESTION_KINDS:
            question = scenes.ask(rng, scene, kind)
            lines += [question.text, question.answer]
    english = (HERE / "english.txt").read_text(encoding="utf-8").splitlines()
    return lines + english * 10


def train_bpe(lines: list[str]) -> LlamaTokenizer:
    """Merges are learned inside words, as SentencePiece does, and never across punctuation; bytes stand in for what is not in the vocabulary."""
    special = ["<unk>", "<s>", "</s>"]
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="always", split=True), pre_tokenizers.Punctuation()]
    )
    trainer = trainers.BpeTrainer(vocab_size=BPE_PIECES - len(special) - len(bytes_), show_progress=False)
    learner.train_from_iterator(lines, trainer)
    model = json.loads(learner.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    vocab = {piece: i for i, piece in enumerate(special + bytes_ + pieces)}
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    tokenizer = LlamaTokenizer(
        vocab=vocab, merges=merges, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="[PAD]",
        add_bos_token=True, padding_side="left", truncation_side="left", model_max_length=256,
    )
    tokenizer.add_tokens([AddedToken("<image>", normalized=False, special=True)], special_tokens=True)
    return tokenizer


def train_wordpiece(lines: list[str]) -> BertTokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer = normalizers.BertNormalizer(lowercase=True)
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=WORDPIECES, special_tokens=special, show_progress=False)
    learner.train_from_iterator(lines, trainer)
    pieces = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    vocab = {piece: i for i, (piece, _) in enumerate(pieces)}
    tokenizer = BertTokenizer(vocab=vocab, do_lower_case=True, truncation_side="left", model_max_length=64)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})  # as the published Q-Former tokenizers have it
    return tokenizer


def make_tokenizers():
    lines = corpus()
    return train_bpe(lines), train_wordpiece(lines)
