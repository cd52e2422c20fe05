/** The prompt before the first: what it does ahead of time, and which failures are nobody's. */

import { expect, test } from "bun:test";
import { MistralError } from "../../src/errors.ts";
import { rehearse } from "../../src/server/rehearsal.ts";
import type { ChatTemplate } from "../../src/text/types.ts";
import { ByteTokenizer } from "./byte-tokenizer.ts";

function template(render: ChatTemplate["render"]): ChatTemplate {
  return { source: "", render };
}

class Listening extends ByteTokenizer {
  readonly encoded: string[] = [];

  override encode(text: string, options: Parameters<ByteTokenizer["encode"]>[1]): number[] {
    this.encoded.push(text);
    return super.encode(text, options);
  }
}

test("encodes what the template makes of a question, or the question where there is none or it refuses", () => {
  const encoded = (chatTemplate: ChatTemplate | undefined): readonly string[] => {
    const tokenizer = new Listening();
    rehearse({ tokenizer, chatTemplate });
    return tokenizer.encoded;
  };
  const [question] = encoded(undefined);
  expect(question).toContain("?");
  expect(encoded(template(({ messages }) => `<user>${messages[0]?.content}`))).toEqual([`<user>${question}`]);
  const refuses = template(() => {
    throw new MistralError("invalid_request", "there must be a system message");
  });
  expect(encoded(refuses)).toEqual([question!]);
});

test("a defect of ours is not hidden", () => {
  const broken = template(() => {
    throw new TypeError("undefined is not a function");
  });
  expect(() => rehearse({ tokenizer: new ByteTokenizer(), chatTemplate: broken })).toThrow(TypeError);
});
