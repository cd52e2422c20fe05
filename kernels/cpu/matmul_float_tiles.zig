//! Products with bf16 and f16 weights on the tile unit (Intel AMX), re-laid in panels (`float_panels.zig`): 16 rows of
//! weights times the planes of up to 16 tokens (`bf16_planes.zig`) per instruction.
//!
//! k is cut in chunks of 1024 elements. Of each plane of the weights, the low one first, the sum of a chunk runs in f32
//! through a tile in rising order, of each 32 elements the low plane of x, the middle and the high one; these sums are
//! added chunk by chunk. So it is for any number of tokens: a token's bits tell nothing of the tokens around it. The
//! low planes of both sides do not meet, their products are less than what f32 rounds.
//!
//! The planes of f16 weights are made when the first tile of tokens meets them, of the next 32 elements in between the
//! products of these: tiles and vectors wait for each other unless they come mixed in the program. Later tiles of
//! tokens find a chunk of all rows of the unit in the second-level cache.

const std = @import("std");
const matmul = @import("matmul.zig");
const ops = @import("../abi/ops.gen.zig");
const activations = @import("activations.zig");
const panels = @import("float_panels.zig");
const planes = @import("bf16_planes.zig");
const simd = @import("simd.zig");
const tiles = @import("tiles.zig");

const tile_tokens = planes.tile_tokens;
const panel_rows = panels.panel_rows;
/// Of weights, and of sums.
const tile_bytes = panels.tile_bytes;

/// Panels whose sums are in registers at once: four tiles of sums, three of x, one of weights.
const register_panels = 4;
/// Steps of a chunk: its weights of `rows_max` rows, half a megabyte a plane, and its x of a tile stay in the
/// second-level cache. Also, the shorter a sum, the less it rounds.
const chunk_steps = 1024 / planes.step_elements;
/// Rows of a unit at most, and tokens between the chunks of k, whose sums stay in the same cache.
const rows_max = matmul.unit_rows_max;
const block_tokens = 512;
/// Tokens of a unit at least.
pub const tokens_min = 64;

/// Weights that so few tokens meet come from memory.
const from_memory_tokens = 2 * tile_tokens;

/// Steps by which splitting is ahead of the products, so that the tile unit never loads what is still on its way to
/// the cache; and places that its results need while one tile of tokens is all that meets them.
const split_ahead = 2;
const split_places = 4;

/// Whether weights of a type are multiplied here once they are re-laid.
pub fn takes(dtype: ops.DType) bool {
    return (dtype == .bf16 or dtype == .f16) and simd.has_bf16_tiles and tiles.available();
}

/// Bytes of scratch for a unit of up to so many tokens: the planes of a chunk, and behind them the sums between two
/// chunks, panel by panel for each tile of tokens. Fewer tokens never need more.
pub fn scratchBytes(dtype: ops.DType, k: usize, tokens: usize) usize {
    const sum_tiles: usize = if (planes.stepCount(k) > chunk_steps) tileCount(@min(tokens, block_tokens)) else 0;
    return splitBytes(dtype, tokens) + sum_tiles * rows_max / panel_rows * tile_bytes;
}

fn splitBytes(dtype: ops.DType, tokens: usize) usize {
    const steps: usize = switch (dtype) {
        .f16 => if (tokens > tile_tokens) rows_max / panel_rows * chunk_steps else split_places,
        else => 0,
    };
    return steps * @sizeOf(Split);
}

fn tileCount(tokens: usize) usize {
    return std.math.divCeil(usize, tokens, tile_tokens) catch unreachable;
}

/// Rows and tokens of a place, which both begin at multiples of 16.
pub fn run(comptime dtype: ops.DType, a: *const matmul.Arguments, place: *const matmul.Place, weights: [*]const u8, scratch: []align(64) u8) void {
    defer tiles.release();
    switch (a.x_planes.precision) {
        inline else => |precision| {
            const product: Product(dtype, precision) = .{
                .a = a,
                .place = place,
                .weights = weights,
                .split = @ptrCast(scratch.ptr),
                .sums = @ptrCast(@alignCast(scratch.ptr + splitBytes(dtype, a.tokens))),
            };
            product.run();
        },
    }
}

/// Of a panel: `[token][16 rows]`.
const Sums = [tile_tokens]simd.F32;
/// A tile of f16 as two of bf16.
const Split = extern struct { high: [tile_bytes]u8 align(64), low: [tile_bytes]u8 };

comptime {
    std.debug.assert(@sizeOf(Sums) == tile_bytes);
}

fn Product(comptime dtype: ops.DType, comptime precision: activations.Precision) type {
    return struct {
        a: *const matmul.Arguments,
        place: *const matmul.Place,
        weights: [*]const u8,
        split: [*]Split,
        sums: [*]Sums,

        const Self = @This();
        const x_planes = planes.planeCount(precision);
        const weight_planes = panels.planeCount(dtype);
        const is_split = weight_planes > 1;

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
            const from_memory = if (is_split) token == block else product.a.tokens <= from_memory_tokens and token == 0;
            var panel: usize = 0;
            while (panel < count) {
                // One stream is what the memory is fastest at.
                const width = if (from_memory) 1 else @min(register_panels, count - panel);
                const part: Part = .{
                    .panel = panel,
                    .token = token,
                    .step = step,
                    .steps = @min(chunk_steps, product.a.x_planes.steps - step),
                    .size = size,
                    .sums = product.sums + (token - block) / tile_tokens * count + panel,
                };
                switch (width) {
                    1 => if (!from_memory)
                        product.multiply(1, false, part)
                    else if (is_split)
                        product.splitAndMultiply(part)
                    else
                        product.multiply(1, true, part),
                    inline 2...register_panels => |panel_count| product.multiply(panel_count, false, part),
                    else => unreachable,
                }
                panel += width;
            }
        }

        const Part = struct { panel: usize, token: usize, step: usize, steps: usize, size: usize, sums: [*]Sums };
        /// Of a chunk, for each plane of the weights, in the order in which they are added.
        fn ChunkSums(comptime panel_count: usize) type {
            return [weight_planes][panel_count]Sums;
        }

        /// Planes of x that a plane of the weights does not meet.
        fn skipped(comptime is_low: bool) usize {
            return if (is_low and precision == .precise) 1 else 0;
        }

        fn multiply(product: *const Self, comptime panel_count: usize, comptime from_memory: bool, part: Part) void {
            const next = product.nextOf(part, panel_count);
            var next_x = next.x;
            const is_last = product.isLast(part);
            var chunk: ChunkSums(panel_count) = undefined;
            inline for (&chunk, 0..) |*sums, index| {
                const is_low = is_split and index == 0;
                const source = product.sourceOf(part, is_low);
                var weights = source.first;
                var x: [*]const u8 = product.a.x_planes.tile(part.token, part.step);
                const plane_bytes = part.size * planes.step_bytes;
                inline for (0..panel_count) |panel| tiles.zero(panel);
                for (0..part.steps) |step| {
                    if (from_memory) requestAhead(weights) else if (index == 0) {
                        for (0..next.lines) |line| @prefetch(next_x + 64 * line, .{ .locality = 2 });
                        next_x += 64 * next.lines;
                        if (is_last and step < part.size) product.requestOut(part, panel_count, part.token + step);
                    }
                    inline for (0..panel_count) |panel| {
                        tiles.load(7, weights + panel * source.panel_bytes, 64);
                        inline for (comptime skipped(is_low)..x_planes) |plane| {
                            if (panel == 0) tiles.load(4 + plane, x + plane * plane_bytes, planes.step_bytes);
                            tiles.addBf16(panel, 4 + plane, 7);
                        }
                    }
                    weights += source.step_bytes;
                    x += x_planes * plane_bytes;
                }
                inline for (sums, 0..) |*of_panel, panel| tiles.store(panel, of_panel);
            }
            product.add(panel_count, part, &chunk);
        }

        /// Where a plane of weights comes from.
        const Source = struct { first: [*]const u8, step_bytes: usize, panel_bytes: usize };

        fn sourceOf(product: *const Self, part: Part, comptime is_low: bool) Source {
            if (!is_split) return .{ .first = product.panelOf(part), .step_bytes = tile_bytes, .panel_bytes = panels.panelBytes(product.a.k) };
            const first = &product.split[part.panel * chunk_steps];
            return .{ .first = if (is_low) &first.low else &first.high, .step_bytes = @sizeOf(Split), .panel_bytes = chunk_steps * @sizeOf(Split) };
        }

        fn panelOf(product: *const Self, part: Part) [*]const u8 {
            return product.weights + (product.place.first / panel_rows + part.panel) * panels.panelBytes(product.a.k) + part.step * tile_bytes;
        }

        /// One panel and the first tokens that meet it: makes its planes, and leaves them for later ones.
        fn splitAndMultiply(product: *const Self, part: Part) void {
            // A few places in turn stay in the first-level cache.
            const is_only = product.place.end_token - part.token <= tile_tokens;
            const last_place: usize = if (is_only) split_places - 1 else chunk_steps - 1;
            const places = product.split + if (is_only) 0 else part.panel * chunk_steps;
            const tile = product.panelOf(part);
            const first = @min(split_ahead, part.steps);
            for (0..first) |step| {
                inline for (0..panels.lines) |line| splitLine(tile + step * tile_bytes, &places[step], line);
            }
            inline for (0..weight_planes) |plane| tiles.zero(plane);
            var x: [*]const u8 = product.a.x_planes.tile(part.token, part.step);
            for (first..part.steps) |ahead| {
                const next = tile + ahead * tile_bytes;
                splitStep(x, part.size, &places[(ahead - split_ahead) & last_place], next, &places[ahead & last_place]);
                x += x_planes * part.size * planes.step_bytes;
            }
            for (part.steps - first..part.steps) |step| {
                splitStep(x, part.size, &places[step & last_place], null, undefined);
                x += x_planes * part.size * planes.step_bytes;
            }
            var chunk: ChunkSums(1) = undefined;
            inline for (&chunk, 0..) |*sums, plane| tiles.store(plane, &sums[0]);
            product.add(1, part, &chunk);
        }

        /// The products of a step, between them the lines of a later one's weights, and the requests for what comes then.
        inline fn splitStep(x: [*]const u8, size: usize, weights: *const Split, next: ?[*]const u8, target: *Split) void {
            const products = comptime weight_planes * x_planes - skipped(true);
            comptime var done = 0;
            inline for (0..weight_planes) |index| {
                const is_low = index == 0;
                tiles.load(7, if (is_low) &weights.low else &weights.high, 64);
                inline for (comptime skipped(is_low)..x_planes) |plane| {
                    if (comptime is_low or plane < skipped(true)) tiles.load(4 + plane, x + plane * size * planes.step_bytes, planes.step_bytes);
                    tiles.addBf16(index, 4 + plane, 7);
                    if (next) |tile| inline for (done * panels.lines / products..(done + 1) * panels.lines / products) |line| {
                        requestLineAhead(tile, line);
                        splitLine(tile, target, line);
                    };
                    done += 1;
                }
            }
        }

        inline fn splitLine(tile: [*]const u8, target: *Split, comptime line: usize) void {
            const at = line * panels.line_bytes;
            panels.split(tile[at..][0..panels.line_bytes], target.high[at..][0..panels.line_bytes], target.low[at..][0..panels.line_bytes]);
        }

        fn isLast(product: *const Self, part: Part) bool {
            return part.step + part.steps == product.a.x_planes.steps;
        }

        /// Adds the sums of a chunk to those of the chunks before, which wait in `part.sums`.
        inline fn add(product: *const Self, comptime panel_count: usize, part: Part, chunk: *const ChunkSums(panel_count)) void {
            const is_last = product.isLast(part);
            for (0..part.size) |t| {
                inline for (0..panel_count) |panel| {
                    var sum = if (part.step == 0) chunk[0][panel][t] else part.sums[panel][t] + chunk[0][panel][t];
                    if (is_split) sum += chunk[1][panel][t];
                    const row = product.place.first + (part.panel + panel) * panel_rows;
                    if (is_last) matmul.storeLanes(product.a, product.place.segment, row, part.token + t, sum) else part.sums[panel][t] = sum;
                }
            }
        }

        /// The part of the next tile's x that is asked for meanwhile, so many lines a step: all panels of the unit
        /// together ask for all of it.
        fn nextOf(product: *const Self, part: Part, comptime panel_count: usize) struct { x: [*]const u8, lines: usize } {
            const token = part.token + tile_tokens;
            if (token >= product.place.end_token) return .{ .x = undefined, .lines = 0 };
            const step_lines = x_planes * product.a.x_planes.tileSize(token);
            const count = product.panelCount();
            const lines = (step_lines * panel_count + count - 1) / count;
            return .{ .x = product.a.x_planes.tile(token, part.step) + part.panel / panel_count * lines * part.steps * 64, .lines = lines };
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
    inline for (0..panels.lines) |line| requestLineAhead(weights, line);
}

inline fn requestLineAhead(weights: [*]const u8, comptime line: usize) void {
    @prefetch(weights + 4096 + panels.line_bytes * line, .{ .locality = 2 });
    @prefetch(weights + 1024 + panels.line_bytes * line, .{ .locality = 3 });
}
