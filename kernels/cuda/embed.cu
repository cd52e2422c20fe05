// embed: rows of the token table, widened to f32. One block per row and 1024 elements: grid (rows, chunks).
#include "embed.h"

#include "dequantise.cuh"

static constexpr u32 CHUNK = 1024;
static constexpr u32 THREADS = 128;

// The table row of this block; null when its id is wrong.
DEVICE const u8* table_row(const Embed& p, u32 row) {
  const i32 id = p.ids[row];
  if (id < 0 || static_cast<u32>(id) >= p.vocabulary) {
    if (thread_x() == 0) report_fault(p.rows.step, p.op, FAULT_TOKEN_ID);
    return nullptr;
  }
  return p.table + static_cast<u64>(id) * p.row_bytes;
}

template <typename Format>
DEVICE void embed_plain(const Embed& p) {
  const u32 row = block_x();
  if (row >= rows_of(p.rows)) return;
  const u8* source = table_row(p, row);
  if (source == nullptr) return;
  float* out = p.out.data + row * p.out.stride;
  const u32 end = block_y() * CHUNK + CHUNK < p.width ? block_y() * CHUNK + CHUNK : p.width;
  for (u32 i = block_y() * CHUNK + thread_x(); i < end; i += THREADS)
    out[i] = Format::value(source + static_cast<u64>(i) * Format::BLOCK_BYTES) * p.scale;
}

// A thread decodes eight elements.
template <typename Format>
DEVICE void embed_blocks(const Embed& p) {
  const u32 row = block_x();
  if (row >= rows_of(p.rows)) return;
  const u8* source = table_row(p, row);
  if (source == nullptr) return;
  const u32 first = block_y() * CHUNK + thread_x() * 8;
  if (first >= p.width) return;
  const u8* block = source + static_cast<u64>(first / Format::BLOCK_ELEMENTS) * Format::BLOCK_BYTES;
  const Octet octet = Format::octet(block, first % Format::BLOCK_ELEMENTS / 8);
  float* out = p.out.data + row * p.out.stride + first;
#pragma unroll
  for (u32 i = 0; i < 8; i++) {
    const float value = octet.scale * static_cast<float>(level_at(octet.levels, i)) + octet.minimum;
    out[i] = value * p.scale;
  }
}

#define PLAIN(name, Format) \
  KERNEL(embed_##name, Embed, THREADS, 1) { embed_plain<Format>(p); }
#define BLOCKS(name, Format) \
  KERNEL(embed_##name, Embed, THREADS, 1) { embed_blocks<Format>(p); }

FOR_EACH_PLAIN_FORMAT(PLAIN)
FOR_EACH_BLOCK_FORMAT(BLOCKS)
