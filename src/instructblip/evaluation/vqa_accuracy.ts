/**
 * VQA accuracy: how many of several annotators gave the model's answer, after both were brought to one spelling.
 *
 * The rules are the published evaluation's, oddities included, because figures are only comparable under them.
 * Sources: GT-Vision-Lab/VQA vqaEval.py at a013f00; salesforce/LAVIS lavis/common/vqa_tools/vqa_eval.py at 506965b.
 */

/**
 * `official` brings both sides to one spelling, and neither where all annotators agree. `lavis` always respells the
 * prediction; of the answers only the punctuation, and only where annotators disagree: an annotator's "two" or "a dog"
 * is then never matched.
 */
export type VqaRules = "official" | "lavis";

/** Fewer answers cannot reach 1: each annotator is compared with the others, and three must agree. */
export const LEAST_ANSWERS = 4;

/** The mean over annotators of min(1, how many of the others gave the prediction / 3), 0 … 1. */
export function vqaAccuracy(prediction: string, answers: readonly string[], rules: VqaRules = "official"): number {
  let given = oneLine(prediction);
  let truth = rules === "official" ? answers.map(oneLine) : answers;
  const disagree = new Set(truth).size > 1;
  if (rules === "lavis") {
    given = normalizeAnswer(given);
    if (disagree) truth = truth.map(processPunctuation);
  } else if (disagree) {
    given = normalizeAnswer(given);
    truth = truth.map(normalizeAnswer);
  }
  const matches = truth.filter((answer) => answer === given).length;
  const sum = truth.reduce((total, answer) => total + Math.min(1, (matches - (answer === given ? 1 : 0)) / 3), 0);
  return sum / truth.length;
}

/** Punctuation, articles, number words and contractions as the VQA evaluation spells them. */
export function normalizeAnswer(text: string): string {
  return processDigitArticle(processPunctuation(text));
}

/** What Python's str.strip() and str.split() take for blank: not JavaScript's \s, which has U+FEFF too. */
const BLANK = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+";
const BLANKS = new RegExp(BLANK, "u");
const ENDS = new RegExp(`^${BLANK}|${BLANK}$`, "gu");

const PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!';
const THOUSANDS = /\p{Nd},\p{Nd}/u; // Python's \d takes every script's digits
/** The published pattern also has a look-behind, misspelt so that it never applies: "5." loses its period. */
const PERIOD = /\.(?!\p{Nd})/gu;
/** re.UNICODE is handed over in the place of a count, and is 32. */
const MOST_PERIODS = 32;

/** A mark next to a blank is dropped, another becomes a blank; a 1,000 anywhere in the text makes every mark dropped. */
export function processPunctuation(text: string): string {
  const numeric = THOUSANDS.test(text);
  let out = text;
  for (const mark of PUNCTUATION) {
    const dropped = numeric || text.includes(`${mark} `) || text.includes(` ${mark}`);
    out = out.replaceAll(mark, dropped ? "" : " ");
  }
  let periods = 0;
  return out.replace(PERIOD, () => (periods++ < MOST_PERIODS ? "" : "."));
}

const DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
const NUMBERS = new Map([["none", "0"], ...DIGITS.map((word, i) => [word, String(i)] as const)]);
const ARTICLES = new Set(["a", "an", "the"]);

/** Lower case, number words as digits, no articles, apostrophes where contractions lack one. */
export function processDigitArticle(text: string): string {
  const words = split(text.toLowerCase()).map((word) => NUMBERS.get(word) ?? word);
  return words
    .filter((word) => !ARTICLES.has(word))
    .map((word) => CONTRACTIONS.get(word) ?? word)
    .join(" ");
}

/** What the published table puts right: each of these with any one apostrophe missing. */
const CONTRACTED = `'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've
hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've
mustn't needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll
somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
there're there's they'd they'd've they'll they're they've wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't
wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've`;

const CONTRACTIONS = new Map([["somebody'd", "somebodyd"]]); // so in the table, surely by mistake
for (const word of split(CONTRACTED)) {
  for (let at = word.indexOf("'"); at >= 0; at = word.indexOf("'", at + 1)) {
    CONTRACTIONS.set(word.slice(0, at) + word.slice(at + 1), word);
  }
}

function split(text: string): string[] {
  return text.split(BLANKS).filter((word) => word !== "");
}

function oneLine(text: string): string {
  return text.replace(/[\n\t]/g, " ").replace(ENDS, "");
}
