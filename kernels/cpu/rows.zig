//! The ops that treat every row of the leading dimension by itself: embedding, norms, rotary embedding, cache
//! writes, activations, gathers. Each runs a range of rows; a row's result depends on nothing but the row.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const float8 = @import("float8.zig");
const formats = @import("formats.zig");
const math = @import("math.zig");

const F = math.F;
const lanes = math.lanes;

/// A tensor in memory: its first byte and the elements from one row to the next.
pub fn View(comptime T: type) type {
    return struct {
        data: [*]T,
        stride: usize,

        pub inline fn row(self: @This(), index: usize) [*]T {
            return self.data + index * self.stride;
        }
    };
}

/// What a step's inputs can get wrong; the executor names the op and the row.
pub const InputError = error{ TokenIdOutOfRange, SlotOutOfRange, RowOutOfRange };

pub const Embed = struct {
    out: View(f32),
    table: [*]const u8,
    dtype: ops.DType,
    row_bytes: usize,
    vocabulary: usize,
    width: usize,
    ids: [*]const i32,
    scale: f32,

    pub fn run(a: *const Embed, begin: usize, end: usize) InputError!void {
        for (begin..end) |token| {
            const id = a.ids[token];
            if (id < 0 or id >= a.vocabulary) return error.TokenIdOutOfRange;
            const out = a.out.row(token);
            formats.dequantizeRow(a.dtype, a.table + @as(usize, @intCast(id)) * a.row_bytes, a.width, out);
            if (a.scale != 1) for (out[0..a.width]) |*value| {
                value.* *= a.scale;
            };
        }
    }
};

pub const RmsNorm = struct {
    out: View(f32),
    x: View(f32),
    residual: ?View(f32),
    weight: [*]const f32,
    /// Norms per row (heads), and the elements of each.
    groups: usize,
    width: usize,
    epsilon: f32,
    weight_offset: f32,

    pub fn run(a: *const RmsNorm, begin: usize, end: usize) InputError!void {
        for (begin..end) |token| {
            for (0..a.groups) |group| {
                const at = group * a.width;
                const residual = if (a.residual) |r| r.row(token) + at else null;
                a.normalize(a.x.row(token) + at, a.out.row(token) + at, residual);
            }
        }
    }

    fn normalize(a: *const RmsNorm, x: [*]const f32, out: [*]f32, residual: ?[*]const f32) void {
        const whole = a.width - a.width % lanes;
        var squares: F = @splat(0);
        var i: usize = 0;
        while (i < whole) : (i += lanes) {
            const v: F = x[i..][0..lanes].*;
            squares = math.mulAdd(v, v, squares);
        }
        var total = math.sum(squares);
        for (whole..a.width) |j| total = math.mulAdd(x[j], x[j], total);
        const inverse = 1 / @sqrt(total / @as(f32, @floatFromInt(a.width)) + a.epsilon);
        i = 0;
        while (i < whole) : (i += lanes) {
            const v: F = x[i..][0..lanes].*;
            const w: F = a.weight[i..][0..lanes].*;
            var result = v * @as(F, @splat(inverse)) * (w + @as(F, @splat(a.weight_offset)));
            if (residual) |r| result += @as(F, r[i..][0..lanes].*);
            out[i..][0..lanes].* = result;
        }
        for (whole..a.width) |j| {
            const result = x[j] * inverse * (a.weight[j] + a.weight_offset);
            out[j] = if (residual) |r| result + r[j] else result;
        }
    }
};

pub const RopeTable = struct {
    out: View(f32),
    positions: [*]const i32,
    frequencies: [*]const f32,
    pairs: usize,
    scale: f32,

    pub fn run(a: *const RopeTable, begin: usize, end: usize) InputError!void {
        for (begin..end) |token| {
            const out = a.out.row(token);
            const position: f32 = @floatFromInt(a.positions[token]);
            for (0..a.pairs) |pair| {
                // The angle is rounded to f32 as reference implementations do; its cosine is exact to f32.
                const angle: f64 = position * a.frequencies[pair];
                out[pair] = @as(f32, @floatCast(@cos(angle))) * a.scale;
                out[a.pairs + pair] = @as(f32, @floatCast(@sin(angle))) * a.scale;
            }
        }
    }
};

pub const Rope = struct {
    x: View(f32),
    table: View(f32),
    heads: usize,
    head_dim: usize,
    pairs: usize,
    interleaved: bool,

    pub fn run(a: *const Rope, begin: usize, end: usize) InputError!void {
        for (begin..end) |token| {
            const cosines = a.table.row(token);
            const sines = cosines + a.pairs;
            for (0..a.heads) |head| {
                const x = a.x.row(token) + head * a.head_dim;
                if (a.interleaved) rotatePairs(x, cosines, sines, a.pairs) else rotateHalves(x, cosines, sines, a.pairs);
            }
        }
    }

    fn rotateHalves(x: [*]f32, cosines: [*]const f32, sines: [*]const f32, pairs: usize) void {
        const y = x + pairs;
        const whole = pairs - pairs % lanes;
        var i: usize = 0;
        while (i < whole) : (i += lanes) {
            const c: F = cosines[i..][0..lanes].*;
            const s: F = sines[i..][0..lanes].*;
            const first: F = x[i..][0..lanes].*;
            const second: F = y[i..][0..lanes].*;
            x[i..][0..lanes].* = first * c - second * s;
            y[i..][0..lanes].* = second * c + first * s;
        }
        for (whole..pairs) |j| {
            const first = x[j];
            const second = y[j];
            x[j] = first * cosines[j] - second * sines[j];
            y[j] = second * cosines[j] + first * sines[j];
        }
    }

    fn rotatePairs(x: [*]f32, cosines: [*]const f32, sines: [*]const f32, pairs: usize) void {
        for (0..pairs) |j| {
            const first = x[2 * j];
            const second = x[2 * j + 1];
            x[2 * j] = first * cosines[j] - second * sines[j];
            x[2 * j + 1] = second * cosines[j] + first * sines[j];
        }
    }
};

pub const KvWrite = struct {
    k: View(f32),
    v: View(f32),
    k_cache: [*]u8,
    v_cache: [*]u8,
    slots: [*]const i32,
    blocks: usize,
    /// Elements from one block of a cache to the next.
    block_stride: usize,
    block_size: usize,
    kv_heads: usize,
    head_dim: usize,
    dtype: ops.DType,

    pub fn run(a: *const KvWrite, begin: usize, end: usize) InputError!void {
        for (begin..end) |token| {
            const slot = a.slots[token];
            if (slot == -1) continue;
            if (slot < 0 or slot >= a.blocks * a.block_size) return error.SlotOutOfRange;
            const block = @as(usize, @intCast(slot)) / a.block_size;
            const offset = @as(usize, @intCast(slot)) % a.block_size;
            for (0..a.kv_heads) |head| {
                const at = block * a.block_stride + (head * a.block_size + offset) * a.head_dim;
                narrow(a.dtype, a.k.row(token) + head * a.head_dim, a.k_cache, at, a.head_dim);
                narrow(a.dtype, a.v.row(token) + head * a.head_dim, a.v_cache, at, a.head_dim);
            }
        }
    }
};

/// Stores f32 values as a type of caches, rounded to nearest even. `at` counts elements.
fn narrow(dtype: ops.DType, values: [*]const f32, cache: [*]u8, at: usize, count: usize) void {
    switch (dtype) {
        .f32 => @memcpy(cache[4 * at ..][0 .. 4 * count], std.mem.sliceAsBytes(values[0..count])),
        .f16 => {
            const out: [*]f16 = @ptrCast(@alignCast(cache));
            const whole = count - count % 8;
            var i: usize = 0;
            while (i < whole) : (i += 8) {
                const v: @Vector(8, f32) = values[i..][0..8].*;
                out[at + i ..][0..8].* = @as(@Vector(8, f16), @floatCast(v));
            }
            for (whole..count) |j| out[at + j] = @floatCast(values[j]);
        },
        .bf16 => {
            const out: [*]u16 = @ptrCast(@alignCast(cache));
            for (0..count) |i| out[at + i] = roundToBf16(values[i]);
        },
        .f8e4m3 => {
            const whole = count - count % lanes;
            var i: usize = 0;
            while (i < whole) : (i += lanes) cache[at + i ..][0..lanes].* = float8.narrow(@as(F, values[i..][0..lanes].*));
            for (whole..count) |j| cache[at + j] = float8.narrow(@as(@Vector(1, f32), .{values[j]}))[0];
        },
        else => unreachable,
    }
}

fn roundToBf16(value: f32) u16 {
    const bits: u32 = @bitCast(value);
    // A NaN must stay one when its low bits go.
    if (value != value) return @intCast((bits >> 16) | 0x40);
    return @intCast((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

pub const GatedMul = struct {
    out: View(f32),
    gate_up: View(f32),
    width: usize,
    activation: enum(u32) { silu, gelu_tanh, gelu },

    pub fn run(a: *const GatedMul, begin: usize, end: usize) InputError!void {
        for (begin..end) |token| {
            const gate = a.gate_up.row(token);
            const out = a.out.row(token);
            switch (a.activation) {
                .silu => apply(silu, gate, gate + a.width, out, a.width),
                .gelu_tanh => apply(geluTanh, gate, gate + a.width, out, a.width),
                .gelu => for (0..a.width) |i| {
                    const half = 0.5 * gate[i];
                    out[i] = math.mulAdd(half, erf(gate[i] * std.math.sqrt1_2), half) * gate[a.width + i];
                },
            }
        }
    }

    inline fn apply(comptime function: anytype, gate: [*]const f32, up: [*]const f32, out: [*]f32, width: usize) void {
        const whole = width - width % lanes;
        var i: usize = 0;
        while (i < whole) : (i += lanes) {
            const g: F = gate[i..][0..lanes].*;
            const u: F = up[i..][0..lanes].*;
            out[i..][0..lanes].* = function(g) * u;
        }
        for (whole..width) |j| out[j] = function(gate[j]) * up[j];
    }

    inline fn silu(x: anytype) @TypeOf(x) {
        const one: @TypeOf(x) = if (@typeInfo(@TypeOf(x)) == .vector) @splat(1) else 1;
        return x / (one + math.exp(-x));
    }

    /// `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`.
    inline fn geluTanh(x: anytype) @TypeOf(x) {
        const T = @TypeOf(x);
        const c = struct {
            inline fn of(comptime value: f32) T {
                return if (@typeInfo(T) == .vector) @splat(value) else value;
            }
        };
        const inner = c.of(0.7978845608028654) * math.mulAdd(c.of(0.044715) * x * x, x, x);
        return c.of(0.5) * x * (c.of(1) + math.tanh(inner));
    }

    extern "c" fn erff(x: f32) f32;
    inline fn erf(x: f32) f32 {
        return erff(x);
    }
};

pub const GatherRows = struct {
    out: View(f32),
    x: View(f32),
    indices: [*]const i32,
    width: usize,

    /// `x_rows`: rows of x that exist in this step.
    pub fn run(a: *const GatherRows, begin: usize, end: usize, x_rows: usize) InputError!void {
        for (begin..end) |row| {
            const index = a.indices[row];
            if (index < 0 or index >= x_rows) return error.RowOutOfRange;
            @memcpy(a.out.row(row)[0..a.width], a.x.row(@intCast(index))[0..a.width]);
        }
    }
};

pub const SoftCap = struct {
    x: View(f32),
    width: usize,
    cap: f32,

    pub fn run(a: *const SoftCap, begin: usize, end: usize) InputError!void {
        for (begin..end) |row| {
            for (a.x.row(row)[0..a.width]) |*value| value.* = a.cap * math.tanh(value.* / a.cap);
        }
    }
};
