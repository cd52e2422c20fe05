// gated_mul, soft_cap and gather_rows: grid (rows, parts of the width), a thread per element.
#include "pointwise.h"

#include "math.cuh"

DEVICE u32 column() { return block_y() * block_threads() + thread_x(); }

struct Silu {
  static DEVICE float apply(float x) { return x / (1.0f + exp_f32(-x)); }
};

// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
struct GeluTanh {
  static DEVICE float apply(float x) {
    const float inner = 0.7978845608028654f * fused_multiply_add(0.044715f * x * x, x, x);
    return 0.5f * x * (1.0f + tanh_f32(inner));
  }
};

struct Gelu {
  static DEVICE float apply(float x) {
    const float half = 0.5f * x;
    return fused_multiply_add(half, erf_f32(x * 0.70710678118654752f), half);
  }
};

template <typename Activation>
DEVICE void gated_mul(const GatedMul& p) {
  const u32 row = block_x();
  const u32 i = column();
  if (row >= rows_of(p.rows) || i >= p.width) return;
  const float* gate = p.gate_up.data + row * p.gate_up.stride;
  p.out.data[row * p.out.stride + i] = Activation::apply(gate[i]) * gate[p.width + i];
}

KERNEL(gated_mul_silu, GatedMul, 256, 1) { gated_mul<Silu>(p); }
KERNEL(gated_mul_gelu_tanh, GatedMul, 256, 1) { gated_mul<GeluTanh>(p); }
KERNEL(gated_mul_gelu, GatedMul, 256, 1) { gated_mul<Gelu>(p); }

KERNEL(soft_cap, SoftCap, 256, 1) {
  const u32 row = block_x();
  const u32 i = column();
  if (row >= rows_of(p.rows) || i >= p.width) return;
  float& x = p.x.data[row * p.x.stride + i];
  x = p.cap * tanh_f32(x / p.cap);
}

KERNEL(gather_rows, GatherRows, 256, 1) {
  const u32 row = block_x();
  const u32 i = column();
  if (row >= rows_of(p.rows) || i >= p.width) return;
  const i32 index = p.indices[row];
  if (index < 0 || static_cast<u32>(index) >= rows_of(p.x_rows)) {
    if (i == 0) report_fault(p.rows.step, p.op, FAULT_ROW);
    return;
  }
  p.out.data[row * p.out.stride + i] = p.x.data[static_cast<u64>(index) * p.x.stride + i];
}
