/** A row of logits whose most likely token is taken. */

import { SAMPLING_PARAMETER, SAMPLING_PARAMETER_WORDS } from "../../../src/graph/ops.ts";
import type { StepInputs } from "../../../src/models/step.ts";

/** Asks for the logits of a token as row `row`. */
export function setRow(inputs: StepInputs, row: number, token: number): void {
  const start = row * SAMPLING_PARAMETER_WORDS;
  const { samplingParameters, samplingParametersF32 } = inputs;
  samplingParameters.fill(0, start, start + SAMPLING_PARAMETER_WORDS);
  samplingParametersF32[start + SAMPLING_PARAMETER.top_p] = 1;
  samplingParameters[start + SAMPLING_PARAMETER.logprob_count] = -1;
  samplingParameters[start + SAMPLING_PARAMETER.forced_token] = -1;
  inputs.logitRows[row] = token;
  inputs.adjustmentStarts[row] = 0;
  inputs.adjustmentStarts[row + 1] = 0;
}
