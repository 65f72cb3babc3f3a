/** The texts of `--help` besides the list of options: examples, exit codes, environment. */
import { ENV } from "../../tensor/env.ts";
import { METRICS } from "../evaluation/metrics.ts";
import { PRESETS } from "../evaluation/presets.ts";
import { EXIT } from "./format.ts";

export const EXIT_CODES = `
Exit codes:
  ${EXIT.ok}    success
  ${EXIT.refused}    the model, an image, a prompt or an option cannot be used; see stderr;
       or doctor has found an error
  ${EXIT.usage}    the command line is wrong
  ${EXIT.someFailed}    the run is complete, but some requests or questions failed, and their lines have the errors;
       or compare has found a difference
  ${EXIT.internal}   an internal error; please report it
  ${EXIT.retry}   worth a retry: the GPU was lost, did not respond or ran out of memory; the network or a server failed, perhaps
       for some requests or questions of a run, which --resume asks again; or another process is writing --out
  ${EXIT.sigint}, ${EXIT.sigterm}, ${EXIT.sigpipe}  interrupted, terminated, or stdout was closed`;

export const ENVIRONMENT = `
Environment:
${[
  ...Object.entries(ENV),
  ["INSTRUCTBLIP_DEBUG", "1 prints the stack of an error"],
  ["NO_COLOR", "no colours on a terminal"],
]
  .map(([name, what]) => `  ${name}\n      ${what}`)
  .join("\n")}`;

const SHARDS = `  --shard i/n is the i-th of n interleaved shards, i from 0 to n-1. --shard auto is this process's place in a Slurm job
  array or job step, a queue of HTCondor, or Ray Train; auto/8 says that there are 8, where the engine does not: in a
  Kubernetes Indexed Job, and for a part of a Slurm array that is submitted again. By GNU parallel:
    $ seq 0 7 | parallel instructblip … --shard {}/8 --out part-{}.jsonl --resume
  The repository's examples/cluster has scripts for each, and what they print.`;

const RESUMED = `  An incomplete last line is redone, and so is what failed for a reason that may be gone later, as when the server of
  an image did not answer. OUT.lock names the process that is writing OUT, so that a second one is refused (exit code
  ${EXIT.retry}); the lock of a killed process is taken over, at once on its machine, by another machine or container after 30 s.`;

const DATA_SETS = `  A data set is a file, told by its first bytes: JSONL, a JSON array, Parquet, Arrow, tar or tar.gz (webdataset:
  0001.jpg, 0001.json and 0001.txt are a row); or a folder: of .parquet, .arrow or .tar shards as on the Hugging Face
  Hub, or of datasets' save_to_disk. Images are paths, URLs, or inside it as bytes or structs of bytes and path. Columns
  are found by usual names (image, question, answers, id and others; of tar the JSON's fields and the extensions), or
  named.`;

const COLUMN = "\n              ";
const METRICS_HELP = Object.entries(METRICS)
  .map(([name, { meaning }]) => `${name}: ${meaning}`)
  .join(COLUMN);
const PRESET_COUNT = Object.keys(PRESETS).length;

export const EXAMPLES = {
  top: `
Examples:
  $ instructblip generate --model vicuna-7b --image cat.jpg --prompt "What is unusual about this image?"
  $ instructblip evaluate --model vicuna-7b --task gqa.json --data gqa.jsonl
  $ instructblip retrieve --model Salesforce/blip2-itm-vit-g --data photos --text "a dog on a beach"
  $ instructblip inspect vicuna-7b
  $ instructblip devices
  $ instructblip doctor
  $ instructblip demo

For a command's options: instructblip generate --help
In the repository write npm run -s instructblip -- in place of instructblip; installed as a package, npx instructblip.`,
  generate: `
Examples:
  One answer, streamed:
    $ instructblip generate --model vicuna-7b --image cat.jpg --prompt "What is this?" --max-new-tokens 64

  The best of five beams, as in the InstructBLIP paper; with --num-return-sequences 3 the three best, one a line:
    $ instructblip generate --model vicuna-7b --image cat.jpg --prompt "What is this?" --num-beams 5 --length-penalty -1

  One answer as JSON, on one line: {"id", "sequences", "text", "timing"}, and with beams "sequences_scores"
    $ instructblip generate --model vicuna-7b --image cat.jpg --prompt "What is this?" --json
  sequences   token ids as Hugging Face's generate() returns them, image tokens and prompt first
  text        the sequences decoded without special tokens
  timing      load_ms: model and processor; preprocess_ms: images and prompts; time_to_first_token_ms and total_ms:
              since the request began, without loading; new_tokens: added to each row;
              tokens_per_second: of all rows, after the first token
  logprobs    with --logprobs: of each sequence "sum" and "tokens", each with "id", "text", "logprob" and "top", the n
              most probable in its place
  assisted    with drafts: "passes" of the model, "draft_tokens" and how many were accepted, "accepted_tokens"
  batch_rows  with --requests: rows of the batch that it was answered in, if above the request's

  About several images: each is read where the prompt has <image>, before what is said of it; without, in front
    $ instructblip generate --model vicuna-7b --image cat.jpg --image cat.jpg --prompt "<image> A cat. <image> Another?"

  The same answer in fewer passes of the model, which verifies drafts: here what followed the last tokens before, for
  answers that repeat what they read; with --assistant a smaller model's, or with --assistant-dtype int4 a copy's own
    $ instructblip generate --model vicuna-7b --image cat.jpg --prompt "What is this?" --prompt-lookup-num-tokens 5

  How sure it is: natural logarithms of each token's probability and of the answer's, with what would have come instead.
  They are of the distribution that tokens are chosen from, after penalties, temperature, top k, …, as transformers'
  compute_transition_scores(…, normalize_logits=True) gives them; in a request "generation": {"logprobs": 5}
    $ instructblip generate --model vicuna-7b --image cat.jpg --prompt "What is this?" --logprobs 5

  Many requests, the model loaded once; one line of JSON in, one line out, in the same order:
    $ instructblip generate --model vicuna-7b --requests questions.jsonl --json > answers.jsonl
  A request: {"id": "q1", "images": ["cat.jpg"], "prompts": ["What is this?"], "generation": {"max_new_tokens": 64}}
  Images are files, or URLs.
  Several images of one prompt: {"images": [["a.jpg", "b.jpg"]], "prompts": ["<image> a cat. <image> what is this?"]}.
  Several images and prompts make one batch: the first prompt is asked about the first image, and so on. "generation"
  takes generate()'s options by Hugging Face's names. Requests with equal options are answered in batches of up to
  --batch-size rows, with the same tokens as alone; an image is encoded once for all its questions. File names are
  relative to the folder of the requests (to the working directory for requests from a pipe). Blank lines are skipped.
  A request that fails gives {"id", "error": {"code", "message"}}, the run goes on, and the exit code is
  ${EXIT.someFailed} at the end.
  Ranking instead: {"id": "q2", "images": ["cat.jpg"], "prompts": ["Is it asleep?"], "candidates": ["yes", "no"]}
  "candidates" are for all prompts, or a list for each. The line has "ranked" instead of "sequences": each prompt's
  candidates, the most probable first, with the negative log-likelihood over tokens (sum and mean).
  With "interventions", as in a file of --interventions, a request is answered in a batch of its own.

  A data set instead of requests: --requests vqav2/ --split validation --prompt "Question: {question} Short answer:"
  Each row is a request. --prompt has its columns in braces (default: {question}); options of generation are for all.
${DATA_SETS}

  Without the second head of a cross-attention of the Q-Former (docs/interpretability.md):
    $ echo '[{"module": "qformer.encoder.layer.0.crossattention.attention", "at": "heads", "op": "zero",
              "index": {"head": [1]}}]' > without.json
    $ instructblip generate --model vicuna-7b --image cat.jpg --prompt "What is this?" --interventions without.json

  In shards on several machines, resumed after an interruption:
    $ instructblip generate --model vicuna-7b --requests questions.jsonl --json --shard 2/8 --out out-2.jsonl --resume
${SHARDS}
  Merged, in the order of the requests:
    $ instructblip merge --requests questions.jsonl out-*.jsonl > answers.jsonl
  When the GPU is lost, the model is loaded again and the run goes on, up to 3 times in a row without an answer.
  --out never overwrites a file; with --resume the requests whose ids are not in it are appended.
${RESUMED}
  Another failed request is not repeated: remove its line to do so. The first line that a run appends has its settings
  under "run" (model, dtype, shard, options, the name of the requests' file): a file of others is refused. A line of a
  request without an id has "position", its place among all from 0, where it is not in the order of the requests.
${EXIT_CODES}`,
  evaluate: `
Examples:
  Accuracy over a set of questions, as text or (--json) one line of JSON:
    $ instructblip evaluate --model vicuna-7b --task gqa.json --data gqa.jsonl --images gqa/images
  In shards, written as they are done, then merged:
    $ instructblip evaluate --model vicuna-7b --task gqa.json --data gqa.jsonl --shard 2/8 --out part-2.jsonl --resume
    $ instructblip merge part-*.jsonl
${SHARDS}

  --data gqa/ --split testdev --question-column query reads a data set of another format:
${DATA_SETS}

A task is a file such as
  {"prompt": "Question: {question} Short answer:", "generation": {"max_new_tokens": 10}, "metric": "exact_match_vqa"}
  prompt      {field} is a question's field; of an array {field} is all items joined by commas, {field:30} the first 30,
              {field:letters} (a) one (b) two; {field:blip_question} and {field:blip_caption} as LAVIS's processors;
              {{ and }} are braces
  generation  generate()'s options by Hugging Face's names
  candidates  to rank instead of generating: ["yes", "no"]; [["yes", "true"], ["no", "false"]] for synonyms;
              {"field": "choices"} of each question; {"file": "answers.txt"} beside the task, one on each line
  ranking     {"reduction": "sum" or "mean" of a candidate's tokens, "segment_size": how many at a time,
              "eos": whether each ends with the end token (default: the tokenizer's setting; not for LLaMA),
              "n_segments": with "lavis", LAVIS's segments, by whose padded lengths its Vicuna divides}
  metric      ${METRICS_HELP}
  preset      prompt, generation, metric and image_transform as published, each of which the task may override: one of
              ${PRESET_COUNT}, as "lavis-vqa-vicuna"; --list-presets prints them, with where each is from
  lavis       true: as LAVIS to the token (docs/presets.md), which presets lavis-* are
  image_transform
              "clip_image_eval": the shorter side is resized and the middle cut out, as for most of LAVIS's data sets;
              "blip_image_eval": the image is squeezed, as in Hugging Face (default: the model's)
  name        for the report

A line of data: {"id": 1, "image": "1.jpg", "question": "What is this?", "answers": ["a cat"], "kind": "what"}
  image       a URL, or a file in --images (default: beside the data); an array: the frames of a video, or several
              images in front of the prompt
  answers     the correct answers: one or more, for VQA accuracy every annotator's
  kind        optional; questions of a kind are also scored together
  All lines are checked before the model is loaded.

A question that fails is not scored but counted as failed, and the exit code is ${EXIT.someFailed}.
--out receives the settings and every prediction as JSON lines.
${RESUMED.replace(/^ {2}/gm, "")}
${EXIT_CODES}`,
  merge: `
The complete files of all shards, written by evaluate --out, give the same scores as a single run. Of generate --out
they give its lines, in the order of --requests, with a check that each request is answered once; ids must differ.
Requests are a file or a data set, as of generate.

Examples:
  $ instructblip merge part-0.jsonl part-1.jsonl part-2.jsonl
  $ instructblip merge part-*.jsonl --json
  $ instructblip merge --requests questions.jsonl out-*.jsonl > answers.jsonl
${EXIT_CODES}`,
  features: `
Examples:
  Of a folder of images, in its order, by a retrieval model:
    $ instructblip features --model Salesforce/blip2-itm-vit-g --data photos --out photos.safetensors
  Of images and texts, in shards, resumed after an interruption:
    $ instructblip features --model vicuna-7b --data items.jsonl --shard 2/8 --out part-2.safetensors --resume
  Of a data set, in any format that evaluate reads, with images inside or beside it:
    $ instructblip features --model vicuna-7b --data vqa/ --split val --prompt "{question}" --out vqa.safetensors
${SHARDS.replaceAll("jsonl", "safetensors")}

A line of data: {"id": 7, "image": "7.jpg", "text": "a cat"}; without an id the line's place is it. Images are URLs, or
files beside the data. Of a data set, and of lines where an option names a column, they are columns by usual names, and
the text is the question, or the caption. All are checked before the model is loaded.
  of Blip2ForImageTextRetrieval (image, text or both)
    image_embeds    f32[n, Q, P], each of length 1: an image is as near to a text as the nearest of its Q queries
    text_embeds     f32[n, P], each of length 1
    query_outputs   f32[n, Q, Dq], of which image_embeds are projections
  of models that generate (image, and but for BLIP-2 text, the instruction that the Q-Former reads)
    query_outputs   f32[n, Q, Dq]
    image_features  f32[n, Q, D], projected for the language model; of a video's frames one after the other
Beside each NAME.index i64[n], places in the data; in the metadata "ids", [place, id] of each item, and "features", the
settings. Lines are kept in OUT.part until all are done; --resume continues that. An item that fails is left out, and
the exit code is ${EXIT.someFailed}, or ${EXIT.retry} if it may succeed later: then OUT.part is kept, and --resume asks it again. OUT.part.lock
names the process that is writing, so that a second one is refused; that of a killed one is taken over. When the GPU is
lost, the model is loaded again and the run goes on.
${EXIT_CODES}`,
  retrieve: `
Examples:
  The images of a folder that a text is about, the best first:
    $ instructblip retrieve --model Salesforce/blip2-itm-vit-g --data photos --text "a dog on a beach"
  The texts that are about an image, as JSON:
    $ instructblip retrieve --model Salesforce/blip2-itm-vit-g --data captions.jsonl --image dog.jpg --json
  The same of a data set:
    $ instructblip retrieve --model Salesforce/blip2-itm-vit-g --data coco.parquet --prompt "{caption}" --image dog.jpg
A line of data: {"id": 7, "image": "7.jpg", "text": "a cat"}, one of both or both; --text ranks images, --image texts.
  ITC    cosine of the embeds of image and text, which are computed apart
  ITM    the probability that they belong together, by the matching head, which looks at both: of the --rerank best
  score  what they are ordered by: the cosine, and of those that the head has judged, which come first, its logit
         added, as in LAVIS
JSON: {"query": {"text" or "image"}, "ranked": [{"id", "image", "text", "itc", "itm", "score"}]}
${EXIT_CODES}`,
  trace: `
Writes float32 tensors under Hugging Face's names: pixel_values, vision_outputs.last_hidden_state,
qformer_outputs.last_hidden_state, image_features (projected into the language model) and logits; with --all also
the output of every module under its path in the checkpoint (a second run of a module in the pass as PATH#2), token ids
and masks, and as input:PATH what a module is given that no other has returned. For instructblip compare.
The file is written atomically.

Examples:
  $ instructblip trace --model vicuna-7b --image cat.jpg --prompt "What is this?" --out trace.safetensors
  $ instructblip trace --model vicuna-7b --image cat.jpg --prompt "What is this?" --out trace.safetensors --all
With --interventions outputs are those that the model goes on with.
${EXIT_CODES}`,
  compare: `
A trace is a file of \`instructblip trace --all\`, or of PyTorch by scripts/trace_pytorch.py of the repository, or a setting,
of which the model is loaded and run: key=value,…, or \`default\`. Keys: model, dtype, compute_dtype, kv_cache_dtype (with
--steps), adapter (a part of its name), plan (linear=tile,…) and interventions (a file).
  NMSE       Σ(B - A)² / Σ A²
  inherited  the largest NMSE of what comes into a module from outside
  added      the NMSE of its output less that: an estimate, as a layer may amplify what it is given
Tensors are in the order of computation; PATH (input) is what no module returns: a sum, an attention's heads.
One line is printed if nothing is above --tolerance. No trace is held in memory.
--bisect runs B with A's inputs in every module: what is then above the tolerance is wrong by itself. With --gate it
measures what the error of each stored matrix alone does to the logits, and loads the model some ten times to find how few
of them need more bits; the --dtype that meets the gate is printed.

Examples:
  $ instructblip compare torch.safetensors ours.safetensors
  $ instructblip compare torch.safetensors default --model vicuna-7b --image cat.jpg --prompt "What is this?"
  $ instructblip compare default dtype=language_model=int4,compute_dtype=f16 --tolerance 1e-3 \\
      --model vicuna-7b --image cat.jpg --prompt "What is this?"
  $ instructblip compare torch.safetensors default --bisect --model vicuna-7b --image cat.jpg --prompt "What is this?"
  $ instructblip compare default dtype=int4 --bisect --gate 1e-3 \\
      --model vicuna-7b --image cat.jpg --prompt "What is this?"
  $ instructblip compare adapter=llvmpipe adapter=NVIDIA --filter 'qformer.**' --top 0 --json report.json \\
      --model vicuna-7b --image cat.jpg --prompt "What is this?"

Exit codes:
  ${EXIT.ok}    equal within the tolerance; with --gate, the gate is met
  ${EXIT.different}    different; with --gate, the gate is not met
  ${EXIT.refused}    a trace, the model, the image or a setting cannot be used; see stderr
  ${EXIT.usage}    the command line is wrong
  ${EXIT.internal}   an internal error; please report it
  ${EXIT.retry}   worth a retry: the GPU was lost, did not respond or ran out of memory`,
  attention: `
Every second layer of the Q-Former has cross-attention to the image. A sheet shows the attention weights of each query
over the patches, in one colour scale, and the weight of the class token, which has no place in the image.
Layers, heads and queries are counted from 0. With one --query, its layers (and with --head all its heads) are on one
sheet. --scale-max makes sheets comparable, and shows small weights beside one patch with nearly all of the weight.
The language model is not loaded. For InstructBLIP-Video --image is one frame: frames are encoded separately.
BLIP-2's attention does not depend on a prompt, so it takes no --prompt.

Examples:
  sheet.layer-0.png, sheet.layer-2.png, …:
    $ instructblip attention --model vicuna-7b --image cat.jpg --prompt "What is this?" --out sheet.png
  One layer, with text labels, and heads separately:
    $ instructblip attention --model vicuna-7b --image cat.jpg --prompt "What is this?" --layer 10 --out sheet.svg
    $ instructblip attention --model vicuna-7b --image cat.jpg --prompt "What is this?" --query 7 --head all --out q7.png
  As JSON: {"image", "prompt", "grid": [rows, columns], "layers": [{"layer", "head", "queries": [{"query",
  "class_token", "patches"}]}]}, patches row by row, "head" "mean" unless --head is given:
    $ instructblip attention --model vicuna-7b --image cat.jpg --prompt "What is this?" --json
${EXIT_CODES}`,
  lens: `
The logit lens: the final norm and the head are applied to the state after each layer, as if it were the last. The first
table has a column for each token of the answer and a row for each layer, with the token that it would choose and its
probability; "input" is what the first layer gets. The second has the image tokens, which are the Q-Former's queries: the
words of which any layer is surest. T5 has no image tokens there: they enter its encoder, which has no head.
The page has both, and where in the image each query looked.

Examples:
  $ instructblip lens --model vicuna-7b --image cat.jpg --prompt "What is this?" --html lens.html
  $ instructblip lens --model vicuna-7b --image cat.jpg --prompt "Is it asleep?" --answer yes --top-k 10
  As JSON: {"image", "prompt", "answer", "answer_tokens": [{"position", "id", "text", "states": [{"logprob", "top": [{"id",
  "logprob", "text"}]}]}], "image_tokens": [{"position", "states"}], "maps": {"rows", "columns", "weights"}}; states[0] is
  the input, states[i] the output of layer i - 1, logprob the natural logarithm of the answer's token's probability:
    $ instructblip lens --model vicuna-7b --image cat.jpg --prompt "What is this?" --json lens.json
${EXIT_CODES}`,
  attribute: `
What each token of the answer rests on, each read after the answer's tokens before it.
  occlusion        how much less probable a token is without a part, in nats: -0.7 is half as probable. Of the image: windows
                   of patches in turn, and a patch has the mean of the windows that cover it. Of the instruction: words, of
                   which the Q-Former and the language model are deprived; the image is encoded once for all of them.
  rollout          attention rollout (Abnar and Zuidema 2020): every layer as half itself and half what it attends to, the
                   mean of its heads; the language model to words and image tokens, from these the Q-Former to the words it
                   reads and the image, from this the image encoder to patches
  cross-attention  where those queries looked that the token attends to: means over layers and heads
Occlusion says what the answer depends on; attention only where the model looked, which need not matter.
  --fill  mean: the image's mean colour; blur: the image, blurred by a Gaussian of half a window; image_mean: zeros after
          normalisation, the mean colour of the images it was trained on
  --word  remove: the instruction is tokenized without it; pad: its tokens are hidden, and the others keep their places
--out draws the maps of every token over the image: sheet.occlusion.png, sheet.rollout.png, sheet.cross-attention.png.

Examples:
  $ instructblip attribute --model vicuna-7b --image cat.jpg --prompt "What is this?" --html attribution.html
  $ instructblip attribute --model vicuna-7b --image cat.jpg --prompt "Is it asleep?" --answer yes --out sheet.png
  $ instructblip attribute --model vicuna-7b --image cat.jpg --prompt "What is this?" --methods image --window 4 --stride 2
  As JSON: {"image", "prompt", "answer", "logprob", "answer_tokens": [{"id", "text", "logprob"}], "grid": {"rows",
  "columns"}, "occlusion": {"window", "stride", "fill", "windows", "drops": [of each token [of each patch]]}, "word",
  "words": [{"text", "start", "end", "drops": [of each token], "rollout"}], "rollout": [of each token {"patches",
  "class_token", "instruction", "prompt", "queries", "answer"}], "cross_attention": [of each token {"patches",
  "class_token"}]}, null for methods that are left out; a drop above 0 is a part that the token rests on; start and end of
  a word are its place in the prompt in UTF-16 units, as in JavaScript:
    $ instructblip attribute --model vicuna-7b --image cat.jpg --prompt "What is this?" --json attribution.json
${EXIT_CODES}`,
  ablate: `
How probable the answer is without one part of the model, for each part in turn. A part's numbers are zero: of a layer
what its attentions and its feed-forward network add to the residual stream, of a head its values before the output
projection, of a query its image token, of a token its embedding. The change is of the sum of the log-probabilities of
the answer's tokens, in nats: -3 means 20 times less probable.
With --mean a part has, in place of zeros, the mean of its numbers in the runs of other images of one size with the same
prompt, for each token: what is left is what the images have in common, and text tokens change nothing.
Groups: vision_model.layers, vision_model.heads, qformer.layers, qformer.heads, qformer.queries, language_model.layers,
language_model.heads, language_model.tokens; with T5 language_model.encoder.… and language_model.decoder.…. * stands for
one name, ** for any number of them.

Examples:
  $ instructblip ablate --model vicuna-7b --image cat.jpg --prompt "What is this?" --html ablation.html
  $ instructblip ablate --model vicuna-7b --image cat.jpg --prompt "Is it asleep?" --answer yes \\
      --targets qformer.heads,qformer.queries --top 0
  $ instructblip ablate --model vicuna-7b --image cat.jpg --prompt "Is it asleep?" --mean dog.jpg car.jpg tree.jpg
  As JSON: {"kind", "image", "prompt", "mean_images" with --mean, "answer_tokens": [{"id", "text", "logprob"}], "columns",
  "answer", "logprob", "units": [{"group", "row", "column", "logprob", "text" of a token, "effect": the change}]}
    $ instructblip ablate --model vicuna-7b --image cat.jpg --prompt "What is this?" --json ablation.json

  In shards on several machines, resumed after an interruption, then together:
    $ instructblip ablate --model vicuna-7b --image cat.jpg --prompt "What is this?" --shard 2/8 --out part-2.jsonl --resume
    $ instructblip ablate --from part-*.jsonl --html ablation.html
${SHARDS}
  OUT.lock names the process that is writing OUT, so that a second one is refused; that of a killed one is taken over.
${EXIT_CODES}`,
  patch: `
Activation patching: the model reads the corrupted image or instruction, and one part at a time is given the numbers that
it had in the clean run. "restored" says how much of the clean answer's log-probability that brings back: 0 % as in the
corrupted run, 100 % as in the clean one. The answer is the clean run's, or --answer.
Restored are of a layer what its attentions or its feed-forward network add to the residual stream, of the Q-Former and of
T5's decoder also its whole output (layer); a head's values before the output projection; a query or a token in the output
of each layer. Groups are as of ablate, and vision_model.tokens, the class token and patches, if it is named.
An instruction must have as many tokens as the other, in the tokenizers of the language model and of the Q-Former, or
--targets qformer.queries alone is restored. With the same image the image encoder is left out; of videos the language
model alone is restored.

Examples:
  Which layers, heads and queries carry the color:
    $ instructblip patch --model vicuna-7b --image red.jpg --corrupted-image blue.jpg --prompt "What color is it?" \\
        --html patching.html
  Another word in the instruction:
    $ instructblip patch --model vicuna-7b --image cat.jpg --prompt "What color is the cat?" \\
        --corrupted-prompt "What color is the dog?" --targets '**.tokens' --svg tokens.svg
  As JSON: as of ablate, and "corrupted_logprob", "corrupted_image", "corrupted_prompt"; "effect" is 0 to 1
    $ instructblip patch --model vicuna-7b --image a.jpg --corrupted-image b.jpg --prompt "What is this?" --json patch.json
--out, --shard, --resume and --from are as of ablate.
${EXIT_CODES}`,
  profile: `
Loads the model and answers once, timing every launch of a kernel; the launches are the same as without, fused the same.
A first answer, not timed, compiles kernels. The adapter's limits are measured before, by the same clock. On a machine with
other work --repeat 5 shows the answer that was disturbed least.
  launches   with a product's activation, addition or norm in it where they are fused: it counts as the product's
  bytes      of inputs and outputs, each once; GB/s is of these
  GFLOP/s    of products and attention, a multiply-add counts twice
  of limit   the least time by the limits (roofline) over the time: the slowest of starting the launch, arithmetic and
             memory, which is the "bound". Weights and caches are taken to be in memory, unless all in use fits in caches
Layers of a stack are one row, with * for their number, unless --layers is given. A row has the prompt's pass and decoding;
by kernel they mostly differ (matmul, matvec).
--trace is Chrome's trace event format: open it in https://ui.perfetto.dev. A replayed decode step has no modules on the
host's row.

Examples:
  $ instructblip profile --model vicuna-7b --image cat.jpg --prompt "What is this?" --max-new-tokens 20
  $ instructblip profile --model vicuna-7b --image cat.jpg --prompt "What is this?" --by kernel --top 0
  $ instructblip profile --model vicuna-7b --image cat.jpg --prompt "What is this?" --trace trace.json
  As JSON: {"adapter", "clock", "step_ms", "limits", "model", "image", "prompt", "answer", "phases": [{"name": "load" or
  "generate", "total_ms", "uploads", "memory_bytes", "modules", "kernels", "rows"]}; of each module, each kernel, and each
  kernel in each module {"launches", "ms", "share", "flops", "bytes", "gflops", "gbs", "limit_ms", "of_limit", "bound"}:
    $ instructblip profile --model vicuna-7b --image cat.jpg --prompt "What is this?" --json profile.json
${EXIT_CODES}`,
  inspect: `
Reads the config and the headers of the weights, not the weights. The memory plan is for the adapter that would be used;
without one it is for WebGPU's default limits.

Examples:
  $ instructblip inspect vicuna-7b
  $ instructblip inspect vicuna-7b --json --tensors
${EXIT_CODES}`,
  demo: `
Answers are streamed; the images and the model (6.4 MB) are in this package.

Examples:
  $ instructblip demo
${EXIT_CODES}`,
  doctor: `
Runs every kernel, in each variant that this adapter can run, on sizes that fill no tile and on those of Vicuna-7B, and
compares with f64 references; a variant with a * is used on this adapter. Then the model in this package answers
questions in every storage dtype of weights and cache, and its tokens must be PyTorch's. Nothing is downloaded.
It takes a minute on a GPU and several on a software adapter, where slow variants that it does not use are skipped.
Paste the lines at the end into an issue. If a check is wrong, the exit code is ${EXIT.refused}, and the kernel is named.

Examples:
  $ instructblip doctor
  $ instructblip doctor --quick
  $ instructblip doctor --filter '^attention'
  $ instructblip doctor --json report.json
${EXIT_CODES}`,
  setup: `
A GPU's own driver is used if there is one. A software driver is installed only if no adapter is found: as root on
Debian or Ubuntu Mesa's lavapipe, by apt-get; else on x64 Linux SwiftShader, downloaded (66 MB) into a cache folder.

Examples:
  $ instructblip setup --check
${EXIT_CODES}`,
  devices: `
Without an adapter the exit code is ${EXIT.refused}.

Examples:
  $ instructblip devices
  $ instructblip devices --json
${EXIT_CODES}`,
};
