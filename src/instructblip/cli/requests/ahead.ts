/** Work that is begun before its turn. */

/**
 * Gives what `begin` gives for every item, in order. Work on `depth` items is begun beyond the one in turn.
 *
 * @param begin must not reject: nobody may be waiting yet
 */
export async function* ahead<T, R>(
  items: AsyncIterable<T> | Iterable<T>,
  depth: number,
  begin: (item: T) => Promise<R>,
): AsyncGenerator<R> {
  const begun: Promise<R>[] = [];
  for await (const item of items) {
    begun.push(begin(item));
    if (begun.length > depth) yield await begun.shift()!;
  }
  for (let next = begun.shift(); next; next = begun.shift()) yield await next;
}

/** Groups of up to `size` items. The first has `first`, each next one twice as many, so that work on it begins soon. */
export async function* windows<T>(items: AsyncIterable<T>, size: number, first = size): AsyncGenerator<T[]> {
  let most = first;
  let window: T[] = [];
  for await (const item of items) {
    window.push(item);
    if (window.length < most) continue;
    yield window;
    window = [];
    most = Math.min(size, 2 * most);
  }
  if (window.length > 0) yield window;
}
