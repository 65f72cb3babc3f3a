"""Small real tokenizers of the four families, trained on a text made here, in the layouts users have.

Each is a set of files; one that differs from another in a few keys says so (`from`, `set`), which keeps the goldens small.
"""

import base64
import io
import json
import random
import tempfile
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.tokenization_utils_base import generate_merges

WORDS = """a the an this that one two man woman child dog cat horse bird taxi car bicycle street house table window camera
picture image photo shirt yellow red green blue white black small large old young happy sitting standing running ironing
holding wearing eating looking on in under behind beside near with without of and or but because what which who where how
many is are was there unusual about describe detail details short answer question caption context please write give city
beach snow mountain river night morning light shadow people crowd water food plate cup phone book letter number""".split()
MULTILINGUAL = [
    "Ein Mann bügelt auf einem gelben Taxi in der Straße.",
    "L’image montre une femme élégante près de la fenêtre, n’est-ce pas ?",
    "¿Qué hay de raro en esta imagen? ¡Mañana será otro día!",
    "На фотографии изображена собака на берегу моря.",
    "这张图片有什么不寻常的地方？ 一个男人在出租车后面熨衣服。",
    "この写真の中で犬は何をしていますか。",
    "이 사진에서 무엇이 이상한가요?",
    "ما هو الشيء غير العادي في هذه الصورة؟",
    "מה לא רגיל בתמונה הזאת?",
    "इस चित्र में क्या असामान्य है?",
    "Bu resimde alışılmadık olan nedir? Işık İstanbul'da.",
]


def corpus():
    rng = random.Random(11)
    lines = []
    for _ in range(1200):
        words = rng.choices(WORDS, k=rng.randint(3, 14))
        line = " ".join(words)
        if rng.random() < 0.7:
            line = line.capitalize() + rng.choice([".", "?", "!", ", isn't it?", " (maybe)."])
        if rng.random() < 0.2:
            line += f" {rng.randint(0, 2500)}"
        lines.append(line)
    return lines + MULTILINGUAL * 8


def flags(content, **changed):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True, **changed}


def added(entries):
    return [{"id": i, **token} for i, token in entries]


def sentencepiece_model(kind, size, **options):
    """(pieces with scores, precompiled charsmap) of a SentencePiece model trained on the corpus."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=out, model_type=kind, vocab_size=size, num_threads=1, minloglevel=2, **options
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    pieces = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.get_piece_size())]
    return pieces, charsmap(out.getvalue())


def charsmap(proto):
    """ModelProto.normalizer_spec.precompiled_charsmap, without the protobuf package."""

    def fields(data):
        at = 0
        while at < len(data):
            (tag, at) = varint(data, at)
            if tag & 7 == 2:
                (size, at) = varint(data, at)
                yield tag >> 3, data[at : at + size]
                at += size
            elif tag & 7 == 0:
                (_, at) = varint(data, at)
            else:
                at += {5: 4, 1: 8}[tag & 7]

    def varint(data, at):
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            shift += 7
            at += 1
            if data[at - 1] < 128:
                return value, at

    spec = next(value for number, value in fields(proto) if number == 3)
    return next((value for number, value in fields(spec) if number == 2), b"")


def template(*names):
    """names around None, which is the prompt."""
    single = [{"Sequence": {"id": "A", "type_id": 0}} if n is None else {"SpecialToken": {"id": n[0], "type_id": 0}} for n in names]
    tokens = {n[0]: {"id": n[0], "ids": [n[1]], "tokens": [n[0]]} for n in names if n is not None}
    return {"type": "TemplateProcessing", "single": single, "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": tokens}


def bert():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=700, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], continuing_subword_prefix="##", limit_alphabet=300, show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    vocab = tokenizer.get_vocab()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken("[DEC]", special=True)])
    config = {
        "tokenizer_class": "BertTokenizer",
        "bos_token": "[DEC]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "mask_token": "[MASK]",
        "unk_token": "[UNK]",
        "do_lower_case": True,
        "model_max_length": 512,
        "truncation_side": "left",
    }
    return {"tokenizer.json": json.loads(tokenizer.to_str()), "tokenizer_config.json": config}, vocab


def llama():
    pieces, _ = sentencepiece_model(
        "bpe", 700, byte_fallback=True, character_coverage=0.98, split_digits=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, unk_id=0, bos_id=1, eos_id=2,
    )
    vocab = {piece: i for i, (piece, _) in enumerate(pieces)}
    merges = [list(m) for m in generate_merges(vocab, dict(pieces))]
    special = [(i, flags(t)) for i, t in enumerate(["<unk>", "<s>", "</s>"])]
    special += [(len(vocab), flags("[PAD]")), (len(vocab) + 1, flags("<image>"))]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added(special),
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
        "post_processor": template(("</s>", 2), None),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": True, "byte_fallback": True, "ignore_merges": False, "vocab": vocab, "merges": merges,
        },
    }
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "</s>",
        "eos_token": "</s>",
        "unk_token": "</s>",
        "pad_token": "[PAD]",
        "legacy": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
        "truncation_side": "left",
    }
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": config}


def t5():
    pieces, charsmap_ = sentencepiece_model("unigram", 500, character_coverage=0.99, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    assert len(charsmap_) > 200_000, "not the real nmt_nfkc map"
    vocab = [list(p) for p in pieces] + [[f"<extra_id_{i}>", 0.0] for i in range(99, -1, -1)]
    special = [(i, flags(t)) for i, t in enumerate(["<pad>", "</s>", "<unk>"])]
    special += [(len(pieces) + 99 - i, flags(f"<extra_id_{i}>")) for i in range(99, -1, -1)]
    special += [(len(vocab), flags("<image>"))]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added(special),
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap_).decode()},
                {"type": "Strip", "strip_left": False, "strip_right": True},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
            ],
        },
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "post_processor": template(None, ("</s>", 1)),
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": False},
    }
    config = {
        "tokenizer_class": "T5Tokenizer",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "extra_ids": 100,
        "additional_special_tokens": [f"<extra_id_{i}>" for i in range(100)],
        "clean_up_tokenization_spaces": True,
        "model_max_length": 512,
        "truncation_side": "left",
    }
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": config}


def opt():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    size = tokenizer.get_vocab_size()
    tokenizer.decoder = decoders.ByteLevel()
    out = json.loads(tokenizer.to_str())
    # OPT's are normalised tokens, as in the published files.
    names = [(0, flags("<s>", normalized=True)), (1, flags("<pad>", normalized=True)), (2, flags("</s>", normalized=True)), (3, flags("<unk>"))]
    out["added_tokens"] = added([*names, (size, flags("<image>"))])
    out["post_processor"] = template(("</s>", 2), None)
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_bos_token": True,
        "add_prefix_space": False,
        "bos_token": "</s>",
        "eos_token": "</s>",
        "unk_token": "</s>",
        "pad_token": "<pad>",
        "errors": "replace",
        "model_max_length": 1000000000000000019884624838656,
    }
    return {"tokenizer.json": out, "tokenizer_config.json": config}


def tokenizers():
    """name -> files; a file is its JSON value, its text, or {"from": name, "set": keys to replace}."""
    bert_files, vocab = bert()
    lines = sorted(vocab, key=vocab.get)
    legacy_llama = {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}],
        },
        "pre_tokenizer": None,
    }
    llama_files = llama()
    size = len(llama_files["tokenizer.json"]["model"]["vocab"])
    old_flags = [(i, flags(t, normalized=True)) for i, t in enumerate(["<unk>", "<s>", "</s>"])]
    extra = [
        (size, flags("[PAD]", normalized=False)),
        (size + 1, flags("<image>")),
        (size + 2, flags("whole", single_word=True, special=False, normalized=False)),
        (size + 3, flags("«left»", lstrip=True, special=False)),
        (size + 4, flags("«right»", rstrip=True, special=False)),
        (size + 5, flags("taxi cab", special=False, normalized=True)),
        (size + 6, flags("«left»!", special=False)),
    ]

    def other(name, **changed):
        return {"from": name, "set": changed}

    as_is = {"tokenizer_class": "PreTrainedTokenizerFast"}
    return {
        "bert": bert_files,
        "bert_vocab_txt": {"vocab.txt": "\n".join(lines) + "\n", "tokenizer_config.json": other("bert")},
        "bert_cased": {"tokenizer.json": other("bert"), "tokenizer_config.json": other("bert", do_lower_case=False, tokenize_chinese_chars=False)},
        "bert_as_is": {"tokenizer.json": other("bert"), "tokenizer_config.json": other("bert", **as_is)},
        "llama": llama_files,
        "llama_legacy": {"tokenizer.json": other("llama", **legacy_llama), "tokenizer_config.json": other("llama", legacy=True)},
        "llama_no_blank": {"tokenizer.json": other("llama"), "tokenizer_config.json": other("llama", add_prefix_space=False)},
        "llama_as_is": {"tokenizer.json": other("llama", **legacy_llama), "tokenizer_config.json": other("llama", **as_is)},
        # transformers 4 marked these normalised, and put the added tokens into the config.
        "llama_old_flags": {
            "tokenizer.json": other("llama", **legacy_llama, added_tokens=added([*old_flags, *extra])),
            "tokenizer_config.json": other("llama", **as_is, added_tokens_decoder={str(i): t for i, t in [*old_flags, *extra]}),
        },
        "llama_first_as_is": {
            "tokenizer.json": other("llama", added_tokens=added([*old_flags, *extra])),
            "tokenizer_config.json": other("llama", **as_is),
        },
        "t5": t5(),
        "t5_as_is": {"tokenizer.json": other("t5"), "tokenizer_config.json": other("t5", **as_is)},
        "opt": opt(),
        "opt_as_is": {"tokenizer.json": other("opt"), "tokenizer_config.json": other("opt", **as_is, add_prefix_space=True)},
    }


def resolved(files, name):
    """The files of one tokenizer with every reference looked up."""
    out = {}
    for file, value in files[name].items():
        if isinstance(value, dict) and "from" in value:
            value = {**resolved(files, value["from"])[file], **value["set"]}
        out[file] = value
    return out


def written(files, name, folder):
    for file, value in resolved(files, name).items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        (Path(folder) / file).write_text(text, encoding="utf-8")


def loaded(files, name):
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        written(files, name, folder)
        return AutoTokenizer.from_pretrained(folder)
