// kv_write: keys and values of the step's tokens to their slots of the caches
// `[blocks, kv_heads, block_size, head_dim]`. Grid (rows); a thread takes every block_threads-th element.
#include "cache.h"

#include "device.cuh"
#include "float8.cuh"

struct CacheF32 {
  typedef float Element;
  static DEVICE float narrow(float value) { return value; }
};

struct CacheF16 {
  typedef u16 Element;
  static DEVICE u16 narrow(float value) { return float_to_half(value); }
};

struct CacheBF16 {
  typedef u16 Element;
  // By integers: the conversion instruction is missing before Ampere. A NaN stays one when its low bits go.
  static DEVICE u16 narrow(float value) {
    const u32 bits = bits_of(value);
    if (value != value) return static_cast<u16>(bits >> 16 | 0x40);
    return static_cast<u16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
};

struct CacheF8E4M3 {
  typedef u8 Element;
  static DEVICE u8 narrow(float value) { return narrow_float8(value); }
};

template <typename Cache>
DEVICE void kv_write(const KvWrite& p) {
  const u32 row = block_x();
  if (row >= rows_of(p.rows)) return;
  const i32 slot = p.slots[row];
  if (slot == -1) return;
  if (slot < 0 || static_cast<u64>(slot) >= static_cast<u64>(p.blocks) * p.block_size) {
    if (thread_x() == 0) report_fault(p.rows.step, p.op, FAULT_SLOT);
    return;
  }
  const u64 block = static_cast<u32>(slot) / p.block_size;
  const u32 offset = static_cast<u32>(slot) % p.block_size;
  const float* k = p.k.data + row * p.k.stride;
  const float* v = p.v.data + row * p.v.stride;
  typename Cache::Element* k_cache = reinterpret_cast<typename Cache::Element*>(p.k_cache);
  typename Cache::Element* v_cache = reinterpret_cast<typename Cache::Element*>(p.v_cache);
  for (u32 i = thread_x(); i < p.kv_heads * p.head_dim; i += block_threads()) {
    const u32 head = i / p.head_dim;
    const u64 at = ((block * p.kv_heads + head) * p.block_size + offset) * p.head_dim + i % p.head_dim;
    k_cache[at] = Cache::narrow(k[i]);
    v_cache[at] = Cache::narrow(v[i]);
  }
}

KERNEL(kv_write_f32, KvWrite, 256, 1) { kv_write<CacheF32>(p); }
KERNEL(kv_write_f16, KvWrite, 256, 1) { kv_write<CacheF16>(p); }
KERNEL(kv_write_bf16, KvWrite, 256, 1) { kv_write<CacheBF16>(p); }
KERNEL(kv_write_f8e4m3, KvWrite, 256, 1) { kv_write<CacheF8E4M3>(p); }
