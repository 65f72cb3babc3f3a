/** The timing that `generate` reports. */

/** Milliseconds, as in `--json`. */
export interface Timing {
  /** Model and processor, once for a run of many requests. */
  readonly load_ms: number;
  /** Reading and resizing the images, tokenizing the prompts. */
  readonly preprocess_ms: number;
  /** From the start of the request, preprocessing included; null without a token. */
  readonly time_to_first_token_ms: number | null;
  /** New tokens of all rows per second after the first; null for a single one. */
  readonly tokens_per_second: number | null;
  /** The request: preprocessing and generation, not loading. */
  readonly total_ms: number;
  /** Tokens added to each row. */
  readonly new_tokens: number;
}

/** Reads a clock while one request is answered. */
export class Stopwatch {
  readonly #now: () => number;
  readonly #rows: number;
  #start: number;
  #preprocess = 0;
  #first: number | undefined;
  #last = 0;
  #tokens = 0;

  /** @param now a clock in milliseconds */
  constructor(rows: number, now: () => number = () => performance.now()) {
    this.#rows = rows;
    this.#now = now;
    this.#start = now();
  }

  /** Call it when images and prompts are processed. */
  preprocessed(): void {
    this.#preprocess = this.#now() - this.#start;
  }

  /** Call it when generation begins: the time since `preprocessed` is not counted (the model is loaded in it). */
  generating(): void {
    this.#start = this.#now() - this.#preprocess;
  }

  /** Call it when every row has a token. */
  token(): void {
    this.#last = this.#now();
    this.#first ??= this.#last;
    this.#tokens++;
  }

  /** Call it when generation has ended. */
  read(load_ms: number): Timing {
    const end = this.#now();
    const seconds = (this.#last - (this.#first ?? 0)) / 1000;
    return {
      load_ms: rounded(load_ms),
      preprocess_ms: rounded(this.#preprocess),
      time_to_first_token_ms: this.#first === undefined ? null : rounded(this.#first - this.#start),
      tokens_per_second: this.#tokens > 1 && seconds > 0 ? rounded(((this.#tokens - 1) * this.#rows) / seconds) : null,
      total_ms: rounded(end - this.#start),
      new_tokens: this.#tokens,
    };
  }
}

/** To hundredths: a clock says no more. */
function rounded(value: number): number {
  return Math.round(value * 100) / 100;
}
