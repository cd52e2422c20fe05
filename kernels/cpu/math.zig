//! Vector arithmetic shared by the CPU kernels: the width of the target, fused multiply-add, exp and tanh,
//! reductions in a fixed order, and widening loads of half-precision values.
//!
//! Every function works lane by lane with the same operations for any vector length, so a value's result
//! depends neither on its lane nor on the length of the vector it travelled in.

const std = @import("std");
const builtin = @import("builtin");

const x86 = std.Target.x86;
const is_x86 = builtin.cpu.arch == .x86_64;

fn hasX86(comptime feature: x86.Feature) bool {
    return is_x86 and x86.featureSetHas(builtin.cpu.features, feature);
}

/// f32 lanes of one vector register of the target.
pub const lanes: comptime_int = if (hasX86(.avx512f)) 16 else if (hasX86(.avx2)) 8 else 4;

/// Whether the target has 32 vector registers, not 16.
pub const many_registers = hasX86(.avx512f) or builtin.cpu.arch == .aarch64;

const has_fma = hasX86(.fma) or builtin.cpu.arch == .aarch64;
const has_half_conversion = hasX86(.f16c) or builtin.cpu.arch == .aarch64;

/// One register of f32.
pub const F = @Vector(lanes, f32);

/// `a * b + c`: fused where the target has the instruction; elsewhere rounded twice, because a fused result
/// would cost a library call per lane.
pub inline fn mulAdd(a: anytype, b: @TypeOf(a), c: @TypeOf(a)) @TypeOf(a) {
    return if (has_fma) @mulAdd(@TypeOf(a), a, b, c) else a * b + c;
}

inline fn splat(comptime T: type, comptime value: f32) T {
    return if (@typeInfo(T) == .vector) @splat(value) else value;
}

inline fn splatInt(comptime T: type, comptime value: i32) T {
    return if (@typeInfo(T) == .vector) @splat(value) else value;
}

/// A shift distance of the form Zig wants for the integer or vector of integers `I`.
inline fn shift(comptime I: type, comptime distance: u5) if (@typeInfo(I) == .vector) @Vector(@typeInfo(I).vector.len, u5) else u5 {
    return if (@typeInfo(I) == .vector) @splat(distance) else distance;
}

fn IntOf(comptime T: type) type {
    return switch (@typeInfo(T)) {
        .vector => |vector| @Vector(vector.len, i32),
        else => i32,
    };
}

inline fn choose(condition: anytype, a: anytype, b: @TypeOf(a)) @TypeOf(a) {
    return if (@typeInfo(@TypeOf(a)) == .vector) @select(f32, condition, a, b) else (if (condition) a else b);
}

/// e^x of an f32 or a vector of f32, to 1 ulp over the whole range: gradual underflow, infinity above 88.73,
/// NaN for NaN. Range reduction by ln 2 in two parts (Cody and Waite), then the polynomial of Cephes' expf.
pub inline fn exp(x: anytype) @TypeOf(x) {
    const T = @TypeOf(x);
    const I = IntOf(T);
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits of the sum.
    const magic: f32 = 12582912.0;
    var v = choose(x < splat(T, -104.0), splat(T, -104.0), x);
    v = choose(v > splat(T, 89.0), splat(T, 89.0), v);
    const shifted = mulAdd(v, splat(T, 1.44269504088896341), splat(T, magic));
    const n = shifted - splat(T, magic);
    const exponent = @as(I, @bitCast(shifted)) -% splatInt(I, @bitCast(magic));
    var r = mulAdd(n, splat(T, -0.693359375), v);
    r = mulAdd(n, splat(T, 2.12194440e-4), r);
    var p = splat(T, 1.9875691500e-4);
    p = mulAdd(p, r, splat(T, 1.3981999507e-3));
    p = mulAdd(p, r, splat(T, 8.3334519073e-3));
    p = mulAdd(p, r, splat(T, 4.1665795894e-2));
    p = mulAdd(p, r, splat(T, 1.6666665459e-1));
    p = mulAdd(p, r, splat(T, 5.0000001201e-1));
    p = mulAdd(p, r * r, r) + splat(T, 1.0);
    // 2^n in two factors, so that results below the normal range are rounded once and reached gradually.
    const low = exponent >> shift(I, 1);
    const high = exponent -% low;
    return p * powerOfTwo(T, low) * powerOfTwo(T, high);
}

inline fn powerOfTwo(comptime T: type, exponent: IntOf(T)) T {
    const I = IntOf(T);
    return @bitCast((exponent +% splatInt(I, 127)) << shift(I, 23));
}

/// tanh of an f32 or a vector of f32, to 2 ulp; NaN for NaN. Cephes' polynomial near zero, else by exp.
pub inline fn tanh(x: anytype) @TypeOf(x) {
    const T = @TypeOf(x);
    const magnitude = @abs(x);
    const z = x * x;
    var p = splat(T, -5.70498872745e-3);
    p = mulAdd(p, z, splat(T, 2.06390887954e-2));
    p = mulAdd(p, z, splat(T, -5.37397155531e-2));
    p = mulAdd(p, z, splat(T, 1.33314422036e-1));
    p = mulAdd(p, z, splat(T, -3.33332819422e-1));
    const near = mulAdd(p * z, x, x);
    const far = splat(T, 1.0) - splat(T, 2.0) / (exp(magnitude + magnitude) + splat(T, 1.0));
    const signed = choose(x < splat(T, 0.0), -far, far);
    return choose(magnitude < splat(T, 0.625), near, signed);
}

/// Sum of the lanes as a balanced tree: lane i with lane i + half, halving down to one.
pub fn sum(v: anytype) f32 {
    const length = @typeInfo(@TypeOf(v)).vector.len;
    if (length == 1) return v[0];
    return sum(lowHalf(v) + highHalf(v));
}

/// Largest lane; a NaN never wins, and all NaN gives -infinity.
pub inline fn max(v: anytype) f32 {
    return maxNumber(greater(@as(@TypeOf(v), @splat(-std.math.inf(f32))), v));
}

fn maxNumber(v: anytype) f32 {
    if (@typeInfo(@TypeOf(v)).vector.len == 1) return v[0];
    return maxNumber(greater(lowHalf(v), highHalf(v)));
}

/// The greater of two vectors lane by lane; where `candidate` is NaN, `best`. One instruction on x86.
pub inline fn greater(best: anytype, candidate: @TypeOf(best)) @TypeOf(best) {
    return @select(f32, candidate > best, candidate, best);
}

inline fn lowHalf(v: anytype) @Vector(@typeInfo(@TypeOf(v)).vector.len / 2, f32) {
    const half = @typeInfo(@TypeOf(v)).vector.len / 2;
    return @shuffle(f32, v, undefined, std.simd.iota(i32, half));
}

inline fn highHalf(v: anytype) @Vector(@typeInfo(@TypeOf(v)).vector.len / 2, f32) {
    const half = @typeInfo(@TypeOf(v)).vector.len / 2;
    return @shuffle(f32, v, undefined, std.simd.iota(i32, half) + @as(@Vector(half, i32), @splat(half)));
}

/// Exact f32 values of a vector of IEEE half-precision bit patterns.
pub inline fn widenHalf(bits: anytype) @Vector(@typeInfo(@TypeOf(bits)).vector.len, f32) {
    const n = @typeInfo(@TypeOf(bits)).vector.len;
    if (has_half_conversion) return @floatCast(@as(@Vector(n, f16), @bitCast(bits)));
    const U = @Vector(n, u32);
    const wide: U = bits;
    const magnitude = (wide & @as(U, @splat(0x7fff))) << @splat(13);
    // Read as f32 the exponent is 112 short; the product is exact for normal and subnormal halves alike.
    const scaled: U = @bitCast(@as(@Vector(n, f32), @bitCast(magnitude)) * @as(@Vector(n, f32), @splat(0x1p112)));
    const special = magnitude >= @as(U, @splat(0x7c00 << 13));
    const value = @select(u32, special, magnitude | @as(U, @splat(0x7f800000)), scaled);
    return @bitCast(value | ((wide & @as(U, @splat(0x8000))) << @splat(16)));
}

/// Exact f32 values of a vector of bfloat16 bit patterns.
pub inline fn widenBf16(bits: anytype) @Vector(@typeInfo(@TypeOf(bits)).vector.len, f32) {
    const n = @typeInfo(@TypeOf(bits)).vector.len;
    const U = @Vector(n, u32);
    return @bitCast(@as(U, bits) << @as(U, @splat(16)));
}

/// `2^(exponent - 128)` of a vector of bytes: the scales of MXFP4 beside its doubled values.
pub inline fn widenExponent(exponents: anytype) @Vector(@typeInfo(@TypeOf(exponents)).vector.len, f32) {
    const n = @typeInfo(@TypeOf(exponents)).vector.len;
    const U = @Vector(n, u32);
    const bias: U = @splat(127 - 64);
    const all: U = exponents;
    const part = all >> @splat(1);
    // The two smallest are subnormal: the exact product of two powers that are not.
    const first: @Vector(n, f32) = @bitCast((part + bias) << @splat(23));
    const second: @Vector(n, f32) = @bitCast((all - part + bias) << @splat(23));
    return first * second;
}

fn ulpError(actual: f32, expected: f64) f64 {
    const rounded: f32 = @floatCast(expected);
    if (std.math.isInf(rounded)) return if (actual == rounded) 0 else std.math.inf(f64);
    const next = std.math.nextAfter(f32, @abs(rounded), std.math.inf(f32));
    const ulp = @as(f64, next) - @abs(@as(f64, rounded));
    return @abs(@as(f64, actual) - expected) / ulp;
}

test "exp is within 1.25 ulp and tanh within 2.5 ulp of float64" {
    // Without fused multiply-add the range reduction itself rounds.
    const exp_limit: f64 = if (has_fma) 1.25 else 1.75;
    var random = std.Random.DefaultPrng.init(1);
    var worst_exp: f64 = 0;
    var worst_tanh: f64 = 0;
    for (0..400_000) |i| {
        const span: f32 = if (i % 2 == 0) 95 else 2;
        const x = (random.random().float(f32) * 2 - 1) * span;
        worst_exp = @max(worst_exp, ulpError(exp(x), @exp(@as(f64, x))));
        worst_tanh = @max(worst_tanh, ulpError(tanh(x), std.math.tanh(@as(f64, x))));
    }
    try std.testing.expect(worst_exp < exp_limit);
    try std.testing.expect(worst_tanh < 2.5);
}

test "exp and tanh at the edges" {
    const inf = std.math.inf(f32);
    try std.testing.expectEqual(0, exp(-inf));
    try std.testing.expectEqual(0, exp(@as(f32, -1000)));
    try std.testing.expectEqual(inf, exp(inf));
    try std.testing.expectEqual(inf, exp(@as(f32, 88.8)));
    try std.testing.expectEqual(1, exp(@as(f32, 0)));
    try std.testing.expect(exp(@as(f32, -100)) > 0);
    try std.testing.expect(std.math.isNan(exp(std.math.nan(f32))));
    try std.testing.expectEqual(1, tanh(inf));
    try std.testing.expectEqual(-1, tanh(-inf));
    try std.testing.expect(std.math.isNan(tanh(std.math.nan(f32))));
}

test "a value's result does not depend on its lane" {
    var random = std.Random.DefaultPrng.init(2);
    for (0..2000) |_| {
        var values: [lanes]f32 = undefined;
        for (&values) |*value| value.* = (random.random().float(f32) * 2 - 1) * 100;
        const e: [lanes]f32 = exp(@as(F, values));
        const t: [lanes]f32 = tanh(@as(F, values));
        for (values, e, t) |value, in_vector, tanh_in_vector| {
            try std.testing.expectEqual(@as(u32, @bitCast(exp(value))), @as(u32, @bitCast(in_vector)));
            try std.testing.expectEqual(@as(u32, @bitCast(tanh(value))), @as(u32, @bitCast(tanh_in_vector)));
        }
    }
}

test "half floats and bfloat16 widen exactly, every bit pattern" {
    for (0..0x10000) |i| {
        const bits: u16 = @intCast(i);
        const half = widenHalf(@as(@Vector(1, u16), .{bits}))[0];
        const expected: f32 = @floatCast(@as(f16, @bitCast(bits)));
        if (std.math.isNan(expected)) {
            try std.testing.expect(std.math.isNan(half));
        } else {
            try std.testing.expectEqual(@as(u32, @bitCast(expected)), @as(u32, @bitCast(half)));
        }
        const wide = widenBf16(@as(@Vector(1, u16), .{bits}))[0];
        try std.testing.expectEqual(@as(u32, bits) << 16, @as(u32, @bitCast(wide)));
    }
}

test "scale bytes are powers of two, the smallest two subnormal" {
    for (0..256) |exponent| {
        const expected: f32 = @floatCast(std.math.ldexp(@as(f64, 1), @as(i32, @intCast(exponent)) - 128));
        try std.testing.expect(expected > 0);
        try std.testing.expectEqual(expected, widenExponent(@as(@Vector(1, u8), .{@intCast(exponent)}))[0]);
    }
}
