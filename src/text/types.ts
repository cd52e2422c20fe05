/** Text beside the tower: what the server needs of a tokenizer and a chat template. Knows no model and no HTTP. */

export interface Tokenizer {
  readonly vocabularySize: number;
  /** Tokens that begin and end a text, where the model has them. */
  readonly bosToken: number | undefined;
  readonly eosToken: number | undefined;
  readonly bosText: string;
  readonly eosText: string;
  readonly unkText: string;
  /**
   * Token ids of a text. Special tokens written in the text are recognised. With `addSpecialTokens` the
   * model's own BOS/EOS are added, but a BOS is never doubled when the text already starts with it.
   */
  encode(text: string, options: { readonly addSpecialTokens: boolean }): number[];
  decode(tokens: readonly number[], options: { readonly skipSpecialTokens: boolean }): string;
  /** The exact bytes this token stands for in running text (a leading-space marker is a space). */
  tokenBytes(token: number): Uint8Array;
  isSpecial(token: number): boolean;
  /** The id of this exact token text, special ones included. */
  tokenId(text: string): number | undefined;
}

export interface ChatMessage {
  readonly role: string;
  readonly content?: string | null | readonly Record<string, unknown>[];
  readonly [key: string]: unknown;
}

export interface ChatTemplateInput {
  readonly messages: readonly ChatMessage[];
  readonly addGenerationPrompt: boolean;
  readonly tools?: readonly Record<string, unknown>[] | null;
  /** Further variables of the template (`enable_thinking`, ...). */
  readonly variables?: Readonly<Record<string, unknown>>;
}

export interface ChatTemplate {
  readonly source: string;
  render(input: ChatTemplateInput): string;
}
