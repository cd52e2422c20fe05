// exp, tanh, erf, sine and cosine in our own words: clang has no CUDA maths library, and both compilers and the
// emulator should agree. Range reductions and polynomials are those of `kernels/cpu/math.zig`.
#pragma once

#include "device.cuh"

DEVICE float power_of_two(i32 exponent) { return float_of(static_cast<u32>(exponent + 127) << 23); }

// e^x to about 1 ulp: gradual underflow, infinity above 88.73, NaN for NaN.
DEVICE float exp_f32(float x) {
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits of the sum.
  const float magic = 12582912.0f;
  float v = x < -104.0f ? -104.0f : x;
  v = v > 89.0f ? 89.0f : v;
  const float shifted = fused_multiply_add(v, 1.44269504088896341f, magic);
  const float n = shifted - magic;
  const i32 exponent = static_cast<i32>(bits_of(shifted) - bits_of(magic));
  float r = fused_multiply_add(n, -0.693359375f, v);
  r = fused_multiply_add(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = fused_multiply_add(p, r, 1.3981999507e-3f);
  p = fused_multiply_add(p, r, 8.3334519073e-3f);
  p = fused_multiply_add(p, r, 4.1665795894e-2f);
  p = fused_multiply_add(p, r, 1.6666665459e-1f);
  p = fused_multiply_add(p, r, 5.0000001201e-1f);
  p = fused_multiply_add(p, r * r, r) + 1.0f;
  // 2^n in two factors, so that results below the normal range are reached gradually.
  const i32 low = exponent >> 1;
  return p * power_of_two(low) * power_of_two(exponent - low);
}

// tanh to about 2 ulp.
DEVICE float tanh_f32(float x) {
  const float magnitude = x < 0.0f ? -x : x;
  const float z = x * x;
  float p = -5.70498872745e-3f;
  p = fused_multiply_add(p, z, 2.06390887954e-2f);
  p = fused_multiply_add(p, z, -5.37397155531e-2f);
  p = fused_multiply_add(p, z, 1.33314422036e-1f);
  p = fused_multiply_add(p, z, -3.33332819422e-1f);
  const float near = fused_multiply_add(p * z, x, x);
  const float far = 1.0f - 2.0f / (exp_f32(magnitude + magnitude) + 1.0f);
  return magnitude < 0.625f ? near : (x < 0.0f ? -far : far);
}

// Sine and cosine of an angle, both exact to f32 for magnitudes below 2^30. Series in f64 around the nearest
// multiple of pi / 2.
DEVICE void sine_cosine(double angle, float& sine, float& cosine) {
  const double quarters = round_to_integer(angle * 0.63661977236758134308);
  double r = fused_multiply_add(quarters, -1.5707963267341256142, angle);
  r = fused_multiply_add(quarters, -6.0771005065061922e-11, r);
  const double z = r * r;
  double s = -1.0 / 1307674368000.0;
  s = fused_multiply_add(s, z, 1.0 / 6227020800.0);
  s = fused_multiply_add(s, z, -1.0 / 39916800.0);
  s = fused_multiply_add(s, z, 1.0 / 362880.0);
  s = fused_multiply_add(s, z, -1.0 / 5040.0);
  s = fused_multiply_add(s, z, 1.0 / 120.0);
  s = fused_multiply_add(s, z, -1.0 / 6.0);
  const double sine_r = fused_multiply_add(s * z, r, r);
  double c = -1.0 / 87178291200.0;
  c = fused_multiply_add(c, z, 1.0 / 479001600.0);
  c = fused_multiply_add(c, z, -1.0 / 3628800.0);
  c = fused_multiply_add(c, z, 1.0 / 40320.0);
  c = fused_multiply_add(c, z, -1.0 / 720.0);
  c = fused_multiply_add(c, z, 1.0 / 24.0);
  c = fused_multiply_add(c, z, -0.5);
  const double cosine_r = fused_multiply_add(c, z, 1.0);
  const i32 quadrant = static_cast<i32>(quarters) & 3;
  const double a = quadrant % 2 == 0 ? sine_r : cosine_r;
  const double b = quadrant % 2 == 0 ? cosine_r : sine_r;
  sine = static_cast<float>(quadrant >= 2 ? -a : a);
  cosine = static_cast<float>(quadrant == 1 || quadrant == 2 ? -b : b);
}

// erf: a polynomial in x^2 up to 1, beyond it 1 - e^(-x^2) times a polynomial in 1 / (1 + 0.4 x); both fitted to
// float64 values, with an error below 2e-7.
DEVICE float erf_f32(float x) {
  const float a = x < 0.0f ? -x : x;
  if (a < 1.0f) {
    const float z = x * x;
    float p = 7.882497448e-5f;
    p = fused_multiply_add(p, z, -8.018855006e-4f);
    p = fused_multiply_add(p, z, 5.189312156e-3f);
    p = fused_multiply_add(p, z, -2.685432881e-2f);
    p = fused_multiply_add(p, z, 1.128359735e-1f);
    p = fused_multiply_add(p, z, -3.761262596e-1f);
    p = fused_multiply_add(p, z, 1.128379107f);
    return p * x;
  }
  const float t = 1.0f / fused_multiply_add(a, 0.4f, 1.0f);
  float p = -1.1736234277e-1f;
  p = fused_multiply_add(p, t, 2.4659352005e-1f);
  p = fused_multiply_add(p, t, 4.9495631829e-3f);
  p = fused_multiply_add(p, t, 2.1498599648e-1f);
  p = fused_multiply_add(p, t, 1.9814318419e-1f);
  p = fused_multiply_add(p, t, 2.2681093216e-1f);
  p = fused_multiply_add(p, t, 2.2561576962e-1f);
  p = fused_multiply_add(p, t, 4.1450940e-7f);
  const float tail = a > 10.0f ? 0.0f : exp_f32(-a * a) * p;
  return x < 0.0f ? tail - 1.0f : 1.0f - tail;
}
