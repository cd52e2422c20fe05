import { expect, test } from "bun:test";
import { formatByteRate, formatBytes, formatCount, formatDuration } from "../../src/cli/units.ts";

test("bytes keep about three digits and change unit where rounding would overflow it", () => {
  const expected: [number, string][] = [
    [0, "0 B"],
    [999, "999 B"],
    [1000, "1.00 kB"],
    [1_234_567, "1.23 MB"],
    [12_345_678, "12.3 MB"],
    [123_456_789, "123 MB"],
    [999_600, "1.00 MB"],
    [4_700_000_000, "4.70 GB"],
    [5e15, "5000 TB"],
  ];
  for (const [bytes, text] of expected) expect(formatBytes(bytes)).toBe(text);
});

test("durations", () => {
  const expected: [number, string][] = [
    [0.0021, "2.1 ms"],
    [0.0421, "42 ms"],
    [0.9999, "1.0 s"],
    [3.21, "3.2 s"],
    [59.97, "1 min 0 s"],
    [192, "3 min 12 s"],
    [7260, "2 h 1 min"],
  ];
  for (const [seconds, text] of expected) expect(formatDuration(seconds)).toBe(text);
});

test("no rate is invented where no time has passed", () => {
  expect(formatByteRate(1000, 0)).toBe("");
  expect(formatByteRate(3_000_000, 2)).toBe("1.50 MB/s");
});

test("counts are grouped by thousands", () => {
  expect(formatCount(34816)).toBe("34,816");
  expect(formatCount(1_000_000)).toBe("1,000,000");
  expect(formatCount(999)).toBe("999");
});
