//! Matrix product over weights re-laid in panels (`packed.zig`): 16 rows times up to eight tokens at a time.

const std = @import("std");
const activations = @import("activations.zig");
const amx = @import("matmul_amx.zig");
const few = @import("matmul_amx_few.zig");
const layouts = @import("packed.zig");
const math = @import("math.zig");
const matmul = @import("matmul.zig");
const mmla = @import("matmul_mmla.zig");
const ops = @import("../abi/ops.gen.zig");
const pairs = @import("matmul_pairs.zig");
const simd = @import("simd.zig");
const tiles = @import("tiles.zig");

const F32 = simd.F32;
const I32 = simd.I32;
const Layout = layouts.Layout;
const Bytes = activations.Bytes;
const Record = activations.Record;
const slab_registers = layouts.slab_registers;

/// Tokens in registers at once; narrower machines have fewer and smaller registers.
const register_tokens = if (simd.has_avx512) 8 else 2;

/// Up to so many tokens meet two panels at a time.
const paired_panels_tokens_max = 2;

/// Whether that is faster: 3% where most of the time goes into reading and a slab is short; none of longer slabs, and
/// more scales make it slower.
fn pairsPanels(comptime l: Layout) bool {
    return l.low_bits == 4 and l.sub == layouts.slab_elements;
}

/// Bytes of activations that should stay in the second-level cache while several panels use them.
const resident_bytes = 768 << 10;

/// Rows `first .. end` of a segment, `first` a multiple of 16, all tokens.
pub fn run(a: *const matmul.Arguments, segment: *const matmul.Segment, panels: [*]const u8, first: usize, end: usize, scratch: []align(64) u8) void {
    switch (segment.dtype) {
        inline .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .q2_k, .q3_k, .q4_k, .q5_k, .q6_k, .iq4_nl, .mxfp4 => |dtype| {
            const l = comptime Layout.of(dtype);
            const panel_bytes = l.panelBytes(a.k);
            if (simd.has_amx) if (tiles.available()) {
                if (a.tokens >= amx.tokens_min) return amx.run(l, a, segment, panels, first, end, scratch);
                if (a.tokens >= comptime few.tokensMin(l)) {
                    const panel_count = std.math.divCeil(usize, end - first, layouts.panel_rows) catch unreachable;
                    return runFew(l, a, segment, panels + first / layouts.panel_rows * panel_bytes, panel_count, first, 0);
                }
            };
            if ((comptime pairsPanels(l)) and a.tokens <= paired_panels_tokens_max) return runPairs(l, a, segment, panels, first, end);
            const block_tokens = residentTokens(a);
            var block: usize = 0;
            while (block < a.tokens) : (block += block_tokens) {
                const block_end = @min(a.tokens, block + block_tokens);
                var row = first;
                while (row < end) : (row += layouts.panel_rows) {
                    const panel = panels + row / layouts.panel_rows * panel_bytes;
                    var token = block;
                    while (token < block_end) : (token += activations.tile_tokens) runTile(l, a, segment, panel, row, token);
                }
            }
        },
        else => unreachable,
    }
}

/// Few tokens and two panels at a time, one of the first half of all and one of the second: the processor reads ahead
/// in both.
fn runPairs(comptime l: Layout, a: *const matmul.Arguments, segment: *const matmul.Segment, panels: [*]const u8, first: usize, end: usize) void {
    const panel_bytes = l.panelBytes(a.k);
    const count = std.math.divCeil(usize, end - first, layouts.panel_rows) catch unreachable;
    const half = count / 2;
    const first_panel = panels + first / layouts.panel_rows * panel_bytes;
    switch (a.tokens) {
        inline 1...paired_panels_tokens_max => |tokens| {
            for (0..half, half..) |i, j| {
                const rows = .{ first + i * layouts.panel_rows, first + j * layouts.panel_rows };
                multiply(l, 2, tokens, a, segment, .{ first_panel + i * panel_bytes, first_panel + j * panel_bytes }, rows, 0, tokens);
            }
            const last = 2 * half;
            if (last < count) multiply(l, 1, tokens, a, segment, .{first_panel + last * panel_bytes}, .{first + last * layouts.panel_rows}, 0, tokens);
        },
        else => unreachable,
    }
}

/// Tokens, in whole tiles, whose activations stay in the cache while several panels use them.
fn residentTokens(a: *const matmul.Arguments) usize {
    const tile_bytes = activations.byteCount(activations.tile_tokens, a.k);
    return @max(1, resident_bytes / tile_bytes) * activations.tile_tokens;
}

/// The tokens of one tile, too few to fill it, and some panels.
pub fn runFew(comptime l: Layout, a: *const matmul.Arguments, segment: *const matmul.Segment, panels: [*]const u8, panel_count: usize, first_row: usize, first_token: usize) void {
    var token = first_token;
    if (simd.has_amx) while (a.tokens - token >= comptime few.tokensMin(l)) {
        const tokens = @min(few.tokens_max, a.tokens - token);
        few.run(l, &.{ .a = a, .segment = segment, .panels = panels, .panel_count = panel_count, .first_row = first_row, .first_token = token, .tokens = tokens });
        token += tokens;
    };
    if (token == a.tokens) return;
    const panel_bytes = l.panelBytes(a.k);
    for (0..panel_count) |panel| runTile(l, a, segment, panels + panel * panel_bytes, first_row + panel * layouts.panel_rows, token);
}

pub fn runTile(comptime l: Layout, a: *const matmul.Arguments, segment: *const matmul.Segment, panel: [*]const u8, row: usize, token: usize) void {
    const tile = token - token % activations.tile_tokens;
    const stride = a.x_groups.tileSize(tile);
    const size = @min(tile + stride, a.tokens) - token;
    if (simd.has_i8mm and size >= mmla.tokens_min) return mmla.runTile(l, a, segment, panel, row, token);
    if (simd.adds_byte_pairs and size >= pairs.unpacked_tokens_min) return pairs.runTile(l, a, segment, panel, row, token, size, stride);
    var done: usize = 0;
    while (done < size) : (done += register_tokens) {
        switch (@min(register_tokens, size - done)) {
            inline 1...register_tokens => |tokens| multiply(l, 1, tokens, a, segment, .{panel}, .{row}, token + done, stride),
            else => unreachable,
        }
    }
}

/// Some panels, which begin with these rows. `stride`: tokens for which the tile has room, the step from one group to
/// the next.
pub fn multiply(
    comptime l: Layout,
    comptime panel_count: usize,
    comptime tokens: usize,
    a: *const matmul.Arguments,
    segment: *const matmul.Segment,
    panels: [panel_count][*]const u8,
    rows: [panel_count]usize,
    token: usize,
    stride: usize,
) void {
    @setEvalBranchQuota(100_000);
    const from_memory = a.tokens <= activations.tile_tokens;
    var acc: [panel_count][tokens]F32 = @splat(@splat(@splat(0)));
    var x = a.x_groups.first(token);
    var spans = panels;
    var slabs = a.k / layouts.slab_elements;
    while (slabs > 0) {
        const present = layouts.presentSlabs(l, slabs);
        switch (a.x_groups.bytesOf(x, tokens)) {
            inline else => |bytes| inline for (&spans, &acc) |*span, *sums| {
                const head = layouts.header(l, span.*);
                const first = span.* + l.headerBytes();
                if (simd.adds_byte_pairs) {
                    const group: pairs.Packed(l) = .{ .head = head, .first = first, .from_memory = from_memory };
                    pairs.addGroup(l, bytes, tokens, &group, present, x, sums);
                } else addGroup(l, bytes, tokens, head, first, present, from_memory, x, sums);
                span.* += l.headerBytes() + present * l.slabBytes();
            },
        }
        slabs -= present;
        x = x.after(stride);
    }
    inline for (rows, acc) |row, sums| {
        inline for (0..tokens) |t| matmul.storeLanes(a, segment, row, token + t, sums[t]);
    }
}

/// Adds the products of one group's slabs.
inline fn addGroup(
    comptime l: Layout,
    comptime bytes: Bytes,
    comptime tokens: usize,
    head: layouts.Header,
    first: [*]const u8,
    slabs: usize,
    from_memory: bool,
    x: activations.Group,
    acc: *[tokens]F32,
) void {
    var high: [tokens]I32 = @splat(@splat(0));
    var low: [tokens]I32 = @splat(@splat(0));
    var wide: [if (l.scales == .wide) tokens else 0]simd.WideSums = @splat(.zero);
    for (0..slabs) |index| {
        const slab = first + index * l.slabBytes();
        if (from_memory) requestAhead(l, tokens, slab);
        inline for (0..l.subs()) |sub| {
            var q: [slab_registers / l.subs()]simd.U8 = undefined;
            inline for (&q, sub * q.len..) |*integers, j| integers.* = layouts.integers(l, slab, j);
            if (l.whole()) {
                const scale = layouts.wholeScale(l, slab, sub);
                const parts = comptime wordParts(l);
                inline for (0..tokens) |t| {
                    if (parts) |count| {
                        inline for (0..count) |part| {
                            const sums = dots(l, bytes, index, sub * count + part, q[part * q.len / count ..][0 .. q.len / count], x, t);
                            high[t] = simd.addWordProducts(high[t], sums.high, scale);
                            if (bytes == .both) low[t] = simd.addWordProducts(low[t], sums.low, scale);
                        }
                    } else {
                        const sums = dots(l, bytes, index, sub, &q, x, t);
                        high[t] +%= sums.high *% scale;
                        if (bytes == .both) low[t] +%= sums.low *% scale;
                    }
                }
            } else if (l.scales == .wide) {
                const scale: simd.WideSums = .of(layouts.wholeScale(l, slab, sub));
                inline for (0..tokens) |t| {
                    const sums = dots(l, bytes, index, sub, &q, x, t);
                    wide[t] = wide[t].plus(.of(activations.joined(sums.high, sums.low)), scale);
                }
            } else {
                const scale = layouts.halfScale(slab);
                inline for (0..tokens) |t| {
                    const sums = dots(l, bytes, index, sub, &q, x, t);
                    const sum: F32 = @floatFromInt(activations.joined(sums.high, sums.low));
                    acc[t] = math.mulAdd(sum, scale * @as(F32, @splat(x.records[t].scale)), acc[t]);
                }
            }
            if (l.has_min) {
                const minimum = layouts.minimum(l, head, slab, sub);
                inline for (0..tokens) |t| acc[t] = math.mulAdd(minimum, @splat(totalOf(l, &x.records[t], index, sub)), acc[t]);
            }
        }
    }
    if (l.scales != .half) inline for (0..tokens) |t| {
        const sum = if (l.scales == .wide) wideSum(l, wide[t]) else wholeSum(l, high[t], low[t]);
        acc[t] = math.mulAdd(sum, unitOf(l, head) * @as(F32, @splat(x.records[t].scale)), acc[t]);
    };
}

/// Weights that only one tile of tokens meets come from memory. Asks for them in time, into the second-level cache,
/// since a request for the first would hold one of its few line buffers until the memory answers; and then into the
/// first, since the arithmetic leaves the processor no room to look so far ahead: the less, the more tokens there are.
pub inline fn requestAhead(comptime l: Layout, comptime tokens: usize, slab: [*]const u8) void {
    const far = if (tokens < 4) 2048 else 4096;
    const near = if (tokens < 4) 576 else 1152;
    inline for (0..l.slabLines()) |line| {
        @prefetch(slab + far + 64 * line, .{ .locality = 2 });
        @prefetch(slab + near + 64 * line, .{ .locality = 3 });
    }
}

/// `256 * high + low` as far as 32 bits hold it, rounded down before it meets f32: the same from the bytes' sums and
/// from those of the tile unit.
pub inline fn wholeSum(comptime l: Layout, high: I32, low: I32) F32 {
    const shift = comptime l.sumShift();
    return @floatFromInt((high << @splat(activations.low_bits - shift)) +% (low >> @splat(shift)));
}

/// The same of sums of up to 46 bits.
pub inline fn wideSum(comptime l: Layout, sum: simd.WideSums) F32 {
    return @floatFromInt(sum.shifted(comptime l.sumShift()));
}

/// What those are counted in, but for x.
pub inline fn unitOf(comptime l: Layout, head: layouts.Header) F32 {
    return head.unit * @as(F32, @splat(comptime 1 << l.sumShift()));
}

/// Sum of the values of part `sub` of a group's slab.
pub inline fn totalOf(comptime l: Layout, record: *const Record, slab: usize, comptime sub: usize) f32 {
    return if (l.sub == 32) record.total_32[slab] else record.total_16[2 * slab + sub];
}

/// In how many parts the integers of one scale have sums of 16 bits, which meet their scale in one instruction; null
/// where that takes more than two, or parts shorter than the sums of x that the offset wants.
fn wordParts(comptime l: Layout) ?usize {
    if (!simd.has_word_dot) return null;
    const part_max = @divFloor(std.math.maxInt(i16), activations.byte_max * l.magnitude());
    if (part_max >= l.sub) return 1;
    return if (part_max >= 16 and l.sub == 32) 2 else null;
}

const Dots = struct { high: I32, low: I32 };

/// Products of a token's high and low bytes with some of a slab's integers, offsets taken away: the part `part` of as
/// long ones.
inline fn dots(comptime l: Layout, comptime bytes: Bytes, slab: usize, comptime part: usize, q: anytype, x: activations.Group, t: usize) Dots {
    const elements = 4 * q.len;
    const record = &x.records[t];
    const integers = &x.integers[t];
    var high: I32 = @splat(0);
    var low: I32 = @splat(0);
    if (l.offset != 0 and comptime !signedBytes(l)) {
        const offset: I32 = @splat(l.offset);
        const less_high = if (elements == 32) record.less_high_32[slab] else record.less_high_16[2 * slab + part];
        const less_low = if (elements == 32) record.less_low_32[slab] else record.less_low_16[2 * slab + part];
        high = @as(I32, @splat(less_high)) *% offset;
        if (bytes == .both) low = @as(I32, @splat(less_low)) *% offset;
    }
    const first = layouts.slab_elements * slab + elements * part;
    inline for (0..q.len) |j| {
        high = product(l, high, q[j], broadcast(&integers.high, first + 4 * j));
        if (bytes == .both) low = product(l, low, q[j], broadcast(&integers.low, first + 4 * j));
    }
    return .{ .high = high, .low = low };
}

/// Bytes above what the unsigned dot product takes go through the signed one, their offset removed.
fn signedBytes(comptime l: Layout) bool {
    return l.offset > simd.dot_unsigned_max;
}

inline fn product(comptime l: Layout, sum: I32, q: simd.U8, x: simd.I8) I32 {
    if (comptime signedBytes(l)) return simd.dotSigned(sum, @bitCast(q ^ @as(simd.U8, @splat(128))), x);
    return simd.dot(sum, q, x);
}

/// Elements `at .. at + 4` in every lane.
pub inline fn broadcast(bytes: *const [activations.group_elements]i8, at: usize) simd.I8 {
    const four: i32 = @bitCast(bytes[at..][0..4].*);
    return @bitCast(@as(I32, @splat(four)));
}
