/** Objects that are called, as Python's with `__call__`. */

/** A class whose objects are functions: `object(...given)` is `object[method](...given)`. */
export function callable(method: string): abstract new () => (...given: never[]) => unknown {
  class Called {
    static {
      Object.setPrototypeOf(Called.prototype, Function.prototype); // callable objects have call() and bind(), as the type says
    }

    constructor() {
      type Methods = Record<string, (...given: unknown[]) => unknown>;
      const object = (...given: unknown[]): unknown => (object as unknown as Methods)[method]!(...given);
      // biome-ignore lint/correctness/noConstructorReturn: what is called must be a function
      return Object.setPrototypeOf(object, new.target.prototype);
    }
  }
  return Called as unknown as ReturnType<typeof callable>;
}
