/** Makes one vector of the hidden states of a prompt. Knows rows of numbers, no requests. */

/** Which hidden states an embedding is made of: that of the last token, or the mean of all. */
export type Pooling = "last" | "mean";

/** The mean of rows, summed in the order they come in and in double precision: how they are cut into steps is lost. */
export class MeanOfRows {
  #sum = new Float64Array(0);
  #count = 0;

  /** Takes row `row` of `rows`, which has rows of `width`. */
  add(rows: Float32Array, row: number, width: number): void {
    if (this.#count === 0) this.#sum = new Float64Array(width);
    const start = row * width;
    for (let index = 0; index < width; index++) this.#sum[index] = this.#sum[index]! + rows[start + index]!;
    this.#count += 1;
  }

  /** f32 `[width]`. Of one row it is that row. */
  mean(): Float32Array {
    return Float32Array.from(this.#sum, (value) => value / this.#count);
  }
}
