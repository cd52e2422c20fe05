/** MISTRALRS_DEBUG tells what tokenizer a model got: sizes, special tokens, what it puts around a text. */

import type { Tokenizer } from "../text/types.ts";

/** Special tokens that are named; a vocabulary can reserve thousands. */
const SHOWN_MAX = 64;

/** Rows of name and value. */
export function describeTokenizer(tokenizer: Tokenizer): [string, string][] {
  const { vocabularySize, bosToken, eosToken } = tokenizer;
  const shown = (token: number): string =>
    `${token} ${JSON.stringify(tokenizer.decode([token], { skipSpecialTokens: false }))}`;
  const special: number[] = [];
  for (let token = 0; token < vocabularySize; token++) if (tokenizer.isSpecial(token)) special.push(token);
  const more = special.length - SHOWN_MAX;
  const list = special.slice(0, SHOWN_MAX).map(shown).join(", ");
  const around = tokenizer.encode("", { addSpecialTokens: true });
  return [
    ["tokenizer", `${vocabularySize} tokens, ${special.length} of them special`],
    ["begin of text", bosToken === undefined ? "none" : shown(bosToken)],
    ["end of text", eosToken === undefined ? "none" : shown(eosToken)],
    ["put around texts", around.length === 0 ? "nothing" : around.map(shown).join(", ")],
    ["special tokens", more > 0 ? `${list} and ${more} more` : list || "none"],
  ];
}
