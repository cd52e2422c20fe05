/** Values that are made when they are asked for, once, and what is known of them before. */

import { expect, test } from "bun:test";
import { DeferredMap, listLength } from "../../src/weights/deferred-map.ts";

function counted(): { map: DeferredMap<string, number | readonly number[]>; made: () => number } {
  const map = new DeferredMap<string, number | readonly number[]>();
  let made = 0;
  map.set("first", 1);
  map.defer("list", 3, () => {
    made++;
    return [7, 8, 9];
  });
  map.set("last", 2);
  return { map, made: () => made };
}

test("a list is made by the first who asks for it, and once", () => {
  const { map, made } = counted();
  expect([map.size, map.has("list"), map.has("other"), [...map.keys()]]).toEqual([
    3,
    true,
    false,
    ["first", "list", "last"],
  ]);
  expect(map.get("first")).toBe(1);
  expect(map.get("other")).toBeUndefined();
  expect(made()).toBe(0);
  expect(map.get("list")).toEqual([7, 8, 9]);
  expect(map.get("list")).toBe(map.get("list")!);
  expect(made()).toBe(1);
});

test("whoever reads all of it finds every value, in the order they came", () => {
  const entries = [
    ["first", 1],
    ["list", [7, 8, 9]],
    ["last", 2],
  ];
  expect([...counted().map]).toEqual(entries as never);
  expect([...counted().map.entries()]).toEqual(entries as never);
  expect([...counted().map.values()]).toEqual([1, [7, 8, 9], 2]);
  const visited: unknown[] = [];
  counted().map.forEach((value, key) => {
    visited.push([key, value]);
  });
  expect(visited).toEqual(entries);
});

test("a value that is set replaces one that was still to be made", () => {
  const { map, made } = counted();
  map.set("list", 5);
  expect([map.get("list"), made(), listLength(map, "list")]).toEqual([5, 0, undefined]);
});

test("the length of a list is known without making it, and of any other map", () => {
  const { map, made } = counted();
  expect(listLength(map, "list")).toBe(3);
  expect(made()).toBe(0);
  map.get("list");
  expect(listLength(map, "list")).toBe(3);
  expect([listLength(map, "first"), listLength(map, "other")]).toEqual([undefined, undefined]);
  expect(listLength(new Map([["list", [1, 2]]]), "list")).toBe(2);
});
