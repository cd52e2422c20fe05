// rms_norm: one block per norm, grid (rows, groups). The order of the sum depends on the width alone.
#include "norm.h"

#include "device.cuh"

DEVICE float norm_value(const RmsNorm& p, float x, float inverse, float weight) {
  return x * inverse * (weight + p.weight_offset);
}

KERNEL(rms_norm, RmsNorm, 1024, 1) {
  const u32 row = block_x();
  if (row >= rows_of(p.rows)) return;
  SHARED(float, partial, [32]);
  const u64 at = static_cast<u64>(block_y()) * p.width;
  const float* x = p.x.data + row * p.x.stride + at;
  float* out = p.out.data + row * p.out.stride + at;
  const float* residual = p.residual.data == nullptr ? nullptr : p.residual.data + row * p.residual.stride + at;
  const u32 t = thread_x();
  const u32 step = block_threads();

  float squares = 0.0f;
  if (p.vectors != 0) {
    const Float4* quads = reinterpret_cast<const Float4*>(x);
    for (u32 i = t; i < p.width / 4; i += step) {
      const Float4 v = quads[i];
      squares = fused_multiply_add(v.x, v.x, squares);
      squares = fused_multiply_add(v.y, v.y, squares);
      squares = fused_multiply_add(v.z, v.z, squares);
      squares = fused_multiply_add(v.w, v.w, squares);
    }
  } else {
    for (u32 i = t; i < p.width; i += step) squares = fused_multiply_add(x[i], x[i], squares);
  }
  const float total = block_sum(squares, partial);
  const float inverse = 1.0f / square_root(total / static_cast<float>(p.width) + p.epsilon);

  // Every thread reads what it writes, and nothing else: out may be x or the residual.
  if (p.vectors != 0) {
    for (u32 i = t; i < p.width / 4; i += step) {
      const Float4 v = reinterpret_cast<const Float4*>(x)[i];
      const Float4 w = reinterpret_cast<const Float4*>(p.weight)[i];
      Float4 result = {norm_value(p, v.x, inverse, w.x), norm_value(p, v.y, inverse, w.y),
                       norm_value(p, v.z, inverse, w.z), norm_value(p, v.w, inverse, w.w)};
      if (residual != nullptr) {
        const Float4 r = reinterpret_cast<const Float4*>(residual)[i];
        result = {result.x + r.x, result.y + r.y, result.z + r.z, result.w + r.w};
      }
      reinterpret_cast<Float4*>(out)[i] = result;
    }
  } else {
    for (u32 i = t; i < p.width; i += step) {
      const float result = norm_value(p, x[i], inverse, p.weight[i]);
      out[i] = residual == nullptr ? result : result + residual[i];
    }
  }
}
