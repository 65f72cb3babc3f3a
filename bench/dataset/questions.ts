/**
 * The questions of examples/shapes/eval about images of the size of photographs: each image is stretched to a usual size of
 * cameras, with noise, so that its file has as many bytes as a photograph's and takes as long to decode. The processor makes all
 * images square and small, so that the answers stay.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import sharp from "sharp";
import { Random } from "../../src/tensor/cases/support/random.ts";
import { root } from "../machine.ts";

/** In turn. JPEG as COCO's and as of phones; PNG as of screens. */
const FORMATS = [
  { width: 640, height: 480, ending: "jpg" },
  { width: 640, height: 480, ending: "jpg" },
  { width: 1024, height: 768, ending: "jpg" },
  { width: 800, height: 600, ending: "png" },
] as const;
/** Noise of -16 to 16, of 255: a JPEG of 640 x 480 then has COCO's 150 KB or so. */
const NOISE = 16;
/** Images that are made at a time. */
const AT_ONCE = 4;

const EVAL = join(root, "examples/shapes/eval");

export interface Question {
  readonly id: string;
  readonly image: string;
  readonly question: string;
  readonly answers: readonly string[];
}

/** Writes images and a JSONL file of questions for each part. @returns the files, and the bytes of all images */
export async function writeQuestions(
  folder: string,
  count: number,
  parts: number,
  progress: (text: string) => void,
): Promise<{ readonly files: readonly string[]; readonly images: readonly string[]; readonly bytes: number }> {
  const lines = <T>(name: string) =>
    readFileSync(join(EVAL, name), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as T);
  const requests = lines<{ images: [string]; prompts: [string] }>("requests.jsonl");
  const expected = lines<{ answer: string }>("expected.jsonl");
  mkdirSync(join(folder, "images"), { recursive: true });
  const random = new Random(7);
  const noise = Int8Array.from({ length: 1024 * 768 * 3 }, () => random.int(-NOISE, NOISE + 1));
  const questions: Question[] = [];
  let bytes = 0;
  const make = async (i: number) => {
    const of = i % requests.length;
    const format = FORMATS[i % FORMATS.length];
    const image = `images/${String(i).padStart(4, "0")}.${format.ending}`;
    const made = await photograph(join(EVAL, requests[of].images[0]), format, noise);
    writeFileSync(join(folder, image), made);
    bytes += made.length;
    questions[i] = {
      id: String(i).padStart(4, "0"),
      image,
      question: requests[of].prompts[0],
      answers: [expected[of].answer],
    };
  };
  for (let i = 0; i < count; i += AT_ONCE) {
    progress(`images: ${i} of ${count}`);
    await Promise.all(Array.from({ length: Math.min(AT_ONCE, count - i) }, (_, k) => make(i + k)));
  }
  const files = Array.from({ length: parts }, (_, part) => {
    const own = questions.slice(Math.floor((part * count) / parts), Math.floor(((part + 1) * count) / parts));
    const file = join(folder, `part${part}.jsonl`);
    writeFileSync(file, own.map((question) => `${JSON.stringify(question)}\n`).join(""));
    return file;
  });
  return { files, images: questions.map(({ image }) => image), bytes };
}

async function photograph(
  file: string,
  { width, height, ending }: (typeof FORMATS)[number],
  noise: Int8Array,
): Promise<Buffer> {
  const data = await sharp(file).resize(width, height, { fit: "fill" }).removeAlpha().raw().toBuffer();
  for (let i = 0; i < data.length; i++) data[i] = Math.min(255, Math.max(0, data[i] + noise[i]));
  const image = sharp(data, { raw: { width, height, channels: 3 } });
  return ending === "jpg" ? image.jpeg({ quality: 90 }).toBuffer() : image.png({ compressionLevel: 3 }).toBuffer();
}
