//! Re-lays the weights of a program with all threads, once, when it is created.

const std = @import("std");
const lower = @import("lower.zig");
const layouts = @import("packed.zig");
const matmul = @import("matmul.zig");
const memory = @import("memory.zig");
const status = @import("../abi/status.zig");
const Ahead = @import("pool.zig").Ahead;
const Lane = @import("pool.zig").Lane;
const Pool = @import("pool.zig").Pool;
const Units = @import("pool.zig").Units;

pub const Packing = struct {
    bodies: []lower.Body,
    buffers: []const *memory.Buffer,
    pool: *Pool,
    units: Units,
    /// Of small weights, so far.
    small_bytes: std.atomic.Value(usize) = .init(0),

    /// Copies every weight that has a faster layout into panels; null when the program has none.
    pub fn run(pool: *Pool, bodies: []lower.Body, buffers: []const *memory.Buffer) status.Error!?memory.Buffer {
        var total: u64 = 0;
        for (bodies) |*body| {
            for (segmentsOf(body)) |*segment| total += segmentBytes(body, segment);
        }
        if (total == 0) return null;
        const panels = try memory.Buffer.createHuge(total);
        var at: u64 = 0;
        for (bodies) |*body| {
            for (segmentsOf(body)) |*segment| {
                const bytes = segmentBytes(body, segment);
                if (bytes == 0) continue;
                segment.panels = panels.memory + at;
                at += bytes;
            }
        }
        // One lane, so that units come in rising order.
        var lane: [1]Lane = .{.{}};
        var packing: Packing = .{ .bodies = bodies, .buffers = buffers, .pool = pool, .units = .{ .lanes = &lane } };
        packing.units.reset(epoch, @intCast(totalPanels(bodies)));
        pool.run(runThread, &packing);
        pool.quiesce();
        packing.dropAll();
        return panels;
    }

    fn runThread(context: *anyopaque, thread: u32) void {
        const packing: *Packing = @ptrCast(@alignCast(context));
        // One walk over the matrices meets all units.
        var unit = packing.units.take(epoch, thread) orelse std.math.maxInt(u32);
        var first: usize = 0;
        for (packing.bodies) |*body| {
            for (segmentsOf(body)) |*segment| {
                if (segment.panels == null) continue;
                const count = panelCount(segment);
                while (unit < first + count) {
                    packOne(body, segment, unit - first);
                    packing.dropSource(segment, unit - first + 1);
                    packing.units.finish(packing.pool, 1);
                    unit = packing.units.take(epoch, thread) orelse std.math.maxInt(u32);
                }
                first += count;
            }
        }
        var ahead: Ahead = .none;
        _ = packing.units.wait(packing.pool, epoch, &ahead);
    }

    /// Gives pages back now and then, so that not the whole of a file is resident beside its copy: those of a large
    /// weight behind `panels` that are packed, and all there are when many small ones are done, for every time it is
    /// done stops the other threads. Who still reads there gets them once more.
    fn dropSource(packing: *Packing, segment: *const matmul.Segment, panels: usize) void {
        const bytes = segment.rows * segment.row_bytes;
        if (bytes < dropped_bytes) {
            if (panels != panelCount(segment)) return;
            const before = packing.small_bytes.fetchAdd(bytes, .monotonic);
            if (before / dropped_bytes != (before + bytes) / dropped_bytes) packing.dropAll();
            return;
        }
        const span_panels = std.math.divCeil(usize, dropped_bytes, layouts.panel_rows * segment.row_bytes) catch unreachable;
        if (panels % span_panels != 0 and panels != panelCount(segment)) return;
        const begin = (panels - 1) / span_panels * span_panels * layouts.panel_rows;
        const end = @min(panels * layouts.panel_rows, segment.rows);
        const from = segment.data + begin * segment.row_bytes;
        for (packing.buffers) |buffer| {
            if (buffer.holds(from)) return buffer.dropPages(from, (end - begin) * segment.row_bytes);
        }
    }

    fn dropAll(packing: *const Packing) void {
        for (packing.buffers) |buffer| buffer.dropAllPages();
    }

    fn packOne(body: *lower.Body, segment: *matmul.Segment, panel: usize) void {
        const k = body.matmul.k;
        const bytes = matmul.panelBytes(segment.dtype, k).?;
        const target = @constCast(segment.panels.?) + panel * bytes;
        matmul.packPanel(segment, panel * layouts.panel_rows, k, target);
    }
};

/// Pages that are given back at once.
const dropped_bytes = 4 << 20;

/// A packing runs once.
const epoch = 1;

fn totalPanels(bodies: []lower.Body) usize {
    var total: usize = 0;
    for (bodies) |*body| {
        for (segmentsOf(body)) |*segment| {
            if (segment.panels != null) total += panelCount(segment);
        }
    }
    return total;
}

fn segmentsOf(body: *lower.Body) []matmul.Segment {
    return switch (body.*) {
        .matmul => |*a| a.segments[0..a.segment_count],
        else => &.{},
    };
}

fn panelCount(segment: *const matmul.Segment) usize {
    return std.math.divCeil(usize, segment.rows, layouts.panel_rows) catch unreachable;
}

/// Whole cache lines, so that no panel shares one with another matrix.
fn segmentBytes(body: *lower.Body, segment: *const matmul.Segment) u64 {
    const bytes = matmul.panelBytes(segment.dtype, body.matmul.k) orelse return 0;
    return std.mem.alignForward(u64, panelCount(segment) * bytes, 64);
}
