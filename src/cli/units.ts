/** Numbers as a person reads them: bytes, durations, rates, counts. Imports nothing, so that set-up can use it. */

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB"] as const;

/** `1234567` is `1.2 MB`: decimal units, three significant digits at most. */
export function formatBytes(bytes: number): string {
  let value = Math.max(0, bytes);
  let unit = 0;
  while (value >= 999.5 && unit < BYTE_UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${BYTE_UNITS[unit]}`;
}

/** `0.0421` is `42 ms`, `3.21` is `3.2 s`, `192` is `3 min 12 s`. */
export function formatDuration(seconds: number): string {
  if (seconds < 0.9995) return `${(seconds * 1000).toFixed(seconds < 0.00995 ? 1 : 0)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** Bytes per second; empty when no time has passed, so that no rate is invented. */
export function formatByteRate(bytes: number, seconds: number): string {
  return seconds > 0 ? `${formatBytes(bytes / seconds)}/s` : "";
}

/** `34816` is `34,816`. */
export function formatCount(count: number): string {
  return Math.round(count)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, ",");
}

const DAY_MS = 86_400_000;
const AGES = [
  [365, "year"],
  [30, "month"],
  [7, "week"],
  [1, "day"],
] as const;

/** `today`, `yesterday`, `3 days ago`, `2 weeks ago`. */
export function formatAge(date: Date, now: Date = new Date()): string {
  const days = Math.floor((now.getTime() - date.getTime()) / DAY_MS);
  if (days < 1) return "today";
  if (days < 2) return "yesterday";
  const [length, word] = AGES.find(([unit]) => days >= unit)!;
  const count = Math.floor(days / length);
  return `${count} ${word}${count === 1 ? "" : "s"} ago`;
}
