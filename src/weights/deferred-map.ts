/** A map some of whose values are made only when somebody asks for them. */

export class DeferredMap<Key, Value> implements ReadonlyMap<Key, Value> {
  readonly #values = new Map<Key, Value | undefined>();
  /** How the values are made that nobody has asked for. */
  readonly #pending = new Map<Key, () => Value>();

  get size(): number {
    return this.#values.size;
  }

  set(key: Key, value: Value): void {
    this.#pending.delete(key);
    this.#values.set(key, value);
  }

  /** `make` is called once at most. */
  defer(key: Key, make: () => Value): void {
    this.#pending.set(key, make);
    this.#values.set(key, undefined);
  }

  has(key: Key): boolean {
    return this.#values.has(key);
  }

  get(key: Key): Value | undefined {
    const make = this.#pending.get(key);
    if (make !== undefined) this.set(key, make());
    return this.#values.get(key);
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
