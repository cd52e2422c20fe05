//! Products with bfloat16 weights on the tile unit (Intel AMX), re-laid in panels: 16 rows of weights times the planes
//! of up to 16 tokens (`bf16_planes.zig`) per instruction.
//!
//! A panel has a tile of 1024 bytes for every 32 elements of k: pairs of neighbouring elements, 16 rows side by
//! side. k is cut in chunks of 1024 elements; the sum of a chunk runs in f32 through a tile in rising order, of each 32
//! elements the low plane, the middle and the high one, and the sums of the chunks are added in rising order. So it
//! is for any number of tokens: a token's bits tell nothing of the tokens around it.

const std = @import("std");
const matmul = @import("matmul.zig");
const ops = @import("../abi/ops.gen.zig");
const planes = @import("bf16_planes.zig");
const shuffle = @import("attention_shuffle.zig");
const simd = @import("simd.zig");
const tiles = @import("tiles.zig");

pub const panel_rows = 16;
const tile_tokens = planes.tile_tokens;
/// Of weights, and of sums.
const tile_bytes = 1024;

/// Panels whose sums are in registers at once: four tiles of sums, three of x, one of weights.
const register_panels = 4;
/// Steps of a chunk: its weights of `rows_max` rows, half a megabyte, and its x of a tile stay in the second-level
/// cache. Also, the shorter a sum, the less it rounds.
const chunk_steps = 1024 / planes.step_elements;
/// Rows of a unit at most, and tokens between the chunks of k, whose sums stay in the same cache.
const rows_max = matmul.unit_rows_max;
const block_tokens = 512;
/// Tokens of a unit at least.
pub const tokens_min = 64;

/// Weights that so few tokens meet come from memory.
const from_memory_tokens = 2 * tile_tokens;

/// Whether weights of a type are multiplied here once they are re-laid.
pub fn takes(dtype: ops.DType) bool {
    return dtype == .bf16 and simd.has_bf16_tiles and tiles.available();
}

/// Bytes of one panel of a matrix with rows of k elements.
pub fn panelBytes(k: usize) usize {
    return planes.stepCount(k) * tile_bytes;
}

/// Bytes of scratch for the sums of a unit between two chunks.
pub fn scratchBytes(k: usize) usize {
    return if (planes.stepCount(k) > chunk_steps) block_tokens / tile_tokens * rows_max / panel_rows * tile_bytes else 0;
}

/// Re-lays rows `first .. first + 16` of a matrix; rows past `rows` and elements past k are zero.
pub fn packPanel(source: [*]const u8, row_bytes: usize, rows: usize, first: usize, k: usize, panel: [*]u8) void {
    const own = @min(panel_rows, rows - first);
    const whole = k / planes.step_elements;
    for (0..whole) |step| packTile(source + first * row_bytes + step * planes.step_bytes, row_bytes, own, planes.step_bytes, panel + step * tile_bytes);
    if (k % planes.step_elements == 0) return;
    packTile(source + first * row_bytes + whole * planes.step_bytes, row_bytes, own, k % planes.step_elements * 2, panel + whole * tile_bytes);
}

/// `count` rows of `bytes` bytes each.
fn packTile(source: [*]const u8, row_bytes: usize, count: usize, bytes: usize, tile: [*]u8) void {
    var pairs: [panel_rows]simd.F32 = @splat(@splat(0));
    for (pairs[0..count], 0..) |*row, index| {
        const from = source + index * row_bytes;
        if (bytes == planes.step_bytes) {
            row.* = @bitCast(from[0..planes.step_bytes].*);
        } else {
            var part: [planes.step_bytes]u8 = @splat(0);
            @memcpy(part[0..bytes], from[0..bytes]);
            row.* = @bitCast(part);
        }
    }
    if (simd.has_avx512) {
        tile[0..tile_bytes].* = @bitCast(shuffle.transpose(pairs));
    } else for (pairs, 0..) |row, r| {
        for (@as([panel_rows]u32, @bitCast(row)), 0..) |pair, i| std.mem.writeInt(u32, tile[64 * i + 4 * r ..][0..4], pair, .little);
    }
}

/// Rows and tokens of a place, which both begin at multiples of 16.
pub fn run(a: *const matmul.Arguments, place: *const matmul.Place, panels: [*]const u8, scratch: []align(64) u8) void {
    defer tiles.release();
    switch (a.x_planes.precision) {
        inline else => |precision| {
            const product: Product(planes.planeCount(precision)) = .{ .a = a, .place = place, .panels = panels, .scratch = scratch };
            product.run();
        },
    }
}

fn Product(comptime plane_count: usize) type {
    return struct {
        a: *const matmul.Arguments,
        place: *const matmul.Place,
        panels: [*]const u8,
        scratch: []align(64) u8,

        const Self = @This();

        fn run(product: *const Self) void {
            const a = product.a;
            var block = product.place.first_token;
            var configured: usize = 0;
            while (block < product.place.end_token) : (block += block_tokens) {
                const block_end = @min(product.place.end_token, block + block_tokens);
                var step: usize = 0;
                while (step < a.x_planes.steps) : (step += chunk_steps) {
                    var token = block;
                    while (token < block_end) : (token += tile_tokens) {
                        const size = a.x_planes.tileSize(token);
                        if (size != configured) configure(size);
                        configured = size;
                        product.runTile(block, token, step, size);
                    }
                }
            }
        }

        /// All rows, one tile of tokens, one chunk of k.
        fn runTile(product: *const Self, block: usize, token: usize, step: usize, size: usize) void {
            const count = product.panelCount();
            const from_memory = product.a.tokens <= from_memory_tokens and token == 0;
            var panel: usize = 0;
            while (panel < count) {
                // One stream is what the memory is fastest at.
                const width = if (from_memory) 1 else @min(register_panels, count - panel);
                const part: Part = .{ .panel = panel, .token = token, .step = step, .size = size, .sums = product.sumsOf(block, token) + panel };
                switch (width) {
                    1 => if (from_memory) product.multiply(1, true, part) else product.multiply(1, false, part),
                    inline 2...register_panels => |panel_count| product.multiply(panel_count, false, part),
                    else => unreachable,
                }
                panel += width;
            }
        }

        const Part = struct { panel: usize, token: usize, step: usize, size: usize, sums: [*]Sums };

        /// Where the sums of a tile wait for the next chunk, panel by panel.
        fn sumsOf(product: *const Self, block: usize, token: usize) [*]Sums {
            const all: [*]Sums = @ptrCast(product.scratch.ptr);
            return all + (token - block) / tile_tokens * product.panelCount();
        }

        fn multiply(product: *const Self, comptime panel_count: usize, comptime from_memory: bool, part: Part) void {
            const a = product.a;
            const panel_bytes = panelBytes(a.k);
            const steps = @min(chunk_steps, a.x_planes.steps - part.step);
            var weights = product.panels + (product.place.first / panel_rows + part.panel) * panel_bytes + part.step * tile_bytes;
            var x: [*]const u8 = a.x_planes.tile(part.token, part.step);
            const plane_bytes = part.size * planes.step_bytes;
            inline for (0..panel_count) |panel| tiles.zero(panel);
            const is_last = part.step + steps == a.x_planes.steps;
            const next = product.nextOf(part, panel_count, steps);
            var next_x = next.x;
            for (0..steps) |index| {
                if (from_memory) requestAhead(weights) else {
                    for (0..next.lines) |line| @prefetch(next_x + 64 * line, .{ .locality = 2 });
                    next_x += 64 * next.lines;
                    if (is_last and index < part.size) product.requestOut(part, panel_count, part.token + index);
                }
                inline for (0..panel_count) |panel| {
                    tiles.load(7, weights + panel * panel_bytes, 64);
                    inline for (0..plane_count) |plane| {
                        if (panel == 0) tiles.load(4 + plane, x + plane * plane_bytes, planes.step_bytes);
                        tiles.addBf16(panel, 4 + plane, 7);
                    }
                }
                weights += tile_bytes;
                x += plane_count * plane_bytes;
            }
            var chunk: [panel_count]Sums = undefined;
            inline for (&chunk, 0..) |*sums, panel| tiles.store(panel, sums);
            for (0..part.size) |t| {
                inline for (&chunk, 0..) |*sums, panel| {
                    const sum = if (part.step == 0) sums[t] else part.sums[panel][t] + sums[t];
                    const row = product.place.first + (part.panel + panel) * panel_rows;
                    if (is_last) matmul.storeLanes(a, product.place.segment, row, part.token + t, sum) else part.sums[panel][t] = sum;
                }
            }
        }

        /// The part of the next tile's x that is asked for meanwhile, so many lines a step: all panels of the unit
        /// together ask for all of it.
        fn nextOf(product: *const Self, part: Part, comptime panel_count: usize, steps: usize) struct { x: [*]const u8, lines: usize } {
            const token = part.token + tile_tokens;
            if (token >= product.place.end_token) return .{ .x = undefined, .lines = 0 };
            const step_lines = plane_count * product.a.x_planes.tileSize(token);
            const count = product.panelCount();
            const lines = (step_lines * panel_count + count - 1) / count;
            return .{ .x = product.a.x_planes.tile(token, part.step) + part.panel / panel_count * lines * steps * 64, .lines = lines };
        }

        /// The lines that one token's sums will be written to, and what is added to them.
        inline fn requestOut(product: *const Self, part: Part, comptime panel_count: usize, token: usize) void {
            const a = product.a;
            const column = product.place.segment.column + product.place.first + part.panel * panel_rows;
            inline for (0..panel_count) |panel| {
                @prefetch(a.out + token * a.out_stride + column + panel * panel_rows, .{ .rw = .write, .locality = 2 });
                if (a.residual) |residual| @prefetch(residual + token * a.residual_stride + column + panel * panel_rows, .{ .locality = 2 });
            }
        }

        fn panelCount(product: *const Self) usize {
            return (product.place.end - product.place.first + panel_rows - 1) / panel_rows;
        }
    };
}

/// Of a panel: `[token][16 rows]`.
const Sums = [tile_tokens]simd.F32;

comptime {
    std.debug.assert(@sizeOf(Sums) == tile_bytes);
}

/// 0 to 3: sums; 4 to 6: planes of x; 7: weights.
fn configure(tokens: usize) void {
    var configuration: tiles.Configuration = .{};
    for (0..4) |tile| configuration.set(tile, tokens, 64);
    for (4..7) |tile| configuration.set(tile, tokens, planes.step_bytes);
    configuration.set(7, panel_rows, 64);
    configuration.load();
}

/// Into the second-level cache in time, since a request for the first would hold one of its few line buffers until the
/// memory answers; then into the first.
inline fn requestAhead(weights: [*]const u8) void {
    inline for (0..tile_bytes / 64) |line| {
        @prefetch(weights + 4096 + 64 * line, .{ .locality = 2 });
        @prefetch(weights + 1024 + 64 * line, .{ .locality = 3 });
    }
}

test "a panel holds pairs of each row side by side, zeros past the ends" {
    const k = 43;
    const rows = 21;
    var source: [rows][k]u16 = undefined;
    for (&source, 0..) |*row, r| for (row, 0..) |*value, i| {
        value.* = @intCast(1 + r * 100 + i);
    };
    var panel: [panelBytes(k) / 2]u16 align(64) = @splat(0xaaaa);
    for ([_]usize{ 0, 16 }) |first| {
        packPanel(@ptrCast(&source), 2 * k, rows, first, k, @ptrCast(&panel));
        for (0..16) |row| for (0..64) |i| {
            const wanted = if (first + row < rows and i < k) source[first + row][i] else 0;
            try std.testing.expectEqual(wanted, panel[i / 32 * 512 + i % 32 / 2 * 32 + row * 2 + i % 2]);
        };
    }
}
