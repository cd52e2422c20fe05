// paged_attention: three kernels. `attend_spans` for few rows and many keys, `attend_tiles` for many rows, both for
// each type of cache and for heads of up to 64, 128 and 256 dimensions; `attend_merge` for sequences whose keys
// were spread over blocks. The lowering in `attention.zig` chooses by the same table.
#include "attention_float8.cuh"
#include "attention_spans.cuh"
#include "attention_tiles.cuh"

typedef TensorCores<Halves> CoresF16;
typedef PlainCores<Singles> CoresF32;
#if CUDA_ARCH >= 80
typedef TensorCores<Brains> CoresBF16;
#else
typedef PlainCores<PlainBrains> CoresBF16;
#endif

// Strips of 64 keys where they fit: there are fewer of them to fold.
#define ATTENTION(type, Cores, dims, strip, spans, tiles)                                                      \
  KERNEL(attend_spans_##type##_##dims, PagedAttention, 128, spans) { attend_spans<Cores, dims, strip>(p); }    \
  KERNEL(attend_tiles_##type##_##dims, PagedAttention, 128, tiles) { attend_tiles<Cores, dims, strip>(p); }

ATTENTION(f16, CoresF16, 64, 64, 3, 2)
ATTENTION(f16, CoresF16, 128, 64, 3, 2)
ATTENTION(f16, CoresF16, 256, 32, 2, 2)
ATTENTION(bf16, CoresBF16, 64, 64, 3, 3)
ATTENTION(bf16, CoresBF16, 128, 64, 3, 2)
ATTENTION(bf16, CoresBF16, 256, 32, 2, 2)
ATTENTION(f8e4m3, Float8Cores, 64, 64, 3, 2)
ATTENTION(f8e4m3, Float8Cores, 128, 64, 3, 2)
ATTENTION(f8e4m3, Float8Cores, 256, 32, 2, 2)
ATTENTION(f32, CoresF32, 64, 32, 4, 3)
ATTENTION(f32, CoresF32, 128, 32, 3, 2)
ATTENTION(f32, CoresF32, 256, 32, 2, 2)

KERNEL(attend_merge, PagedAttention, 128, 4) { merge_partials(p); }
