//! Matrix product over panels (`packed.zig`) on the tile unit of processors that have AMX: 16 tokens times 16 rows
//! at a time. The integers are the same exact sums as in `matmul_packed.zig` and meet the same f32 operations in
//! the same order, so a token's bits do not tell which of the two computed it.

const std = @import("std");
const builtin = @import("builtin");
const activations = @import("activations.zig");
const layouts = @import("packed.zig");
const math = @import("math.zig");
const matmul = @import("matmul.zig");
const simd = @import("simd.zig");

const F32 = simd.F32;
const I32 = simd.I32;
const Layout = layouts.Layout;
const Record = activations.Record;

/// Tokens of a tile; only full ones come here.
pub const tile_tokens = 16;

/// Set when the system has let this process use the tile registers.
var permitted: bool = false;

/// Asks Linux for the tile registers; to be called before the threads of a device start. Elsewhere, and when the
/// system refuses, products take the other way.
pub fn askPermission() void {
    if (!simd.has_amx or builtin.os.tag != .linux) return;
    const request_permission = 0x1023;
    const tile_data = 18;
    permitted = std.os.linux.syscall2(.arch_prctl, request_permission, tile_data) == 0;
}

pub fn available() bool {
    return simd.has_amx and permitted;
}

/// Bytes of scratch for one panel with rows of k elements, unpacked.
pub fn scratchBytes(k: usize) usize {
    return k / layouts.slab_elements * @sizeOf(Slab);
}

/// A slab as the tile unit and the scaling want it.
const Slab = struct {
    /// `[8][16 rows][4]` signed integers, the format's offset taken away.
    q: [layouts.slab_registers]simd.I8,
    scale: [2]F32,
    min: [2]F32,
};

/// Unpacks a panel into `scratch`.
pub fn unpack(comptime l: Layout, panel: [*]const u8, k: usize, scratch: []align(64) u8) [*]const Slab {
    const slabs: [*]Slab = @ptrCast(scratch.ptr);
    var span = panel;
    var index: usize = 0;
    while (index < k / layouts.slab_elements) : (span += comptime l.spanBytes()) {
        const head = layouts.header(l, span);
        var slab = span + comptime l.headerBytes();
        for (0..comptime l.slabsPerSpan()) |_| {
            const out = &slabs[index];
            inline for (0..layouts.slab_registers) |j| {
                const offset: simd.U8 = @splat(@intCast(l.offset));
                out.q[j] = @bitCast(layouts.integers(l, slab, j) -% offset);
            }
            inline for (0..comptime l.subs()) |sub| {
                const scale = layouts.scaleOf(l, head, slab, sub);
                out.scale[sub] = scale.scale;
                if (l.has_min) out.min[sub] = scale.min;
            }
            slab += comptime l.slabBytes();
            index += 1;
        }
    }
    return slabs;
}

/// Shapes of the eight tile registers (Intel's programming reference, "TILECFG").
const Configuration = extern struct {
    palette: u8 = 1,
    start_row: u8 = 0,
    reserved: [14]u8 = @splat(0),
    row_bytes: [16]u16 = @splat(0),
    rows: [16]u8 = @splat(0),

    /// 0, 1: sums; 2, 3: high and low bytes of x; 4: weights.
    fn of(comptime l: Layout) Configuration {
        var configuration: Configuration = .{};
        for (0..2) |tile| {
            configuration.row_bytes[tile] = 64;
            configuration.rows[tile] = tile_tokens;
            configuration.row_bytes[2 + tile] = l.sub;
            configuration.rows[2 + tile] = tile_tokens;
        }
        configuration.row_bytes[4] = 64;
        configuration.rows[4] = l.sub / 4;
        return configuration;
    }

    comptime {
        std.debug.assert(@sizeOf(Configuration) == 64);
    }
};

/// To be called by a thread before it multiplies, and `release` after: the registers cost every switch of threads.
pub fn configure(comptime l: Layout) void {
    const configuration = comptime Configuration.of(l);
    asm volatile ("ldtilecfg (%[p])"
        :
        : [p] "r" (&configuration),
        : .{ .memory = true });
}

pub fn release() void {
    asm volatile ("tilerelease");
}

/// One panel times the 16 tokens from `token` on, a multiple of 16.
pub fn multiply(comptime l: Layout, a: *const matmul.Arguments, segment: *const matmul.Segment, slabs: [*]const Slab, row: usize, token: usize) void {
    @setEvalBranchQuota(100_000);
    var acc: [tile_tokens]F32 = @splat(@splat(0));
    // Two sets of sums, so that one is scaled while the next is computed.
    var sums: [2][2][tile_tokens]I32 = undefined;
    var records: [*]const Record = a.x_blocks.first(token);
    for (0..a.k / layouts.slab_elements) |index| {
        const slab = &slabs[index];
        inline for (0..comptime l.subs()) |sub| {
            const set = &sums[if (l.subs() == 2) sub else index % 2];
            products(&records[0].high[sub * 16], &records[0].low[sub * 16], &slab.q[sub * 4], set);
            inline for (0..tile_tokens) |t| {
                const record = &records[t];
                const sum: F32 = @floatFromInt((set[0][t] << @splat(7)) + set[1][t]);
                acc[t] = math.mulAdd(sum, slab.scale[sub] * @as(F32, @splat(record.scale)), acc[t]);
                if (l.has_min) {
                    const total: F32 = @splat(if (comptime l.subs() == 1) record.total else record.half_totals[sub]);
                    acc[t] = math.mulAdd(slab.min[sub], total, acc[t]);
                }
            }
        }
        records += tile_tokens;
    }
    inline for (0..tile_tokens) |t| matmul.storeLanes(a, segment, row, token + t, acc[t]);
}

/// Exact sums of 16 tokens times 16 rows, high and low bytes apart.
inline fn products(high: *const i8, low: *const i8, weights: *const simd.I8, sums: *[2][tile_tokens]I32) void {
    asm volatile (
        \\tileloadd (%[high],%[stride],1), %%tmm2
        \\tileloadd (%[low],%[stride],1), %%tmm3
        \\tileloadd (%[weights],%[line],1), %%tmm4
        \\tilezero %%tmm0
        \\tilezero %%tmm1
        \\tdpbssd %%tmm4, %%tmm2, %%tmm0
        \\tdpbssd %%tmm4, %%tmm3, %%tmm1
        \\tilestored %%tmm0, (%[first],%[line],1)
        \\tilestored %%tmm1, (%[second],%[line],1)
        :
        : [high] "r" (high),
          [low] "r" (low),
          [weights] "r" (weights),
          [first] "r" (&sums[0]),
          [second] "r" (&sums[1]),
          [stride] "r" (@as(usize, @sizeOf(Record))),
          [line] "r" (@as(usize, 64)),
        : .{ .memory = true });
}
