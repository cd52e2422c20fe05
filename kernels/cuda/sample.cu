// sample: four kernels, of which the last three split a row's vocabulary over blocks, grid (rows, parts). The block of a
// row that finishes last goes on with what all have found. All sums are of integers and all ties go to the lowest
// id, so a row is the same in any batch.
//
// prepare  checks a row's inputs, draws its number, copies its adjustments from the host
// scan     reads the logits: the greatest, the model's own distribution, the adjustments; greedy rows end here
// weigh    reads the logits: weights by bin, which tell the bins in which the filters end and the draw falls
// choose   reads the logits: lists the tokens in these bins; the last block selects among them
//
// So a greedy row is read once and a drawn one three times; nothing is sorted and no weight is stored.
#include "sample_row.cuh"
#include "sample_select.cuh"

KERNEL(sample_prepare, Sample, SAMPLE_THREADS, 1) {
  const u32 row = block_x();
  if (row >= rows_of(p.rows)) return;
  SHARED(u64, partial, [WARPS]);
  const u32 t = thread_x();
  const i32* words = p.parameters + row * p.parameters_stride;
  const float temperature = float_of(static_cast<u32>(words[SAMPLE_TEMPERATURE]));
  const i32 top_k = words[SAMPLE_TOP_K];
  const float top_p = float_of(static_cast<u32>(words[SAMPLE_TOP_P]));
  const float min_p = float_of(static_cast<u32>(words[SAMPLE_MIN_P]));
  const i32 logprob_count = words[SAMPLE_LOGPROB_COUNT];
  const i32 forced = words[SAMPLE_FORCED_TOKEN];
  const i32 begin = p.adjustment_starts[row];
  const i32 end = p.adjustment_starts[row + 1];
  // Written so that a NaN fails every comparison.
  const bool valid = temperature >= 0.0f && temperature < infinity() && top_k >= 0 && top_p >= 0.0f && top_p <= 1.0f &&
                     min_p >= 0.0f && min_p <= 1.0f && logprob_count >= -1 &&
                     logprob_count <= static_cast<i32>(p.top_count_max) && forced >= -1 &&
                     forced < static_cast<i32>(p.vocabulary) && begin >= 0 && begin <= end &&
                     static_cast<u32>(end) <= p.adjustments_max;
  bool wrong = !valid;
  if (valid) {
    for (u32 i = static_cast<u32>(begin) + t; i < static_cast<u32>(end); i += SAMPLE_THREADS) {
      const i32 token = p.adjustment_tokens[i];
      p.list_tokens[i] = token;
      wrong = wrong || token < 0 || static_cast<u32>(token) >= p.vocabulary;
    }
  }
  wrong = block_any(wrong, partial);

  for (u32 i = t; i < p.top_count_max; i += SAMPLE_THREADS) {
    p.top_tokens[row * p.top_tokens_stride + i] = -1;
    p.top_logprobs[row * p.top_logprobs_stride + i] = 0.0f;
  }
  p.bin_masses[static_cast<u64>(row) * SAMPLE_BINS + t] = 0;
  p.bin_counts[static_cast<u64>(row) * SAMPLE_BINS + t] = 0;
  if (t != 0) return;
  p.tokens[row] = 0;
  p.logprobs[row] = 0.0f;
  SampleRow state = {};
  if (wrong) {
    report_fault(p.rows.step, p.op, FAULT_SAMPLING);
  } else {
    state.task = forced >= 0 ? SAMPLE_FORCED : temperature == 0.0f || top_k == 1 ? SAMPLE_GREEDY : SAMPLE_MEASURE;
    // A tiny temperature has no finite inverse; the largest such inverse sends every other weight to 0 as well.
    const float inverse = 1.0f / temperature;
    state.inverse_temperature = inverse == infinity() ? float_of(0x7f7fffffu) : inverse;
    state.top_k = static_cast<u32>(top_k);
    state.top_p = top_p;
    state.min_p = min_p;
    state.logprob_count = logprob_count;
    state.forced_token = forced;
    state.list_begin = static_cast<u32>(begin);
    state.list_count = forced >= 0 ? 0u : static_cast<u32>(end - begin);
    if (forced >= 0 && logprob_count < 0) {
      p.tokens[row] = forced;
      state.task = SAMPLE_NOTHING;
    }
    state.chance = philox_uniform(static_cast<u32>(words[SAMPLE_SEED_LOW]), static_cast<u32>(words[SAMPLE_SEED_HIGH]),
                                  static_cast<u32>(words[SAMPLE_POSITION]));
  }
  p.states[row] = state;
}

KERNEL(sample_scan, Sample, SAMPLE_THREADS, 2) {
  const u32 row = block_x();
  if (row >= rows_of(p.rows)) return;
  SampleRow& stored = p.states[row];
  const u32 task = stored.task;
  if (task == SAMPLE_NOTHING) return;
  SHARED(u64, partial, [WARPS]);
  SHARED(u64, is_last, );
  float values[PER_THREAD];
  load_part(p, row, values);
  u64 first = block_least(first_of(p, values), partial);
  if (stored.logprob_count >= 0) report_share(p, row, values, first, partial);
  if (task != SAMPLE_FORCED && adjust(p, row, partial)) {
    load_part(p, row, values);
    first = block_least(first_of(p, values), partial);
  }
  u64* firsts = p.part_best + static_cast<u64>(row) * p.parts;
  if (thread_x() == 0) firsts[block_y()] = first;
  if (!is_last_block(&stored.finished[0], &is_last)) return;

  SampleNormaliser own = {};
  if (stored.logprob_count >= 0) own = report_own(p, row, static_cast<u32>(stored.logprob_count), partial);
  const u64 best = block_least(next_among(firsts, p.parts, 0, true), partial);
  const float largest = logit_of(best, p.id_bits);
  if (task == SAMPLE_FORCED) {
    report_token(p, row, stored, own, static_cast<u32>(stored.forced_token), partial);
  } else if (largest == -infinity()) {
    // Nothing is left to choose: numbers of one row that overflowed are that request's misfortune, not the step's.
    if (thread_x() == 0) p.tokens[row] = -1;
  } else if (task == SAMPLE_GREEDY) {
    report_token(p, row, stored, own, id_of(best, p.id_bits), partial);
  } else if (thread_x() == 0) {
    stored.own = own;
    stored.largest = largest;
    stored.task = SAMPLE_DRAW;
  }
}

KERNEL(sample_weigh, Sample, SAMPLE_THREADS, 2) {
  const u32 row = block_x();
  if (row >= rows_of(p.rows)) return;
  SampleRow& state = p.states[row];
  if (state.task != SAMPLE_DRAW) return;
  SHARED(Histogram, histogram, );
  SHARED(u64, masses, [SAMPLE_BINS]);
  SHARED(u32, counts, [SAMPLE_BINS]);
  SHARED(u64, partial, [WARPS]);
  SHARED(u64, is_last, );
  const u32 t = thread_x();
  float values[PER_THREAD];
  load_part(p, row, values);
  clear(histogram);
  barrier();
#pragma unroll
  for (u32 i = 0; i < PER_THREAD; i++) {
    const float distance = distance_of(values[i], state.largest, state.inverse_temperature);
    const u64 units = units_of(exp_f32(distance));
    if (units != 0) add(histogram, bin_of(distance), units);
  }
  barrier();
  u64* row_masses = p.bin_masses + static_cast<u64>(row) * SAMPLE_BINS;
  u32* row_counts = p.bin_counts + static_cast<u64>(row) * SAMPLE_BINS;
  if (histogram.count[t] != 0) {
    reduce_add(&row_masses[t], mass_of(histogram, t));
    reduce_add(&row_counts[t], histogram.count[t]);
  }
  if (!is_last_block(&state.finished[1], &is_last)) return;
  masses[t] = block_running_total(row_masses[t], partial);
  counts[t] = static_cast<u32>(block_running_total(row_counts[t], partial));
  barrier();
  if (t == 0) plan(state, masses, counts);
}

KERNEL(sample_choose, Sample, SAMPLE_THREADS, 2) {
  const u32 row = block_x();
  if (row >= rows_of(p.rows)) return;
  SampleRow& stored = p.states[row];
  if (stored.task != SAMPLE_DRAW) return;
  SHARED(Histogram, histogram, );
  SHARED(Found, shared_found, );
  SHARED(u64, partial, [WARPS]);
  SHARED(u64, word, );
  const u32 t = thread_x();
  u32* list = p.candidates + static_cast<u64>(row) * p.candidates_max;
  const bool is_listed = stored.candidates <= p.candidates_max;
  if (is_listed) {
    float values[PER_THREAD];
    load_part(p, row, values);
    u32 hits = 0;
    u32 count = 0;
#pragma unroll
    for (u32 i = 0; i < PER_THREAD; i++) {
      const float distance = distance_of(values[i], stored.largest, stored.inverse_temperature);
      if (units_of(exp_f32(distance)) == 0) continue;
      const u32 bin = bin_of(distance);
      if (bin < stored.first_bin || bin > stored.last_bin) continue;
      hits |= 1u << i;
      count++;
    }
    // The order of the list depends on which block comes first; nothing that is made of it does.
    const u32 end = static_cast<u32>(block_running_total(count, partial));
    if (t == SAMPLE_THREADS - 1 && end > 0) word = atomic_add(&stored.listed, end);
    barrier();
    u32 at = static_cast<u32>(word) + end - count;
#pragma unroll
    for (u32 i = 0; i < PER_THREAD; i++) {
      if ((hits >> i & 1) != 0) list[at++] = token_at(i);
    }
  }
  if (!is_last_block(&stored.finished[2], &word)) return;

  const SampleRow state = stored;
  const Candidates candidates = {p.logits.data + row * p.logits.stride, is_listed ? list : nullptr,
                                 is_listed ? state.candidates : p.vocabulary, p.id_bits};
  u64 first = NO_KEY;
  u64 last = NO_KEY;
  u64 heavy = 0;
  candidates.each(state, [&](u64 key, float weight, u64 units) {
    first = key < first ? key : first;
    last = ~key < last ? ~key : last;
    if (weight >= state.min_p) heavy += units;
  });
  first = block_least(first, partial);
  last = ~block_least(last, partial);

  // Every filter keeps a prefix of the order of keys, so what is kept is told by its weight alone.
  u64 mass = state.mass;
  if (state.top_k != 0) {
    const Found end = find_candidate(candidates, state, first, last, true, state.top_k, histogram, shared_found, partial);
    mass = end.mass_before + end.mass;
  }
  if (state.top_p < 1.0f) {
    const u64 wanted = mass_of_share(state.top_p, mass);
    const Found end = find_candidate(candidates, state, first, last, false, wanted, histogram, shared_found, partial);
    mass = end.mass_before + end.mass;
  }
  if (state.min_p > 0.0f) {
    const u64 kept = state.mass_before + block_total(heavy, partial);
    mass = kept < mass ? kept : mass;
  }
  const u64 wanted = mass_of_draw(state.chance, mass);
  const Found drawn = find_candidate(candidates, state, first, last, false, wanted, histogram, shared_found, partial);
  candidates.each(state, [&](u64 key, float, u64) {
    if (key >= drawn.first && key <= drawn.last) word = id_of(key, p.id_bits);
  });
  barrier();
  report_token(p, row, state, state.own, static_cast<u32>(word), partial);
}
