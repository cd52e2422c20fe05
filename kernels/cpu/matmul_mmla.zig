//! The packed product of two and more tokens by the matrix instruction of aarch64 (FEAT_I8MM): `smmla` multiplies
//! two rows of eight bytes with two others, twice the products of `sdot`.
//!
//! A group of a panel, 256 elements of 16 rows, is unpacked once for all tokens of a tile, two rows and eight
//! elements to a register. The two rows of x beside them are the high and the low bytes of a token or, where no
//! token of the tile has low bytes, the high bytes of two. The sums are exact, like those of `matmul_packed.zig`, and
//! meet the same f32 operations in the same order, so a token's bits do not tell which of the two computed it.

const std = @import("std");
const activations = @import("activations.zig");
const layouts = @import("packed.zig");
const math = @import("math.zig");
const matmul = @import("matmul.zig");
const packed_panels = @import("matmul_packed.zig");
const simd = @import("simd.zig");

const F32 = simd.F32;
const I32 = simd.I32;
const Layout = layouts.Layout;
const Bytes = activations.Bytes;
const Record = activations.Record;
const group_slabs = layouts.group_slabs;
const tile_tokens = activations.tile_tokens;

/// `[2 rows][8 elements]`
const Rows = @Vector(16, i8);
/// `[2 rows of x][2 rows of weights]`
const Sums = @Vector(4, i32);

/// A single token has nothing to share the unpacking with.
pub const tokens_min = 2;

const row_pairs = layouts.panel_rows / 2;
/// Pairs of rows whose sums, of two pairs of rows of x, fit the registers beside those that they are added to.
const half_pairs = row_pairs / 2;

/// A group as the products and the scaling want it.
pub const Group = struct {
    /// By eight elements and pair of rows, offsets taken away.
    rows: [activations.group_elements / 8][row_pairs]Rows,
    /// Whole scales by part of a slab and pair of rows, in the places of the sums.
    scales: [2 * group_slabs][row_pairs]Sums,
    /// The unit in the first; or, for half float scales, one for each slab.
    scale: [group_slabs]F32,
    min: [2 * group_slabs]F32,

    /// `first` is the first of the group's slabs.
    pub fn unpack(group: *Group, comptime l: Layout, head: layouts.Header, first: [*]const u8, slabs: usize) void {
        @setEvalBranchQuota(100_000);
        if (l.whole()) group.scale[0] = packed_panels.unitOf(l, head);
        for (0..slabs) |index| {
            const slab = first + index * l.slabBytes();
            inline for (0..l.slabLines()) |line| @prefetch(slab + 4096 + 64 * line, .{ .locality = 3 });
            inline for (0..layouts.slab_registers / 2) |i| {
                const left = quads(l, slab, 2 * i);
                const right = quads(l, slab, 2 * i + 1);
                const rows = &group.rows[index * layouts.slab_registers / 2 + i];
                inline for (left, right, 0..) |x, y, quad| {
                    rows[2 * quad] = @bitCast(@shuffle(i32, x, y, [4]i32{ 0, -1, 1, -2 }));
                    rows[2 * quad + 1] = @bitCast(@shuffle(i32, x, y, [4]i32{ 2, -3, 3, -4 }));
                }
            }
            if (!l.whole()) group.scale[index] = layouts.halfScale(slab);
            inline for (0..l.subs()) |sub| {
                const part = index * l.subs() + sub;
                if (l.whole()) inline for (@as([4]Sums, @bitCast(layouts.wholeScale(l, slab, sub))), 0..) |scales, quad| {
                    group.scales[part][2 * quad] = @shuffle(i32, scales, undefined, [4]i32{ 0, 1, 0, 1 });
                    group.scales[part][2 * quad + 1] = @shuffle(i32, scales, undefined, [4]i32{ 2, 3, 2, 3 });
                };
                if (l.has_min) group.min[part] = layouts.minimum(l, head, slab, sub);
            }
        }
    }
};

/// A register of a slab, four bytes of four rows at a time.
inline fn quads(comptime l: Layout, slab: [*]const u8, comptime register: usize) [4]Sums {
    const offset: simd.U8 = @splat(@intCast(l.offset));
    return @bitCast(layouts.integers(l, slab, register) -% offset);
}

/// One panel times the tokens of the tile that begins at `token`.
pub fn runTile(comptime l: Layout, a: *const matmul.Arguments, segment: *const matmul.Segment, panel: [*]const u8, row: usize, token: usize) void {
    comptime std.debug.assert(l.scales != .wide);
    const size = a.x_groups.tileSize(token);
    var group: Group = undefined;
    var acc: [tile_tokens]F32 = @splat(@splat(0));
    var x = a.x_groups.first(token);
    var span = panel;
    var slabs = a.k / layouts.slab_elements;
    while (slabs > 0) {
        const head = layouts.header(l, span);
        span += l.headerBytes();
        const present = @min(slabs, group_slabs);
        group.unpack(l, head, span, present);
        switch (a.x_groups.bytesOf(x, size)) {
            inline else => |bytes| addGroup(l, bytes, &group, present, x, acc[0..size]),
        }
        span += present * l.slabBytes();
        slabs -= present;
        x = x.after(size);
    }
    for (acc[0..size], token..) |values, t| matmul.storeLanes(a, segment, row, t, values);
}

const XRow = [activations.group_elements]i8;
/// The two rows of x that one instruction takes.
const XRows = [2]*const XRow;

const no_row: XRow align(64) = @splat(0);

/// Two pairs of rows of x at a time, each of one token or of two.
fn addGroup(comptime l: Layout, comptime bytes: Bytes, group: *const Group, slabs: usize, x: activations.Group, acc: []F32) void {
    const tokens = if (bytes == .both) 2 else 4;
    var t: usize = 0;
    while (t < acc.len) : (t += tokens) {
        const end = @min(t + tokens, acc.len);
        var rows: [2]XRows = @splat(.{ &no_row, &no_row });
        for (x.integers[t..end], 0..) |*integers, i| {
            if (bytes == .both) rows[i] = .{ &integers.high, &integers.low } else rows[i / 2][i % 2] = &integers.high;
        }
        if (2 * (end - t) > tokens)
            addTokens(l, bytes, 2, group, slabs, &rows, x.records[t..end], acc[t..end])
        else
            addTokens(l, bytes, 1, group, slabs, rows[0..1], x.records[t..end], acc[t..end]);
    }
}

fn addTokens(comptime l: Layout, comptime bytes: Bytes, comptime pairs: usize, group: *const Group, slabs: usize, x: *const [pairs]XRows, records: []const Record, acc: []F32) void {
    if (l.whole()) {
        const sums = wholeSums(l.subs(), pairs, group, slabs, x);
        for (records, acc, 0..) |*record, *total, i| {
            if (l.has_min) for (0..slabs) |slab| addMinima(l, group, record, slab, total);
            const both = sumsOf(bytes, pairs, &sums, i);
            total.* = math.mulAdd(packed_panels.wholeSum(l, both.high, both.low), group.scale[0] * @as(F32, @splat(record.scale)), total.*);
        }
    } else for (0..slabs) |slab| {
        const sums = slabSums(pairs, group, slab, x);
        for (records, acc, 0..) |*record, *total, i| {
            const both = sumsOf(bytes, pairs, &sums, i);
            const sum: F32 = @floatFromInt(activations.joined(both.high, both.low));
            total.* = math.mulAdd(sum, group.scale[slab] * @as(F32, @splat(record.scale)), total.*);
            if (l.has_min) addMinima(l, group, record, slab, total);
        }
    }
}

inline fn addMinima(comptime l: Layout, group: *const Group, record: *const Record, slab: usize, total: *F32) void {
    inline for (0..l.subs()) |sub| {
        const sum: F32 = @splat(packed_panels.totalOf(l, record, slab, sub));
        total.* = math.mulAdd(group.min[slab * l.subs() + sub], sum, total.*);
    }
}

/// Sums of the 16 rows with each of two rows of x.
const PairSums = [2][layouts.panel_rows]i32;

/// Those of the high and of the low bytes of token i.
inline fn sumsOf(comptime bytes: Bytes, comptime pairs: usize, sums: *const [pairs]PairSums, i: usize) struct { high: I32, low: I32 } {
    if (bytes == .both) return .{ .high = sums[i][0], .low = sums[i][1] };
    return .{ .high = sums[i / 2][i % 2], .low = @splat(0) };
}

/// Over the slabs of a group, each part times its scale.
pub fn wholeSums(comptime subs: usize, comptime pairs: usize, group: *const Group, slabs: usize, x: *const [pairs]XRows) [pairs]PairSums {
    const part_elements = layouts.slab_elements / subs;
    var out: [pairs]PairSums = undefined;
    for (0..2) |half| {
        var totals: [pairs][half_pairs]Sums = @splat(@splat(@splat(0)));
        for (0..slabs) |slab| inline for (0..subs) |sub| {
            const part = slab * subs + sub;
            const sums = partSums(part_elements, pairs, group, half, part * part_elements, x);
            const scales = group.scales[part][half * half_pairs ..][0..half_pairs];
            inline for (&totals, sums) |*of_pair, own| inline for (of_pair, own, scales) |*total, sum, scale| {
                total.* +%= sum *% scale;
            };
        };
        inline for (&out, totals) |*of_pair, own| spread(of_pair, half, own);
    }
    return out;
}

/// Of one slab, without a scale.
pub fn slabSums(comptime pairs: usize, group: *const Group, slab: usize, x: *const [pairs]XRows) [pairs]PairSums {
    var out: [pairs]PairSums = undefined;
    for (0..2) |half| {
        const sums = partSums(layouts.slab_elements, pairs, group, half, slab * layouts.slab_elements, x);
        inline for (&out, sums) |*of_pair, own| spread(of_pair, half, own);
    }
    return out;
}

/// Half of the rows, `elements` elements from `first` on.
inline fn partSums(comptime elements: usize, comptime pairs: usize, group: *const Group, half: usize, first: usize, x: *const [pairs]XRows) [pairs][half_pairs]Sums {
    var sums: [pairs][half_pairs]Sums = @splat(@splat(@splat(0)));
    inline for (0..elements / 16) |i| {
        const at = first + 16 * i;
        var rows: [pairs][2]Rows = undefined;
        inline for (&rows, x) |*own, pair| {
            const upper: @Vector(2, i64) = @bitCast(pair[0][at..][0..16].*);
            const lower: @Vector(2, i64) = @bitCast(pair[1][at..][0..16].*);
            own[0] = @bitCast(@shuffle(i64, upper, lower, [2]i32{ 0, -1 }));
            own[1] = @bitCast(@shuffle(i64, upper, lower, [2]i32{ 1, -2 }));
        }
        inline for (0..2) |side| {
            const weights = group.rows[at / 8 + side][half * half_pairs ..][0..half_pairs];
            inline for (&sums, rows) |*of_pair, own| inline for (of_pair, weights) |*sum, weight| {
                sum.* = simd.matrixProduct(sum.*, own[side], weight);
            };
        }
    }
    return sums;
}

/// Puts sums by pair of rows beside one another, row by row.
inline fn spread(out: *PairSums, half: usize, sums: [half_pairs]Sums) void {
    const first = half * half_pairs * 2;
    inline for (0..half_pairs / 2) |i| {
        const a = sums[2 * i];
        const b = sums[2 * i + 1];
        out[0][first + 4 * i ..][0..4].* = @shuffle(i32, a, b, [4]i32{ 0, 1, -1, -2 });
        out[1][first + 4 * i ..][0..4].* = @shuffle(i32, a, b, [4]i32{ 2, 3, -3, -4 });
    }
}
