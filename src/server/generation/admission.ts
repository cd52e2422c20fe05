/** Decides between "refused, with a status" and "accepted, as a stream" before any header is sent. */

/**
 * Starts `source` and waits for its first item, but no longer than `waitMs`. A failure in that time is thrown, so
 * that it can have an HTTP status; one that comes later is thrown by the returned iterable.
 */
export async function admit<T>(
  source: AsyncGenerator<T, void, undefined>,
  waitMs: number,
): Promise<AsyncIterable<T>> {
  const first = source.next();
  first.catch(() => {}); // whoever iterates sees the failure; nobody may ever iterate
  let timer: ReturnType<typeof setTimeout> | undefined;
  const waited = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, waitMs);
  });
  try {
    await Promise.race([first, waited]);
  } finally {
    clearTimeout(timer);
  }
  return resume(first, source);
}

async function* resume<T>(
  first: Promise<IteratorResult<T, void>>,
  source: AsyncGenerator<T, void, undefined>,
): AsyncGenerator<T, void, undefined> {
  try {
    for (let item = await first; item.done !== true; item = await source.next()) yield item.value;
  } finally {
    await source.return();
  }
}
