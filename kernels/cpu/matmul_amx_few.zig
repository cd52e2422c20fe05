//! The packed product of a few tokens by the tile unit (Intel AMX, int8): the 16 rows of a tile are the high and the
//! low bytes of up to eight tokens. The sums are exact and scaled like those of `matmul_packed.zig`, to the bit.
//!
//! The sums leave the tiles slab by slab. Where a slab has two scales, they would leave them twice as often: there the
//! weights are multiplied with their scales before, and the sums of a group leave together.
//!
//! Some halves of groups are on their way at a time: one is unpacked, one multiplied, of one the sums leave the tiles,
//! of one they are scaled; the four kinds of work come mixed in the program, since they wait for each other otherwise.
//! Two halves make a turn, so that the program knows which one each step works on.

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

/// Fewer tokens are faster without the tile unit: more of them where a weight with its scale takes two bytes here and
/// its sums meet the scale in one instruction there.
pub fn tokensMin(comptime l: Layout) usize {
    const has_short_sums = l.magnitude() * activations.byte_max * l.sub <= std.math.maxInt(i16);
    return if (Way.of(l).scaled and Way.of(l).planes > 1 and has_short_sums) activations.paired_tokens_min + 2 else activations.paired_tokens_min;
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
    /// Bytes that hold a weight.
    planes: usize,
    /// Sums of a token that leave the tiles together, of the high bytes and as many of the low ones: of the slabs of half
    /// a group, or of a group by plane.
    sums: usize,
    /// Minima of a row in a group.
    minima: usize,

    fn of(comptime l: Layout) Way {
        const scaled = l.sub != slab_elements;
        const planes = if (scaled) scaled_weights.planeCount(l) else 1;
        return .{
            .scaled = scaled,
            .wide = l.scales == .wide,
            .words = l.whole() and l.magnitude() * activations.byte_max * slab_elements <= std.math.maxInt(i16),
            .in_place = l.low_bits == 8,
            .planes = planes,
            .sums = if (scaled) planes else half_slabs,
            .minima = if (l.has_min) layouts.group_slabs * l.subs() else 0,
        };
    }

    /// Elements of x that one product takes.
    fn elements(way: Way) usize {
        return if (way.scaled) 2 * slab_elements else slab_elements;
    }
};

/// What scales the sums of a group. Where a last one has no slab its sums are zero, and so must be the minima.
fn Factors(comptime way: Way) type {
    return struct {
        /// Whole numbers.
        scale: [if (way.scaled) 0 else layouts.group_slabs]if (way.wide) simd.WideSums else I32,
        unit: F32,
        min: [way.minima]F32,
    };
}

/// A group of a panel on its way. The first and the last turns bring some along that are none.
const Span = struct {
    slabs: usize = 0,
    /// Where its header lies.
    head: [*]const u8 = undefined,
    x: activations.Group,
    bytes: Bytes = .both,
    row: usize = 0,
    is_first: bool = true,
    is_last: bool = false,

    inline fn slab(span: *const Span, comptime l: Layout, comptime index: usize) [*]const u8 {
        return span.head + l.headerBytes() + index * l.slabBytes();
    }
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
        /// Of a half, `[elements / 4][16 rows][4]` bytes by plane, as the tile unit wants them.
        weights: [2][if (way.in_place) 0 else way.planes][half_slabs * slab_registers]simd.U8 = undefined,
        /// Of the groups on their way.
        factors: [4]Factors(way) = undefined,
        /// As they leave the tiles: of either half, or of two groups.
        sums: [2]Sums = undefined,
        /// Of the first half of the group that is scaled, and of the panel. The first to come overwrites what is there: to
        /// clear all tokens' at once would be a call, which costs as much as a step.
        halves: [tokens]GroupSum = undefined,
        totals: [tokens]F32 = undefined,

        const Self = @This();
        const way: Way = .of(l);
        /// Rows of super-blocks end with a group.
        const has_whole_groups = l.scales == .super;
        /// Of high and low bytes, token by token.
        const Sums = [way.sums][2 * tokens]I32;
        const GroupSum = if (way.wide) simd.WideSums else struct {
            high: I32,
            low: I32,

            const zero: @This() = .{ .high = @splat(0), .low = @splat(0) };
        };
        /// A group on its way.
        const Part = struct { span: *const Span, factors: *Factors(way), sums: *Sums };

        fn run(product: *Self) void {
            const work = product.work;
            var cursor: Cursor(l) = .start(work);
            const none: Span = .{ .x = cursor.x };
            var newest = none;
            var middle = none;
            var oldest = none;
            const count = work.panel_count * work.a.x_groups.groups;
            // The last group's sums are scaled two turns after it is unpacked.
            for (0..count + 2) |turn| {
                newest = if (turn < count) cursor.next() else none;
                const unpacked = product.part(&newest, turn);
                const before = product.part(&middle, turn + 3);
                const scaled = product.part(&oldest, turn + 2);
                product.step(0, unpacked, before, &product.sums[0], scaled);
                // Where the sums of a group leave together, they do with the first half of the next one.
                if (!way.scaled and oldest.is_last) product.store(&oldest);
                product.step(1, unpacked, unpacked, if (way.scaled) before.sums else &product.sums[1], if (way.scaled) scaled else before);
                if (way.scaled and oldest.is_last) product.store(&oldest);
                oldest = middle;
                middle = newest;
            }
        }

        inline fn part(product: *Self, span: *const Span, turn: usize) Part {
            return .{ .span = span, .factors = &product.factors[turn % 4], .sums = &product.sums[turn % 2] };
        }

        inline fn step(product: *Self, comptime half: usize, unpacked: Part, multiplied: Part, leaving: *Sums, scaled: Part) void {
            @setEvalBranchQuota(100_000);
            // The other ways take the sums of the low bytes along, zero or not.
            const skips_low = !way.scaled and !way.wide;
            if (!skips_low) return product.stepBytes(.both, half, unpacked, multiplied, leaving, scaled);
            switch (scaled.span.bytes) {
                inline else => |bytes| product.stepBytes(bytes, half, unpacked, multiplied, leaving, scaled),
            }
        }

        /// Unpacks a half of one group and multiplies the half before it, before which the sums of an earlier one leave;
        /// scales the other half of a group yet earlier, or half of the tokens' sums of a whole one. A quarter of each at a
        /// time.
        inline fn stepBytes(product: *Self, comptime bytes: Bytes, comptime half: usize, unpacked: Part, multiplied: Part, leaving: *Sums, scaled: Part) void {
            inline for (0..half_slabs) |slot| {
                const slab = half * half_slabs + slot;
                if (way.scaled) product.multiplyScaled(1 - half, slot, multiplied.span, leaving) else product.multiplySlab(1 - half, slot, multiplied.span, leaving);
                // What comes next of x is asked for: behind the weights' requests to memory a load of it would wait.
                if (way.wide) inline for (comptime share(slot, half_slabs)) |t| requestHalf(&unpacked.span.x.integers[t], half);
                if (slab < unpacked.span.slabs) product.unpack(half, slot, unpacked) else if (l.has_min) clear(slab, unpacked.factors);
                if (way.scaled) {
                    inline for (comptime share(slab, layouts.group_slabs)) |t| product.addScaledGroup(t, scaled);
                } else {
                    inline for (comptime share(slot, half_slabs)) |t| product.addScaledHalf(bytes, 1 - half, t, scaled);
                }
            }
        }

        /// The tokens of part `index` of so many parts.
        fn share(index: usize, parts: usize) []const usize {
            var some: []const usize = &.{};
            for (index * tokens / parts..(index + 1) * tokens / parts) |t| some = some ++ .{t};
            return some;
        }

        inline fn requestHalf(x: *const activations.Integers, comptime half: usize) void {
            inline for (0..half_elements / std.atomic.cache_line) |line| {
                const first = half * half_elements + line * std.atomic.cache_line;
                @prefetch(&x.high[first], .{ .locality = 3 });
                @prefetch(&x.low[first], .{ .locality = 3 });
            }
        }

        inline fn multiplySlab(product: *Self, comptime half: usize, comptime slot: usize, from: *const Span, leaving: *Sums) void {
            const slab = half * half_slabs + slot;
            const x = 4 + slot % 2;
            const weights = 6 + slot % 2;
            tiles.store(slot, &leaving[slot]);
            tiles.zero(slot);
            if (slab >= from.slabs) return;
            tiles.load(x, &from.x.integers[0].high[slab_elements * slab], activations.group_elements);
            if (way.in_place) {
                tiles.load(weights, from.slab(l, slab) + comptime l.lowAt(), 64);
            } else tiles.load(weights, &product.weights[half][0][slab_registers * slot], 64);
            if (comptime unsigned) tiles.addUnsigned(slot, x, weights) else tiles.addBytes(slot, x, weights);
        }

        /// A quarter of the group's elements, one plane.
        inline fn multiplyScaled(product: *Self, comptime half: usize, comptime slot: usize, from: *const Span, leaving: *Sums) void {
            const quarter = slot / 2;
            const plane = slot % 2;
            if (plane >= way.sums) return;
            if (half == 0 and quarter == 0) {
                tiles.store(plane, &leaving[plane]);
                tiles.zero(plane);
            }
            if (plane == 0) tiles.load(4 + quarter, &from.x.integers[0].high[half_elements * half + 2 * slab_elements * quarter], activations.group_elements);
            tiles.load(6 + plane, &product.weights[half][plane][2 * slab_registers * quarter], 64);
            if (plane == 0) tiles.addBytes(plane, 4 + quarter, 6 + plane) else tiles.addUnsigned(plane, 4 + quarter, 6 + plane);
        }

        /// Whether an offset is taken away from the sums instead of the weights.
        const unsigned = !l.whole();

        inline fn unpack(product: *Self, comptime half: usize, comptime slot: usize, to: Part) void {
            const slab = half * half_slabs + slot;
            const at = to.span.slab(l, slab);
            packed_panels.requestAhead(l, tokens, at);
            const weights = slot * slab_registers;
            const registers = slab_registers / l.subs();
            inline for (0..l.subs()) |sub| {
                const scale = layouts.wholeScale(l, at, sub);
                const factor: scaled_weights.Factor = if (way.scaled) .of(l, scale) else undefined;
                if (!way.scaled) to.factors.scale[slab] = if (way.wide) .of(scale) else if (way.words) simd.lowWords(scale) else scale;
                if (!way.in_place) inline for (sub * registers..(sub + 1) * registers) |j| {
                    if (way.scaled) {
                        const integers = layouts.integers(l, at, j);
                        inline for (scaled_weights.products(l, integers, factor), &product.weights[half]) |bytes, *plane| plane[weights + j] = bytes;
                    } else product.weights[half][0][weights + j] = if (unsigned) layouts.integers(l, at, j) else layouts.centeredIntegers(l, at, j);
                };
            }
            // Read where it is needed: what lies in memory is read anew after every tile.
            const needs_head = slab == 0 or l.scales == .super and l.has_min;
            const head: layouts.Header = if (needs_head) layouts.header(l, to.span.head) else undefined;
            if (slab == 0) to.factors.unit = packed_panels.unitOf(l, head);
            if (l.has_min) inline for (0..l.subs()) |sub| {
                to.factors.min[slab * l.subs() + sub] = layouts.minimum(l, head, at, sub);
            };
        }

        /// Without a slab all sums are zero, which a minimum that is not finite would not leave so.
        inline fn clear(comptime slab: usize, factors: *Factors(way)) void {
            inline for (0..l.subs()) |sub| factors.min[slab * l.subs() + sub] = @splat(0);
        }

        /// Adds the products of half a group with token t to those of the other, and a whole one's to the token's total.
        inline fn addScaledHalf(product: *Self, comptime bytes: Bytes, comptime half: usize, comptime t: usize, from: Part) void {
            var sum: GroupSum = if (half == 0) .zero else product.halves[t];
            if (half == 0 or has_whole_groups or from.span.slabs > half_slabs) {
                inline for (&product.sums[half], from.factors.scale[half * half_slabs ..][0..half_slabs], 0..) |*of_slab, scale, slot| {
                    if (way.wide) {
                        var joined = activations.joined(of_slab[2 * t], of_slab[2 * t + 1]);
                        if (comptime l.offset != 0) joined +%= @as(I32, @splat(from.span.x.records[t].less_both_32[half * half_slabs + slot]));
                        sum = sum.plus(.of(joined), scale);
                    } else {
                        sum.high = addProducts(sum.high, of_slab[2 * t], scale);
                        if (bytes == .both) sum.low = addProducts(sum.low, of_slab[2 * t + 1], scale);
                    }
                }
                if (l.has_min) product.addMinima(t, half * way.minima / 2, way.minima / 2, from);
            }
            if (half == 0) {
                product.halves[t] = sum;
            } else product.addSum(t, if (way.wide) packed_panels.wideSum(l, sum) else packed_panels.wholeSum(l, sum.high, sum.low), from);
        }

        /// The same of a whole group.
        inline fn addScaledGroup(product: *Self, comptime t: usize, from: Part) void {
            var sum: GroupSum = .zero;
            inline for (from.sums, 0..) |*of_plane, plane| {
                const bits: @Vector(16, u5) = @splat(8 * (way.sums - 1 - plane));
                sum.high +%= of_plane[2 * t] << bits;
                sum.low +%= of_plane[2 * t + 1] << bits;
            }
            if (l.has_min) product.addMinima(t, 0, way.minima, from);
            product.addSum(t, packed_panels.wholeSum(l, sum.high, sum.low), from);
        }

        inline fn addProducts(total: I32, sum: I32, scale: I32) I32 {
            return if (way.words) simd.addLowWordProducts(total, sum, scale) else total +% sum *% scale;
        }

        inline fn addMinima(product: *Self, comptime t: usize, comptime first: usize, comptime count: usize, from: Part) void {
            const record = &from.span.x.records[t];
            const values: [*]const f32 = if (l.subs() == 1) &record.total_32 else &record.total_16;
            var total: F32 = if (first == 0 and from.span.is_first) @splat(0) else product.totals[t];
            inline for (first..first + count) |index| total = math.mulAdd(from.factors.min[index], @as(F32, @splat(values[index])), total);
            product.totals[t] = total;
        }

        inline fn addSum(product: *Self, comptime t: usize, sum: F32, from: Part) void {
            const before: F32 = if (!l.has_min and from.span.is_first) @splat(0) else product.totals[t];
            product.totals[t] = math.mulAdd(sum, from.factors.unit * @as(F32, @splat(from.span.x.records[t].scale)), before);
        }

        /// Stores the totals of a panel.
        fn store(product: *const Self, last: *const Span) void {
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

/// Walks over the groups of the panels, which lie one behind the other.
fn Cursor(comptime l: Layout) type {
    return struct {
        work: *const Work,
        at: [*]const u8,
        x: activations.Group,
        row: usize,
        /// Slabs of a panel, and of this one so far.
        slabs: usize,
        done: usize = 0,
        /// Tokens for which the tile has room, the step from one group to the next.
        stride: usize,

        fn start(work: *const Work) @This() {
            const rows = work.a.x_groups;
            return .{
                .work = work,
                .at = work.panels,
                .x = rows.first(work.first_token),
                .row = work.first_row,
                .slabs = work.a.k / slab_elements,
                .stride = rows.tileSize(work.first_token - work.first_token % activations.tile_tokens),
            };
        }

        inline fn next(cursor: *@This()) Span {
            const rows = cursor.work.a.x_groups;
            const present = @min(layouts.group_slabs, cursor.slabs - cursor.done);
            const is_last = cursor.done + present == cursor.slabs;
            const span: Span = .{
                .slabs = present,
                .head = cursor.at,
                .x = cursor.x,
                .bytes = rows.bytesOf(cursor.x, cursor.work.tokens),
                .row = cursor.row,
                .is_first = cursor.done == 0,
                .is_last = is_last,
            };
            cursor.at += l.headerBytes() + present * l.slabBytes();
            cursor.done += present;
            cursor.x = cursor.x.after(cursor.stride);
            if (is_last) {
                cursor.x = rows.first(cursor.work.first_token);
                cursor.done = 0;
                cursor.row += layouts.panel_rows;
            }
            return span;
        }
    };
}
