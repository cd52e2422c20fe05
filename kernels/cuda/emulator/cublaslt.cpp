// The part of cuBLASLt that the host library calls, over the emulator's memory and streams; the library and the
// driver are one file here. It multiplies in plain loops and refuses what NVIDIA's manual says is refused: types that
// do not go together, shapes that do not fit, addresses and strides less aligned than was promised, too little
// workspace. As the real one it has different algorithms for different numbers of columns: wide products are summed in
// two halves by way of the workspace, so their bits differ from those of the same column among fewer.
#include <stdlib.h>
#include <string.h>

#include "block.h"
#include "memory.h"
#include "stream.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

typedef int Status;
enum : Status {
  SUCCESS = 0,
  NOT_INITIALIZED = 1,
  ALLOC_FAILED = 3,
  INVALID_VALUE = 7,
  EXECUTION_FAILED = 13,
  NOT_SUPPORTED = 15,
};

namespace {

enum Type { F32 = 0, F16 = 2, BF16 = 14 };
enum Compute { COMPUTE_32F = 68, COMPUTE_TF32 = 77 };

// Wider products than this are summed in halves.
constexpr u64 WHOLE_COLUMNS_MAX = 96;
constexpr u64 WORKSPACE_ALIGNMENT = 256;
constexpr u64 CHOICE_MARK = 0x6d697374;

struct Handle {
  u32 mark;
};

struct Descriptor {
  int compute, scale;
  int transposed[2];
};

struct Layout {
  u32 type, order;
  u64 rows, columns;
  long long stride;
};

struct Preference {
  u64 workspace_bytes;
  u32 alignments[4];
};

struct Choice {
  u64 mark, halves, m, n, k, types, workspace_bytes, alignment;
};

struct Candidate {
  Choice choice;
  u64 workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(Candidate) == 96, "the struct of cublasLt.h");

struct View {
  u64 address;
  u64 stride;
};

struct Product {
  u32 type;
  bool tf32, halves;
  u64 m, n, k;
  View a, b, c, d;
  float alpha, beta;
  float* workspace;
};

u64 width_of(u32 type) { return type == F32 ? 4 : 2; }

float round_tf32(float value) {
  const u32 bits = __builtin_bit_cast(u32, value);
  return __builtin_bit_cast(float, (bits + 0xfff + (bits >> 13 & 1)) & 0xffffe000u);
}

float load(const Product& p, const View& matrix, u64 column, u64 row) {
  const u64 address = matrix.address + (column * matrix.stride + row) * width_of(p.type);
  if (p.type == F32) {
    const float value = *reinterpret_cast<const float*>(address);
    return p.tf32 ? round_tf32(value) : value;
  }
  const u16 bits = *reinterpret_cast<const u16*>(address);
  if (p.type == BF16) return __builtin_bit_cast(float, static_cast<u32>(bits) << 16);
  return static_cast<float>(__builtin_bit_cast(_Float16, bits));
}

float sum(const Product& p, u64 i, u64 j, u64 from, u64 to) {
  float total = 0;
  for (u64 k = from; k < to; k++) total = __builtin_fmaf(load(p, p.a, i, k), load(p, p.b, j, k), total);
  return total;
}

bool run(const void* memory) {
  const Product& p = *static_cast<const Product*>(memory);
  if (p.halves)
    for (u64 j = 0; j < p.n; j++)
      for (u64 i = 0; i < p.m; i++) p.workspace[j * p.m + i] = sum(p, i, j, p.k / 2, p.k);
  for (u64 j = 0; j < p.n; j++) {
    for (u64 i = 0; i < p.m; i++) {
      float total = sum(p, i, j, 0, p.halves ? p.k / 2 : p.k);
      if (p.halves) total += p.workspace[j * p.m + i];
      total *= p.alpha;
      if (p.beta != 0) total += p.beta * reinterpret_cast<const float*>(p.c.address)[j * p.c.stride + i];
      reinterpret_cast<float*>(p.d.address)[j * p.d.stride + i] = total;
    }
  }
  return true;
}

// Whether the four layouts are those of a product that the library has, and its shape.
Status check(const Descriptor& descriptor, const Layout* const (&layouts)[4], Choice& choice) {
  const Layout &a = *layouts[0], &b = *layouts[1], &c = *layouts[2], &d = *layouts[3];
  for (const Layout* layout : layouts)
    if (layout->rows == 0 || layout->columns == 0 || layout->stride < static_cast<long long>(layout->rows)) return INVALID_VALUE;
  // This one knows the first matrix transposed and the second as it is, in the order of columns.
  if (descriptor.transposed[0] != 1 || descriptor.transposed[1] != 0) return NOT_SUPPORTED;
  if (a.rows != b.rows || c.rows != a.columns || c.columns != b.columns || d.rows != c.rows || d.columns != c.columns)
    return INVALID_VALUE;
  if (descriptor.scale != F32 || a.type != b.type || c.type != F32 || d.type != F32) return NOT_SUPPORTED;
  if (a.type != F32 && a.type != F16 && a.type != BF16) return NOT_SUPPORTED;
  if (descriptor.compute != COMPUTE_32F && !(descriptor.compute == COMPUTE_TF32 && a.type == F32)) return NOT_SUPPORTED;
  choice = {CHOICE_MARK, 0, d.rows, d.columns, a.rows, a.type | static_cast<u64>(descriptor.compute) << 32, 0, 0};
  return SUCCESS;
}

template <typename Object>
Status create(Object** out, const Object& value) {
  *out = static_cast<Object*>(malloc(sizeof(Object)));
  if (*out == nullptr) return ALLOC_FAILED;
  **out = value;
  return SUCCESS;
}

Status destroy(void* object) {
  free(object);
  return SUCCESS;
}

Status set(void* field, u64 bytes, const void* value, u64 value_bytes) {
  if (value == nullptr || value_bytes != bytes) return INVALID_VALUE;
  memcpy(field, value, bytes);
  return SUCCESS;
}

bool is_there(const View& matrix, const Layout& layout) {
  const u64 elements = (layout.columns - 1) * matrix.stride + layout.rows;
  return emulator::is_allocated(reinterpret_cast<const void*>(matrix.address), elements * width_of(layout.type));
}

}  // namespace

EXPORT u64 cublasLtGetVersion() { return 130000; }

EXPORT Status cublasLtCreate(Handle** handle) {
  if (!emulator::is_usable()) return NOT_INITIALIZED;
  return create(handle, {1});
}
EXPORT Status cublasLtDestroy(Handle* handle) { return destroy(handle); }

EXPORT Status cublasLtMatmulDescCreate(Descriptor** out, int compute, int scale) {
  return create(out, {compute, scale, {0, 0}});
}
EXPORT Status cublasLtMatmulDescDestroy(Descriptor* descriptor) { return destroy(descriptor); }
EXPORT Status cublasLtMatmulDescSetAttribute(Descriptor* descriptor, int attribute, const void* value, u64 bytes) {
  if (attribute != 3 && attribute != 4) return INVALID_VALUE;
  return set(&descriptor->transposed[attribute - 3], 4, value, bytes);
}

EXPORT Status cublasLtMatrixLayoutCreate(Layout** out, u32 type, u64 rows, u64 columns, long long stride) {
  return create(out, {type, 0, rows, columns, stride});
}
EXPORT Status cublasLtMatrixLayoutDestroy(Layout* layout) { return destroy(layout); }
EXPORT Status cublasLtMatrixLayoutSetAttribute(Layout* layout, int attribute, const void* value, u64 bytes) {
  switch (attribute) {
    case 0:
      return set(&layout->type, 4, value, bytes);
    case 2:
      return set(&layout->rows, 8, value, bytes);
    case 3:
      return set(&layout->columns, 8, value, bytes);
    case 4:
      return set(&layout->stride, 8, value, bytes);
    default:
      return INVALID_VALUE;
  }
}

EXPORT Status cublasLtMatmulPreferenceCreate(Preference** out) { return create(out, {0, {256, 256, 256, 256}}); }
EXPORT Status cublasLtMatmulPreferenceDestroy(Preference* preference) { return destroy(preference); }
EXPORT Status cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute, const void* value, u64 bytes) {
  if (attribute == 1) return set(&preference->workspace_bytes, 8, value, bytes);
  if (attribute >= 5 && attribute <= 8) return set(&preference->alignments[attribute - 5], 4, value, bytes);
  return INVALID_VALUE;
}

EXPORT Status cublasLtMatmulAlgoGetHeuristic(Handle* handle, Descriptor* descriptor, Layout* a, Layout* b, Layout* c,
                                             Layout* d, Preference* preference, int wanted, Candidate* out, int* count) {
  *count = 0;
  if (handle == nullptr || handle->mark != 1) return NOT_INITIALIZED;
  if (wanted < 1) return INVALID_VALUE;
  Choice choice;
  if (const Status status = check(*descriptor, {a, b, c, d}, choice)) return status;
  choice.alignment = 16;
  const Layout* const layouts[4] = {a, b, c, d};
  for (u32 i = 0; i < 4; i++) {
    if (preference->alignments[i] < choice.alignment) return NOT_SUPPORTED;
    if (static_cast<u64>(layouts[i]->stride) * width_of(layouts[i]->type) % choice.alignment != 0) return NOT_SUPPORTED;
  }
  const u64 workspace_bytes = choice.m * choice.n * sizeof(float);
  choice.halves = choice.n > WHOLE_COLUMNS_MAX && choice.k > 1 && workspace_bytes <= preference->workspace_bytes;
  choice.workspace_bytes = choice.halves ? workspace_bytes : 0;
  memset(out, 0, sizeof(Candidate));
  out->choice = choice;
  out->workspace_bytes = choice.workspace_bytes;
  out->waves = 1.0f;
  *count = 1;
  return SUCCESS;
}

EXPORT Status cublasLtMatmul(Handle* handle, Descriptor* descriptor, const float* alpha, u64 a, Layout* a_layout, u64 b,
                             Layout* b_layout, const float* beta, u64 c, Layout* c_layout, u64 d, Layout* d_layout,
                             const Choice* choice, u64 workspace, u64 workspace_bytes, void* stream) {
  if (handle == nullptr || handle->mark != 1 || !emulator::is_usable()) return NOT_INITIALIZED;
  Choice shape;
  if (const Status status = check(*descriptor, {a_layout, b_layout, c_layout, d_layout}, shape)) return status;
  if (choice == nullptr || choice->mark != CHOICE_MARK || choice->types != shape.types) return INVALID_VALUE;
  if (choice->m != shape.m || choice->n != shape.n || choice->k != shape.k) return NOT_SUPPORTED;
  if (workspace_bytes < choice->workspace_bytes || workspace % WORKSPACE_ALIGNMENT != 0) return INVALID_VALUE;
  if (choice->workspace_bytes > 0 && !emulator::is_allocated(reinterpret_cast<const void*>(workspace), workspace_bytes))
    return INVALID_VALUE;
  const auto matrix = [](u64 address, const Layout* layout) { return View{address, static_cast<u64>(layout->stride)}; };
  const Product product = {a_layout->type, descriptor->compute == COMPUTE_TF32, choice->halves != 0, shape.m, shape.n,
                           shape.k, matrix(a, a_layout), matrix(b, b_layout), matrix(c, c_layout), matrix(d, d_layout),
                           *alpha, *beta, reinterpret_cast<float*>(workspace)};
  const u64 addresses[] = {a, b, c, d};
  for (const u64 address : addresses)
    if (address == 0 || address % choice->alignment != 0) return INVALID_VALUE;
  if (c == d && c_layout->stride != d_layout->stride) return INVALID_VALUE;
  if (!is_there(product.a, *a_layout) || !is_there(product.b, *b_layout) || !is_there(product.d, *d_layout) ||
      (*beta != 0 && !is_there(product.c, *c_layout)))
    return EXECUTION_FAILED;
  return emulator::submit_call(stream, run, &product, sizeof product) == 0 ? SUCCESS : EXECUTION_FAILED;
}
