//! The products of a group of a panel (`matmul_packed.zig`) where the processor adds products of bytes by twos, in 16
//! bits: x86 with AVX2 or SSE alone.
//!
//! Weights of up to six bits leave room in 16 bits for the products of several registers: these are added there, as
//! whole numbers that may wrap on the way, since only their last sum has to fit. One multiplication then takes two of
//! them times their scale to 32 bits. Weights of eight bits leave none, and meet x in words.

const std = @import("std");
const activations = @import("activations.zig");
const layouts = @import("packed.zig");
const math = @import("math.zig");
const matmul = @import("matmul.zig");
const packed_panels = @import("matmul_packed.zig");
const simd = @import("simd.zig");

const F32 = simd.F32;
const I16 = simd.I16;
const I32 = simd.I32;
const Bytes = activations.Bytes;
const Layout = layouts.Layout;

/// From so many tokens on a group of a panel is unpacked once for all, into the first-level cache.
pub const unpacked_tokens_min = 3;
/// Tokens in registers at once.
const register_tokens = 2;

/// A panel, which begins with row `row`, and `count` tokens of one tile.
pub fn runTile(comptime l: Layout, a: *const matmul.Arguments, segment: *const matmul.Segment, panel: [*]const u8, row: usize, token: usize, count: usize, stride: usize) void {
    const from_memory = a.tokens <= activations.tile_tokens;
    var acc: [activations.tile_tokens]F32 = undefined;
    for (acc[0..count]) |*sums| sums.* = @splat(0);
    var group: Unpacked(l) = undefined;
    var x = a.x_groups.first(token);
    var span = panel;
    var slabs = a.k / layouts.slab_elements;
    while (slabs > 0) {
        const present = layouts.presentSlabs(l, slabs);
        group.fill(.{ .head = layouts.header(l, span), .first = span + l.headerBytes(), .from_memory = false }, present);
        const span_bytes = l.headerBytes() + present * l.slabBytes();
        span += span_bytes;
        switch (a.x_groups.bytesOf(x, count)) {
            inline else => |bytes| {
                var done: usize = 0;
                while (done < count) : (done += register_tokens) {
                    // The next group's weights, asked for bit by bit while this one's are at work.
                    if (from_memory) requestPart(span, span_bytes, done, count);
                    switch (@min(register_tokens, count - done)) {
                        inline 1...register_tokens => |tokens| addGroup(l, bytes, tokens, &group, present, x.after(done), acc[done..][0..tokens]),
                        else => unreachable,
                    }
                }
            },
        }
        slabs -= present;
        x = x.after(stride);
    }
    for (acc[0..count], token..) |sums, t| matmul.storeLanes(a, segment, row, t, sums);
}

/// Asks for the lines of `bytes` bytes that fall to `register_tokens` of `count` tokens, from token `done` on.
inline fn requestPart(span: [*]const u8, bytes: usize, done: usize, count: usize) void {
    var line = bytes * done / count / std.atomic.cache_line;
    const end = bytes * @min(done + register_tokens, count) / count / std.atomic.cache_line;
    while (line < end) : (line += 1) @prefetch(span + std.atomic.cache_line * line, .{ .locality = 3 });
}

/// A group of a panel where it lies.
pub fn Packed(comptime l: Layout) type {
    return struct {
        head: layouts.Header,
        first: [*]const u8,
        from_memory: bool,

        const Self = @This();

        inline fn slab(self: *const Self, index: usize) [*]const u8 {
            return self.first + index * l.slabBytes();
        }

        inline fn requestAhead(self: *const Self, comptime tokens: usize, index: usize) void {
            if (self.from_memory) packed_panels.requestAhead(l, tokens, self.slab(index));
        }

        inline fn integers(self: *const Self, index: usize, comptime register: usize) simd.U8 {
            return layouts.integers(l, self.slab(index), register);
        }

        /// Elements 0 and 2 of each four, then 1 and 3, the offset taken away.
        inline fn words(self: *const Self, index: usize, comptime register: usize) [2]I16 {
            const q: I16 = @bitCast(self.integers(index, register) -% @as(simd.U8, @splat(l.offset)));
            return .{ q << @splat(8) >> @splat(8), q >> @splat(8) };
        }

        inline fn scalePairs(self: *const Self, index: usize, comptime sub: usize) I16 {
            return layouts.scalePairs(l, self.slab(index), sub);
        }

        inline fn halfScale(self: *const Self, index: usize) F32 {
            return layouts.halfScale(self.slab(index));
        }

        inline fn minimum(self: *const Self, index: usize, comptime sub: usize) F32 {
            return layouts.minimum(l, self.head, self.slab(index), sub);
        }

        inline fn unit(self: *const Self) F32 {
            return packed_panels.unitOf(l, self.head);
        }
    };
}

/// The same, ready to be used by many tokens.
fn Unpacked(comptime l: Layout) type {
    return struct {
        registers: [layouts.group_slabs][layouts.slab_registers]Register,
        scales: [layouts.group_slabs][l.subs()]Scale,
        minima: [layouts.group_slabs][if (l.has_min) l.subs() else 0]F32,
        units: F32,

        const Self = @This();
        const has_words = chains(l) == null;
        const Register = if (has_words) [2]I16 else simd.U8;
        const Scale = if (l.whole()) I16 else F32;

        inline fn fill(self: *Self, source: Packed(l), slabs: usize) void {
            for (0..slabs) |index| {
                inline for (&self.registers[index], 0..) |*register, j| register.* = if (has_words) source.words(index, j) else source.integers(index, j);
                inline for (&self.scales[index], 0..) |*scale, sub| scale.* = if (l.whole()) source.scalePairs(index, sub) else source.halfScale(index);
                inline for (&self.minima[index], 0..) |*min, sub| min.* = source.minimum(index, sub);
            }
            if (l.whole()) self.units = source.unit();
        }

        inline fn requestAhead(_: *const Self, comptime _: usize, _: usize) void {}

        inline fn integers(self: *const Self, index: usize, comptime register: usize) simd.U8 {
            return self.registers[index][register];
        }

        inline fn words(self: *const Self, index: usize, comptime register: usize) [2]I16 {
            return self.registers[index][register];
        }

        inline fn scalePairs(self: *const Self, index: usize, comptime sub: usize) I16 {
            return self.scales[index][sub];
        }

        inline fn halfScale(self: *const Self, index: usize) F32 {
            return self.scales[index][0];
        }

        inline fn minimum(self: *const Self, index: usize, comptime sub: usize) F32 {
            return self.minima[index][sub];
        }

        inline fn unit(self: *const Self) F32 {
            return self.units;
        }
    };
}

/// Adds the products of one group's slabs, of a `Packed` or an `Unpacked` one.
pub inline fn addGroup(
    comptime l: Layout,
    comptime bytes: Bytes,
    comptime tokens: usize,
    group: anytype,
    slabs: usize,
    x: activations.Group,
    acc: *[tokens]F32,
) void {
    @setEvalBranchQuota(100_000);
    var high: [tokens]I32 = @splat(@splat(0));
    var low: [tokens]I32 = @splat(@splat(0));
    for (0..slabs) |index| {
        group.requestAhead(tokens, index);
        inline for (0..l.subs()) |sub| {
            if (l.whole()) {
                const scale = group.scalePairs(index, sub);
                inline for (0..comptime chains(l).?) |chain| {
                    const sums = chainSums(l, bytes, tokens, group, index, sub, chain, x);
                    inline for (0..tokens) |t| {
                        high[t] = simd.addPairs(high[t], sums[t].high, scale);
                        if (bytes == .both) low[t] = simd.addPairs(low[t], sums[t].low, scale);
                    }
                }
            } else {
                const scale = group.halfScale(index);
                const sums = slabSums(l, bytes, tokens, group, index, x);
                inline for (0..tokens) |t| {
                    acc[t] = math.mulAdd(@as(F32, @floatFromInt(sums[t])), scale * @as(F32, @splat(x.records[t].scale)), acc[t]);
                }
            }
            if (l.has_min) {
                const minimum = group.minimum(index, sub);
                inline for (0..tokens) |t| acc[t] = math.mulAdd(minimum, @splat(packed_panels.totalOf(l, &x.records[t], index, sub)), acc[t]);
            }
        }
    }
    if (l.whole()) inline for (0..tokens) |t| {
        const sum = packed_panels.wholeSum(l, high[t], low[t]);
        acc[t] = math.mulAdd(sum, group.unit() * @as(F32, @splat(x.records[t].scale)), acc[t]);
    };
}

/// Registers that share a scale.
fn subRegisters(comptime l: Layout) usize {
    return layouts.slab_registers / l.subs();
}

/// In how many parts 16 bits hold the sums of the registers that share a scale; null where not even two of a byte each.
fn chains(comptime l: Layout) ?usize {
    const registers_max = @divFloor(std.math.maxInt(i16), 2 * activations.byte_max * l.magnitude());
    if (registers_max < 2) return null;
    var count: usize = 1;
    while (subRegisters(l) / count > registers_max) count *= 2;
    return count;
}

const Sums = struct { high: I16, low: I16 };

/// Products of the high and the low bytes with part `chain` of the integers that share a scale, offsets taken away.
inline fn chainSums(
    comptime l: Layout,
    comptime bytes: Bytes,
    comptime tokens: usize,
    group: anytype,
    index: usize,
    comptime sub: usize,
    comptime chain: usize,
    x: activations.Group,
) [tokens]Sums {
    const registers = comptime subRegisters(l) / chains(l).?;
    const first = comptime sub * subRegisters(l) + chain * registers;
    const offset: I16 = @splat(l.offset);
    var sums: [tokens]Sums = undefined;
    inline for (&sums, 0..) |*sum, t| {
        const record = &x.records[t];
        const is_long = registers == layouts.slab_registers;
        if (l.offset == 0) {
            sum.* = .{ .high = @splat(0), .low = @splat(0) };
            continue;
        }
        comptime std.debug.assert(is_long or registers == layouts.slab_registers / 2);
        const half = 2 * index + first / registers;
        sum.high = spread(if (is_long) record.less_high_32[index] else record.less_high_16[half]) *% offset;
        if (bytes == .both) sum.low = spread(if (is_long) record.less_low_32[index] else record.less_low_16[half]) *% offset;
    }
    inline for (first..first + registers) |register| {
        const q = group.integers(index, register);
        const at = layouts.slab_elements * index + 4 * register;
        inline for (&sums, 0..) |*sum, t| {
            const integers = &x.integers[t];
            sum.high +%= simd.pairProducts(q, packed_panels.broadcast(&integers.high, at));
            if (bytes == .both) sum.low +%= simd.pairProducts(q, packed_panels.broadcast(&integers.low, at));
        }
    }
    return sums;
}

/// `256 * high + low` of a slab's sums, for formats with scales in floating point.
inline fn slabSums(comptime l: Layout, comptime bytes: Bytes, comptime tokens: usize, group: anytype, index: usize, x: activations.Group) [tokens]I32 {
    var result: [tokens]I32 = @splat(@splat(0));
    if (comptime chains(l)) |count| {
        inline for (0..count) |chain| {
            const sums = chainSums(l, bytes, tokens, group, index, 0, chain, x);
            inline for (&result, sums) |*whole, sum| {
                whole.* = simd.addPairs(whole.*, sum.high, @splat(1 << activations.low_bits));
                if (bytes == .both) whole.* = simd.addPairs(whole.*, sum.low, @splat(1));
            }
        }
        return result;
    }
    inline for (0..layouts.slab_registers) |register| {
        const at = layouts.slab_elements * index + 4 * register;
        inline for (&result, 0..) |*whole, t| {
            inline for (group.words(index, register), 0..) |part, i| {
                const two = x.integers[t].both[at + 2 * i ..][0..2];
                whole.* = simd.addPairs(whole.*, part, spread(@bitCast(two.*)));
            }
        }
    }
    return result;
}

/// Two words in every lane of two.
inline fn spread(words: i32) I16 {
    return @bitCast(@as(I32, @splat(words)));
}
