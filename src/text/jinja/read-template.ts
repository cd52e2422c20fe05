/**
 * From the text of a template to its syntax tree: the Jinja library's lexer and parser, and what they lack of the
 * language - numbers as Python writes them, tuples of one and of none - mended on the tokens between them.
 */

import { parse, tokenize } from "@huggingface/jinja";

type Token = ReturnType<typeof tokenize>[number];
export type Program = ReturnType<typeof parse>;

/** Begins what stands where the parser wants an expression and the template has none; no template can name it. */
const NOTHING = "\0nothing";

/** Statements that make no output of their own. */
const SILENT = new Set(["Set", "Macro", "Comment", "Break", "Continue"]);
/** Statements whose output is already text. */
const BLOCKS = new Set(["If", "For", "CallStatement", "FilterStatement", "Program"]);

/** Blocks are trimmed as `transformers` has it. Throws SyntaxError. */
export function readTemplate(source: string): Program {
  const tokens = tokenize(source, { trim_blocks: true, lstrip_blocks: true });
  const program = parse(withNothings(withNumbers(tokens)));
  dropNothings(program);
  markOutput(program);
  return program;
}

/** Joins what the lexer took apart: `1e20`, `2.5e-3`, `1_000`, `0xff`. Nothing else may follow a number so. */
function withNumbers(tokens: readonly Token[]): Token[] {
  const joined: Token[] = [];
  for (let index = 0; index < tokens.length; index++) {
    const token = tokens[index]!;
    let [value, used] = [token.value, 0];
    if (token.type === "NumericLiteral" && tokens[index + 1]?.type === "Identifier") {
      [value, used] = numberFrom(token.value, tokens.slice(index + 1, index + 4));
    }
    joined.push(used === 0 ? token : { value, type: token.type });
    index += used;
  }
  return joined;
}

/** The whole number as the parser takes it, and how many of the tokens after its first digits belong to it. */
function numberFrom(digits: string, [next, sign, exponent]: readonly Token[]): [string, number] {
  const tail = next!.value;
  if (/^e$/i.test(tail) && sign !== undefined && /^[+-]$/.test(sign.value) && isDigits(exponent)) {
    return [floatFrom(`${digits}e${sign.value}${exponent.value}`), 3];
  }
  // With a sign, the lexer took the digits for a signed number.
  if (/^e$/i.test(tail) && sign?.type === "NumericLiteral" && /^[+-]\d+$/.test(sign.value)) {
    return [floatFrom(`${digits}e${sign.value}`), 2];
  }
  const whole = `${digits}${tail}`.replaceAll(/(?<=[\da-fxob])_(?=[\da-f])/gi, "");
  if (/^[+-]?\d+(\.\d+)?e\d+$/i.test(whole)) return [floatFrom(whole), 1];
  if (/^\d+$/.test(whole) || /^0(x[\da-f]+|o[0-7]+|b[01]+)$/i.test(whole)) return [String(Number(whole)), 1];
  return [digits, 0];
}

function isDigits(token: Token | undefined): token is Token {
  return token?.type === "NumericLiteral" && /^\d+$/.test(token.value);
}

/** The parser takes what has a point for a float. */
function floatFrom(number: string): string {
  return number.includes(".") ? number : number.replace(/e/i, ".0e");
}

/** Puts a placeholder into `(x,)` and two into `()`: the parser knows tuples of two and more, without loose ends. */
function withNothings(tokens: readonly Token[]): Token[] {
  // Each with a name of its own: macros may not have two parameters of one name.
  const nothing = (name: string): Token => ({ value: `${NOTHING}${name}`, type: "Identifier" });
  const mended: Token[] = [];
  /** What was seen of each open bracket. */
  const open: { commas: number; isNamed: boolean }[] = [];
  for (const [index, token] of tokens.entries()) {
    const previous = tokens[index - 1]?.type;
    const bracket = open.at(-1);
    if (token.type === "Comma" && bracket !== undefined) bracket.commas += 1;
    else if (token.type === "Equals" && bracket !== undefined) bracket.isNamed = true;
    else if (/^Open(Paren|SquareBracket|CurlyBracket)$/.test(token.type)) {
      open.push({ commas: 0, isNamed: false });
    } else if (/^Close(Paren|SquareBracket|CurlyBracket)$/.test(token.type)) open.pop();
    if (token.type === "CloseParen" && previous === "OpenParen") {
      mended.push(nothing("a"), { value: ",", type: "Comma" }, nothing("b"));
    } else if (token.type === "CloseParen" && previous === "Comma") {
      if (bracket?.commas === 1 && !bracket.isNamed) mended.push(nothing("a"));
      else mended.pop();
    }
    mended.push(token);
  }
  return mended;
}

/** Takes the placeholders out again, of tuples, and of calls without arguments, which look like them. */
function dropNothings(node: unknown): void {
  if (typeof node !== "object" || node === null) return;
  if (node instanceof Map) {
    for (const [key, value] of node) {
      dropNothings(key);
      dropNothings(value);
    }
    return;
  }
  if (Array.isArray(node)) {
    for (let index = node.length - 1; index >= 0; index--) {
      if (isNothing(node[index])) node.splice(index, 1);
    }
  }
  for (const child of Object.values(node)) dropNothings(child);
}

function isNothing(node: unknown): boolean {
  const value = (node as { readonly value?: unknown } | null)?.value;
  return typeof value === "string" && value.startsWith(NOTHING);
}

/** Marks expressions that are printed: `{{ x }}`, which the tree does not tell from other expressions. */
function markOutput(node: unknown): void {
  if (typeof node !== "object" || node === null) return;
  const holder = node as Record<string, unknown>;
  for (const key of ["body", "alternate", "defaultBlock"]) {
    const statements = holder[key];
    if (!Array.isArray(statements)) continue;
    holder[key] = statements.map((statement: { readonly type: string }) => {
      if (SILENT.has(statement.type) || BLOCKS.has(statement.type)) {
        markOutput(statement);
        return statement;
      }
      return statement.type === "StringLiteral" ? statement : { type: "Output", expression: statement };
    });
  }
}
