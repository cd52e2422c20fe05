// 8-bit floats of the KV cache: E4M3 in the form without infinities, `s eeee mmm` with a bias of 7; 0x7f and 0xff are
// NaN, the largest number is 448. By the conversions of Ada and Hopper, and before them by integers.
#pragma once

#include "device.cuh"

// The bytes `low` and `high` of a word, two 8-bit floats, as a pair of halves: exactly.
template <u32 low, u32 high>
DEVICE u32 widen_float8(u32 word) {
#if CUDA_ARCH >= 89
  return convert_float8(select_bytes(word, 0, 0x4400 | high << 4 | low));
#else
  const u32 spread = select_bytes(word, 0, high << 12 | 0x400 | low << 4 | 4);
  // The place of every bit in a half: an exponent that is 8 short.
  const u32 placed = (spread & 0x80008000u) | (spread >> 1 & 0x3f803f80u);
  const u32 halves = multiply_halves(placed, 0x5c005c00u);
  // The one pattern of all ones carries into the sign, and becomes the exponent of a NaN.
  const u32 none = ((spread & 0x7f007f00u) + 0x01000100u) & 0x80008000u;
  return halves | (none - (none >> 5));
#endif
}

// Rounded to nearest even; what is beyond 448 becomes 448 of its sign, NaN 0x7f.
DEVICE u8 narrow_float8(float value) {
#if CUDA_ARCH >= 89
  return convert_to_float8(value);
#else
  const u32 bits = bits_of(value), magnitude = bits & 0x7fffffffu, sign = bits >> 24 & 0x80;
  if (magnitude > 0x7f800000u) return 0x7f;
  if (magnitude < 121u << 23) {
    // Below 2^-6 the last place is 2^-9: that of a float at 2^14, to which a sum rounds.
    return static_cast<u8>(sign | (bits_of(float_of(magnitude) + 16384.0f) - bits_of(16384.0f)));
  }
  const u32 rounded = ((magnitude + 0x7ffff + (magnitude >> 20 & 1)) >> 20) - (120 << 3);
  return static_cast<u8>(sign | (rounded < 0x7e ? rounded : 0x7e));
#endif
}
