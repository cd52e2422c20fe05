/** Seeds for requests that name none, from the one seed of `--seed`: the same start gives the same series. */

const U64 = (value: bigint): bigint => BigInt.asUintN(64, value);

/** The series of splitmix64: every seed is as good as a random one, and none comes twice within 2^64 requests. */
export function seedSource(seed: bigint): () => bigint {
  let state = U64(seed);
  return () => {
    state = U64(state + 0x9e3779b97f4a7c15n);
    let mixed = U64((state ^ (state >> 30n)) * 0xbf58476d1ce4e5b9n);
    mixed = U64((mixed ^ (mixed >> 27n)) * 0x94d049bb133111ebn);
    return mixed ^ (mixed >> 31n);
  };
}
