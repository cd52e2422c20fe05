//! The packed product of several tokens at once by the tile unit (Intel AMX, int8): a panel of 16 rows is
//! unpacked once into scratch and meets up to 16 tokens per instruction.
//!
//! Where scales are whole numbers they are multiplied into the weights, two bytes each, and the sums of a whole
//! group of 128 stay in the tiles; the other formats leave the tiles every 32 elements. The sums are exact, like
//! those of `matmul_packed.zig`, and meet the same f32 operations in the same order, so a token's bits do not
//! tell which of the two computed it.

const std = @import("std");
const activations = @import("activations.zig");
const layouts = @import("packed.zig");
const math = @import("math.zig");
const matmul = @import("matmul.zig");
const packed_panels = @import("matmul_packed.zig");
const simd = @import("simd.zig");
const tiles = @import("tiles.zig");

const F32 = simd.F32;
const I32 = simd.I32;
const Layout = layouts.Layout;
const Bytes = activations.Bytes;
const Record = activations.Record;
const group_slabs = layouts.group_slabs;
const slab_registers = layouts.slab_registers;

/// Fewer tokens are faster without unpacking.
pub const tokens_min = 13;

const tile_tokens = activations.tile_tokens;

/// Bytes of scratch for one panel with rows of k elements, unpacked.
pub fn scratchBytes(k: usize) usize {
    return activations.groupCount(k) * @sizeOf(Group(2));
}

/// One panel times the tokens `first .. end`; `first` is a multiple of 16. `tiles.release` is to follow the last run.
pub fn run(comptime l: Layout, a: *const matmul.Arguments, segment: *const matmul.Segment, panel: [*]const u8, row: usize, first: usize, end: usize, scratch: []align(64) u8) void {
    const groups: [*]Group(planes(l)) = @ptrCast(scratch.ptr);
    unpack(l, panel, a.k, groups);
    var configured: usize = 0;
    var token = first;
    while (token < end) : (token += tile_tokens) {
        const size = a.x_groups.tileSize(token);
        if (size < tokens_min) return packed_panels.runTile(l, a, segment, panel, row, token);
        if (size != configured) configure(l, size);
        configured = size;
        // Whole tiles, the most by far, know their size when they are compiled.
        if (size == tile_tokens) multiply(l, tile_tokens, a, segment, groups, row, token, size) else multiply(l, null, a, segment, groups, row, token, size);
    }
}

/// Bytes that hold a weight with its scale, or without one.
inline fn planes(comptime l: Layout) usize {
    // Of the formats with whole scales only this one stays below 128.
    return if (!l.whole() or l.nibble_scales) 1 else 2;
}

/// A group as the tile unit and the scaling want it: by plane and register, `[16 rows][4]` bytes.
fn Group(comptime count: usize) type {
    return struct {
        bytes: [count][group_slabs * slab_registers]simd.I8,
        /// The unit in the first; or, for half float scales, one for each slab.
        scale: [group_slabs]F32,
        min: [2 * group_slabs]F32,
    };
}

fn unpack(comptime l: Layout, panel: [*]const u8, k: usize, groups: [*]Group(planes(l))) void {
    @setEvalBranchQuota(100_000);
    var span = panel;
    var slab = panel;
    var head: layouts.Header = undefined;
    for (0..k / layouts.slab_elements) |index| {
        if (index % l.slabsPerSpan() == 0) {
            span = slab;
            head = layouts.header(l, span);
            slab += l.headerBytes();
        }
        inline for (0..l.slabBytes() / 64) |line| @prefetch(slab + 4096 + 64 * line, .{ .locality = 3 });
        const group = &groups[index / group_slabs];
        const at = index % group_slabs;
        if (l.whole()) {
            group.scale[0] = head.unit;
            inline for (0..l.subs()) |sub| {
                const scale = layouts.wholeScale(l, slab, sub);
                const registers = comptime slab_registers / l.subs();
                inline for (sub * registers..(sub + 1) * registers) |j| scaled(l, layouts.integers(l, slab, j), scale, group, at * slab_registers + j);
            }
        } else {
            group.scale[at] = layouts.halfScale(slab);
            const offset: simd.U8 = @splat(@intCast(l.offset));
            inline for (0..slab_registers) |j| group.bytes[0][at * slab_registers + j] = @bitCast(layouts.integers(l, slab, j) -% offset);
        }
        if (l.has_min) inline for (0..l.subs()) |sub| {
            group.min[at * l.subs() + sub] = layouts.minimum(l, head, slab, sub);
        };
        slab += l.slabBytes();
    }
    // A chunk of two slabs whose second is not there meets zeros of x; its bytes only have to be defined.
    const slabs = k / layouts.slab_elements;
    if (l.whole() and slabs % 2 == 1) {
        inline for (&groups[slabs / group_slabs].bytes) |*plane| @memset(plane[slabs % group_slabs * slab_registers ..][0..slab_registers], @splat(0));
    }
}

/// Stores `scale * (integer - offset)` of 64 elements: a signed low byte and what is left, in 256s.
inline fn scaled(comptime l: Layout, q: simd.U8, scale: I32, group: *Group(planes(l)), at: usize) void {
    const Words = @Vector(32, i16);
    const UWords = @Vector(32, u16);
    // The scale in both words of a row's lane; the even and the odd bytes of each lane as words.
    const both = (scale & @as(I32, @splat(0xffff))) | (scale << @splat(16));
    const factor: Words = @bitCast(both);
    const words: UWords = @bitCast(q);
    const offset: Words = @splat(l.offset);
    const even = (@as(Words, @bitCast(words & @as(UWords, @splat(0xff)))) - offset) *% factor;
    const odd = (@as(Words, @bitCast(words >> @splat(8))) - offset) *% factor;
    const low_mask: UWords = @splat(0xff);
    group.bytes[0][at] = @bitCast((@as(UWords, @bitCast(even)) & low_mask) | (@as(UWords, @bitCast(odd)) << @splat(8)));
    if (planes(l) == 1) return;
    const half: Words = @splat(128);
    group.bytes[1][at] = @bitCast((@as(UWords, @bitCast(even +% half)) >> @splat(8)) | (@as(UWords, @bitCast(odd +% half)) & ~low_mask));
}

/// 0 to 3: sums of (high, low) bytes of x times (low, high) bytes of the weights; 4, 5: high and low bytes of x;
/// 6, 7: low and high bytes of the weights.
fn configure(comptime l: Layout, tokens: usize) void {
    const chunk = if (l.whole()) 64 else 32;
    var configuration: tiles.Configuration = .{};
    for (0..4) |tile| configuration.set(tile, tokens, 64);
    for (4..6) |tile| configuration.set(tile, tokens, chunk);
    for (6..8) |tile| configuration.set(tile, chunk / 4, 64);
    configuration.load();
}

const Sums = [4][tile_tokens]I32;

/// Whether a tile of sums is used: 2 and 3 are of the low bytes of x, 1 and 3 of the high bytes of the weights.
fn hasSum(comptime l: Layout, comptime bytes: Bytes, comptime tile: usize) bool {
    return (tile < 2 or bytes == .both) and (tile % 2 == 0 or planes(l) == 2);
}

fn multiply(comptime l: Layout, comptime known_size: ?usize, a: *const matmul.Arguments, segment: *const matmul.Segment, groups: [*]const Group(planes(l)), row: usize, token: usize, run_size: usize) void {
    const size = known_size orelse run_size;
    var acc: [tile_tokens]F32 = @splat(@splat(0));
    // Two sets of sums, so that one is scaled while the next is computed.
    var sums: [2]Sums = undefined;
    var records: [*]const Record = a.x_groups.first(token);
    const slabs = a.k / layouts.slab_elements;
    for (0..a.x_groups.groups) |index| {
        const present = @min(group_slabs, slabs - index * group_slabs);
        switch (activations.Rows.bytesOf(records, size)) {
            inline else => |bytes| if (l.whole())
                addWhole(l, bytes, known_size, &groups[index], records, present, size, &sums[index % 2], &acc)
            else
                addHalves(l, bytes, known_size, &groups[index], records, present, size, &sums, &acc),
        }
        records += size;
    }
    for (acc[0..size], token..) |values, t| matmul.storeLanes(a, segment, row, t, values);
}

inline fn addWhole(comptime l: Layout, comptime bytes: Bytes, comptime known_size: ?usize, group: *const Group(planes(l)), records: [*]const Record, slabs: usize, size: usize, sums: *Sums, acc: *[tile_tokens]F32) void {
    inline for (0..4) |tile| if (comptime hasSum(l, bytes, tile)) tiles.zero(tile);
    if (slabs == group_slabs) {
        inline for (0..group_slabs / 2) |chunk| addChunk(l, bytes, group, records, chunk);
    } else for (0..(slabs + 1) / 2) |chunk| addChunk(l, bytes, group, records, chunk);
    inline for (0..4) |tile| if (comptime hasSum(l, bytes, tile)) tiles.store(tile, &sums[tile]);

    if (known_size) |count| {
        inline for (0..count) |t| scaleWhole(l, bytes, group, &records[t], slabs, sums, t, &acc[t]);
    } else for (0..size) |t| scaleWhole(l, bytes, group, &records[t], slabs, sums, t, &acc[t]);
}

/// Two slabs, 64 elements: all pairs of high and low bytes.
inline fn addChunk(comptime l: Layout, comptime bytes: Bytes, group: *const Group(planes(l)), records: [*]const Record, chunk: usize) void {
    tiles.load(4, &records[0].high[64 * chunk], @sizeOf(Record));
    tiles.load(6, &group.bytes[0][2 * slab_registers * chunk], 64);
    tiles.addBytes(0, 4, 6);
    if (planes(l) == 2) {
        tiles.load(7, &group.bytes[1][2 * slab_registers * chunk], 64);
        tiles.addBytes(1, 4, 7);
    }
    if (bytes == .high) return;
    tiles.load(5, &records[0].low[64 * chunk], @sizeOf(Record));
    tiles.addBytes(2, 5, 6);
    if (planes(l) == 2) tiles.addBytes(3, 5, 7);
}

inline fn scaleWhole(comptime l: Layout, comptime bytes: Bytes, group: *const Group(planes(l)), record: *const Record, slabs: usize, sums: *const Sums, t: usize, total: *F32) void {
    if (l.has_min) {
        if (slabs == group_slabs) {
            inline for (0..group_slabs) |slab| addMinima(l, group, record, slab, total);
        } else for (0..slabs) |slab| addMinima(l, group, record, slab, total);
    }
    var high = sums[0][t];
    var low = if (bytes == .both) sums[2][t] else @as(I32, @splat(0));
    if (planes(l) == 2) {
        high +%= sums[1][t] << @splat(8);
        if (bytes == .both) low +%= sums[3][t] << @splat(8);
    }
    total.* = math.mulAdd(packed_panels.wholeSum(high, low), group.scale[0] * @as(F32, @splat(record.scale)), total.*);
}

inline fn addMinima(comptime l: Layout, group: *const Group(planes(l)), record: *const Record, slab: usize, total: *F32) void {
    inline for (0..l.subs()) |sub| {
        const sum: F32 = @splat(packed_panels.totalOf(l, record, slab, sub));
        total.* = math.mulAdd(group.min[slab * l.subs() + sub], sum, total.*);
    }
}

inline fn addHalves(comptime l: Layout, comptime bytes: Bytes, comptime known_size: ?usize, group: *const Group(planes(l)), records: [*]const Record, slabs: usize, size: usize, sums: *[2]Sums, acc: *[tile_tokens]F32) void {
    for (0..slabs) |slab| {
        const set = &sums[slab % 2];
        tiles.zero(0);
        tiles.load(6, &group.bytes[0][slab_registers * slab], 64);
        tiles.load(4, &records[0].high[32 * slab], @sizeOf(Record));
        tiles.addBytes(0, 4, 6);
        tiles.store(0, &set[0]);
        if (bytes == .both) {
            tiles.zero(1);
            tiles.load(5, &records[0].low[32 * slab], @sizeOf(Record));
            tiles.addBytes(1, 5, 6);
            tiles.store(1, &set[1]);
        }
        if (known_size) |count| {
            inline for (0..count) |t| scaleHalf(l, bytes, group, &records[t], slab, set, t, &acc[t]);
        } else for (0..size) |t| scaleHalf(l, bytes, group, &records[t], slab, set, t, &acc[t]);
    }
}

inline fn scaleHalf(comptime l: Layout, comptime bytes: Bytes, group: *const Group(planes(l)), record: *const Record, slab: usize, sums: *const Sums, t: usize, total: *F32) void {
    const upper = sums[0][t] << @splat(7);
    const sum: F32 = @floatFromInt(if (bytes == .both) upper + sums[1][t] else upper);
    total.* = math.mulAdd(sum, group.scale[slab] * @as(F32, @splat(record.scale)), total.*);
    if (l.has_min) total.* = math.mulAdd(group.min[slab], @as(F32, @splat(record.total_32[slab])), total.*);
}
