//! Matrix product with f32, f16 and bf16 weights: widened to f32 in registers, no quantisation of x.

const ops = @import("../abi/ops.gen.zig");
const math = @import("math.zig");
const matmul = @import("matmul.zig");
const simd = @import("simd.zig");

const F32 = simd.F32;

/// Tokens of a register tile.
const tile_tokens = if (simd.has_avx512) 8 else if (simd.has_avx2) 3 else 2;

/// Rows of a register tile. Rows cost a conversion, tokens a load: of 24 sums, three rows of eight tokens cost least.
fn tileRows(comptime tokens: usize) usize {
    if (simd.has_avx512) return if (tokens > 4) 3 else 4;
    if (simd.has_avx2 and tokens == 1) return 4;
    return if (simd.has_avx2 or simd.has_dotprod) 2 else 1;
}

/// How far ahead of the arithmetic weights are asked for.
const ahead_bytes = 2048;

/// Rows `first .. end` of a segment, all tokens.
pub fn run(comptime dtype: ops.DType, a: *const matmul.Arguments, segment: *const matmul.Segment, first: usize, end: usize) void {
    // Tokens outside: their rows stay in the first-level cache while the weights of the unit pass by.
    var token: usize = 0;
    while (token < a.tokens) : (token += tile_tokens) {
        switch (@min(tile_tokens, a.tokens - token)) {
            inline 1...tile_tokens => |tokens| {
                const rows = comptime tileRows(tokens);
                // A tile's rows lie a stretch apart: where each ends, the next tile reads on, so that the processor
                // sees a few long streams and reads ahead in all of them.
                const stretch = (end - first) / rows;
                for (first..first + stretch) |row| tile(dtype, rows, tokens, a, segment, row, stretch, token);
                for (first + rows * stretch..end) |row| tile(dtype, 1, tokens, a, segment, row, 1, token);
            },
            else => unreachable,
        }
    }
}

/// The rows `row`, `row + stretch` and so on.
fn tile(comptime dtype: ops.DType, comptime rows: usize, comptime tokens: usize, a: *const matmul.Arguments, segment: *const matmul.Segment, row: usize, stretch: usize, token: usize) void {
    var acc: [rows][tokens]F32 = @splat(@splat(@splat(0)));
    const element_bytes = if (dtype == .f32) 4 else 2;
    const whole = a.k - a.k % 16;
    var done: usize = 0;
    while (done < whole) : (done += 16) {
        var weights: [rows]F32 = undefined;
        inline for (0..rows) |r| {
            const p = segment.data + (row + r * stretch) * segment.row_bytes + done * element_bytes;
            // The first tokens meet weights from memory.
            if (token == 0) @prefetch(p + ahead_bytes, .{ .locality = 2 });
            weights[r] = widen(dtype, p);
        }
        inline for (0..tokens) |t| {
            const x: F32 = a.x[(token + t) * a.x_stride + done ..][0..16].*;
            inline for (0..rows) |r| acc[r][t] = math.mulAdd(weights[r], x, acc[r][t]);
        }
    }
    if (done < a.k) {
        const rest = a.k - done;
        inline for (0..rows) |r| {
            var bytes: [16 * element_bytes]u8 = @splat(0);
            @memcpy(bytes[0 .. rest * element_bytes], (segment.data + (row + r * stretch) * segment.row_bytes + done * element_bytes)[0 .. rest * element_bytes]);
            const weights = widen(dtype, &bytes);
            inline for (0..tokens) |t| {
                var x: [16]f32 = @splat(0);
                @memcpy(x[0..rest], a.x[(token + t) * a.x_stride + done ..][0..rest]);
                acc[r][t] = math.mulAdd(weights, x, acc[r][t]);
            }
        }
    }
    inline for (0..rows) |r| {
        inline for (0..tokens) |t| matmul.store(a, segment, row + r * stretch, token + t, math.sum(acc[r][t]));
    }
}

inline fn widen(comptime dtype: ops.DType, p: [*]const u8) F32 {
    switch (dtype) {
        .f32 => return @bitCast(p[0..64].*),
        .f16 => return @floatCast(@as(@Vector(16, f16), @bitCast(p[0..32].*))),
        .bf16 => return math.widenBf16(@as(@Vector(16, u16), @bitCast(p[0..32].*))),
        else => comptime unreachable,
    }
}
