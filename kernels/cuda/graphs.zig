//! Steps kept as CUDA graphs, so that a step costs one launch instead of one per kernel.
//!
//! A step whose dimensions are all equal is a step of decoding: a row of logits for every sequence, a token for every
//! row. Such steps run with the grids of their bucket, the next size of 1, 2, 4 and the multiples of 8; kernels read
//! the live dimensions, so one graph serves the whole bucket, and a captured step computes what a launched one does.
//!
//! A bucket is captured when it is seen for the second time: the first time has loaded its kernels, and many sizes
//! pass by only once. Graphs stay until the program is freed. One that does not fit into the budget is not made, and
//! its bucket goes on being launched: to make room by dropping another would cost more in captures than it saves.

const std = @import("std");
const status = @import("../abi/status.zig");
const driver = @import("driver.zig");
const launch_module = @import("launch.zig");
const Device = @import("device.zig").Device;

const Launch = launch_module.Launch;

/// Larger steps are bound by their arithmetic.
const bucket_max = 1024;
const buckets_max = bucket_max / 8 + 3;
/// What a node of an executable graph takes at least. The driver takes its memory in large pieces and does not say
/// how much of one a graph has, so the measured difference is 0 for most.
const node_bytes = 2 << 10;

/// The steps that a graph of `size` serves: those with all dimensions at most this, and above the size before.
pub const Bucket = struct {
    index: u32,
    size: u32,

    /// The bucket of a step; null when its dimensions differ, or are too large.
    pub fn of(dims: []const u32) ?Bucket {
        if (dims.len == 0 or dims[0] == 0 or dims[0] > bucket_max) return null;
        for (dims[1..]) |value| if (value != dims[0]) return null;
        const value = dims[0];
        if (value <= 4) {
            const exponent = std.math.log2_int_ceil(u32, value);
            return .{ .index = exponent, .size = @as(u32, 1) << @intCast(exponent) };
        }
        const eights = (value + 7) / 8;
        return .{ .index = 2 + eights, .size = eights * 8 };
    }
};

const State = union(enum) {
    unseen,
    seen,
    captured: driver.GraphExecutable,
    refused,
};

/// What a program's graphs come to.
pub const Totals = extern struct {
    captured: u64 = 0,
    refused: u64 = 0,
    bytes: u64 = 0,
    /// Steps that were one launch.
    replays: u64 = 0,
};

pub const Graphs = struct {
    /// Bytes that all graphs together may take; 0: none are made.
    budget_bytes: u64 = 0,
    totals: Totals = .{},
    states: [buckets_max]State = @splat(.unseen),

    /// Launches the graph of the bucket, which is captured if it is time; false when there is none.
    pub fn run(graphs: *Graphs, device: *Device, bucket: Bucket, launches: []const Launch, dims: []const u32) status.Error!bool {
        if (graphs.budget_bytes == 0) return false;
        const state = &graphs.states[bucket.index];
        switch (state.*) {
            .unseen => state.* = .seen,
            .seen => {
                state.* = try graphs.capture(device, launches, dims);
                if (state.* == .refused) graphs.totals.refused += 1;
            },
            .captured, .refused => {},
        }
        switch (state.*) {
            .captured => |executable| {
                try device.check(device.driver.cuGraphLaunch(executable, device.stream), "launching a graph");
                graphs.totals.replays += 1;
                return true;
            },
            else => return false,
        }
    }

    fn capture(graphs: *Graphs, device: *Device, launches: []const Launch, dims: []const u32) status.Error!State {
        const least = launches.len * node_bytes;
        if (!graphs.fits(least)) return .refused;
        const graph = try record(device, launches, dims);
        defer _ = device.driver.cuGraphDestroy(graph);
        const before = try device.memory();
        var executable: ?driver.GraphExecutable = null;
        const result = device.driver.cuGraphInstantiateWithFlags(&executable, graph, 0);
        // The launches still work without more memory.
        if (result == .out_of_memory) return .refused;
        try device.check(result, "making a graph");
        errdefer _ = device.driver.cuGraphExecDestroy(executable.?);
        const after = try device.memory();
        const bytes = @max(least, before.free -| after.free);
        if (!graphs.fits(bytes)) {
            try device.check(device.driver.cuGraphExecDestroy(executable.?), "dropping a graph");
            return .refused;
        }
        graphs.totals.captured += 1;
        graphs.totals.bytes += bytes;
        return .{ .captured = executable.? };
    }

    fn fits(graphs: *const Graphs, bytes: u64) bool {
        return graphs.totals.bytes + bytes <= graphs.budget_bytes;
    }

    pub fn free(graphs: *Graphs, device: *Device) void {
        device.tidyUp();
        for (&graphs.states) |*state| switch (state.*) {
            .captured => |executable| {
                _ = device.driver.cuGraphExecDestroy(executable);
                state.* = .unseen;
            },
            else => {},
        };
    }
};

fn record(device: *Device, launches: []const Launch, dims: []const u32) status.Error!driver.Graph {
    try device.check(device.driver.cuStreamBeginCapture_v2(device.stream, driver.capture_thread_local), "capturing a step");
    var graph: ?driver.Graph = null;
    for (launches) |*launch| launch.submit(device, dims) catch |failure| {
        // A stream that is left in capture could not even be waited for.
        _ = device.driver.cuStreamEndCapture(device.stream, &graph);
        return failure;
    };
    try device.check(device.driver.cuStreamEndCapture(device.stream, &graph), "capturing a step");
    return graph.?;
}
