//! The packed product of a few tokens by the tile unit (Intel AMX, int8): the 16 rows of a tile are the high and the
//! low bytes of up to eight tokens. The sums are exact and scaled like those of `matmul_packed.zig`, to the bit.
//!
//! The sums leave the tiles slab by slab. Where a slab has two scales, they would leave them twice as often: there the
//! weights are multiplied with their scales before, and the sums of a group leave together.
//!
//! Four groups are on their way at a time: one is unpacked, one multiplied, of one the sums leave the tiles, of one
//! they are scaled; the four kinds of work come mixed in the program, since they wait for each other otherwise.

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
const group_slabs = layouts.group_slabs;
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
    /// Whether a slab's sums fit 16 bits, as its scales do.
    words: bool,
    /// Whether the panel holds the integers as the tile unit wants them.
    in_place: bool,
    /// Sums of a token that leave the tiles in a group, of the high bytes and as many of the low ones.
    sums: usize,
    /// Minima of a row in a group.
    minima: usize,

    fn of(comptime l: Layout) Way {
        const scaled = l.sub != slab_elements;
        return .{
            .scaled = scaled,
            .words = l.whole() and l.magnitude() * activations.byte_max * slab_elements <= std.math.maxInt(i16),
            .in_place = l.low_bits == 8,
            .sums = if (scaled) scaled_weights.planeCount(l) else group_slabs,
            .minima = if (l.has_min) group_slabs * l.subs() else 0,
        };
    }

    /// Elements of x that one product takes.
    fn elements(way: Way) usize {
        return if (way.scaled) 2 * slab_elements else slab_elements;
    }
};

/// A group of a panel as the tile unit and the scaling want it; zeros where a last group has no slab.
fn Group(comptime way: Way) type {
    return struct {
        /// `[elements / 4][16 rows][4]` bytes; by plane if scaled.
        weights: [if (way.scaled) way.sums else 1][group_slabs * slab_registers]simd.U8,
        /// Whole numbers, or floats.
        scale: [if (way.scaled) 0 else group_slabs]I32,
        unit: F32,
        min: [way.minima]F32,
    };
}

const no_weights: [slab_registers]simd.U8 = @splat(@splat(0));

/// One group of one panel on its way. The first and the last steps bring groups along that are none.
const Step = struct {
    slabs: usize = 0,
    /// Where the first slab lies, and the header of its span.
    first: [*]const u8 = undefined,
    head: [*]const u8 = undefined,
    x: activations.Group,
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
        /// The groups on their way.
        groups: [4]Group(way) = undefined,
        /// Of the group whose sums leave the tiles and of the one that is scaled.
        sums: [2]Sums = undefined,
        totals: [tokens]F32 = undefined,

        const Self = @This();
        const way: Way = .of(l);
        /// Of high and low bytes, token by token.
        const Sums = [way.sums][2 * tokens]I32;

        fn run(product: *Self) void {
            const work = product.work;
            var cursor: Cursor(l) = .{ .work = work };
            const none: Step = .{ .x = work.a.x_groups.first(work.first_token) };
            product.totals = @splat(@splat(0));
            var multiplied = none;
            var leaving = none;
            var scaled = none;
            const count = work.panel_count * work.a.x_groups.groups;
            for (0..count + 3) |index| {
                const unpacked = if (index < count) cursor.next() else none;
                switch (scaled.bytes) {
                    inline else => |bytes| product.step(bytes, index, unpacked, multiplied, scaled),
                }
                if (scaled.is_last or scaled.slabs == 0) product.store(scaled);
                scaled = leaving;
                leaving = multiplied;
                multiplied = unpacked;
            }
        }

        /// Brings each of the groups on their way one stage further, a quarter of each at a time.
        inline fn step(product: *Self, comptime bytes: Bytes, index: usize, unpacked: Step, multiplied: Step, scaled: Step) void {
            const unpacked_group = &product.groups[index % 4];
            const multiplied_group = &product.groups[(index + 3) % 4];
            const leaving_sums = &product.sums[index % 2];
            const scaled_group = &product.groups[(index + 1) % 4];
            const scaled_sums = &product.sums[(index + 1) % 2];
            inline for (0..group_slabs) |slot| {
                if (way.scaled) multiplyScaled(slot, multiplied, multiplied_group, leaving_sums) else multiplySlab(slot, multiplied, multiplied_group, leaving_sums);
                if (slot < unpacked.slabs) unpack(unpacked, slot, unpacked_group) else clear(slot, unpacked_group);
                inline for (slot * tokens / group_slabs..(slot + 1) * tokens / group_slabs) |t| {
                    addScaled(bytes, t, scaled_group, scaled_sums, &scaled.x.records[t], &product.totals[t]);
                }
            }
        }

        inline fn multiplySlab(comptime slab: usize, from: Step, group: *const Group(way), leaving: *Sums) void {
            const x = 4 + slab % 2;
            const weights = 6 + slab % 2;
            tiles.store(slab, &leaving[slab]);
            tiles.zero(slab);
            tiles.load(x, &from.x.integers[0].high[slab_elements * slab], activations.group_elements);
            if (way.in_place) {
                const present = from.first + slab * l.slabBytes() + l.lowAt();
                tiles.load(weights, if (slab < from.slabs) present else @ptrCast(&no_weights), 64);
            } else tiles.load(weights, &group.weights[0][slab_registers * slab], 64);
            if (comptime unsigned) tiles.addUnsigned(slab, x, weights) else tiles.addBytes(slab, x, weights);
        }

        /// Half of the group's elements, one plane.
        inline fn multiplyScaled(comptime slot: usize, from: Step, group: *const Group(way), leaving: *Sums) void {
            const half = slot / 2;
            const plane = slot % 2;
            if (plane >= way.sums) return;
            if (half == 0) {
                tiles.store(plane, &leaving[plane]);
                tiles.zero(plane);
            }
            if (plane == 0) tiles.load(4 + half, &from.x.integers[0].high[2 * slab_elements * half], activations.group_elements);
            tiles.load(6 + plane, &group.weights[plane][2 * slab_registers * half], 64);
            if (plane == 0 and way.sums == 2) tiles.addUnsigned(plane, 4 + half, 6 + plane) else tiles.addBytes(plane, 4 + half, 6 + plane);
        }

        /// Whether an offset is taken away from the sums instead of the weights.
        const unsigned = !l.whole();

        inline fn unpack(from: Step, comptime slab: usize, group: *Group(way)) void {
            const at = from.first + slab * l.slabBytes();
            requestAhead(l, at);
            const weights = slab * slab_registers;
            const part = slab_registers / l.subs();
            inline for (0..l.subs()) |sub| {
                const scale = if (l.whole()) layouts.wholeScale(l, at, sub) else @as(I32, @bitCast(layouts.halfScale(at)));
                const factor: scaled_weights.Factor = if (way.scaled) .of(l, scale) else undefined;
                if (!way.scaled) group.scale[slab] = if (way.words) scale & @as(I32, @splat(0xffff)) else scale;
                if (!way.in_place) inline for (sub * part..(sub + 1) * part) |j| {
                    const integers = layouts.integers(l, at, j);
                    if (way.scaled) {
                        inline for (scaled_weights.products(l, integers, factor), &group.weights) |bytes, *plane| plane[weights + j] = bytes;
                    } else group.weights[0][weights + j] = if (unsigned) integers else integers -% @as(simd.U8, @splat(l.offset));
                };
            }
            // Read where it is needed: what lies in memory is read anew after every tile.
            const needs_head = l.whole() and slab == 0 or l.scales == .super and l.has_min;
            const head: layouts.Header = if (needs_head) layouts.header(l, from.head) else undefined;
            if (l.whole() and slab == 0) group.unit = head.unit;
            if (l.has_min) inline for (0..l.subs()) |sub| {
                group.min[slab * l.subs() + sub] = layouts.minimum(l, head, at, sub);
            };
        }

        inline fn clear(comptime slab: usize, group: *Group(way)) void {
            if (!way.in_place) inline for (&group.weights) |*plane| {
                plane[slab * slab_registers ..][0..slab_registers].* = no_weights;
            };
            if (!way.scaled) group.scale[slab] = @splat(0);
            inline for (0..way.minima / group_slabs) |sub| group.min[slab * (way.minima / group_slabs) + sub] = @splat(0);
        }

        /// Adds a group's products with token t to the token's total.
        inline fn addScaled(comptime bytes: Bytes, comptime t: usize, group: *const Group(way), sums: *const Sums, record: *const activations.Record, of_token: *F32) void {
            const x_scale: F32 = @splat(record.scale);
            var total = of_token.*;
            if (!l.whole()) {
                inline for (sums, group.scale, 0..) |*of_slab, scale, slab| {
                    var sum = (of_slab[2 * t] << @splat(7)) +% of_slab[2 * t + 1];
                    if (comptime l.offset != 0) sum +%= @as(I32, @splat(record.less_both_32[slab]));
                    total = math.mulAdd(@as(F32, @floatFromInt(sum)), @as(F32, @bitCast(scale)) * x_scale, total);
                    if (l.has_min) total = math.mulAdd(group.min[slab], @as(F32, @splat(record.total_32[slab])), total);
                }
                of_token.* = total;
                return;
            }
            inline for (group.min, 0..) |min, part| {
                const sum = if (way.minima == group_slabs) record.total_32[part] else record.total_16[part];
                total = math.mulAdd(min, @as(F32, @splat(sum)), total);
            }
            var high: I32 = @splat(0);
            var low: I32 = @splat(0);
            if (way.scaled) {
                high = sums[0][2 * t];
                low = sums[0][2 * t + 1];
                if (way.sums == 2) {
                    high +%= sums[1][2 * t] << @splat(8);
                    low +%= sums[1][2 * t + 1] << @splat(8);
                }
            } else inline for (sums, group.scale) |*of_slab, scale| {
                high = addProducts(high, of_slab[2 * t], scale);
                if (bytes == .both) low = addProducts(low, of_slab[2 * t + 1], scale);
            }
            of_token.* = math.mulAdd(packed_panels.wholeSum(high, low), group.unit * x_scale, total);
        }

        inline fn addProducts(total: I32, sum: I32, scale: I32) I32 {
            return if (way.words) simd.addWordProducts(total, sum, scale) else total +% sum *% scale;
        }

        /// Stores the totals of a panel, those of a real one, and begins the next.
        fn store(product: *Self, last: Step) void {
            const work = product.work;
            if (last.is_last) for (product.totals[0..work.tokens], work.first_token..) |total, token| {
                matmul.storeLanes(work.a, work.segment, last.row, token, total);
            };
            product.totals = @splat(@splat(0));
        }

        comptime {
            std.debug.assert(!unsigned or l.offset == 0 or l.offset == 128);
        }
    };
}

/// Walks over the groups of the panels.
fn Cursor(comptime l: Layout) type {
    return struct {
        work: *const Work,
        panel: usize = 0,
        group: usize = 0,
        at: [*]const u8 = undefined,
        head: [*]const u8 = undefined,
        x: activations.Group = undefined,

        const span_groups = @max(1, l.slabsPerSpan() / group_slabs);

        fn next(cursor: *@This()) Step {
            const work = cursor.work;
            const rows = work.a.x_groups;
            if (cursor.group == 0) {
                cursor.at = work.panels + cursor.panel * l.panelBytes(work.a.k);
                cursor.x = rows.first(work.first_token);
            }
            if (cursor.group % span_groups == 0) {
                cursor.head = cursor.at;
                cursor.at += l.headerBytes();
            }
            const step: Step = .{
                .slabs = @min(group_slabs, work.a.k / slab_elements - cursor.group * group_slabs),
                .first = cursor.at,
                .head = cursor.head,
                .x = cursor.x,
                .bytes = rows.bytesOf(cursor.x, work.tokens),
                .row = work.first_row + cursor.panel * layouts.panel_rows,
                .is_last = cursor.group + 1 == rows.groups,
            };
            cursor.at += step.slabs * l.slabBytes();
            cursor.x = cursor.x.after(rows.tileSize(work.first_token - work.first_token % activations.tile_tokens));
            cursor.group += 1;
            if (step.is_last) {
                cursor.group = 0;
                cursor.panel += 1;
            }
            return step;
        }
    };
}

inline fn requestAhead(comptime l: Layout, slab: [*]const u8) void {
    inline for (0..l.slabBytes() / 64) |line| {
        @prefetch(slab + 4096 + 64 * line, .{ .locality = 2 });
        @prefetch(slab + 1152 + 64 * line, .{ .locality = 3 });
    }
}
