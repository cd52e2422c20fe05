//! Activations as the quantised matrix products want them: 16-bit integers that share a scale in groups of 256,
//! each integer split into a high and a low byte for the 8-bit dot product instructions
//! (`v = 256 * high + low`). Two bytes leave an error of f32's order. `fast` makes do with the high byte, but for
//! groups in which one element stands far above the others.
//!
//! Tokens are grouped in tiles of up to 16; within a tile what there is of one group lies together, token by
//! token, so that a kernel walks on by one step whatever the number of tokens.

const std = @import("std");
const math = @import("math.zig");
const simd = @import("simd.zig");

const F32 = simd.F32;
const I32 = simd.I32;

/// The op's attribute `activations`.
pub const Precision = enum(u32) { precise = 0, fast = 1 };

/// The bytes of the integers that a group's products need.
pub const Bytes = enum { high, both };

pub const group_elements = 256;
/// Tokens of a tile; the last tile of a step holds what is left.
pub const tile_tokens = 16;

/// So many tokens or more in a last tile take the room of a whole one, whose other groups are undefined: the tile
/// unit multiplies them all the same.
pub const padded_tokens_min = if (simd.has_amx) 12 else tile_tokens;

/// From so many on, an odd number takes the room of one more.
pub const paired_tokens_min = if (simd.has_amx) 4 else tile_tokens;

/// Largest magnitude of a byte.
pub const byte_max = 127;
/// The bits of a low byte.
pub const low_bits = 8;
/// Largest integer of a group: all in the high byte, 0 in the low one.
pub const integer_max = byte_max << low_bits;

/// `fast` keeps both bytes of groups whose largest magnitude is more than so many times the root of their mean
/// square. Of SmolLM2-135M's logits, whose spread is 3.7, the error is then 0.16; that of integers of 8 bits in blocks of
/// 32 is 0.23. It is 0.54 without such groups, 0.26 from a ratio of 11 on and 0.08 from one of 6.
const uneven_ratio = 8.0;

const vectors = group_elements / 16;

/// The integers of one group of one token. Those of a tile's tokens lie one behind the other, so that one stride
/// leads through high and low bytes alike.
pub const Integers = extern struct {
    high: [group_elements]i8 align(64),
    low: [group_elements]i8,
    /// `256 * high + low` of elements 0, 2, 1 and 3 of each four: what bytes of weights meet whose products of a byte
    /// 16 bits would not hold.
    both: [if (simd.adds_byte_pairs) group_elements else 0]i16,
};

/// What else is known of them. The sums serve weight formats with offsets or minima, by 16 and by 32 elements. What
/// the tile unit needs is in the first line.
pub const Record = extern struct {
    scale: f32 align(64),
    /// Whether there are low bytes; where not, they are zero.
    has_low: u32,
    /// Sums of the values.
    total_32: [8]f32,
    total_16: [16]f32,
    /// Sums of the high and of the low bytes, negated: what an offset of 1 takes away. Where bytes are added by twos,
    /// two words: of the first and of the second two of each four elements.
    less_high_32: [8]i32,
    less_low_32: [8]i32,
    less_high_16: [16]i32,
    less_low_16: [16]i32,
    /// Of both bytes together: what an offset of 128 takes away.
    less_both_32: [8]i32,

    comptime {
        std.debug.assert(@sizeOf(Integers) % 64 == 0 and @sizeOf(Record) == 6 * 64);
    }
};

/// A group of one token, the same group of the tile's next tokens behind it.
pub const Group = struct {
    integers: [*]Integers,
    records: [*]Record,

    /// So many tokens on; as many as the tile has room for: the next group.
    pub inline fn after(group: Group, tokens: usize) Group {
        return .{ .integers = group.integers + tokens, .records = group.records + tokens };
    }
};

/// Groups of a row of k elements.
pub fn groupCount(k: usize) usize {
    return std.math.divCeil(usize, k, group_elements) catch unreachable;
}

/// Groups, with the room that a last tile takes, of `tokens` rows of k elements.
fn totalGroups(tokens: usize, k: usize) usize {
    const rest = tokens % tile_tokens;
    return (tokens - rest + roomOf(rest)) * groupCount(k);
}

/// Bytes that `tokens` rows of k elements need.
pub fn byteCount(tokens: usize, k: usize) usize {
    return totalGroups(tokens, k) * (@sizeOf(Integers) + @sizeOf(Record));
}

/// Tokens for which a tile of so many has room.
inline fn roomOf(tokens: usize) usize {
    if (tokens >= padded_tokens_min) return tile_tokens;
    return if (tokens >= paired_tokens_min) std.mem.alignForward(usize, tokens, 2) else tokens;
}

/// The quantised rows of a step.
pub const Rows = struct {
    first_group: Group,
    tokens: usize,
    groups: usize,
    precision: Precision,

    /// Room for up to `tokens` rows of k elements in `byteCount` bytes of memory.
    pub fn init(memory: [*]align(64) u8, tokens: usize, k: usize, precision: Precision) Rows {
        const records = memory + totalGroups(tokens, k) * @sizeOf(Integers);
        return .{
            .first_group = .{ .integers = @ptrCast(memory), .records = @ptrCast(@alignCast(records)) },
            .tokens = tokens,
            .groups = groupCount(k),
            .precision = precision,
        };
    }

    /// Tokens for which the tile that begins at `token`, a multiple of `tile_tokens`, has room.
    pub inline fn tileSize(rows: Rows, token: usize) usize {
        return roomOf(@min(tile_tokens, rows.tokens - token));
    }

    /// Tiles with room for `tile_tokens` among the next `count` tokens, whole tiles, from `token` on.
    pub fn wholeTiles(rows: Rows, token: usize, count: usize) usize {
        const present = @min(rows.tokens - token, count);
        return present / tile_tokens + @intFromBool(present % tile_tokens >= padded_tokens_min);
    }

    /// The bytes that a group of `tokens` tokens needs together.
    pub inline fn bytesOf(rows: Rows, group: Group, tokens: usize) Bytes {
        if (rows.precision == .precise) return .both;
        var any: u32 = 0;
        for (group.records[0..tokens]) |*record| any |= record.has_low;
        return if (any != 0) .both else .high;
    }

    /// A token's first group; the next is as many tokens on as its tile has room for.
    pub inline fn first(rows: Rows, token: usize) Group {
        const tile = token - token % tile_tokens;
        return rows.first_group.after(tile * rows.groups + (token - tile));
    }

    /// Quantises one row of k f32: scale the largest magnitude / 32512, integers rounded to nearest, ties to
    /// even; `fast` drops low bytes. Elements past the end of the row are 0.
    pub fn quantize(rows: Rows, token: usize, x: [*]const f32, k: usize) void {
        switch (rows.precision) {
            inline else => |precision| rows.quantizeRow(precision, token, x, k),
        }
    }

    fn quantizeRow(rows: Rows, comptime precision: Precision, token: usize, x: [*]const f32, k: usize) void {
        const step = rows.tileSize(token - token % tile_tokens);
        var group = rows.first(token);
        var done: usize = 0;
        while (done + group_elements <= k) : (done += group_elements) {
            quantizeGroup(precision, x[done..][0..group_elements], &group.integers[0], &group.records[0]);
            group = group.after(step);
        }
        if (done == k) return;
        var tail: [group_elements]f32 = @splat(0);
        @memcpy(tail[0 .. k - done], x[done..k]);
        quantizeGroup(precision, &tail, &group.integers[0], &group.records[0]);
    }
};

fn quantizeGroup(comptime precision: Precision, x: *const [group_elements]f32, group: *Integers, record: *Record) void {
    const magnitude: I32 = @splat(0x7fff_ffff);
    // Magnitudes compare as integers; infinities and NaNs are above all numbers.
    var largest_bits: I32 = @splat(0);
    inline for (0..vectors) |i| largest_bits = @max(largest_bits, @as(I32, @bitCast(x[16 * i ..][0..16].*)) & magnitude);
    const bits = @reduce(.Max, largest_bits);
    const finite = bits < 0x7f80_0000;
    const largest: f32 = @bitCast(bits);
    const scale = if (finite) largest / integer_max else std.math.nan(f32);
    // A group with an infinity or NaN poisons its outputs through the scale; its integers are any. A tiny one
    // is zero rather than scaled by infinity.
    const inverse: F32 = @splat(if (finite and largest > 0x1p-110) integer_max / largest else 0);

    const has_low = precision == .precise or isUneven(x, largest);
    record.has_low = @intFromBool(has_low);
    // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, and leaves it in the low bits.
    const magic: f32 = 12582912;
    inline for (0..vectors) |i| {
        const v: F32 = x[16 * i ..][0..16].*;
        const shifted = v * inverse + @as(F32, @splat(magic));
        const integers = @as(I32, @bitCast(shifted)) -% @as(I32, @splat(@bitCast(magic)));
        const high = (integers +% @as(I32, @splat(1 << (low_bits - 1)))) >> @splat(low_bits);
        // A step less in one of 256 integers, so that a byte's magnitude stays one of seven bits.
        const low = if (has_low) @max(integers -% (high << @splat(low_bits)), @as(I32, @splat(-byte_max))) else @as(I32, @splat(0));
        group.high[16 * i ..][0..16].* = @as(@Vector(16, i8), @truncate(high));
        group.low[16 * i ..][0..16].* = @as(@Vector(16, i8), @truncate(low));
        if (simd.adds_byte_pairs) group.both[16 * i ..][0..16].* = @as(@Vector(16, i16), @truncate(middleSwapped(joined(high, low))));
    }
    record.scale = scale;
    inline for (0..group_elements / 64) |part| {
        const high = sumsBy16(group.high[64 * part ..][0..64]);
        const low = sumsBy16(group.low[64 * part ..][0..64]);
        const total = @as(@Vector(4, f32), @floatFromInt(joined(wholeSums(high), wholeSums(low)))) * @as(@Vector(4, f32), @splat(scale));
        record.less_high_16[4 * part ..][0..4].* = negated(high);
        record.less_low_16[4 * part ..][0..4].* = negated(low);
        record.total_16[4 * part ..][0..4].* = total;
        const high_32 = pairs(high);
        const low_32 = pairs(low);
        const sum_32 = joined(wholeSums(high_32), wholeSums(low_32));
        const total_32 = @as(@Vector(2, f32), @floatFromInt(sum_32)) * @as(@Vector(2, f32), @splat(scale));
        record.less_high_32[2 * part ..][0..2].* = negated(high_32);
        record.less_low_32[2 * part ..][0..2].* = negated(low_32);
        record.less_both_32[2 * part ..][0..2].* = -%(sum_32 << @splat(7));
        record.total_32[2 * part ..][0..2].* = total_32;
    }
}

/// Whether the largest magnitude of a group stands so far above the others that 8 bits in steps of it would say
/// little of them.
fn isUneven(x: *const [group_elements]f32, largest: f32) bool {
    var squares: F32 = @splat(0);
    inline for (0..vectors) |i| {
        const v: F32 = x[16 * i ..][0..16].*;
        squares = math.mulAdd(v, v, squares);
    }
    const mean = math.sum(squares) / group_elements;
    return largest * largest > uneven_ratio * uneven_ratio * mean;
}

/// What sums of high and of low bytes say together.
pub inline fn joined(high: anytype, low: @TypeOf(high)) @TypeOf(high) {
    return (high << @splat(low_bits)) +% low;
}

/// Sums of 64 bytes by 16, in the form of the record's.
inline fn sumsBy16(bytes: *const [64]i8) @Vector(4, i32) {
    const ones: simd.U8 = @splat(1);
    const by_4: I32 = if (simd.adds_byte_pairs) @bitCast(simd.pairProducts(ones, bytes.*)) else simd.dot(@splat(0), ones, bytes.*);
    const by_8 = added(by_4, @shuffle(i32, by_4, undefined, [16]i32{ 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14 }));
    const by_16 = added(by_8, @shuffle(i32, by_8, undefined, [16]i32{ 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13 }));
    return @shuffle(i32, by_16, undefined, [4]i32{ 0, 4, 8, 12 });
}

inline fn pairs(v: @Vector(4, i32)) @Vector(2, i32) {
    return added(@shuffle(i32, v, undefined, [2]i32{ 0, 2 }), @shuffle(i32, v, undefined, [2]i32{ 1, 3 }));
}

/// What the lanes of the record's sums hold: a number, or two words.
fn Parts(comptime V: type) type {
    return if (simd.adds_byte_pairs) @Vector(2 * @typeInfo(V).vector.len, i16) else V;
}

inline fn added(a: anytype, b: @TypeOf(a)) @TypeOf(a) {
    return @bitCast(@as(Parts(@TypeOf(a)), @bitCast(a)) +% @as(Parts(@TypeOf(a)), @bitCast(b)));
}

inline fn negated(v: anytype) @TypeOf(v) {
    return @bitCast(-%@as(Parts(@TypeOf(v)), @bitCast(v)));
}

/// A number in each lane.
inline fn wholeSums(v: anytype) @TypeOf(v) {
    return if (simd.adds_byte_pairs) (v << @splat(16) >> @splat(16)) +% (v >> @splat(16)) else v;
}

/// Lanes 0, 2, 1 and 3 of each four.
inline fn middleSwapped(v: I32) I32 {
    return @shuffle(i32, v, undefined, [16]i32{ 0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15 });
}

fn wholeLess(high: i32, low: i32) i32 {
    const sums = wholeSums(@Vector(2, i32){ high, low });
    return 256 * sums[0] + sums[1];
}

test "integers, sums and scale of a group" {
    var random = std.Random.DefaultPrng.init(3);
    var x: [group_elements]f32 = undefined;
    var group: Integers = undefined;
    var record: Record = undefined;
    for (0..200) |round| {
        for (&x) |*value| value.* = (random.random().float(f32) * 2 - 1) * (if (round % 3 == 0) @as(f32, 1e-3) else 50);
        quantizeGroup(.precise, &x, &group, &record);
        var largest: f32 = 0;
        for (x) |value| largest = @max(largest, @abs(value));
        try std.testing.expectEqual(largest / integer_max, record.scale);
        var total: i32 = 0;
        for (x, group.high, group.low) |value, high, low| {
            const integer = @as(i32, high) * 256 + low;
            total += integer;
            try std.testing.expect(@abs(value - @as(f32, @floatFromInt(integer)) * record.scale) <= (if (low == -byte_max) @as(f32, 1.504) else 0.504) * record.scale);
        }
        var less: i32 = 0;
        for (record.less_high_32, record.less_low_32) |high, low| less += wholeLess(high, low);
        try std.testing.expectEqual(-total, less);
        less = 0;
        for (record.less_high_16, record.less_low_16) |high, low| less += wholeLess(high, low);
        try std.testing.expectEqual(-total, less);
        if (simd.adds_byte_pairs) for (0..group_elements / 4) |four| for ([_]usize{ 0, 2, 1, 3 }, 0..) |element, place| {
            const at = 4 * four + element;
            try std.testing.expectEqual(@as(i32, group.high[at]) * 256 + group.low[at], group.both[4 * four + place]);
        };
    }
}

test "a group with an infinity or a NaN has a scale of NaN, one of zeros is zero" {
    var group: Integers = undefined;
    var record: Record = undefined;
    for ([_]f32{ std.math.inf(f32), -std.math.inf(f32), std.math.nan(f32) }) |bad| {
        var x: [group_elements]f32 = @splat(1);
        x[77] = bad;
        quantizeGroup(.precise, &x, &group, &record);
        try std.testing.expect(std.math.isNan(record.scale) and std.math.isNan(record.total_32[0]) and std.math.isNan(record.total_16[7]));
    }
    quantizeGroup(.precise, &@as([group_elements]f32, @splat(0)), &group, &record);
    try std.testing.expectEqual(0, record.scale);
    for (group.high, group.low) |high, low| try std.testing.expect(high == 0 and low == 0);
}
