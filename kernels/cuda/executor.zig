//! Runs a program on a GPU: lowers its ops to launches once; a step writes the dimensions, submits the launches, or
//! the graph they were captured in, and waits.
//!
//! Memory of a program besides its buffers is one allocation: the `Step`, the list of staged inputs, their copies,
//! and a workspace that the ops take turns in.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const status = @import("../abi/status.zig");
const program_module = @import("../abi/program.zig");
const families = @import("families.zig");
const fault = @import("fault.zig");
const Device = @import("device.zig").Device;
const Buffer = @import("memory.zig").Buffer;
const launch_module = @import("launch.zig");
const graphs_module = @import("graphs.zig");
const staging = @import("staging.zig");

const c = launch_module.c;
const Launch = launch_module.Launch;
const Program = program_module.Program;

/// Alignment of everything in a program's own memory.
const alignment = 256;

/// What the host writes for each step, in memory that the device sees.
const HostBlock = extern struct {
    dims: [c.DIMS_MAX]u32,
    fault: u32,
};

pub const Options = struct {
    /// A row's bits depend on nothing but that row.
    is_deterministic: bool,
};

pub const Executor = struct {
    arena: std.heap.ArenaAllocator,
    device: *Device,
    dims_max: []const u32,
    codes: []const ops.OpCode,
    launches: []const Launch,
    memory: Buffer,
    host: Buffer,
    graphs: graphs_module.Graphs = .{},

    /// Lowers an encoded program. The buffers must outlive the executor.
    pub fn create(device: *Device, words: []const u32, buffers: []const *Buffer, options: Options) status.Error!*Executor {
        try device.enter();
        var arena = std.heap.ArenaAllocator.init(std.heap.c_allocator);
        errdefer arena.deinit();
        const allocator = arena.allocator();
        var program = try decode(allocator, device, words, buffers);
        if (options.is_deterministic) program.ops = try precise(allocator, program.ops);
        for (program.ops, 0..) |*op, index| {
            if (!families.isBuilt(op.code))
                return status.fail(error.InvalidProgram, "op {d} ({s}) is not built for CUDA", .{ index, @tagName(op.code) });
        }

        var plan = try staging.plan(allocator, &program, buffers);
        const list_at = alignment;
        const copies_at = std.mem.alignForward(u64, list_at + plan.listBytes(), alignment);
        const workspace_at = std.mem.alignForward(u64, copies_at + plan.bytes, alignment);
        var workspace_bytes: u64 = 0;
        for (program.ops) |*op| workspace_bytes = @max(workspace_bytes, families.workspaceBytes(device, &program, op));
        var memory = try Buffer.create(device, workspace_at + workspace_bytes, .device);
        errdefer memory.free();
        var host = try Buffer.create(device, @sizeOf(HostBlock), .host);
        errdefer host.free();
        try plan.place(memory.address + copies_at, memory.address);
        try memory.write(list_at, std.mem.sliceAsBytes(plan.ranges));

        var lowering: launch_module.Lowering = .{
            .arena = allocator,
            .device = device,
            .program = &program,
            .is_deterministic = options.is_deterministic,
            .addresses = plan.addresses,
            .step_address = memory.address,
            .workspace_address = memory.address + workspace_at,
        };
        try beginStep(&lowering, &host, memory.address + list_at, plan.ranges.len);
        for (program.ops, 0..) |*op, index| {
            lowering.op = op;
            lowering.op_index = @intCast(index);
            try families.lower(&lowering);
        }
        const codes = try allocator.alloc(ops.OpCode, program.ops.len);
        for (codes, program.ops) |*code, *op| code.* = op.code;

        const executor = try allocator.create(Executor);
        executor.* = .{
            .arena = undefined,
            .device = device,
            .dims_max = program.dims,
            .codes = codes,
            .launches = lowering.launches.items,
            .memory = memory,
            .host = host,
        };
        executor.arena = arena;
        return executor;
    }

    pub fn free(executor: *Executor) void {
        executor.graphs.free(executor.device);
        executor.memory.free();
        executor.host.free();
        // The executor lies in its own arena: take it out before the memory goes.
        var arena = executor.arena;
        arena.deinit();
    }

    /// Runs all ops for these dimensions, each at most its declared maximum; returns when the outputs are written.
    pub fn run(executor: *Executor, dims: []const u32) status.Error!void {
        for (dims, executor.dims_max, 0..) |value, maximum, index| {
            if (value > maximum)
                return status.fail(error.InvalidInput, "dimension {d} is {d}; its maximum is {d}", .{ index, value, maximum });
        }
        const device = executor.device;
        try device.enter();
        const host: *volatile HostBlock = @ptrCast(@alignCast(executor.host.host.?));
        for (dims, 0..) |value, index| host.dims[index] = value;
        host.fault = c.FAULT_NONE;
        try executor.submit(dims);
        try device.synchronize();
        const word = host.fault;
        if (word == c.FAULT_NONE) return;
        const op = word >> 8;
        return status.fail(error.InvalidInput, "op {d} ({s}): {s}", .{ op, @tagName(executor.codes[op]), fault.message(word & 0xff) });
    }

    fn submit(executor: *Executor, dims: []const u32) status.Error!void {
        const bucket = graphs_module.Bucket.of(dims) orelse return executor.submitEach(dims);
        // The same grids with graphs and without, so that both compute the same.
        var sizes: [c.DIMS_MAX]u32 = undefined;
        const grid_dims = sizes[0..dims.len];
        for (grid_dims, executor.dims_max) |*size, maximum| size.* = @min(bucket.size, maximum);
        if (try executor.graphs.run(executor.device, bucket, executor.launches, grid_dims)) return;
        try executor.submitEach(grid_dims);
    }

    fn submitEach(executor: *Executor, dims: []const u32) status.Error!void {
        for (executor.launches) |*launch| try launch.submit(executor.device, dims);
    }

    /// Bytes the program holds besides its buffers, of the device and of the host.
    pub fn workspaceBytes(executor: *const Executor) u64 {
        return executor.memory.bytes + executor.host.bytes;
    }
};

fn decode(allocator: std.mem.Allocator, device: *Device, words: []const u32, buffers: []const *Buffer) status.Error!Program {
    const views = try allocator.alloc(program_module.BufferView, buffers.len);
    for (views, buffers, 0..) |*view, buffer, index| {
        view.* = .{ .bytes = buffer.bytes, .writable = buffer.writable };
        if (buffer.device != device)
            return status.fail(error.InvalidArgument, "buffer {d} belongs to another device", .{index});
        if (std.mem.indexOfScalar(*Buffer, buffers[0..index], buffer) != null)
            return status.fail(error.InvalidArgument, "buffer {d} is passed twice", .{index});
    }
    return program_module.decode(allocator, words, views);
}

/// The ops with no product rounded: that of many rows would differ from that of few.
fn precise(allocator: std.mem.Allocator, list: []const program_module.Op) status.Error![]const program_module.Op {
    const changed = try allocator.dupe(program_module.Op, list);
    for (changed) |*op| if (op.code == .matmul) {
        op.attributes[ops.matmul.attribute.activations] = 0;
    };
    return changed;
}

/// The launches before the first op: dimensions and inputs go to the device.
fn beginStep(l: *launch_module.Lowering, host: *const Buffer, list: u64, ranges: usize) status.Error!void {
    l.family = "step";
    const step: [*c]c.struct_Step = @ptrFromInt(l.step_address);
    try l.launch(.{ .name = "step_begin", .grid = .{ .fixed = .{ .x = 1 } }, .threads = 32 }, c.struct_StepBegin{
        .step = step,
        .host_dims = @ptrFromInt(host.address),
        .host_fault = @ptrFromInt(host.address + @offsetOf(HostBlock, "fault")),
    });
    if (ranges == 0) return;
    try l.launch(.{
        .name = "step_stage",
        .grid = .{ .fixed = .{ .x = 8, .y = @intCast(ranges) } },
        .threads = 256,
    }, c.struct_StepStage{ .step = step, .ranges = @ptrFromInt(list) });
}

comptime {
    std.debug.assert(@sizeOf(c.struct_Step) <= alignment);
    std.debug.assert(c.DIMS_MAX == program_module.dims_max);
}
