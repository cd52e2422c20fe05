//! The packed product of several tokens at once by the tile unit (Intel AMX, int8): a panel of 16 rows is
//! unpacked into scratch, some groups of 128 elements at a time, and meets up to 16 tokens per instruction.
//!
//! Where scales are whole numbers they are multiplied into the weights, two bytes each, and the sums of a whole
//! group of 128 stay in the tiles; the other formats leave the tiles every 32 elements. The sums are exact, like
//! those of `matmul_packed.zig`, and meet the same f32 operations in the same order, so a token's bits do not
//! tell which of the two computed it.
//!
//! The tile unit, the stores of its sums and their scaling wait for each other unless they come mixed in the
//! program: while one group is multiplied, the sums of the one before leave the tiles and are scaled. And the tiles
//! load twice as fast from the first-level cache, so that all tokens meet a few groups of a panel before the next
//! few are unpacked.

const std = @import("std");
const activations = @import("activations.zig");
const layouts = @import("packed.zig");
const math = @import("math.zig");
const matmul = @import("matmul.zig");
const packed_panels = @import("matmul_packed.zig");
const scaled_weights = @import("scaled_weights.zig");
const simd = @import("simd.zig");
const tiles = @import("tiles.zig");

const F32 = simd.F32;
const I32 = simd.I32;
const Layout = layouts.Layout;
const Bytes = activations.Bytes;
const Integers = activations.Integers;
const group_slabs = layouts.group_slabs;
const slab_registers = layouts.slab_registers;
const tile_tokens = activations.tile_tokens;

/// Fewer tokens are faster without unpacking.
pub const tokens_min = activations.padded_tokens_min;

/// Groups of a panel that are unpacked at a time; an even number, since a header may stand for two.
const chunk_groups = 2;
/// Tokens that meet them: their bytes of those groups, and the sums of a unit, fit the second-level cache.
const block_tokens_max = 512;
const panels_max = matmul.unit_rows_max / layouts.panel_rows;

/// Panels that a tile of activations meets while it is in the first-level cache.
const panels_at_once = 2;

/// What the multiplication has to know of a layout.
const Kind = struct {
    /// Whether sums are whole numbers over a group.
    whole: bool,
    /// Bytes that hold a weight, with its scale where sums are whole.
    planes: usize,
    /// Minima of a row in a group.
    minima: usize,

    fn of(comptime l: Layout) Kind {
        return .{
            .whole = l.whole(),
            .planes = if (l.whole()) scaled_weights.planeCount(l) else 1,
            .minima = if (l.has_min) group_slabs * l.subs() else 0,
        };
    }
};

/// A group of a panel as the tile unit and the scaling want it: by plane and register, `[16 rows][4]` bytes.
fn Group(comptime kind: Kind) type {
    return extern struct {
        bytes: [kind.planes][group_slabs * slab_registers]simd.U8,
        /// The unit; or, for half float scales, one for each slab.
        scale: [if (kind.whole) 1 else group_slabs]F32,
        min: [kind.minima]F32,
    };
}

/// Sums of the 16 rows for each token of a tile, as they grow from group to group.
const Totals = [tile_tokens]F32;

const PanelTotals = [block_tokens_max / tile_tokens]Totals;

fn Scratch(comptime kind: Kind) type {
    return extern struct {
        groups: [panels_at_once][chunk_groups]Group(kind),
        totals: [panels_max]PanelTotals,
    };
}

/// Bytes of scratch for one unit.
pub const scratch_bytes = @sizeOf(Scratch(.{ .whole = true, .planes = 2, .minima = group_slabs }));

/// The rows `first .. end` of a segment, a unit or less, for all tokens.
pub fn run(comptime l: Layout, a: *const matmul.Arguments, segment: *const matmul.Segment, panels: [*]const u8, first: usize, end: usize, scratch: []align(64) u8) void {
    const kind = comptime Kind.of(l);
    comptime std.debug.assert(@sizeOf(Scratch(kind)) <= scratch_bytes);
    const own: *Scratch(kind) = @ptrCast(scratch.ptr);
    const panel_bytes = l.panelBytes(a.k);
    const panel_count = std.math.divCeil(usize, end - first, layouts.panel_rows) catch unreachable;
    const first_panel = panels + first / layouts.panel_rows * panel_bytes;

    configure(kind);
    defer tiles.release();
    var block: usize = 0;
    while (block < a.tokens) : (block += block_tokens_max) {
        const tile_count = a.x_groups.wholeTiles(block, block_tokens_max);
        const block_end = @min(a.tokens, block + tile_count * tile_tokens);
        if (tile_count > 0) {
            addBlock(l, a, first_panel, panel_count, block, tile_count, own);
            storeBlock(kind, a, segment, first, panel_count, block, block_end, own);
        }
        // A last tile of few tokens.
        if (block_end == a.tokens or tile_count * tile_tokens == block_tokens_max) continue;
        packed_panels.runFew(l, a, segment, first_panel, panel_count, first, block_end);
    }
}

/// The totals of some panels for whole tiles of tokens.
fn addBlock(comptime l: Layout, a: *const matmul.Arguments, first_panel: [*]const u8, panel_count: usize, first_token: usize, tile_count: usize, scratch: *Scratch(Kind.of(l))) void {
    const groups = a.x_groups.groups;
    const panel_bytes = l.panelBytes(a.k);
    var group: usize = 0;
    while (group < groups) : (group += chunk_groups) {
        const chunk: Chunk = .{ .first = group, .end = @min(group + chunk_groups, groups) };
        var panel: usize = 0;
        while (panel < panel_count) : (panel += scratch.groups.len) {
            const count = @min(scratch.groups.len, panel_count - panel);
            for (scratch.groups[0..count], panel..) |*unpacked, index| unpack(l, first_panel + index * panel_bytes, a.k, chunk, unpacked);
            multiply(Kind.of(l), a, scratch.groups[0..count], chunk, first_token, scratch.totals[panel..][0..count], tile_count);
        }
    }
}

/// Stores totals; tokens outside, so that what one thread writes of a token lies together.
fn storeBlock(comptime kind: Kind, a: *const matmul.Arguments, segment: *const matmul.Segment, first_row: usize, panel_count: usize, first_token: usize, end_token: usize, scratch: *const Scratch(kind)) void {
    for (first_token..end_token) |token| {
        const at = token - first_token;
        for (scratch.totals[0..panel_count], 0..) |*totals, panel| {
            matmul.storeLanes(a, segment, first_row + panel * layouts.panel_rows, token, totals[at / tile_tokens][at % tile_tokens]);
        }
    }
}

/// Groups `first .. end` of a row.
const Chunk = struct { first: usize, end: usize };

fn unpack(comptime l: Layout, panel: [*]const u8, k: usize, chunk: Chunk, groups: *[chunk_groups]Group(Kind.of(l))) void {
    @setEvalBranchQuota(100_000);
    const kind = comptime Kind.of(l);
    const first = chunk.first * group_slabs;
    const end = @min(k / layouts.slab_elements, chunk.end * group_slabs);
    const next = panels_at_once * l.panelBytes(k);
    var span = panel;
    var slab = panel + first / l.slabsPerSpan() * l.spanBytes();
    var head: layouts.Header = undefined;
    for (first..end) |index| {
        if (index % l.slabsPerSpan() == 0) {
            span = slab;
            head = layouts.header(l, span);
            slab += l.headerBytes();
        }
        // The same place of the panels that come next, which the loads of this one do not announce.
        inline for (0..l.slabBytes() / 64) |line| @prefetch(slab + next + 64 * line, .{ .locality = 2 });
        const group = &groups[index / group_slabs - chunk.first];
        const at = index % group_slabs;
        if (kind.whole) {
            group.scale[0] = head.unit;
            inline for (0..l.subs()) |sub| {
                const factor: scaled_weights.Factor = .of(l, layouts.wholeScale(l, slab, sub));
                const registers = comptime slab_registers / l.subs();
                inline for (sub * registers..(sub + 1) * registers) |j| {
                    const planes = scaled_weights.products(l, layouts.integers(l, slab, j), factor);
                    inline for (planes, &group.bytes) |bytes, *plane| plane[at * slab_registers + j] = bytes;
                }
            }
        } else {
            group.scale[at] = layouts.halfScale(slab);
            const offset: simd.U8 = @splat(@intCast(l.offset));
            inline for (0..slab_registers) |j| group.bytes[0][at * slab_registers + j] = layouts.integers(l, slab, j) -% offset;
        }
        if (l.has_min) inline for (0..l.subs()) |sub| {
            group.min[at * l.subs() + sub] = layouts.minimum(l, head, slab, sub);
        };
        slab += l.slabBytes();
    }
    if (end % group_slabs != 0) clearRest(kind, &groups[end / group_slabs - chunk.first], end % group_slabs);
}

/// What lies behind the last slab meets zeros of x and has only to be finite.
fn clearRest(comptime kind: Kind, group: *Group(kind), slabs: usize) void {
    for (&group.bytes) |*plane| @memset(plane[slabs * slab_registers ..], @splat(0));
    if (!kind.whole) @memset(group.scale[slabs..], @splat(0));
    if (kind.minima > 0) @memset(group.min[slabs * (kind.minima / group_slabs) ..], @splat(0));
}

/// 0 to 3: sums; 4, 5: high and low bytes of x; 6, 7: low and high bytes of the weights.
fn configure(comptime kind: Kind) void {
    const elements = if (kind.whole) 64 else 32;
    var configuration: tiles.Configuration = .{};
    for (0..4) |tile| configuration.set(tile, tile_tokens, 64);
    for (4..6) |tile| configuration.set(tile, tile_tokens, elements);
    for (6..8) |tile| configuration.set(tile, elements / 4, 64);
    configuration.load();
}

/// Sums that have left the tiles: four of a group or, for half float scales, the high and the low ones of each slab.
const Sums = [2 * group_slabs][tile_tokens]I32;

/// A group of a tile of tokens on its way through the tile unit.
fn Work(comptime kind: Kind) type {
    return struct {
        group: *const Group(kind),
        x: activations.Group,
        bytes: Bytes,
        sums: *Sums,
        /// What the group is added to, and where the result goes.
        from: *const Totals,
        to: *Totals,
    };
}

/// Adds the products of a chunk's groups of some panels to the totals of whole tiles of tokens.
fn multiply(comptime kind: Kind, a: *const matmul.Arguments, panels: []const [chunk_groups]Group(kind), chunk: Chunk, first_token: usize, totals: []PanelTotals, tile_count: usize) void {
    var sums: [2]Sums = undefined;
    var nowhere: Totals = undefined;
    const zeros: Totals = @splat(@splat(0));
    // Nothing comes before the first: what the tiles hold is scaled to nowhere.
    var before: Work(kind) = .{ .group = &panels[0][0], .x = a.x_groups.first(first_token), .bytes = .high, .sums = &sums[1], .from = &zeros, .to = &nowhere };
    for (0..tile_count) |tile| {
        const first_group = a.x_groups.first(first_token + tile * tile_tokens).after(chunk.first * tile_tokens);
        for (panels, totals) |*groups, *of_panel| {
            var x = first_group;
            for (groups[0 .. chunk.end - chunk.first], chunk.first..) |*group, index| {
                const work: Work(kind) = .{
                    .group = group,
                    .x = x,
                    .bytes = a.x_groups.bytesOf(x, tile_tokens),
                    // Whole sums leave their tiles in the step that scales them.
                    .sums = if (kind.whole or before.sums != &sums[0]) &sums[0] else &sums[1],
                    .from = if (index == 0) &zeros else &of_panel[tile],
                    .to = &of_panel[tile],
                };
                switch (before.bytes) {
                    inline else => |bytes_before| switch (work.bytes) {
                        inline else => |bytes| step(kind, bytes_before, bytes, &before, &work),
                    },
                }
                before = work;
                x = x.after(tile_tokens);
            }
        }
    }
    switch (before.bytes) {
        inline else => |bytes_before| step(kind, bytes_before, null, &before, &before),
    }
}

/// Products of tiles in a group.
const slots = 8;

/// Multiplies one group while the sums of the one before leave the tiles and are scaled; without `bytes` only the
/// latter. A tile of sums is stored just before it is used again: its last product is then long done.
inline fn step(comptime kind: Kind, comptime bytes_before: Bytes, comptime bytes: ?Bytes, before: *const Work(kind), work: *const Work(kind)) void {
    inline for (0..slots) |slot| {
        const place = comptime Place.of(kind, slot);
        if (comptime place.stored(kind, bytes_before, bytes)) |sum| {
            tiles.store(place.tile, if (sum.of_this) &work.sums[sum.index] else &before.sums[sum.index]);
        }
        if (bytes) |present| if (comptime place.has(kind, present)) {
            if (place.is_first) tiles.zero(place.tile);
            if (place.loads_high) tiles.load(4, &work.x.integers[0].high[place.element], @sizeOf(Integers));
            if (place.loads_low) tiles.load(5, &work.x.integers[0].low[place.element], @sizeOf(Integers));
            if (place.loads_weights) tiles.load(place.weights, &work.group.bytes[place.weights - 6][place.element / 4], 64);
            if (kind.planes == 2 and place.weights == 6) tiles.addUnsigned(place.tile, place.x, place.weights) else tiles.addBytes(place.tile, place.x, place.weights);
        };
        // The first half of the slots stores the last sums.
        const rows = comptime tile_tokens / (slots / 2);
        if (slot >= slots / 2) inline for ((slot - slots / 2) * rows..(slot - slots / 2 + 1) * rows) |t| addScaled(kind, bytes_before, before, t);
    }
}

/// Which tiles a slot multiplies.
const Place = struct {
    /// Of the sum.
    tile: usize,
    x: usize,
    weights: usize,
    /// First of the elements of the group.
    element: usize,
    is_first: bool,
    loads_high: bool,
    loads_low: bool,
    loads_weights: bool,
    slab: usize,

    fn of(kind: Kind, slot: usize) Place {
        if (!kind.whole) {
            // A slab in two slots, high and low bytes of x; its sums in one pair of tiles or the other.
            const slab = slot / 2;
            const is_low = slot % 2 == 1;
            return .{
                .tile = slab % 2 * 2 + slot % 2,
                .x = if (is_low) 5 else 4,
                .weights = 6,
                .element = layouts.slab_elements * slab,
                .is_first = true,
                .loads_high = !is_low,
                .loads_low = is_low,
                .loads_weights = !is_low,
                .slab = slab,
            };
        }
        // Two slabs, 64 elements, in four slots: all pairs of high and low bytes.
        const tile = slot % 4;
        return .{
            .tile = tile,
            .x = if (tile < 2) 4 else 5,
            .weights = 6 + tile % 2,
            .element = 64 * (slot / 4),
            .is_first = slot < 4,
            .loads_high = tile == 0,
            .loads_low = tile == 2,
            .loads_weights = tile < 2,
            .slab = 0,
        };
    }

    /// Whether the bytes of x and of the weights that it multiplies are there.
    fn has(place: Place, kind: Kind, bytes: Bytes) bool {
        return (place.x == 4 or bytes == .both) and place.weights - 6 < kind.planes;
    }

    const Stored = struct { of_this: bool, index: usize };

    /// The sum that this slot takes out of its tile: the one before's, or an earlier slab's of the same group.
    fn stored(place: Place, kind: Kind, bytes_before: Bytes, bytes: ?Bytes) ?Stored {
        if (kind.whole) return if (place.is_first and place.has(kind, bytes_before)) .{ .of_this = false, .index = place.tile } else null;
        const of_this = place.slab >= 2;
        const owner = if (of_this) bytes orelse return null else bytes_before;
        return if (place.has(kind, owner)) .{ .of_this = of_this, .index = 2 * ((place.slab + 2) % group_slabs) + place.tile % 2 } else null;
    }
};

/// Adds the scaled sums of a token to its totals.
inline fn addScaled(comptime kind: Kind, comptime bytes: Bytes, work: *const Work(kind), comptime t: usize) void {
    const group = work.group;
    const record = &work.x.records[t];
    const x_scale: F32 = @splat(record.scale);
    var total = work.from[t];
    if (kind.whole) {
        const sums = work.sums;
        inline for (0..kind.minima) |sub| {
            const sum = if (kind.minima == group_slabs) record.total_32[sub] else record.total_16[sub];
            total = math.mulAdd(group.min[sub], @splat(sum), total);
        }
        var high = sums[0][t];
        var low = if (bytes == .both) sums[2][t] else @as(I32, @splat(0));
        if (kind.planes == 2) {
            high +%= sums[1][t] << @splat(8);
            if (bytes == .both) low +%= sums[3][t] << @splat(8);
        }
        work.to[t] = math.mulAdd(packed_panels.wholeSum(high, low), group.scale[0] * x_scale, total);
        return;
    }
    inline for (0..group_slabs) |slab| {
        const upper = work.sums[2 * slab][t] << @splat(7);
        const sum: F32 = @floatFromInt(if (bytes == .both) upper + work.sums[2 * slab + 1][t] else upper);
        total = math.mulAdd(sum, group.scale[slab] * x_scale, total);
        if (kind.minima > 0) total = math.mulAdd(group.min[slab], @as(F32, @splat(record.total_32[slab])), total);
    }
    work.to[t] = total;
}
