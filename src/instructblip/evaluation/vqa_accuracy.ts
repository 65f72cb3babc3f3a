/**
 * VQA accuracy: agreement of the prediction with several annotators, after normalising the spelling of both.
 *
 * The rules are the published evaluation's, oddities included, because figures are only comparable under them.
 * Sources: GT-Vision-Lab/VQA vqaEval.py at a013f00; salesforce/LAVIS lavis/common/vqa_tools/vqa_eval.py at 506965b.
 */

/**
 * `official` normalises both sides, and neither if all annotators agree. `lavis` always normalises the prediction; of the
 * answers only the punctuation, and only if annotators disagree: an annotator's "two" or "a dog" is then never matched.
 */
export type VqaRules = "official" | "lavis";

/**
 * Least answers: with fewer the score cannot reach 1, as each annotator is compared with the others, and three must agree.
 */
export const LEAST_ANSWERS = 4;

/** The mean over annotators of min(1, number of other annotators with the prediction / 3), 0 … 1. */
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

/** Normalises punctuation, articles, number words and contractions as the VQA evaluation does. */
export function normalizeAnswer(text: string): string {
  return processDigitArticle(processPunctuation(text));
}

/** Whitespace of Python's str.strip() and str.split(): not JavaScript's \s, which has U+FEFF too. */
const BLANK = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+";
const BLANKS = new RegExp(BLANK, "u");
const ENDS = new RegExp(`^${BLANK}|${BLANK}$`, "gu");

const PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!';
const THOUSANDS = /\p{Nd},\p{Nd}/u; // Python's \d matches digits of every script
/** The published pattern also has a look-behind with a mistake, so that it never matches: "5." loses its period. */
const PERIOD = /\.(?!\p{Nd})/gu;
/** re.UNICODE, which is 32, is passed as the count. */
const MOST_PERIODS = 32;

/**
 * A punctuation mark next to a space is dropped, others become a space; with a number such as 1,000 anywhere all marks are
 * dropped.
 */
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

/** The published table corrects each of these with any one apostrophe missing. */
const CONTRACTED = `'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've
hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've
mustn't needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll
somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
there're there's they'd they'd've they'll they're they've wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't
wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've`;

const CONTRACTIONS = new Map([["somebody'd", "somebodyd"]]); // so in the table, probably by mistake
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
