/** Expectations on the errors that users see. */

import { expect } from "bun:test";
import { type ErrorCode, MistralError } from "../../src/errors.ts";

/** Runs `action`, which must throw a `MistralError` with this code whose message holds every one of `parts`. */
export function expectMistralError(action: () => unknown, code: ErrorCode, ...parts: string[]): void {
  let caught: unknown;
  try {
    action();
  } catch (error) {
    caught = error;
  }
  expectThatError(caught, code, parts);
}

/** The same for an action that answers later. */
export async function expectMistralRejection(
  action: Promise<unknown>,
  code: ErrorCode,
  ...parts: string[]
): Promise<void> {
  let caught: unknown;
  try {
    await action;
  } catch (error) {
    caught = error;
  }
  expectThatError(caught, code, parts);
}

function expectThatError(caught: unknown, code: ErrorCode, parts: readonly string[]): void {
  if (!(caught instanceof MistralError) && caught !== undefined) throw caught;
  expect(caught).toBeInstanceOf(MistralError);
  const error = caught as MistralError;
  expect(`${error.code}: ${error.message}`).toStartWith(`${code}: `);
  for (const part of parts) expect(error.message).toContain(part);
}
