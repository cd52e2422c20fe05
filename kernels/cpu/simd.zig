//! The vector types and the few instructions the compiler does not find by itself, chosen at compile time for
//! the library's instruction-set level. A group is 64 elements: one 512-bit register of bytes, its 16 lanes of
//! four bytes summed into one 512-bit register of integers; narrower machines split it in halves or quarters.

const std = @import("std");
const builtin = @import("builtin");
const math = @import("math.zig");

const x86 = std.Target.x86;
const aarch64 = std.Target.aarch64;
const is_x86 = builtin.cpu.arch == .x86_64;
const is_arm = builtin.cpu.arch == .aarch64;

fn hasX86(comptime feature: x86.Feature) bool {
    return is_x86 and x86.featureSetHas(builtin.cpu.features, feature);
}

pub const has_avx512 = hasX86(.avx512f) and hasX86(.avx512bw);
pub const has_avx2 = hasX86(.avx2);
pub const has_vnni = has_avx512 and hasX86(.avx512vnni);
/// The byte products in 256 bits, of processors without AVX-512.
const has_avx_vnni = has_avx2 and !has_avx512 and hasX86(.avxvnni);
pub const has_amx = hasX86(.amx_tile) and hasX86(.amx_int8);
pub const has_bf16_tiles = has_amx and hasX86(.amx_bf16);
const has_bit_matrices = has_avx512 and hasX86(.gfni);
pub const has_dotprod = is_arm and aarch64.featureSetHas(builtin.cpu.features, .dotprod);
pub const has_i8mm = is_arm and aarch64.featureSetHas(builtin.cpu.features, .i8mm);

/// Elements of a group, and its lanes.
pub const group_elements = 64;
pub const group_lanes = 16;

/// Whether products of bytes are added by twos, to 16 bits: x86 before its instructions that add four to 32 bits.
pub const adds_byte_pairs = is_x86 and !has_avx512 and !has_avx_vnni;

pub const U8 = @Vector(64, u8);
pub const I8 = @Vector(64, i8);
pub const I16 = @Vector(32, i16);
pub const I32 = @Vector(16, i32);
pub const F32 = @Vector(16, f32);

/// One vector behind the other.
pub inline fn join(a: anytype, b: @TypeOf(a)) Twice(@TypeOf(a)) {
    const T = @typeInfo(@TypeOf(a)).vector;
    return @shuffle(T.child, a, b, JoinMask(T.len).mask);
}

fn Twice(comptime V: type) type {
    const T = @typeInfo(V).vector;
    return @Vector(2 * T.len, T.child);
}

/// A declaration of its own, so that it is evaluated once and not at every place that joins.
fn JoinMask(comptime n: comptime_int) type {
    return struct {
        const mask = blk: {
            var m: [2 * n]i32 = undefined;
            for (0..n) |i| {
                m[i] = i;
                m[n + i] = ~@as(i32, i);
            }
            break :blk m;
        };
    };
}

/// `n` elements from `first` on.
pub inline fn extract(v: anytype, comptime first: comptime_int, comptime n: comptime_int) @Vector(n, @typeInfo(@TypeOf(v)).vector.child) {
    return @shuffle(@typeInfo(@TypeOf(v)).vector.child, v, undefined, RangeMask(first, n).mask);
}

fn RangeMask(comptime first: comptime_int, comptime n: comptime_int) type {
    return struct {
        const mask = blk: {
            var m: [n]i32 = undefined;
            for (0..n) |i| m[i] = first + i;
            break :blk m;
        };
    };
}

/// `table[index]` for each of 16, 32 or 64 indices below 16.
pub inline fn lookup(comptime table: [16]u8, indices: anytype) @TypeOf(indices) {
    const n = @typeInfo(@TypeOf(indices)).vector.len;
    const register_bytes = if (has_avx512) 64 else if (has_avx2) 32 else 16;
    if (n > register_bytes) {
        return join(lookup(table, extract(indices, 0, n / 2)), lookup(table, extract(indices, n / 2, n / 2)));
    }
    const repeated: @TypeOf(indices) = comptime @as([n]u8, @bitCast(@as([n / 16][16]u8, @splat(table))));
    if (has_avx2) {
        return asm ("vpshufb %[indices], %[table], %[out]"
            : [out] "=v" (-> @TypeOf(indices)),
            : [table] "v" (repeated),
              [indices] "v" (indices),
        );
    }
    if (is_x86) {
        return asm ("pshufb %[indices], %[out]"
            : [out] "=x" (-> @TypeOf(indices)),
            : [_] "0" (repeated),
              [indices] "x" (indices),
        );
    }
    if (is_arm) {
        return asm ("tbl %[out].16b, {%[table].16b}, %[indices].16b"
            : [out] "=w" (-> @TypeOf(indices)),
            : [table] "w" (repeated),
              [indices] "w" (indices),
        );
    }
    var out: [n]u8 = undefined;
    for (&out, @as([n]u8, indices)) |*byte, index| byte.* = table[index];
    return out;
}

/// `n` bfloat16 from memory.
pub inline fn widenBf16(comptime n: usize, p: [*]const u8) @Vector(n, f32) {
    if (has_avx2 and n == 8) {
        // A load fills both halves of a register with all eight, and one instruction moves each to its place. The
        // compiler's own way takes two.
        const eight: @Vector(16, u8) = p[0..16].*;
        return @bitCast(asm ("vpshufb %[places], %[twice], %[out]"
            : [out] "=v" (-> @Vector(32, u8)),
            : [twice] "v" (join(eight, eight)),
              [places] "v" (comptime wideBf16Places()),
        ));
    }
    return math.widenBf16(@as(@Vector(n, u16), @bitCast(p[0 .. 2 * n].*)));
}

/// Of each byte of eight floats the byte of eight bfloat16 that it is; those with the highest bit are zero.
fn wideBf16Places() @Vector(32, u8) {
    var places: [32]u8 = @splat(0x80);
    for (0..8) |i| {
        places[4 * i + 2] = 2 * i;
        places[4 * i + 3] = 2 * i + 1;
    }
    return places;
}

/// Largest unsigned value `dot` takes: the pairwise 16-bit sums of the multiply-add instructions saturate above.
pub const dot_unsigned_max = if (has_vnni or has_avx_vnni) 255 else 127;

/// `accumulator[lane] + sum over the lane's four bytes of u * s`; u at most `dot_unsigned_max`.
pub inline fn dot(accumulator: I32, u: U8, s: I8) I32 {
    @setEvalBranchQuota(100_000);
    if (has_vnni) {
        return asm ("vpdpbusd %[s], %[u], %[acc]"
            : [acc] "=v" (-> I32),
            : [u] "v" (u),
              [s] "v" (s),
              [_] "0" (accumulator),
        );
    }
    if (has_avx512) return accumulator + maddubs(64, u, s);
    if (has_avx_vnni) return join(
        dotVex(extract(accumulator, 0, 8), extract(u, 0, 32), extract(s, 0, 32)),
        dotVex(extract(accumulator, 8, 8), extract(u, 32, 32), extract(s, 32, 32)),
    );
    if (has_avx2) return accumulator + join(maddubs(32, extract(u, 0, 32), extract(s, 0, 32)), maddubs(32, extract(u, 32, 32), extract(s, 32, 32)));
    if (is_x86) {
        var parts: [4]@Vector(4, i32) = undefined;
        const us: [4]@Vector(16, u8) = @bitCast(u);
        const ss: [4]@Vector(16, i8) = @bitCast(s);
        inline for (0..4) |i| parts[i] = maddubs(16, us[i], ss[i]);
        return accumulator + @as(I32, @bitCast(parts));
    }
    if (has_dotprod) return sdot(accumulator, @bitCast(u), s);
    return dotWide(accumulator, @as(@Vector(64, i16), u), s);
}

inline fn dotVex(accumulator: @Vector(8, i32), u: @Vector(32, u8), s: @Vector(32, i8)) @Vector(8, i32) {
    return asm ("{vex} vpdpbusd %[s], %[u], %[acc]"
        : [acc] "=x" (-> @Vector(8, i32)),
        : [u] "x" (u),
          [s] "x" (s),
          [_] "0" (accumulator),
    );
}

/// Whole numbers of 64 bits in 16 lanes: the even lanes of a register of 32 bits, then the odd ones.
/// As factors they are words, whose upper halves do not count.
pub const WideSums = struct {
    parts: [2]Longs,

    const Longs = @Vector(8, i64);
    const word_bits: @Vector(8, u6) = @splat(32);

    pub const zero: WideSums = .{ .parts = @splat(@splat(0)) };

    pub inline fn of(v: I32) WideSums {
        const pairs: Longs = @bitCast(v);
        return .{ .parts = .{ pairs, pairs >> word_bits } };
    }

    /// `wide + a * b` for a and b of 32 bits.
    pub inline fn plus(wide: WideSums, a: WideSums, b: WideSums) WideSums {
        var result: WideSums = undefined;
        inline for (&result.parts, wide.parts, a.parts, b.parts) |*sum, start, x, y| sum.* = start +% word(x) *% word(y);
        return result;
    }

    /// Says that the lower words are all there is, which a product of words needs to know of what comes from memory.
    inline fn word(v: Longs) Longs {
        return v << word_bits >> word_bits;
    }

    /// `wide / 2^bits` rounded down, of which 32 bits are kept.
    pub inline fn shifted(wide: WideSums, comptime bits: u6) I32 {
        const low_words: Longs = @splat(0xffff_ffff);
        const shift: @Vector(8, u6) = @splat(bits);
        return @bitCast((wide.parts[0] >> shift & low_words) | (wide.parts[1] >> shift << word_bits));
    }
};

/// Some bits of a byte, and where they go.
pub const BitField = struct { from: u3, count: u4, to: u3 };

/// A field of every byte alone, in its new place.
pub inline fn moveBits(v: U8, comptime field: BitField) U8 {
    const ones = ((1 << field.count) - 1) << field.to;
    if (has_bit_matrices and field.from != field.to) return timesBitMatrix(v, bitMatrix(field, false), 0);
    const moved = if (field.to >= field.from) v << @splat(field.to - field.from) else v >> @splat(field.from - field.to);
    return moved & @as(U8, @splat(ones));
}

/// Whether `moveCentered` is one instruction.
pub const moves_centered = has_bit_matrices;

/// The same of the highest bits of a number that counts from the middle of its range, as a signed number has them.
pub inline fn moveCentered(v: U8, comptime field: BitField) U8 {
    const sign = @as(u8, 0xff) << (field.to + field.count - 1);
    return timesBitMatrix(v, bitMatrix(field, true), sign);
}

/// `repeats`: the field's highest bit is also what lies above it.
fn bitMatrix(comptime field: BitField, comptime repeats: bool) u64 {
    var matrix: u64 = 0;
    for (field.to..8) |bit| {
        if (!repeats and bit >= field.to + field.count) break;
        // The row of the lowest bit is the last byte.
        matrix |= @as(u64, 1) << (8 * (7 - bit) + field.from + @min(bit - field.to, field.count - 1));
    }
    return matrix;
}

/// Every byte times a matrix of bits, plus a byte, modulo 2.
inline fn timesBitMatrix(v: U8, comptime matrix: u64, comptime plus: u8) U8 {
    return asm (std.fmt.comptimePrint("vgf2p8affineqb ${d}, %[matrix], %[v], %[to]", .{plus})
        : [to] "=v" (-> U8),
        : [v] "v" (v),
          [matrix] "v" (@as(@Vector(8, u64), @splat(matrix))),
    );
}

/// Whether 16-bit products can be added to 32-bit sums in one instruction.
pub const has_word_dot = has_vnni or has_avx_vnni;

/// `accumulator[lane] + a * b` for a and b that fit 16 bits.
pub inline fn addWordProducts(accumulator: I32, a: I32, b: I32) I32 {
    return addLowWordProducts(accumulator, a, lowWords(b));
}

/// The lower word of each lane; the upper one is zero.
pub inline fn lowWords(v: I32) I32 {
    return v & @as(I32, @splat(0xffff));
}

/// `addWordProducts` with the `lowWords` of b: the instruction multiplies both words of a lane, the upper ones with zero.
pub inline fn addLowWordProducts(accumulator: I32, a: I32, words: I32) I32 {
    if (has_vnni) {
        return asm ("vpdpwssd %[b], %[a], %[acc]"
            : [acc] "=v" (-> I32),
            : [a] "v" (a),
              [b] "v" (words),
              [_] "0" (accumulator),
        );
    }
    if (has_avx_vnni) return join(
        wordsVex(extract(accumulator, 0, 8), extract(a, 0, 8), extract(words, 0, 8)),
        wordsVex(extract(accumulator, 8, 8), extract(a, 8, 8), extract(words, 8, 8)),
    );
    return accumulator +% a *% (words << @splat(16) >> @splat(16));
}

inline fn wordsVex(accumulator: @Vector(8, i32), a: @Vector(8, i32), b: @Vector(8, i32)) @Vector(8, i32) {
    return asm ("{vex} vpdpwssd %[b], %[a], %[acc]"
        : [acc] "=x" (-> @Vector(8, i32)),
        : [a] "x" (a),
          [b] "x" (b),
          [_] "0" (accumulator),
    );
}

/// The same for two signed operands, b at least -127.
pub inline fn dotSigned(accumulator: I32, a: I8, b: I8) I32 {
    if (has_dotprod) return sdot(accumulator, a, b);
    // The magnitude of a is at most 128, the other operand's 127: pairs stay below the 16-bit limit.
    if (is_x86) return dot(accumulator, @abs(a), @select(i8, a < @as(I8, @splat(0)), -%b, b));
    return dotWide(accumulator, @as(@Vector(64, i16), a), b);
}

/// Unsigned times signed bytes, neighbours added: 16 bits, at whose ends they stop.
pub inline fn pairProducts(u: U8, s: I8) I16 {
    if (!adds_byte_pairs) comptime unreachable;
    const us: [64 / pair_bytes]@Vector(pair_bytes, u8) = @bitCast(u);
    const ss: [64 / pair_bytes]@Vector(pair_bytes, i8) = @bitCast(s);
    var parts: [64 / pair_bytes]@Vector(pair_bytes / 2, i16) = undefined;
    inline for (&parts, us, ss) |*part, a, b| part.* = pairsOfBytes(pair_bytes, a, b);
    return @bitCast(parts);
}

/// `accumulator[lane] + a[2 * lane] * b[2 * lane] + a[2 * lane + 1] * b[2 * lane + 1]`.
pub inline fn addPairs(accumulator: I32, a: I16, b: I16) I32 {
    if (!adds_byte_pairs) comptime unreachable;
    const as: [64 / pair_bytes]@Vector(pair_bytes / 2, i16) = @bitCast(a);
    const bs: [64 / pair_bytes]@Vector(pair_bytes / 2, i16) = @bitCast(b);
    var parts: [64 / pair_bytes]@Vector(pair_bytes / 4, i32) = undefined;
    inline for (&parts, as, bs) |*part, x, y| part.* = pairsOfWords(pair_bytes / 2, x, y);
    return accumulator +% @as(I32, @bitCast(parts));
}

/// Bytes of a register of the two above.
const pair_bytes = if (has_avx2) 32 else 16;

/// Multiplies unsigned by signed bytes and adds neighbours twice: 8 to 16 to 32 bits.
inline fn maddubs(comptime n: usize, u: @Vector(n, u8), s: @Vector(n, i8)) @Vector(n / 4, i32) {
    return pairsOfWords(n / 2, pairsOfBytes(n, u, s), @splat(1));
}

inline fn pairsOfBytes(comptime n: usize, u: @Vector(n, u8), s: @Vector(n, i8)) @Vector(n / 2, i16) {
    if (n == 16 and !has_avx2) return asm ("pmaddubsw %[s], %[u]"
        : [u] "=x" (-> @Vector(n / 2, i16)),
        : [_] "0" (u),
          [s] "x" (s),
    );
    return asm ("vpmaddubsw %[s], %[u], %[out]"
        : [out] "=v" (-> @Vector(n / 2, i16)),
        : [u] "v" (u),
          [s] "v" (s),
    );
}

inline fn pairsOfWords(comptime n: usize, a: @Vector(n, i16), b: @Vector(n, i16)) @Vector(n / 2, i32) {
    if (n == 8 and !has_avx2) return asm ("pmaddwd %[b], %[a]"
        : [a] "=x" (-> @Vector(n / 2, i32)),
        : [_] "0" (a),
          [b] "x" (b),
    );
    return asm ("vpmaddwd %[b], %[a], %[out]"
        : [out] "=v" (-> @Vector(n / 2, i32)),
        : [a] "v" (a),
          [b] "v" (b),
    );
}

inline fn sdot(accumulator: I32, a: I8, b: I8) I32 {
    var parts: [4]@Vector(4, i32) = @bitCast(accumulator);
    const as: [4]@Vector(16, i8) = @bitCast(a);
    const bs: [4]@Vector(16, i8) = @bitCast(b);
    inline for (0..4) |i| {
        parts[i] = asm ("sdot %[acc].4s, %[a].16b, %[b].16b"
            : [acc] "=w" (-> @Vector(4, i32)),
            : [_] "0" (parts[i]),
              [a] "w" (as[i]),
              [b] "w" (bs[i]),
        );
    }
    return @bitCast(parts);
}

/// `accumulator[2 i + j] + sum over k of a[8 i + k] * b[8 j + k]`: two rows of eight times two rows of eight.
pub inline fn matrixProduct(accumulator: @Vector(4, i32), a: @Vector(16, i8), b: @Vector(16, i8)) @Vector(4, i32) {
    if (has_i8mm) {
        return asm ("smmla %[acc].4s, %[a].16b, %[b].16b"
            : [acc] "=w" (-> @Vector(4, i32)),
            : [_] "0" (accumulator),
              [a] "w" (a),
              [b] "w" (b),
        );
    }
    var sums: [4]i32 = accumulator;
    const rows: [2]@Vector(8, i8) = @bitCast(a);
    const others: [2]@Vector(8, i8) = @bitCast(b);
    for (&sums, 0..) |*sum, at| {
        sum.* +%= @reduce(.Add, @as(@Vector(8, i32), rows[at / 2]) * @as(@Vector(8, i32), others[at % 2]));
    }
    return sums;
}

/// The portable form: widen to 16 bits, multiply, add each lane's four products.
inline fn dotWide(accumulator: I32, a: @Vector(64, i16), b: I8) I32 {
    const products: @Vector(64, i32) = @as(@Vector(64, i32), a) * @as(@Vector(64, i32), @as(@Vector(64, i16), b));
    var result = accumulator;
    inline for (0..4) |byte| result += @shuffle(i32, products, undefined, StrideMask(byte).mask);
    return result;
}

/// One byte's place in each lane.
fn StrideMask(comptime byte: comptime_int) type {
    return struct {
        const mask = blk: {
            var m: [16]i32 = undefined;
            for (0..16) |lane| m[lane] = lane * 4 + byte;
            break :blk m;
        };
    };
}

test "a matrix of bits moves a field as shifts do" {
    @setEvalBranchQuota(100_000);
    inline for (0..8) |from| inline for (1..9 - from) |count| inline for (0..9 - count) |to| {
        const field: BitField = .{ .from = from, .count = count, .to = to };
        const middle = @as(u8, 1) << (count - 1);
        for (0..256) |value| {
            const v: u8 = @intCast(value);
            const bits = v >> from & @as(u8, @intCast((1 << count) - 1));
            try std.testing.expectEqual(bits << to, timesBitMatrixScalar(v, comptime bitMatrix(field, false)));
            const sign = @as(u8, @truncate(@as(u16, 0xff) << (to + count - 1)));
            try std.testing.expectEqual((bits -% middle) << to, timesBitMatrixScalar(v, comptime bitMatrix(field, true)) ^ sign);
        }
    };
}

/// What `timesBitMatrix` does to a byte: bit i of the result is the parity of the byte and row 7 - i.
fn timesBitMatrixScalar(v: u8, matrix: u64) u8 {
    var result: u8 = 0;
    for (0..8) |bit| {
        const row: u8 = @truncate(matrix >> @intCast(8 * (7 - bit)));
        result |= @as(u8, @popCount(row & v) & 1) << @intCast(bit);
    }
    return result;
}
