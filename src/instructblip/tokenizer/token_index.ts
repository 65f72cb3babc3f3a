/**
 * Finds the strings of a list in a text, in time linear in the text for any strings: the automaton of Aho and Corasick over
 * the reversed strings, so that it gives the strings that *begin* at an index.
 */
import { ConfigError } from "../../tensor/errors.ts";

/** The strings of a list as an automaton; a state represents the text that follows an index. */
export class TokenIndex {
  /** Of each state: the state one character shorter at its front, that character, and the longest other state it begins with. */
  readonly #parent: Int32Array;
  readonly #char: Uint16Array;
  readonly #fail: Int32Array;
  readonly #length: Int32Array;
  /** Of each state: which string it is, or -1. */
  readonly #string: Int32Array;
  /** Of each state: the longest state that is a string and that it begins with, itself included; 0 for none. */
  readonly #longest: Int32Array;
  /** States by parent and character, in open addressing. */
  readonly #table: Int32Array;
  /** Random, so that a file cannot choose strings that collide. */
  readonly #salt = Math.floor(Math.random() * 2 ** 31);
  #states = new Int32Array(256);
  #size = 1;

  /**
   * @param strings of equal strings the last counts; empty ones are ignored
   * @param most total length, at most
   * @throws ConfigError TOKENIZER_BAD
   */
  constructor(strings: readonly string[], most: number, what: string) {
    let total = 0;
    for (const string of strings) total += string.length;
    if (total > most) {
      throw new ConfigError("TOKENIZER_BAD", `tokenizer.json: ${what} has ${total} characters, the limit is ${most}`);
    }
    this.#parent = new Int32Array(total + 1);
    this.#char = new Uint16Array(total + 1);
    this.#fail = new Int32Array(total + 1);
    this.#length = new Int32Array(total + 1);
    this.#string = new Int32Array(total + 1).fill(-1);
    this.#longest = new Int32Array(total + 1);
    this.#table = new Int32Array(2 ** Math.ceil(Math.log2(2 * total + 2)));
    strings.forEach((string, i) => {
      let state = 0;
      for (let at = string.length - 1; at >= 0; at--) state = this.#child(state, string.charCodeAt(at), true);
      if (state !== 0) this.#string[state] = i;
    });
    this.#link();
  }

  /** The strings that begin at each index of `text`, as states for {@link longest}. Valid until the next call. */
  statesOf(text: string): Int32Array {
    if (this.#states.length < text.length) this.#states = new Int32Array(2 * text.length);
    let state = 0;
    for (let at = text.length - 1; at >= 0; at--) {
      state = this.#step(state, text.charCodeAt(at));
      this.#states[at] = state;
    }
    return this.#states;
  }

  /** The longest string that a state begins with, as a state; 0 for none. */
  longest(state: number): number {
    return this.#longest[state]!;
  }

  /** The next shorter string after a state from {@link longest}; 0 for none. */
  shorter(state: number): number {
    return this.#longest[this.#fail[state]!]!;
  }

  /** The index in the list, and the length, of a state from {@link longest}. */
  stringOf(state: number): number {
    return this.#string[state]!;
  }
  lengthOf(state: number): number {
    return this.#length[state]!;
  }

  /** Shorter states first: each needs those of the shorter ones. */
  #link(): void {
    const starts = new Int32Array(this.#length.reduce((most, length) => Math.max(most, length), 0) + 2);
    for (let state = 0; state < this.#size; state++) starts[this.#length[state]! + 1]!++;
    for (let length = 1; length < starts.length; length++) starts[length]! += starts[length - 1]!;
    const order = new Int32Array(this.#size);
    for (let state = 0; state < this.#size; state++) order[starts[this.#length[state]!]!++] = state;
    for (const state of order) {
      if (state === 0) continue;
      const parent = this.#parent[state]!;
      const fail = parent === 0 ? 0 : this.#step(this.#fail[parent]!, this.#char[state]!);
      this.#fail[state] = fail;
      this.#longest[state] = this.#string[state]! >= 0 ? state : this.#longest[fail]!;
    }
  }

  #step(state: number, char: number): number {
    for (;;) {
      const next = this.#child(state, char, false);
      if (next !== 0 || state === 0) return next;
      state = this.#fail[state]!;
    }
  }

  /** The state of `char` in front of `parent`; if there is none, a new one, or 0. */
  #child(parent: number, char: number, make: boolean): number {
    const mask = this.#table.length - 1;
    let hash = Math.imul(parent ^ this.#salt, 0x9e3779b1) ^ Math.imul(char + 1, 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
    let slot = (hash ^ (hash >>> 13)) & mask;
    for (let state = this.#table[slot]!; state !== 0; state = this.#table[slot]!) {
      if (this.#parent[state] === parent && this.#char[state] === char) return state;
      slot = (slot + 1) & mask;
    }
    if (!make) return 0;
    const state = this.#size++;
    this.#table[slot] = state;
    this.#parent[state] = parent;
    this.#char[state] = char;
    this.#length[state] = this.#length[parent]! + 1;
    return state;
  }
}
