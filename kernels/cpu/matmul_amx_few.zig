//! The packed product of a few tokens by the tile unit (Intel AMX, int8): the 16 rows of a tile are the high and the
//! low bytes of up to eight tokens. The sums are exact and scaled like those of `matmul_packed.zig`, to the bit.
//!
//! The sums leave the tiles slab by slab. Where a slab has two scales, they would leave them twice as often: there the
//! weights are multiplied with their scales before, and the sums of half a group leave together.
//!
//! Four halves of groups are on their way at a time: one is unpacked, one multiplied, of one the sums leave the tiles,
//! of one they are scaled; the four kinds of work come mixed in the program, since they wait for each other otherwise.

const std = @import("std");
const activations = @import("activations.zig");
const layouts = @import("packed.zig");
const math = @import("math.zig");
const matmul = @import("matmul.zig");
const packed_panels = @import("matmul_packed.zig");
const scaled_weights = @import("scaled_weights.zig");
const simd = @import("simd.zig");
const tiles = @import("tiles.zig");

const Bytes = activations.Bytes;
const F32 = simd.F32;
const I32 = simd.I32;
const Layout = layouts.Layout;
/// Slabs of half a group.
const half_slabs = layouts.group_slabs / 2;
const half_elements = half_slabs * slab_elements;
const slab_registers = layouts.slab_registers;
const slab_elements = layouts.slab_elements;

pub const tokens_max = 8;

/// Fewer tokens are faster without the tile unit: more of them where whole scales meet the sums in 32 bits, or the
/// weights.
pub fn tokensMin(comptime l: Layout) usize {
    const is_long = l.whole() and !Way.of(l).words or Way.of(l).scaled;
    return if (is_long) activations.paired_tokens_min + 2 else activations.paired_tokens_min;
}

/// Some tokens of one tile, and the panels that they meet.
pub const Work = struct {
    a: *const matmul.Arguments,
    segment: *const matmul.Segment,
    panels: [*]const u8,
    panel_count: usize,
    /// The first panel's.
    first_row: usize,
    first_token: usize,
    tokens: usize,
};

/// How a layout's weights meet the tokens.
const Way = struct {
    /// Whether they are multiplied with their scales before.
    scaled: bool,
    /// Whether sums of 64 bits are needed.
    wide: bool,
    /// Whether a slab's sums fit 16 bits, as its scales do.
    words: bool,
    /// Whether the panel holds the integers as the tile unit wants them.
    in_place: bool,
    /// Sums of a token that leave the tiles in half a group, of the high bytes and as many of the low ones.
    sums: usize,
    /// Minima of a row in half a group.
    minima: usize,

    fn of(comptime l: Layout) Way {
        const scaled = l.sub != slab_elements;
        return .{
            .scaled = scaled,
            .wide = l.scales == .wide,
            .words = l.whole() and l.magnitude() * activations.byte_max * slab_elements <= std.math.maxInt(i16),
            .in_place = l.low_bits == 8,
            .sums = if (scaled) scaled_weights.planeCount(l) else half_slabs,
            .minima = if (l.has_min) half_slabs * l.subs() else 0,
        };
    }

    /// Elements of x that one product takes.
    fn elements(way: Way) usize {
        return if (way.scaled) 2 * slab_elements else slab_elements;
    }
};

/// Half a group of a panel as the tile unit and the scaling want it; zeros where a last one has no slab.
fn Half(comptime way: Way) type {
    return struct {
        /// `[elements / 4][16 rows][4]` bytes; by plane if scaled.
        weights: [if (way.scaled) way.sums else 1][half_slabs * slab_registers]simd.U8,
        /// Whole numbers.
        scale: [if (way.scaled) 0 else half_slabs]if (way.wide) simd.WideSums else I32,
        unit: F32,
        min: [way.minima]F32,
    };
}

const no_weights: [slab_registers]simd.U8 = @splat(@splat(0));

/// Half a group of one panel on its way. The first and the last steps bring some along that are none.
const Step = struct {
    slabs: usize = 0,
    /// Where the first slab lies, and the header of its span.
    first: [*]const u8 = undefined,
    head: [*]const u8 = undefined,
    x: activations.Group,
    /// Which half of the group it is, and whether there is none behind it.
    half: usize = 0,
    /// Whether the group is the panel's first.
    in_first_group: bool = true,
    ends_group: bool = false,
    bytes: Bytes = .both,
    row: usize = 0,
    is_last: bool = false,
};

pub fn run(comptime l: Layout, work: *const Work) void {
    @setEvalBranchQuota(100_000);
    switch (std.mem.alignForward(usize, work.tokens, 2)) {
        inline 4, 6, 8 => |tokens| {
            configure(comptime Way.of(l).elements(), tokens);
            defer tiles.release();
            var product: Product(l, tokens) = .{ .work = work };
            product.run();
        },
        else => unreachable,
    }
}

/// 0 to 3: sums; 4, 5: x; 6, 7: weights.
fn configure(elements: usize, tokens: usize) void {
    var configuration: tiles.Configuration = .{};
    for (0..4) |tile| configuration.set(tile, 2 * tokens, 64);
    for (4..6) |tile| configuration.set(tile, 2 * tokens, elements);
    for (6..8) |tile| configuration.set(tile, elements / 4, 64);
    configuration.load();
}

fn Product(comptime l: Layout, comptime tokens: usize) type {
    return struct {
        work: *const Work,
        /// The halves on their way.
        halves: [4]Half(way) = undefined,
        /// Of the half whose sums leave the tiles and of the one that is scaled.
        sums: [2]Sums = undefined,
        /// Of the group that is scaled, as far as it is, and of the panel. A first step overwrites what is there: to clear
        /// all tokens' at once would be a call, which costs as much as a step.
        group: [tokens]GroupSum = undefined,
        totals: [tokens]F32 = undefined,

        const Self = @This();
        const way: Way = .of(l);
        /// Of high and low bytes, token by token.
        const Sums = [way.sums][2 * tokens]I32;
        const GroupSum = if (way.wide) simd.WideSums else struct {
            high: I32,
            low: I32,

            const zero: @This() = .{ .high = @splat(0), .low = @splat(0) };
        };

        fn run(product: *Self) void {
            const work = product.work;
            var cursor: Cursor(l) = .{ .work = work };
            const none: Step = .{ .x = work.a.x_groups.first(work.first_token) };
            var multiplied = none;
            var leaving = none;
            var scaled = none;
            const count = work.panel_count * (std.math.divCeil(usize, work.a.k, half_elements) catch unreachable);
            for (0..count + 3) |index| {
                const unpacked = if (index < count) cursor.next() else none;
                switch (scaled.bytes) {
                    inline else => |bytes| product.step(bytes, index, unpacked, multiplied, scaled),
                }
                if (scaled.is_last) product.store(scaled);
                scaled = leaving;
                leaving = multiplied;
                multiplied = unpacked;
            }
        }

        /// Brings each of the halves on their way one stage further, a quarter of each at a time.
        inline fn step(product: *Self, comptime bytes: Bytes, index: usize, unpacked: Step, multiplied: Step, scaled: Step) void {
            const unpacked_half = &product.halves[index % 4];
            const multiplied_half = &product.halves[(index + 3) % 4];
            const leaving_sums = &product.sums[index % 2];
            const scaled_half = &product.halves[(index + 1) % 4];
            const scaled_sums = &product.sums[(index + 1) % 2];
            inline for (0..half_slabs) |slot| {
                if (way.scaled) multiplyScaled(slot, multiplied, multiplied_half, leaving_sums) else multiplySlab(slot, multiplied, multiplied_half, leaving_sums);
                if (slot < unpacked.slabs) unpack(unpacked, slot, unpacked_half) else clear(slot, unpacked_half);
                inline for (slot * tokens / half_slabs..(slot + 1) * tokens / half_slabs) |t| product.addScaled(bytes, t, scaled, scaled_half, scaled_sums);
            }
        }

        inline fn multiplySlab(comptime slab: usize, from: Step, half: *const Half(way), leaving: *Sums) void {
            const x = 4 + slab % 2;
            const weights = 6 + slab % 2;
            tiles.store(slab, &leaving[slab]);
            tiles.zero(slab);
            tiles.load(x, &from.x.integers[0].high[half_elements * from.half + slab_elements * slab], activations.group_elements);
            if (way.in_place) {
                const present = from.first + slab * l.slabBytes() + l.lowAt();
                tiles.load(weights, if (slab < from.slabs) present else @ptrCast(&no_weights), 64);
            } else tiles.load(weights, &half.weights[0][slab_registers * slab], 64);
            if (comptime unsigned) tiles.addUnsigned(slab, x, weights) else tiles.addBytes(slab, x, weights);
        }

        /// A quarter of the group's elements, one plane.
        inline fn multiplyScaled(comptime slot: usize, from: Step, half: *const Half(way), leaving: *Sums) void {
            const quarter = slot / 2;
            const plane = slot % 2;
            if (plane >= way.sums) return;
            if (quarter == 0) {
                tiles.store(plane, &leaving[plane]);
                tiles.zero(plane);
            }
            if (plane == 0) tiles.load(4 + quarter, &from.x.integers[0].high[half_elements * from.half + 2 * slab_elements * quarter], activations.group_elements);
            tiles.load(6 + plane, &half.weights[plane][2 * slab_registers * quarter], 64);
            if (plane == 0) tiles.addBytes(plane, 4 + quarter, 6 + plane) else tiles.addUnsigned(plane, 4 + quarter, 6 + plane);
        }

        /// Whether an offset is taken away from the sums instead of the weights.
        const unsigned = !l.whole();

        inline fn unpack(from: Step, comptime slab: usize, half: *Half(way)) void {
            const at = from.first + slab * l.slabBytes();
            packed_panels.requestAhead(l, tokens, at);
            const weights = slab * slab_registers;
            const part = slab_registers / l.subs();
            inline for (0..l.subs()) |sub| {
                const scale = layouts.wholeScale(l, at, sub);
                const factor: scaled_weights.Factor = if (way.scaled) .of(l, scale) else undefined;
                if (!way.scaled) half.scale[slab] = if (way.wide) .of(scale) else if (way.words) scale & @as(I32, @splat(0xffff)) else scale;
                if (!way.in_place) inline for (sub * part..(sub + 1) * part) |j| {
                    const integers = layouts.integers(l, at, j);
                    if (way.scaled) {
                        inline for (scaled_weights.products(l, integers, factor), &half.weights) |bytes, *plane| plane[weights + j] = bytes;
                    } else half.weights[0][weights + j] = if (unsigned) integers else integers -% @as(simd.U8, @splat(l.offset));
                };
            }
            // Read where it is needed: what lies in memory is read anew after every tile.
            const needs_head = slab == 0 or l.scales == .super and l.has_min;
            const head: layouts.Header = if (needs_head) layouts.header(l, from.head) else undefined;
            if (slab == 0) half.unit = packed_panels.unitOf(l, head);
            if (l.has_min) inline for (0..l.subs()) |sub| {
                half.min[slab * l.subs() + sub] = layouts.minimum(l, head, at, sub);
            };
        }

        inline fn clear(comptime slab: usize, half: *Half(way)) void {
            if (!way.in_place) inline for (&half.weights) |*plane| {
                plane[slab * slab_registers ..][0..slab_registers].* = no_weights;
            };
            if (!way.scaled) half.scale[slab] = if (way.wide) .zero else @splat(0);
            inline for (0..way.minima / half_slabs) |sub| half.min[slab * (way.minima / half_slabs) + sub] = @splat(0);
        }

        /// Adds the products of half a group with token t to those of the group, and a whole one's to the token's total.
        inline fn addScaled(product: *Self, comptime bytes: Bytes, comptime t: usize, from: Step, half: *const Half(way), sums: *const Sums) void {
            const record = &from.x.records[t];
            if (l.has_min) {
                var total: F32 = if (from.in_first_group and from.half == 0) @splat(0) else product.totals[t];
                inline for (half.min, 0..) |min, part| {
                    const values: [*]const f32 = if (way.minima == half_slabs) &record.total_32 else &record.total_16;
                    total = math.mulAdd(min, @as(F32, @splat(values[from.half * way.minima + part])), total);
                }
                product.totals[t] = total;
            }
            const group = scaledSum(bytes, t, from, half, sums, if (from.half == 0) .zero else product.group[t]);
            if (from.ends_group) {
                const sum = if (way.wide) packed_panels.wideSum(l, group) else packed_panels.wholeSum(l, group.high, group.low);
                const before: F32 = if (!l.has_min and from.in_first_group) @splat(0) else product.totals[t];
                product.totals[t] = math.mulAdd(sum, half.unit * @as(F32, @splat(record.scale)), before);
            } else product.group[t] = group;
        }

        inline fn scaledSum(comptime bytes: Bytes, comptime t: usize, from: Step, half: *const Half(way), sums: *const Sums, before: GroupSum) GroupSum {
            var group = before;
            if (way.wide) {
                inline for (sums, half.scale, 0..) |*of_slab, scale, slab| {
                    var sum = activations.joined(of_slab[2 * t], of_slab[2 * t + 1]);
                    if (comptime l.offset != 0) sum +%= @as(I32, @splat(from.x.records[t].less_both_32[from.half * half_slabs + slab]));
                    group = group.plus(.of(sum), scale);
                }
            } else if (way.scaled) {
                inline for (sums, 0..) |*of_plane, plane| {
                    const bits: @Vector(16, u5) = @splat(8 * (way.sums - 1 - plane));
                    group.high +%= of_plane[2 * t] << bits;
                    group.low +%= of_plane[2 * t + 1] << bits;
                }
            } else inline for (sums, half.scale) |*of_slab, scale| {
                group.high = addProducts(group.high, of_slab[2 * t], scale);
                if (bytes == .both) group.low = addProducts(group.low, of_slab[2 * t + 1], scale);
            }
            return group;
        }

        inline fn addProducts(total: I32, sum: I32, scale: I32) I32 {
            return if (way.words) simd.addWordProducts(total, sum, scale) else total +% sum *% scale;
        }

        /// Stores the totals of a panel.
        fn store(product: *const Self, last: Step) void {
            const work = product.work;
            for (product.totals[0..work.tokens], work.first_token..) |total, token| {
                matmul.storeLanes(work.a, work.segment, last.row, token, total);
            }
        }

        comptime {
            std.debug.assert(!unsigned or l.offset == 0 or l.offset == 128);
        }
    };
}

/// Walks over the halves of the panels' groups.
fn Cursor(comptime l: Layout) type {
    return struct {
        work: *const Work,
        panel: usize = 0,
        slab: usize = 0,
        at: [*]const u8 = undefined,
        head: [*]const u8 = undefined,
        x: activations.Group = undefined,

        fn next(cursor: *@This()) Step {
            const work = cursor.work;
            const rows = work.a.x_groups;
            const slabs = work.a.k / slab_elements;
            if (cursor.slab == 0) {
                cursor.at = work.panels + cursor.panel * l.panelBytes(work.a.k);
                cursor.x = rows.first(work.first_token);
            }
            const half = cursor.slab % layouts.group_slabs / half_slabs;
            if (half == 0) {
                cursor.head = cursor.at;
                cursor.at += l.headerBytes();
            }
            const present = @min(half_slabs, slabs - cursor.slab);
            const is_last = cursor.slab + present == slabs;
            const step: Step = .{
                .slabs = present,
                .first = cursor.at,
                .head = cursor.head,
                .x = cursor.x,
                .half = half,
                .in_first_group = cursor.slab < layouts.group_slabs,
                .ends_group = half == 1 or is_last,
                .bytes = rows.bytesOf(cursor.x, work.tokens),
                .row = work.first_row + cursor.panel * layouts.panel_rows,
                .is_last = is_last,
            };
            cursor.at += present * l.slabBytes();
            cursor.slab += present;
            if (step.ends_group) cursor.x = cursor.x.after(rows.tileSize(work.first_token - work.first_token % activations.tile_tokens));
            if (is_last) {
                cursor.slab = 0;
                cursor.panel += 1;
            }
            return step;
        }
    };
}
