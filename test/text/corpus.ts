/** Texts on which tokenizers part ways: seeded, the same on every run. */

/** A pseudo-random number in [0, 1) each call (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

const WRITTEN = [
  "",
  " ",
  "a",
  "Hello, world!",
  " leading",
  "trailing ",
  "  two",
  "\n",
  "\n\n\n x",
  "\r\n\r\n",
  "\t\tif (x) {\n\t\t\treturn 1;\n\t\t}\n",
  "👨‍👩‍👧‍👦 family 🏳️‍🌈 🇫🇷🇩🇪 👍🏽",
  "你好，世界！今天天气怎么样？",
  "日本語のテキストです。カタカナ、ひらがな",
  "안녕하세요 세계",
  "مرحبا بالعالم، كيف حالك؟",
  "שלום עולם",
  "e\u0301 a\u0308 n\u0303 A\u030a \ufb01 \u2460 \u00bd \u00b2 \u00b3 \u0663 \u096a \u2167",
  "हिन्दी में पाठ",
  "ไทยภาษา",
  `function foo(a, b) { return a?.b ?? c; } // comment\nconst x = "text";`,
  "def f(x):\n    return x**2\n\nclass A:\n    pass\n",
  "12345678901234567890 3.14159 1,000,000 0x1F",
  "don't I'll we've you're he'd it's I'm DON'T I'LL WE'VE 'S ''s",
  "camelCase PascalCase snake_case SCREAMING_CASE kebab-case XMLHttpRequest",
  "\u0000\u0001\u0002\u001f\u007f\u0085\u00a0\ufeffBOM\ufeff\u200b\u2028\u2029",
  " \u00a0\u2003\u3000x\u3000 y",
  "▁literal ▁▁ marker a▁b",
  "<0x0A> <0xE2>",
  "....!!!!???;;;",
  "https://example.com/path?query=1&b=2#frag",
  "a".repeat(3000),
  `${" ".repeat(200)}x`,
  `${"\n".repeat(70)}x`,
  "ab ".repeat(500),
  `x${" ".repeat(33)}\n${" ".repeat(7)}\ty`,
  "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=".repeat(20),
  "𝕏𐐀👨𠀀 𝒳𝒴 ﷽ ꙮ",
  "\u0301start combining a\u200db\u200cc",
  "१२३ ۱۲۳ ௧௨௩ 一二三 ß ẞ İ ı ſ \u212a \u212b Ζεύς ὦ",
  "word WORD Word aWord Wordy left  left right  right folded FOLDED <a> <a><b> <mask> x <mask> y",
];

/** Unicode ranges that random texts are drawn from. */
const RANGES: readonly (readonly [number, number])[] = [
  [0x20, 0x7e],
  [0xa0, 0x24f],
  [0x300, 0x36f],
  [0x370, 0x5ff],
  [0x600, 0x6ff],
  [0x900, 0x97f],
  [0x1e00, 0x1fff],
  [0x2000, 0x206f],
  [0x3000, 0x30ff],
  [0x4e00, 0x9fff],
  [0xac00, 0xd7a3],
  [0xff00, 0xffef],
  [0x1f300, 0x1faff],
  [0x20000, 0x2a6df],
  [0x00, 0x20],
];

function randomText(random: () => number): string {
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)]!;
  let range = pick(RANGES);
  let text = "";
  const length = 1 + Math.floor(random() * 60);
  for (let i = 0; i < length; i++) {
    if (random() < 0.3) range = pick(RANGES);
    if (random() < 0.1) text += " ";
    text += String.fromCodePoint(range[0] + Math.floor(random() * (range[1] - range[0] + 1)));
  }
  return text;
}

/** The corpus, with these special tokens written into it; the last text is a mix of 200 kB. */
export function hardCorpus(special: readonly string[]): string[] {
  const random = randomFrom(7);
  const texts = [...WRITTEN];
  for (const token of special) {
    texts.push(token, `a ${token} b`, `${token}${token}x`, ` ${token} \n ${token}`, token.slice(0, -1));
  }
  for (let i = 0; i < 150; i++) texts.push(randomText(random));
  let mix = "";
  while (mix.length < 130_000) mix += `${texts[Math.floor(random() * texts.length)]!.slice(0, 300)} `;
  return [...texts, mix].map((text) => text.toWellFormed());
}
