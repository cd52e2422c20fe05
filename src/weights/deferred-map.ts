/** A map some of whose values, lists of known length, are made only when somebody asks for them. */

export class DeferredMap<Key, Value> implements ReadonlyMap<Key, Value> {
  readonly #values = new Map<Key, Value | undefined>();
  /** How the values are made that nobody has asked for. */
  readonly #pending = new Map<Key, { readonly length: number; readonly make: () => Value }>();

  get size(): number {
    return this.#values.size;
  }

  set(key: Key, value: Value): void {
    this.#pending.delete(key);
    this.#values.set(key, value);
  }

  /** `make` is called once at most, and gives a list of this length. */
  defer(key: Key, length: number, make: () => Value): void {
    this.#pending.set(key, { length, make });
    this.#values.set(key, undefined);
  }

  has(key: Key): boolean {
    return this.#values.has(key);
  }

  get(key: Key): Value | undefined {
    const pending = this.#pending.get(key);
    if (pending !== undefined) this.set(key, pending.make());
    return this.#values.get(key);
  }

  /** The length of a list that nobody has asked for yet. */
  pendingLength(key: Key): number | undefined {
    return this.#pending.get(key)?.length;
  }

  keys(): MapIterator<Key> {
    return this.#values.keys();
  }

  values(): MapIterator<Value> {
    return this.#made().values();
  }

  entries(): MapIterator<[Key, Value]> {
    return this.#made().entries();
  }

  [Symbol.iterator](): MapIterator<[Key, Value]> {
    return this.entries();
  }

  forEach(visit: (value: Value, key: Key, map: ReadonlyMap<Key, Value>) => void): void {
    for (const [key, value] of this) visit(value, key, this);
  }

  #made(): Map<Key, Value> {
    for (const key of [...this.#pending.keys()]) this.get(key);
    return this.#values as Map<Key, Value>;
  }
}

/** The length of the list under a key, which is not made for that; undefined when there is no list. */
export function listLength(map: ReadonlyMap<string, unknown>, key: string): number | undefined {
  const pending = map instanceof DeferredMap ? map.pendingLength(key) : undefined;
  if (pending !== undefined) return pending;
  const value = map.get(key);
  return Array.isArray(value) ? value.length : undefined;
}
