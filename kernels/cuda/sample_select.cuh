// Where the filters end and the draw falls: first to the bin, from the weights by bin, and then to the token, among the
// logits of the bins that matter.
#pragma once

#include "sample.cuh"

// The weight with which the tokens before it first reach a share: at least one token is kept.
DEVICE u64 mass_of_share(float share, u64 mass) {
  const double target = static_cast<double>(share) * static_cast<double>(mass);
  u64 units = static_cast<u64>(target);
  if (static_cast<double>(units) < target) units++;
  return units == 0 ? 1 : units;
}

// The draw falls on the token with which the weights first exceed `chance` of all.
DEVICE u64 mass_of_draw(double chance, u64 mass) {
  const u64 units = static_cast<u64>(chance * static_cast<double>(mass)) + 1;
  return units < mass || mass == 0 ? units : mass;
}

// The first bin up to which there is as much as `wanted`; the last when there never is.
template <typename T>
DEVICE u32 bin_reaching(const T* totals, u64 wanted) {
  u32 bin = 0;
#pragma unroll
  for (u32 step = SAMPLE_BINS / 2; step > 0; step /= 2) {
    if (totals[bin + step - 1] < wanted) bin += step;
  }
  return bin;
}

// Finds the bins in which filters end and the draw falls, from the weights and numbers of logits up to each bin. What a
// filter keeps is known up to the bin in which it ends, so every one bounds the next from both sides.
DEVICE void plan(SampleRow& state, const u64* masses, const u32* counts) {
  u64 least = masses[SAMPLE_BINS - 1];
  u64 most = least;
  u32 end = SAMPLE_BINS - 1;
  u32 last = 0;
  state.mass = least;
  // Tokens without weight are never drawn, so it does not matter whether top-k keeps them.
  if (state.top_k >= counts[SAMPLE_BINS - 1]) state.top_k = 0;
  if (state.top_k != 0) {
    last = end = bin_reaching(counts, state.top_k);
    least = end == 0 ? 0 : masses[end - 1];
    most = masses[end];
  }
  if (state.top_p < 1.0f) {
    const u32 from = bin_reaching(masses, mass_of_share(state.top_p, least));
    end = bin_reaching(masses, mass_of_share(state.top_p, most));
    last = end > last ? end : last;
    least = from == 0 ? 0 : masses[from - 1];
    most = masses[end];
  }
  if (state.min_p > 0.0f) {
    // The margin is far above the error of a weight's logarithm.
    const double place = -log_f64(state.min_p) * BINS_PER_UNIT;
    const u32 from = place > 0.01 ? static_cast<u32>(place - 0.01) : 0;
    if (from <= end) {
      const u32 above = static_cast<u32>(place + 0.01);
      const u32 to = above < end ? above : end;
      const u64 kept = from == 0 ? 0 : masses[from - 1];
      least = kept < least ? kept : least;
      most = masses[to] < most ? masses[to] : most;
      last = to > last ? to : last;
    }
  }
  const u32 first = bin_reaching(masses, mass_of_draw(state.chance, least));
  const u32 drawn = bin_reaching(masses, mass_of_draw(state.chance, most));
  last = drawn > last ? drawn : last;
  state.first_bin = first;
  state.last_bin = last;
  state.mass_before = first == 0 ? 0 : masses[first - 1];
  state.count_before = first == 0 ? 0 : counts[first - 1];
  state.candidates = counts[last] - state.count_before;
}

// The tokens among which the last block selects: those listed, or all in the row that lie in the bins.
struct Candidates {
  const float* logits;
  const u32* list;
  u32 count;
  u32 id_bits;

  // Calls visit(key, weight, units) with this thread's.
  template <typename Visit>
  DEVICE void each(const SampleRow& state, Visit visit) const {
    for (u32 i = thread_x(); i < count; i += SAMPLE_THREADS) {
      const u32 id = list == nullptr ? i : list[i];
      const float distance = distance_of(logits[id], state.largest, state.inverse_temperature);
      const float weight = exp_f32(distance);
      const u64 units = units_of(weight);
      if (units == 0) continue;
      const u32 bin = bin_of(distance);
      if (bin >= state.first_bin && bin <= state.last_bin) visit(key_of(logits[id], id, id_bits), weight, units);
    }
  }
};

// One candidate, found by how much lies before it.
struct Found {
  // It alone has a key in [first, last].
  u64 first;
  u64 last;
  // Weight and number of the tokens before it.
  u64 mass_before;
  u32 count_before;
  // Of what lies in [first, last].
  u32 count;
  u64 mass;
};

// The candidate with which the number of tokens, or else their weight, reaches `wanted`: nine bits of the key at a time.
// [first, last] spans all keys.
DEVICE Found find_candidate(const Candidates& candidates, const SampleRow& state, u64 first, u64 last, bool by_count, u64 wanted,
                    Histogram& histogram, Found& shared_found, u64* partial) {
  const u32 t = thread_x();
  Found found = {first, last, state.mass_before, state.count_before, 0, 0};
  // A key has at most 63 bits.
  for (u32 level = 0; level < 7; level++) {
    u32 shift = 0;
#pragma unroll
    for (u32 step = 32; step > 0; step /= 2) {
      if ((found.last - found.first) >> (shift + step - 1) >= SAMPLE_BINS) shift += step;
    }
    clear(histogram);
    barrier();
    candidates.each(state, [&](u64 key, float, u64 units) {
      if (key >= found.first && key <= found.last) add(histogram, static_cast<u32>((key - found.first) >> shift), units);
    });
    barrier();
    const u32 count = histogram.count[t];
    const u64 mass = mass_of(histogram, t);
    const u64 mass_before = found.mass_before + block_running_total(mass, partial) - mass;
    const u32 count_before = found.count_before + static_cast<u32>(block_running_total(count, partial)) - count;
    const u64 before = by_count ? count_before : mass_before;
    if (before < wanted && wanted <= before + (by_count ? count : mass)) {
      const u64 from = found.first + (static_cast<u64>(t) << shift);
      shared_found = {from, from + (u64(1) << shift) - 1, mass_before, count_before, count, mass};
    }
    barrier();
    found = shared_found;
    if (shift == 0 || found.count == 1) break;
  }
  return found;
}
