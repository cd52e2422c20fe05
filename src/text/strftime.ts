/** Python's `strftime` in the C locale, for templates that print the date. Times are local. */

const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS = [
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December",
];
const DAY_MS = 86_400_000;

const pad = (value: number, width: number, fill = "0"): string => String(value).padStart(width, fill);

/** Days since the first of January; daylight saving makes some days longer, hence UTC. */
function dayOfYear(date: Date): number {
  const start = Date.UTC(date.getFullYear(), 0, 1);
  return Math.round((Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) - start) / DAY_MS);
}

/** ISO 8601: the week that holds the year's first Thursday is week 1. */
function isoWeek(date: Date): { year: number; week: number } {
  const thursday = new Date(date.getFullYear(), date.getMonth(), date.getDate() + 4 - (date.getDay() || 7));
  return { year: thursday.getFullYear(), week: Math.floor(dayOfYear(thursday) / 7) + 1 };
}

type Field = (date: Date) => { value: number; width: number; fill?: string } | string;

const hour12 = (date: Date): number => date.getHours() % 12 || 12;

const FIELDS: Readonly<Record<string, Field>> = {
  a: (date) => DAYS[date.getDay()]!.slice(0, 3),
  A: (date) => DAYS[date.getDay()]!,
  b: (date) => MONTHS[date.getMonth()]!.slice(0, 3),
  h: (date) => MONTHS[date.getMonth()]!.slice(0, 3),
  B: (date) => MONTHS[date.getMonth()]!,
  c: (date) => strftime(date, "%a %b %e %H:%M:%S %Y"),
  C: (date) => ({ value: Math.floor(date.getFullYear() / 100), width: 2 }),
  d: (date) => ({ value: date.getDate(), width: 2 }),
  D: (date) => strftime(date, "%m/%d/%y"),
  e: (date) => ({ value: date.getDate(), width: 2, fill: " " }),
  f: (date) => pad(date.getMilliseconds() * 1000, 6),
  F: (date) => strftime(date, "%Y-%m-%d"),
  g: (date) => ({ value: isoWeek(date).year % 100, width: 2 }),
  G: (date) => ({ value: isoWeek(date).year, width: 4 }),
  H: (date) => ({ value: date.getHours(), width: 2 }),
  I: (date) => ({ value: hour12(date), width: 2 }),
  j: (date) => ({ value: dayOfYear(date) + 1, width: 3 }),
  k: (date) => ({ value: date.getHours(), width: 2, fill: " " }),
  l: (date) => ({ value: hour12(date), width: 2, fill: " " }),
  m: (date) => ({ value: date.getMonth() + 1, width: 2 }),
  M: (date) => ({ value: date.getMinutes(), width: 2 }),
  n: () => "\n",
  p: (date) => (date.getHours() < 12 ? "AM" : "PM"),
  P: (date) => (date.getHours() < 12 ? "am" : "pm"),
  r: (date) => strftime(date, "%I:%M:%S %p"),
  R: (date) => strftime(date, "%H:%M"),
  s: (date) => String(Math.floor(date.getTime() / 1000)),
  S: (date) => ({ value: date.getSeconds(), width: 2 }),
  t: () => "\t",
  T: (date) => strftime(date, "%H:%M:%S"),
  u: (date) => String(date.getDay() || 7),
  U: (date) => ({ value: Math.floor((dayOfYear(date) + 7 - date.getDay()) / 7), width: 2 }),
  V: (date) => ({ value: isoWeek(date).week, width: 2 }),
  w: (date) => String(date.getDay()),
  W: (date) => ({ value: Math.floor((dayOfYear(date) + 7 - ((date.getDay() + 6) % 7)) / 7), width: 2 }),
  x: (date) => strftime(date, "%m/%d/%y"),
  X: (date) => strftime(date, "%H:%M:%S"),
  y: (date) => ({ value: date.getFullYear() % 100, width: 2 }),
  Y: (date) => String(date.getFullYear()),
  // `datetime.now()` has no time zone, and Python prints nothing for it.
  z: () => "",
  Z: () => "",
  "%": () => "%",
};

/** Formats a time. `%-d` leaves padding out, `%_d` pads with spaces, `%0e` with zeros; unknown fields stay. */
export function strftime(date: Date, format: string): string {
  return format.replace(/%([-_0^]?)([A-Za-z%])/g, (whole, flag: string, name: string) => {
    const field = Object.hasOwn(FIELDS, name) ? FIELDS[name]!(date) : whole;
    if (typeof field === "string") return flag === "^" ? field.toUpperCase() : field;
    if (flag === "-") return String(field.value);
    return pad(field.value, field.width, flag === "_" ? " " : flag === "0" ? "0" : (field.fill ?? "0"));
  });
}
