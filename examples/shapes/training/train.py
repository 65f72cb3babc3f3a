"""Trains the shapes checkpoint from nothing and writes it as an ordinary checkpoint folder.

Three stages. The best state of each is kept in the work folder; a finished stage is not run
again and the second and third are taken up where they were stopped.

  1  vision   the vision tower alone: every patch has to tell what its cell holds
              (kind, colour, size) and which cell it lies in; the heads are thrown away
  2  align    vision tower frozen; Q-Former and language model learn to answer several
              questions about each image
  3  joint    all parts together, with nothing but the language model's loss
"""

import argparse
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers import BertTokenizer, InstructBlipProcessor, LlamaTokenizer

import scenes
from model import IMAGE_SIZE, PATCH_SIZE, QUERIES, WIDTH, build_model, image_processor
from words import make_tokenizers

HERE = Path(__file__).resolve().parent
SIDE = IMAGE_SIZE // PATCH_SIZE
PATCH_CELL = torch.tensor([(i // SIDE * 3 // SIDE) * 3 + (i % SIDE) * 3 // SIDE for i in range(SIDE * SIDE)])
LABELS = {"kind": len(scenes.KINDS) + 1, "color": len(scenes.COLORS) + 1, "size": len(scenes.SIZES) + 1}
SHORT = {answer: i for i, answer in enumerate(scenes.short_answers())}


def log(*words):
    print(time.strftime("%H:%M:%S"), *words, flush=True)


# ---------------------------------------------------------------------- data


def images(rng: random.Random, count: int, low: int, high: int, mean, std):
    """Scenes, their pixels as the image processor gives them, and per cell labels (0 = empty)."""
    made, pixels = [], np.empty((count, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    labels = {name: torch.zeros(count, 9, dtype=torch.long) for name in LABELS}
    for i in range(count):
        scene = scenes.random_scene(rng, low, high)
        size = 160 if rng.random() < 0.8 else rng.choice([128, 192, 256])
        image = scenes.draw(rng, scene, size)
        pixels[i] = np.asarray(image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))
        for s in scene:
            labels["kind"][i, s.cell] = scenes.KINDS.index(s.kind) + 1
            labels["color"][i, s.cell] = scenes.COLORS.index(s.color) + 1
            labels["size"][i, s.cell] = scenes.SIZES.index(s.size) + 1
        made.append(scene)
    x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
    return made, x.contiguous(), labels


class Schedule:
    """Linear warm-up, then half a cosine down to `floor` of the rate."""

    def __init__(self, optimizer, rate, steps, warm=200, floor=0.01):
        self.optimizer, self.rate, self.steps, self.warm, self.floor = optimizer, rate, steps, warm, floor

    def set(self, step):
        if step < self.warm:
            factor = (step + 1) / self.warm
        else:
            part = (step - self.warm) / max(1, self.steps - self.warm)
            factor = self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * part))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * factor


def adamw(parameters, rate, betas=(0.9, 0.98)):
    return torch.optim.AdamW(parameters, lr=rate, betas=betas, weight_decay=0.01)


# ------------------------------------------------------------ stage 1: vision


class CellHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTH, n) for name, n in LABELS.items()})

    def forward(self, x):
        return {name: head(x.float()) for name, head in self.heads.items()}


def cell_loss(logits, labels):
    return sum(F.cross_entropy(logits[n].flatten(0, -2), labels[n].flatten()) for n in LABELS)


def train_vision(model, args, mean, std):
    rng, test = random.Random(args.seed), random.Random(10_000_019 + args.seed)
    vision, heads, where = model.vision_model, CellHeads(), nn.Linear(WIDTH, 9)
    parameters = [*vision.parameters(), *heads.parameters(), *where.parameters()]
    optimizer = adamw(parameters, args.vision_rate)
    schedule = Schedule(optimizer, args.vision_rate, args.vision_steps)
    held = images(test, 500, 1, 4, mean, std)
    best, start = -1.0, time.time()
    for step in range(args.vision_steps):
        schedule.set(step)
        _, x, labels = images(rng, 64, 1, 9, mean, std)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            patches = vision(pixel_values=x).last_hidden_state[:, 1:]
        patches = patches.float()
        loss = cell_loss(heads(patches), {n: v[:, PATCH_CELL] for n, v in labels.items()})
        loss = loss + 0.3 * F.cross_entropy(where(patches).flatten(0, 1), PATCH_CELL.repeat(len(x)))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 100 == 99 or step == args.vision_steps - 1:
            right, whole = check_vision(vision, heads, held)
            log(f"vision {step + 1} loss {loss.item():.4f} patches {right:.4f} scenes wholly right {whole:.3f} "
                f"{(time.time() - start) / (step + 1):.3f} s/step")
            if whole >= best:
                best = whole
                torch.save({"vision": vision.state_dict(), "heads": heads.state_dict()}, args.work / "vision.pt")


@torch.no_grad()
def check_vision(vision, heads, held):
    """Share of patches right in everything, and of images where every cell is (patches' votes summed)."""
    _, x, labels = held
    logits = heads(torch.cat([vision(pixel_values=p).last_hidden_state[:, 1:] for p in x.split(100)]))
    patch = torch.stack([logits[n].argmax(-1) == labels[n][:, PATCH_CELL] for n in LABELS]).all(0).float().mean()
    cells = torch.stack([
        torch.stack([logits[n][:, PATCH_CELL == c].log_softmax(-1).sum(1).argmax(-1) for c in range(9)], 1) == labels[n]
        for n in LABELS
    ])
    return patch.item(), cells.all(0).all(1).float().mean().item()


# ------------------------------------------------- stages 2 and 3: answering


class Texts:
    """Token ids of questions and answers, kept once made."""

    def __init__(self, tokenizer, qformer_tokenizer):
        self.tokenizer, self.qformer_tokenizer = tokenizer, qformer_tokenizer
        self.image = tokenizer.convert_tokens_to_ids("<image>")
        self.known = {}

    def question(self, text):
        if text not in self.known:
            self.known[text] = (self.tokenizer(text).input_ids, self.qformer_tokenizer(text).input_ids)
        return self.known[text]

    def answer(self, text):
        key = ("answer", text)
        if key not in self.known:
            ids = self.tokenizer(text, add_special_tokens=False).input_ids
            self.known[key] = ids + [self.tokenizer.eos_token_id]
        return self.known[key]


def padded(rows, value, left=False):
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), value), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        at = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, at] = torch.tensor(row)
        mask[i, at] = 1
    return ids, mask


class AnswerHead(nn.Module):
    """Heads used while aligning: query c (of the first nine) tells what cell c holds, the tenth the short answer."""

    def __init__(self):
        super().__init__()
        self.cells, self.answer = CellHeads(), nn.Linear(WIDTH, len(SHORT))


def answer_rows(model, texts, image_states, owner, questions, left):
    """Q-Former and language model on one row a question; `owner` says whose image a row asks about.

    The same modules in the same order as the class's forward(), but with the vision tower run
    once an image and the vocabulary's scores computed only where the answer stands.
    Returns the queries' output and, for short answers and for descriptions, logits and labels.
    """
    ids, mask = padded([texts.question(q.text)[1] for q in questions], 0, left)
    mask = torch.cat([torch.ones(len(ids), QUERIES, dtype=torch.long), mask], 1)
    states = image_states[owner]
    queries = model.qformer(
        input_ids=ids, attention_mask=mask, query_embeds=model.query_tokens.expand(len(ids), -1, -1),
        encoder_hidden_states=states, encoder_attention_mask=torch.ones(states.shape[:2], dtype=torch.long),
    ).last_hidden_state[:, :QUERIES]
    soft = model.language_projection(queries).float()
    out = []
    for long in (False, True):
        rows = [i for i, q in enumerate(questions) if (q.kind == "describe") == long]
        prompts = [[texts.image] * QUERIES + texts.question(questions[i].text)[0] for i in rows]
        answers = [texts.answer(questions[i].answer) for i in rows]
        ids, _ = padded([p + a for p, a in zip(prompts, answers)], texts.image)
        embeds = model.language_model.get_input_embeddings()(ids)
        embeds = torch.cat([soft[rows].to(embeds.dtype), embeds[:, QUERIES:]], 1)
        hidden = model.language_model.model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        row = torch.tensor([r for r, a in enumerate(answers) for _ in a])
        column = torch.tensor([len(p) - 1 + k for p, a in zip(prompts, answers) for k in range(len(a))])
        labels = torch.tensor([t for a in answers for t in a])
        logits = model.language_model.lm_head(hidden[row, column]).float()
        out.append((rows, row, logits, labels))
    return queries.float(), out


@torch.no_grad()
def check_answers(model, texts, held):
    """Share of answers wholly right, per kind of question. Every token given the right ones before
    it is the right one exactly when greedy generation gives the right answer."""
    made, x, questions, owner = held
    states = torch.cat([model.vision_model(pixel_values=p).last_hidden_state for p in x.split(100)])
    right, seen = dict.fromkeys(scenes.QUESTION_KINDS, 0), dict.fromkeys(scenes.QUESTION_KINDS, 0)
    for at in range(0, len(questions), 350):
        part = questions[at : at + 350]
        _, groups = answer_rows(model, texts, states, owner[at : at + 350], part, False)
        for rows, row, logits, labels in groups:
            wrong = torch.zeros(len(rows), dtype=torch.long).index_add_(0, row, (logits.argmax(-1) != labels).long())
            for i, w in zip(rows, wrong.tolist()):
                seen[part[i].kind] += 1
                right[part[i].kind] += w == 0
    return {k: right[k] / max(1, seen[k]) for k in right}, sum(right.values()) / sum(seen.values())


def ask_all(rng, made):
    """One question of every kind about every image, and whose image each is about."""
    questions = [scenes.ask(rng, scene, kind) for scene in made for kind in scenes.QUESTION_KINDS]
    owner = torch.arange(len(made)).repeat_interleave(len(scenes.QUESTION_KINDS))
    return questions, owner


def train_answers(model, texts, args, mean, std, name, steps, rate, joint):
    rng = random.Random(f"{name}-{args.seed}")
    test = random.Random(10_000_033 + args.seed)
    made, x, _ = images(test, 200, 1, 4, mean, std)
    held = (made, x, *ask_all(test, made))
    head = AnswerHead()
    model.vision_model.requires_grad_(joint)
    parameters = [p for p in model.parameters() if p.requires_grad]
    everything = parameters + ([] if joint else list(head.parameters()))
    optimizer = adamw(everything, rate)
    schedule = Schedule(optimizer, rate, steps)
    best, first, start, sums = -1.0, 0, time.time(), np.zeros(4)
    part = args.work / f"{name}.part.pt"
    if part.exists():
        state = torch.load(part, weights_only=False)
        model.load_state_dict(state["model"])
        head.load_state_dict(state["head"])
        optimizer.load_state_dict(state["optimizer"])
        rng.setstate(state["rng"])
        best, first = state["best"], state["step"]
        log(f"{name} taken up at step {first}")
    for step in range(first, steps):
        schedule.set(step)
        made, x, cells = images(rng, args.images, 1, 4, mean, std)
        questions, owner = ask_all(rng, made)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            with torch.set_grad_enabled(joint):
                states = model.vision_model(pixel_values=x).last_hidden_state
            queries, groups = answer_rows(model, texts, states, owner, questions, rng.random() < 0.25)
        short, long = (F.cross_entropy(logits, labels) for _, _, logits, labels in groups)
        loss = short + long
        sums[:2] += short.item(), long.item()
        help_ = 0.0 if joint else max(0.0, 1 - step / (0.6 * steps))  # the heads' weight, down to nothing
        if help_:
            told = head.cells(queries[:, :9])
            cell = cell_loss(told, {n: v[owner] for n, v in cells.items()})
            asked = torch.tensor([i for i, q in enumerate(questions) if q.kind != "describe"])
            target = torch.tensor([SHORT[questions[i].answer] for i in asked.tolist()])
            answer = F.cross_entropy(head.answer(queries[asked, 9]), target)
            loss = loss + help_ * (cell + answer)
            sums[2:] += cell.item(), answer.item()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(everything, 1.0)
        optimizer.step()
        if step % 100 == 99:
            log(f"{name} {step + 1} loss short {sums[0] / 100:.4f} long {sums[1] / 100:.4f} "
                f"cells {sums[2] / 100:.4f} answer {sums[3] / 100:.4f} {(time.time() - start) / (step + 1 - first):.3f} s/step")
            sums[:] = 0
        if step % 250 == 249 or step == steps - 1:
            kinds, right = check_answers(model, texts, held)
            log(f"{name} {step + 1} right {right:.4f}", *(f"{k} {v:.3f}" for k, v in kinds.items()))
            if right >= best:
                best = right
                torch.save(model.state_dict(), args.work / f"{name}.best.pt")
            state = {"model": model.state_dict(), "head": head.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "rng": rng.getstate(), "best": best, "step": step + 1}, part)
    (args.work / f"{name}.best.pt").rename(args.work / f"{name}.pt")


def kept_tokenizers(folder):
    """The tokenizers, trained once and read again after that: the library's WordPiece trainer numbers
    its pieces another way each time, and a stage taken up must find the numbers it was trained with."""
    if not folder.exists():
        lm, qformer = make_tokenizers()
        qformer.save_pretrained(folder / "qformer")
        lm.save_pretrained(folder / "lm")
    read = LlamaTokenizer.from_pretrained(folder / "lm"), BertTokenizer.from_pretrained(folder / "qformer")
    for tokenizer in read:  # how it was read is nothing to write into the checkpoint
        for key in ("is_local", "local_files_only"):
            tokenizer.init_kwargs.pop(key, None)
    return read


def save(model, processor, tokenizers, out):
    """The folder as save_pretrained() writes it."""
    model.save_pretrained(out)
    InstructBlipProcessor(processor, *tokenizers, num_query_tokens=QUERIES).save_pretrained(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE.parent / "checkpoint", help="the checkpoint folder")
    parser.add_argument("--work", type=Path, default=HERE / "work", help="where the stages' states are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of the processor")
    parser.add_argument("--images", type=int, default=20, help="images a step in stages 2 and 3, 7 questions each")
    parser.add_argument("--vision-steps", type=int, default=2000)
    parser.add_argument("--vision-rate", type=float, default=1e-3)
    parser.add_argument("--align-steps", type=int, default=2400)
    parser.add_argument("--align-rate", type=float, default=1.5e-3)
    parser.add_argument("--joint-steps", type=int, default=400)
    parser.add_argument("--joint-rate", type=float, default=3e-4)
    parser.add_argument("--no-bf16", dest="bf16", action="store_false", help="train in float32 throughout")
    parser.add_argument("--only-save", action="store_true", help="write the newest state in the work folder and stop")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    processor = image_processor()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (processor.image_mean, processor.image_std))
    tokenizers = kept_tokenizers(args.work / "tokenizers")
    model = build_model(*tokenizers)
    model.set_attn_implementation("eager")  # on a CPU in bfloat16 faster than sdpa; the same numbers
    texts = Texts(*tokenizers)
    log(f"{sum(p.numel() for p in model.parameters()):,} parameters")

    state = args.work / "vision.pt"
    if not state.exists() and not args.only_save:
        train_vision(model, args, mean, std)
    model.vision_model.load_state_dict(torch.load(state)["vision"])
    stages = [
        ("align", args.align_steps, args.align_rate, False),
        ("joint", args.joint_steps, args.joint_rate, True),
    ]
    for name, steps, rate, joint in stages:
        state = args.work / f"{name}.pt"
        if not state.exists() and not args.only_save:
            torch.manual_seed(args.seed)  # so that a run taken up goes as one never stopped
            train_answers(model, texts, args, mean, std, name, steps, rate, joint)
        if not state.exists():
            state = args.work / f"{name}.best.pt"
        if state.exists():
            model.load_state_dict(torch.load(state))
    test = random.Random(10_000_079 + args.seed)
    made, x, _ = images(test, 200, 1, 4, mean, std)
    held = (made, x, *ask_all(test, made))
    log(f"answers right of {len(held[2])}: {check_answers(model, texts, held)[1]:.4f} in float32,")
    model.to(torch.float16)
    log(f"{check_answers(model.to(torch.float32), texts, held)[1]:.4f} after rounding to float16")
    save(model.to(torch.float16), processor, tokenizers, args.out)
    log("written", args.out)


if __name__ == "__main__":
    main()
