//! Matrix product over weights re-laid in panels (`packed.zig`): 16 rows times up to eight tokens at a time.

const std = @import("std");
const activations = @import("activations.zig");
const amx = @import("matmul_amx.zig");
const layouts = @import("packed.zig");
const math = @import("math.zig");
const matmul = @import("matmul.zig");
const ops = @import("../abi/ops.gen.zig");
const simd = @import("simd.zig");

const F32 = simd.F32;
const I32 = simd.I32;
const Layout = layouts.Layout;
const Record = activations.Record;

/// Tokens in registers at once; narrower machines have fewer and smaller registers.
const register_tokens = if (simd.has_avx512) 8 else 2;

/// Bytes of activations that should stay in the second-level cache while several panels use them.
const resident_bytes = 768 << 10;

/// Rows `first .. end` of a segment, `first` a multiple of 16, all tokens.
pub fn run(a: *const matmul.Arguments, segment: *const matmul.Segment, panels: [*]const u8, first: usize, end: usize, scratch: []align(64) u8) void {
    switch (segment.dtype) {
        inline .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .q2_k, .q3_k, .q4_k, .q5_k, .q6_k => |dtype| {
            const l = comptime Layout.of(dtype);
            const panel_bytes = layouts.panelBytes(dtype, a.k);
            const with_tiles = amx.available() and a.tokens >= amx.tile_tokens;
            if (with_tiles) amx.configure(l);
            defer if (with_tiles) amx.release();
            const block_tokens = residentTokens(a);
            var block: usize = 0;
            while (block < a.tokens) : (block += block_tokens) {
                const block_end = @min(a.tokens, block + block_tokens);
                var row = first;
                while (row < end) : (row += layouts.panel_rows) {
                    const panel = panels + row / layouts.panel_rows * panel_bytes;
                    var token = block;
                    if (with_tiles) {
                        const slabs = amx.unpack(l, panel, a.k, scratch);
                        while (token + amx.tile_tokens <= block_end) : (token += amx.tile_tokens) amx.multiply(l, a, segment, slabs, row, token);
                    }
                    while (token < block_end) : (token += activations.tile_tokens) runTile(l, a, segment, panel, row, token);
                }
            }
        },
        else => unreachable,
    }
}

/// Tokens, in whole tiles, whose activations stay in the cache while several panels use them.
fn residentTokens(a: *const matmul.Arguments) usize {
    const tile_bytes = activations.tile_tokens * a.x_blocks.blocks * @sizeOf(Record);
    return @max(1, resident_bytes / tile_bytes) * activations.tile_tokens;
}

fn runTile(comptime l: Layout, a: *const matmul.Arguments, segment: *const matmul.Segment, panel: [*]const u8, row: usize, token: usize) void {
    const size = a.x_blocks.tileSize(token);
    var done: usize = 0;
    while (done < size) : (done += register_tokens) {
        switch (@min(register_tokens, size - done)) {
            inline 1...register_tokens => |tokens| multiply(l, tokens, a, segment, panel, row, token + done, size),
            else => unreachable,
        }
    }
}

/// `stride`: records from one block to the next.
fn multiply(
    comptime l: Layout,
    comptime tokens: usize,
    a: *const matmul.Arguments,
    segment: *const matmul.Segment,
    panel: [*]const u8,
    row: usize,
    token: usize,
    stride: usize,
) void {
    @setEvalBranchQuota(100_000);
    var acc: [tokens]F32 = @splat(@splat(0));
    var records: [*]const Record = a.x_blocks.first(token);
    var span = panel;
    for (0..a.k / (l.slabsPerSpan() * layouts.slab_elements)) |_| {
        const head = layouts.header(l, span);
        var slab = span + l.headerBytes();
        for (0..l.slabsPerSpan()) |_| {
            // Single tokens are bound by memory: ask for what comes next.
            if (tokens <= 2) inline for (0..comptime l.slabBytes() / 64) |line| @prefetch(slab + 4096 + 64 * line, .{ .locality = 3 });
            inline for (0..comptime l.subs()) |sub| addPart(l, tokens, layouts.scaleOf(l, head, slab, sub), slab, sub, records, &acc);
            slab += l.slabBytes();
            records += stride;
        }
        span += l.spanBytes();
    }
    inline for (0..tokens) |t| matmul.storeLanes(a, segment, row, token + t, acc[t]);
}

/// Adds the products of one scale's elements: the whole slab, or half of it.
inline fn addPart(
    comptime l: Layout,
    comptime tokens: usize,
    scale: layouts.Scale,
    slab: [*]const u8,
    comptime sub: usize,
    records: [*]const Record,
    acc: *[tokens]F32,
) void {
    const registers = comptime layouts.slab_registers / l.subs();
    var high: [tokens]I32 = @splat(@splat(0));
    var low: [tokens]I32 = undefined;
    inline for (0..tokens) |t| {
        const record = &records[t];
        const total = if (comptime l.subs() == 1) record.sum else record.half_sums[sub];
        low[t] = @splat(if (l.offset == 0 or comptime signedBytes(l)) 0 else total * -l.offset);
    }
    inline for (sub * registers..(sub + 1) * registers) |j| {
        const q = layouts.integers(l, slab, j);
        inline for (0..tokens) |t| {
            high[t] = product(l, high[t], q, broadcast(&records[t].high, j));
            low[t] = product(l, low[t], q, broadcast(&records[t].low, j));
        }
    }
    inline for (0..tokens) |t| {
        const record = &records[t];
        const sum: F32 = @floatFromInt((high[t] << @splat(7)) + low[t]);
        acc[t] = math.mulAdd(sum, scale.scale * @as(F32, @splat(record.scale)), acc[t]);
        if (l.has_min) {
            const total: F32 = @splat(if (comptime l.subs() == 1) record.total else record.half_totals[sub]);
            acc[t] = math.mulAdd(scale.min, total, acc[t]);
        }
    }
}

/// Bytes above what the unsigned dot product takes go through the signed one, their offset removed.
fn signedBytes(comptime l: Layout) bool {
    return l.offset > simd.dot_unsigned_max;
}

inline fn product(comptime l: Layout, sum: I32, q: simd.U8, x: simd.I8) I32 {
    if (comptime signedBytes(l)) return simd.dotSigned(sum, @bitCast(q ^ @as(simd.U8, @splat(128))), x);
    return simd.dot(sum, q, x);
}

/// Elements 4j .. 4j + 3 in every lane.
inline fn broadcast(bytes: *const [32]i8, comptime j: usize) simd.I8 {
    const four: i32 = @bitCast(bytes[4 * j ..][0..4].*);
    return @bitCast(@as(I32, @splat(four)));
}
