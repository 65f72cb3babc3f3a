"""Texts that tokenizers may disagree about: every script, every kind of blank, broken and odd Unicode, special tokens."""

import random

from vocabularies import MULTILINGUAL, WORDS

PLAIN = [
    "What is unusual about this image?",
    "Write a short description for the image.",
    "Question: What colour is the taxi? Short answer:",
    "context: {}. Question: {0} %s",
    'This image has the caption "a man, a dog". ',
    "it 's what we 've said , is n't it ? Yes ! I 'm sure . They 're ' here '",
    "don't can't won't I'll you'd we've it's O'Neil rock'n'roll",
    "3.14159 1,000,000 12:30 2024-05-06 1/2 50% $5 €7 £8 ¥9",
    "https://example.org/a/b?c=d&e=f#g user@example.org C:\\Users\\x",
    "def f(x):\n\treturn {'a': x[0], **y}  # comment\r\n",
    "ALL CAPS Title Case camelCase snake_case kebab-case",
    "word" * 40,
    "a" * 101,
    "a" * 100,
    "ab " * 60,
    "!" * 30,
    "... --- ??? !!! ,,, ;;; ::: '''",
    "“quotes” ‘single’ «guillemets» „low“ … — – ‑ ‐",
]
BLANKS = [
    "", " ", "  ", "   \t \n ", "\n", "\t", "\r\n", "\r", " a", "a ", "  a  ", "a  b", "a   b    c", "\na", "a\n", "a\n\n\nb",
    "a\u00a0b", "a\u2003b", "a\u3000b", "a\u1680b", "a\u202fb", "a\u205fb", "a\u2028b", "a\u2029b", "a\u0085b", "\u0085", " \u0085 x",
    "a\u200bb", "a\ufeffb", "\ufeffa", "\ufeff", "a\u2060b", "a\u180eb", "▁", "▁a", " ▁a", "a▁b", "▁▁a ▁ b", "a \u00a0 b", " \u00a0", "\v\fa",
]
UNICODE = [
    "café CAFÉ cafe\u0301 CAFE\u0301", "ñandú n\u0303 Å A\u030a \u212b", "\u1e9b\u0323 \u1e69 s\u0323\u0307 s\u0307\u0323", "ﬁ ﬂ ﬀ ﬃ ﬆ", "½ ¼ ² ³ ① ⑳ Ⅷ ㎏ ㍿ ℡",
    "Ｆｕｌｌ　ｗｉｄｔｈ１２３～！", "ｶﾀｶﾅ ﾊﾞ ﾊﾟ", "ΣΊΣΥΦΟΣ ΑΣ Σ ΟΔΟΣ.", "İstanbul ISPARTA ıİ ß ẞ ǅ ŉ", "straße STRASSE", "한국어 한\u1100\u1161", "नमस्ते क्षि ज्ञ", "ภาษาไทย กำ",
    "שָׁלוֹם עולם", "السَّلَامُ عَلَيْكُم", "\u202eright to left\u202c \u200fx\u200e", "Zalgo: Z̷̢a̸̡l̵̨g̴̢o̶̡", "a" + "\u0301" * 30, "e\u0301\u0301\u0301 x\u20dd",
    "😀", "😀😃😄 x 😀", "👨\u200d👩\u200d👧\u200d👦 family", "👍🏽 👩🏾\u200d🚀", "🏳️\u200d🌈 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "🇩🇪🇫🇷 🇺", "❤️ ❤ ☺︎", "1️⃣ #️⃣",
    "𠮷野家 𠀀𪚥 𫝀 𫠠 𰀀", "㐀䶿 豈 丽 々〆〇", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚 𝒜", "𐍈 𓀀 𓀁𓀂 𒀀", "ᏣᎳᎩ ꭰ Ა", "ꙮ ⁂ ※ ✓ ☃ ♞", "\U0010ffff \ue000 \U000f0000", "\u0000a\u0001b\u0007c\u001bd\u007fe", "a\u0080b\u008fc\u009fd",
    "\u00ada\u00adb", "\u034f \u061c \u115f \u3164 \uffa0", "\ufffd a\ufffdb", "\ufff9x\ufffa\ufffb", "ℵ ℶ Ω K Å", "ﷺ ﷲ", "ⅷ ⅲ ª º ™ © ®", "x² + y₂ = ∑ ∫ √ ≠ ≤ ∞ ± × ÷", "¿¡§¶†‡•·°", "ʼn ʻokina ‘okina", "𝕳 ℋ ℍ",
    "Ǆ Ǉ Ŀ ĳ ſ", "\u0958 \u0344 \u1fee \u2126", "㋿ ㍻ ㌔", "Ⓐ ⓐ ⒜", "゛゜ \u3099が カ゚", "ไม่ ม่", "\u0e33 \u0eb3", "\u1ea0\u0302 \u1eac", "\U0001d15e \U0001d1bb", "\U0002f800 \U0002fa1d",
]
SPECIAL = [
    "</s>", "<s>", "<unk>", "<pad>", "[PAD]", "[CLS]", "[SEP]", "[DEC]", "[MASK]", "[UNK]", "<0x0A>", "<0xE4>", "<extra_id_0>", "<extra_id_99> x", "<extra_id_100>",
    "a</s>b", "a </s> b", "</s></s>", " </s>", "</s> ", "</s>  a", "hello <s>world</s>", "[CLS] a [SEP] b [sep]", "<unk><unk>", "[DEC][DEC] [dec]", "< /s>", "</S>", "＜/s＞", "<image", "image>",
    "whole", "a whole b", "wholesome", "unwhole", "_whole", "whole.", "whole-whole", "a «left» b", "a   «left»b", "a «right»   b", "«right» «left»", "«left»!", "«left»!!", "taxi cab", "a taxi cab.", "TAXI CAB taxicab",
]
IMAGE = ["<image>", "<image>a", "a <image> b", "<image><image> x"]

ROWS = ["What is unusual about this image?", "a", "", "[SEP] a </s> b dog [SEP]</s>"]
OPTIONS = [
    {"padding": True},
    {"padding": "longest", "padding_side": "left"},
    {"padding": True, "padding_side": "right"},
    {"padding": "max_length", "max_length": 20},
    {"padding": "max_length", "max_length": 20, "truncation": True, "padding_side": "left"},
    {"padding": "max_length", "max_length": 6},
    {"padding": True, "truncation": True, "max_length": 8},
    {"padding": True, "max_length": 4},
    {"padding": True, "pad_to_multiple_of": 8},
    {"padding": "max_length", "max_length": 9, "pad_to_multiple_of": 4},
    {"padding": "max_length", "max_length": 12, "pad_to_multiple_of": 4, "truncation": True},
    {"padding": "max_length", "max_length": 10, "pad_to_multiple_of": 4, "truncation": True},
    {"pad_to_multiple_of": 8},
    {"truncation": True, "max_length": 5},
    {"truncation": "longest_first", "max_length": 2},
    {"truncation": "only_first", "max_length": 7},
    {"truncation": "only_second", "max_length": 7},
    {"truncation": "do_not_truncate", "max_length": 3},
    {"truncation": False, "max_length": 3},
    {"max_length": 6},
    {"max_length": 6, "padding": "do_not_pad"},
    {"max_length": 3, "add_special_tokens": False},
    {"truncation": True},
    {"padding": "sideways"},
    {"truncation": "sideways"},
    {"max_length": -3, "truncation": True},
    {"padding": True, "padding_side": "middle"},
    {"truncation": True, "max_length": 0},
    {"truncation": True, "max_length": 0, "add_special_tokens": False},
]


def texts():
    rng = random.Random(5)
    pool = WORDS + MULTILINGUAL + [t for t in UNICODE + SPECIAL + BLANKS if t] + PLAIN[5:9]
    made = []
    for _ in range(140):
        parts = [rng.choice(pool) for _ in range(rng.randint(2, 7))]
        made.append(rng.choice(["", " ", "  "]).join(parts) if rng.random() < 0.6 else "".join(p + rng.choice([" ", "", "\n", ", "]) for p in parts))
    for _ in range(40):
        made.append("".join(chr(rng.choice([rng.randint(32, 126), rng.randint(160, 0x24F), rng.randint(0x300, 0x36F), rng.randint(0x370, 0x5FF), rng.randint(0x3040, 0x30FF), rng.randint(0x4E00, 0x9FFF), rng.randint(0x1F300, 0x1F6FF)])) for _ in range(rng.randint(1, 25))))
    long = " ".join(rng.choices(WORDS, k=900))
    return PLAIN + MULTILINGUAL + BLANKS + UNICODE + SPECIAL + IMAGE + made + [long]


def id_rows(size):
    """Ids as a model might generate them: any, and beyond the vocabulary."""
    rng = random.Random(size)
    rows = [[], [0], [1], [2], [size - 1], [size], [size + 100, 5], [3] * 5]
    rows += [[rng.randrange(size + 3) for _ in range(rng.randint(1, 30))] for _ in range(60)]
    low = [[rng.randrange(min(size, 280)) for _ in range(rng.randint(1, 12))] for _ in range(80)]  # byte tokens come first
    return rows + low
