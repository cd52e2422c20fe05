// What the blocks of a row do with their parts of the logits and report of them: loading, adjustments, the model's own
// distribution, the chosen token.
#pragma once

#include "sample.cuh"

// The logits of this block's part, four neighbours a thread and then four more; NaN behind the vocabulary.
DEVICE u32 token_at(u32 i) {
  return block_y() * SAMPLE_PART + i / 4 * (4 * SAMPLE_THREADS) + thread_x() * 4 + i % 4;
}

DEVICE void load_part(const Sample& p, u32 row, float (&values)[PER_THREAD]) {
  const float* logits = p.logits.data + row * p.logits.stride;
#pragma unroll
  for (u32 i = 0; i < PER_THREAD; i += 4) {
    const u32 token = token_at(i);
    if (p.vectors != 0 && token + 4 <= p.vocabulary) {
      const Float4 v = *reinterpret_cast<const Float4*>(logits + token);
      values[i] = v.x, values[i + 1] = v.y, values[i + 2] = v.z, values[i + 3] = v.w;
    } else {
#pragma unroll
      for (u32 j = 0; j < 4; j++) values[i + j] = token + j < p.vocabulary ? logits[token + j] : not_a_number();
    }
  }
}

// The first of the keys after `last`.
DEVICE u64 next_of(const Sample& p, const float (&values)[PER_THREAD], u64 last) {
  u64 next = NO_KEY;
#pragma unroll
  for (u32 i = 0; i < PER_THREAD; i++) {
    const u64 key = key_of(values[i], token_at(i), p.id_bits);
    if (key > last && key < next) next = key;
  }
  return next;
}

DEVICE u64 first_of(const Sample& p, const float (&values)[PER_THREAD]) {
  u64 first = NO_KEY;
#pragma unroll
  for (u32 i = 0; i < PER_THREAD; i++) {
    const u64 key = key_of(values[i], token_at(i), p.id_bits);
    first = key < first ? key : first;
  }
  return first;
}

// The model's own distribution in this part, and its most likely tokens. `first` is the first key of the block.
DEVICE void report_share(const Sample& p, u32 row, const float (&values)[PER_THREAD], u64 first, u64* partial) {
  const float largest = logit_of(first, p.id_bits);
  u64 mass = 0;
#pragma unroll
  for (u32 i = 0; i < PER_THREAD; i++) mass += units_of(exp_f32(distance_of(values[i], largest, 1.0f)));
  mass = block_total(mass, partial);
  const u64 at = static_cast<u64>(row) * p.parts;
  if (thread_x() == 0) p.part_shares[at + block_y()] = {mass, largest, 0};
  const u32 count = static_cast<u32>(p.states[row].logprob_count);
  u64* tops = p.part_tops + at * p.top_count_max + block_y() * count;
  u64 own = first_of(p, values);
  for (u32 i = 0; i < count; i++) {
    const u64 best = i == 0 ? first : block_least(own, partial);
    if (thread_x() == 0) tops[i] = best;
    if (own == best) own = next_of(p, values, best);
  }
}

// Applies the row's adjustments of this part's tokens, in the order of the list, and keeps the logits before them.
// Returns whether there were any.
DEVICE bool adjust(const Sample& p, u32 row, u64* partial) {
  SHARED(u32, hit_tokens, [SAMPLE_THREADS]);
  SHARED(u32, hit_entries, [SAMPLE_THREADS]);
  SHARED(u32, hits, );
  const u32 t = thread_x();
  const u32 begin = p.states[row].list_begin;
  const u32 end = begin + p.states[row].list_count;
  float* logits = p.logits.data + row * p.logits.stride;
  bool any = false;
  for (u32 from = begin; from < end; from += SAMPLE_THREADS) {
    const u32 entry = from + t;
    const u32 token = entry < end ? static_cast<u32>(p.list_tokens[entry]) : 0;
    const bool hit = entry < end && token / SAMPLE_PART == block_y();
    const u32 place = static_cast<u32>(block_running_total(hit ? 1 : 0, partial));
    if (t == SAMPLE_THREADS - 1) hits = place;
    if (hit) {
      hit_tokens[place - 1] = token;
      hit_entries[place - 1] = entry;
    }
    barrier();
    const u32 count = hits;
    // A token's first entry here takes all of them.
    bool is_first = t < count;
    for (u32 i = 0; i < t && is_first; i++) is_first = hit_tokens[i] != hit_tokens[t];
    if (is_first) {
      float& logit = logits[hit_tokens[t]];
      float value = logit;
      p.list_originals[hit_entries[t]] = value;
      for (u32 i = t; i < count; i++) {
        if (hit_tokens[i] != hit_tokens[t]) continue;
        const float multiplier = p.adjustment_multipliers[hit_entries[i]];
        // Rounded after each step, as on the CPU.
        value = value > 0.0f ? value / multiplier : multiply_rounded(value, multiplier);
        value = value + p.adjustment_addends[hit_entries[i]];
      }
      logit = value;
    }
    any = any || count > 0;
    barrier();
  }
  return any;
}

DEVICE float logprob_of(const SampleNormaliser& own, float logit) {
  if (logit == own.largest) return static_cast<float>(-own.log_sum);
  return static_cast<float>(static_cast<double>(logit) - own.largest - own.log_sum);
}

// Writes the chosen token, and its log-probability if that is wanted: of the logit before adjustments.
DEVICE void report_token(const Sample& p, u32 row, const SampleRow& state, const SampleNormaliser& own, u32 token,
                         u64* partial) {
  if (thread_x() == 0) p.tokens[row] = static_cast<i32>(token);
  if (state.logprob_count < 0) return;
  u64 entry = NO_KEY;
  for (u32 i = thread_x(); i < state.list_count && entry == NO_KEY; i += SAMPLE_THREADS) {
    if (static_cast<u32>(p.list_tokens[state.list_begin + i]) == token) entry = state.list_begin + i;
  }
  entry = block_least(entry, partial);
  if (thread_x() != 0) return;
  const float logit = entry == NO_KEY ? p.logits.data[row * p.logits.stride + token] : p.list_originals[entry];
  p.logprobs[row] = logprob_of(own, logit);
}

// The first of `count` keys after `last`, of those that are this thread's.
DEVICE u64 next_among(const u64* keys, u32 count, u64 last, bool any) {
  u64 next = NO_KEY;
  for (u32 i = thread_x(); i < count; i += SAMPLE_THREADS) {
    const u64 key = keys[i];
    if ((any || key > last) && key < next) next = key;
  }
  return next;
}

// The model's own distribution from its parts, and its most likely tokens. Thread 0 alone gets the result.
DEVICE SampleNormaliser report_own(const Sample& p, u32 row, u32 count, u64* partial) {
  const u64 at = static_cast<u64>(row) * p.parts;
  const SampleShare* shares = p.part_shares + at;
  u64 greatest = NO_KEY;
  for (u32 i = thread_x(); i < p.parts; i += SAMPLE_THREADS) {
    const u64 key = key_of(shares[i].largest, 0, p.id_bits);
    greatest = key < greatest ? key : greatest;
  }
  SampleNormaliser own = {0.0, logit_of(block_least(greatest, partial), p.id_bits), 0};
  u64 mass = 0;
  for (u32 i = thread_x(); i < p.parts; i += SAMPLE_THREADS) {
    const float scale = exp_f32(distance_of(shares[i].largest, own.largest, 1.0f));
    mass += static_cast<u64>(static_cast<double>(shares[i].mass) * scale);
  }
  mass = block_total(mass, partial);
  if (thread_x() == 0 && mass != 0) own.log_sum = log_f64(static_cast<double>(mass) * 5.6843418860808015e-14);

  const u64* keys = p.part_tops + at * p.top_count_max;
  u64 next = next_among(keys, p.parts * count, 0, true);
  for (u32 i = 0; i < count; i++) {
    const u64 best = block_least(next, partial);
    if (best == NO_KEY) break;
    if (thread_x() == 0) {
      p.top_tokens[row * p.top_tokens_stride + i] = static_cast<i32>(id_of(best, p.id_bits));
      p.top_logprobs[row * p.top_logprobs_stride + i] = logprob_of(own, logit_of(best, p.id_bits));
    }
    if (next == best) next = next_among(keys, p.parts * count, best, false);
  }
  return own;
}
