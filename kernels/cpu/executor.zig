//! Runs a program: lowers its ops to stages once, then walks the stages with all threads of the pool.
//!
//! A stage is work without order: units that any thread takes. Neighbouring ops that treat each row of the same
//! leading dimension by itself are one stage whose unit takes a few rows through all of them.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const status = @import("../abi/status.zig");
const program_module = @import("../abi/program.zig");
const attention = @import("attention.zig");
const lower = @import("lower.zig");
const matmul = @import("matmul.zig");
const memory = @import("memory.zig");
const sample = @import("sample.zig");
const Packing = @import("packing.zig").Packing;
const Ahead = @import("pool.zig").Ahead;
const Lane = @import("pool.zig").Lane;
const Pool = @import("pool.zig").Pool;
const StageTime = @import("profile.zig").StageTime;
const Watch = @import("profile.zig").Watch;
const Units = @import("pool.zig").Units;

const Body = lower.Body;
const Leading = lower.Leading;

const Stage = struct {
    kind: Kind,
    first_op: u32,
    /// The ops of a row stage; a matrix product among them stands for the forms its x is brought into.
    ops: []const u32,
    leading: Leading,
    units: Units,
    /// Rows of one unit of a row stage, in this step.
    rows_per_unit: u32 = 1,
    /// The stage of the first matrix product behind this one.
    next_product: ?u32 = null,

    const Kind = enum { rows, units, combine };
};

/// What a step's inputs got wrong, in words.
fn reasonText(failure: lower.InputError) []const u8 {
    return switch (failure) {
        error.TokenIdOutOfRange => "a token id is outside the vocabulary",
        error.SlotOutOfRange => "a slot is outside the KV cache",
        error.RowOutOfRange => "a row index is outside the step's tokens",
        error.SequenceStarts => attention.Fault.sequence_starts.message(),
        error.ContextLength => attention.Fault.context_length.message(),
        error.BlockTable => attention.Fault.block_table.message(),
        error.Sampling => "a sampling parameter, adjustment or forced token is out of its range",
    };
}

/// The first failure among the threads of a step.
const Failure = struct { op: u32, reason: lower.InputError };

pub const Executor = struct {
    arena: std.heap.ArenaAllocator,
    pool: *Pool,
    dims_max: []const u32,
    bodies: []Body,
    leadings: []Leading,
    stages: []Stage,
    /// Rises with every step.
    epoch: std.atomic.Value(u32) = .init(0),
    workspace: memory.Buffer,
    /// Weights re-laid for speed.
    panels: ?memory.Buffer,
    scratch: []align(64) u8,
    scratch_bytes_per_thread: usize,
    workspace_bytes: u64,
    /// Of each stage, when they are measured.
    times: ?[]StageTime = null,
    dims: [program_module.dims_max]u32 = undefined,
    /// Set by the first thread that fails; the reason is read after the job has ended.
    failed: std.atomic.Value(bool) = .init(false),
    failure: Failure = undefined,

    /// Lowers an encoded program. The buffers must outlive the executor. With `repack`, weights that have a
    /// faster layout are copied into it and the pages of the originals are given back to the system.
    pub fn create(pool: *Pool, words: []const u32, buffers: []const *memory.Buffer, repack: bool) status.Error!*Executor {
        var arena = std.heap.ArenaAllocator.init(std.heap.c_allocator);
        errdefer arena.deinit();
        const allocator = arena.allocator();
        const views = try allocator.alloc(program_module.BufferView, buffers.len);
        for (views, buffers) |*view, buffer| view.* = .{ .bytes = buffer.bytes, .writable = buffer.writable };
        for (buffers, 0..) |buffer, index| {
            if (std.mem.indexOfScalar(*memory.Buffer, buffers[0..index], buffer) != null)
                return status.fail(error.InvalidArgument, "buffer {d} is passed twice", .{index});
        }
        const program = try program_module.decode(allocator, words, views);

        const needs = try lower.measure(&program, repack);
        var workspace = try memory.Buffer.createHuge(@max(64, needs.workspace_bytes));
        errdefer workspace.free();
        const per_thread = std.mem.alignForward(usize, @max(64, needs.scratch_bytes), 64);
        const scratch = try allocator.alignedAlloc(u8, .@"64", per_thread * pool.count);

        const bodies = try allocator.alloc(Body, program.ops.len);
        const leadings = try allocator.alloc(Leading, program.ops.len);
        var stages: std.ArrayList(Stage) = .empty;
        for (program.ops, bodies, leadings, 0..) |*op, *body, *leading, index| {
            leading.* = lower.leadingOf(&program, op);
            body.* = try lower.lower(allocator, &program, op, bodies[0..index], .{ .buffers = buffers, .workspace = workspace.memory, .repack = repack });
            try appendStages(allocator, &stages, body, @intCast(index), leading.*);
        }
        linkProducts(stages.items, bodies);
        const lane_count = @min(pool.count, Units.lanes_max);
        const lanes = try allocator.alloc(Lane, stages.items.len * lane_count);
        @memset(lanes, .{});
        for (stages.items, 0..) |*stage, index| stage.units = .{ .lanes = lanes[index * lane_count ..][0..lane_count] };
        var panels: ?memory.Buffer = if (repack) try Packing.run(pool, bodies, buffers) else null;
        errdefer if (panels) |*buffer| buffer.free();

        const executor = try allocator.create(Executor);
        executor.* = .{
            .arena = undefined,
            .pool = pool,
            .dims_max = program.dims,
            .bodies = bodies,
            .leadings = leadings,
            .stages = stages.items,
            .workspace = workspace,
            .panels = panels,
            .scratch = scratch,
            .scratch_bytes_per_thread = per_thread,
            .workspace_bytes = needs.workspace_bytes + per_thread * pool.count + if (panels) |buffer| buffer.bytes else 0,
        };
        executor.arena = arena;
        return executor;
    }

    /// Measures the stages from now on, from zero.
    pub fn startProfile(executor: *Executor) status.Error!void {
        executor.pool.quiesce();
        const times = executor.times orelse try executor.arena.allocator().alloc(StageTime, executor.stages.len);
        for (times, executor.stages) |*time, *stage| time.* = .{
            .kind = @intFromEnum(stage.kind),
            .first_op = stage.first_op,
            .last_op = if (stage.ops.len > 0) stage.ops[stage.ops.len - 1] else stage.first_op,
            .runs = 0,
            .work_ns = 0,
            .wait_ns = 0,
        };
        executor.times = times;
    }

    pub fn free(executor: *Executor) void {
        executor.pool.quiesce();
        executor.workspace.free();
        if (executor.panels) |*panels| panels.free();
        // The executor lies in its own arena: take it out before the memory goes.
        var arena = executor.arena;
        arena.deinit();
    }

    /// Runs all ops for these dimensions, each at most its declared maximum.
    pub fn run(executor: *Executor, dims: []const u32) status.Error!void {
        for (dims, executor.dims_max, 0..) |value, maximum, index| {
            if (value > maximum)
                return status.fail(error.InvalidInput, "dimension {d} is {d}; its maximum is {d}", .{ index, value, maximum });
        }
        for (executor.bodies, executor.leadings, 0..) |*body, leading, op| {
            lower.prepare(body, leading, dims) catch |reason| return executor.explain(.{ .op = @intCast(op), .reason = reason });
        }
        @memcpy(executor.dims[0..dims.len], dims);
        executor.failed.store(false, .monotonic);
        const epoch = executor.epoch.load(.monotonic) +% 1;
        for (executor.stages) |*stage| stage.units.reset(epoch, executor.planStage(stage));
        executor.epoch.store(epoch, .release);
        executor.pool.run(runThread, executor);
        if (executor.failed.load(.acquire)) return executor.explain(executor.failure);
    }

    /// Units of a stage in this step.
    fn planStage(executor: *Executor, stage: *Stage) u32 {
        const body = &executor.bodies[stage.first_op];
        return @intCast(switch (stage.kind) {
            .units => executor.unitCount(body),
            .combine => attention.combineUnitCount(&body.paged_attention.arguments),
            .rows => count: {
                const rows = stage.leading.at(&executor.dims);
                stage.rows_per_unit = std.math.divCeil(u32, @max(rows, 1), 4 * executor.pool.count) catch unreachable;
                break :count std.math.divCeil(u32, rows, stage.rows_per_unit) catch unreachable;
            },
        });
    }

    fn explain(executor: *Executor, failure: Failure) status.Error {
        return status.fail(error.InvalidInput, "op {d} ({s}): {s}", .{ failure.op, @tagName(executor.bodies[failure.op]), reasonText(failure.reason) });
    }

    fn runThread(context: *anyopaque, thread: u32) void {
        const executor: *Executor = @ptrCast(@alignCast(context));
        const epoch = executor.epoch.load(.acquire);
        const scratch = executor.scratch[thread * executor.scratch_bytes_per_thread ..][0..executor.scratch_bytes_per_thread];
        var watch: Watch = .start(if (thread == 0) executor.times else null);
        for (executor.stages, 0..) |*stage, index| {
            var ahead = executor.aheadOf(stage, thread);
            ahead.request(Ahead.lines_at_once);
            var finished: u32 = 0;
            while (stage.units.take(epoch, thread)) |unit| : (finished += 1) {
                if (!executor.failed.load(.monotonic)) executor.runStageUnit(stage, unit, @alignCast(scratch));
            }
            stage.units.finish(executor.pool, finished);
            watch.worked(index);
            if (!stage.units.wait(executor.pool, epoch, &ahead)) return;
            watch.waited(index);
        }
    }

    /// The weights that a thread reads first after a stage.
    fn aheadOf(executor: *const Executor, stage: *const Stage, thread: u32) Ahead {
        const product = &executor.stages[stage.next_product orelse return .none];
        const unit = product.units.upcoming(thread) orelse return .none;
        return .of(matmul.weightsOf(&executor.bodies[product.first_op].matmul, executor.pool.count, unit) orelse return .none);
    }

    fn runStageUnit(executor: *Executor, stage: *const Stage, unit: u32, scratch: []align(64) u8) void {
        const body = &executor.bodies[stage.first_op];
        switch (stage.kind) {
            .units => executor.runUnit(body, unit, scratch),
            .combine => attention.runCombineUnit(&body.paged_attention.arguments, unit, @ptrCast(scratch)),
            .rows => {
                const begin = unit * stage.rows_per_unit;
                const end = @min(begin + stage.rows_per_unit, stage.leading.at(&executor.dims));
                for (stage.ops) |op| executor.runRows(op, begin, end, scratch);
            },
        }
    }

    fn runRows(executor: *Executor, op: u32, begin: usize, end: usize, scratch: []align(64) u8) void {
        switch (executor.bodies[op]) {
            .matmul => |*a| for (begin..end) |token| a.prepareRow(token),
            .gather_rows => |*a| a.rows.run(begin, end, a.x_leading.at(&executor.dims)) catch |failure| executor.fail(op, failure),
            .sample => |*a| for (begin..end) |row| switch (sample.sampleRow(a, row, scratch)) {
                .ok => {},
                // Numbers of one row that overflowed are that request's misfortune, not the step's.
                .no_candidate => a.tokens[row] = -1,
                else => executor.fail(op, error.Sampling),
            },
            .paged_attention => unreachable,
            inline else => |*a| a.run(begin, end) catch |failure| executor.fail(op, failure),
        }
    }

    fn unitCount(executor: *Executor, body: *Body) usize {
        return switch (body.*) {
            .matmul => |*a| matmul.unitCount(a, executor.pool.count),
            .paged_attention => |*a| attention.unitCount(&a.arguments),
            else => unreachable,
        };
    }

    fn runUnit(executor: *Executor, body: *Body, unit: usize, scratch: []align(64) u8) void {
        switch (body.*) {
            .matmul => |*a| matmul.runUnit(a, executor.pool.count, unit, scratch),
            .paged_attention => |*a| attention.runUnit(&a.arguments, unit, @ptrCast(scratch)),
            else => unreachable,
        }
    }

    /// Keeps the first failure; the others only stop early.
    fn fail(executor: *Executor, op: u32, reason: lower.InputError) void {
        if (!executor.failed.swap(true, .acq_rel)) executor.failure = .{ .op = op, .reason = reason };
    }
};

fn appendStages(allocator: std.mem.Allocator, stages: *std.ArrayList(Stage), body: *const Body, op: u32, leading: Leading) !void {
    const alone: Stage = .{ .kind = .units, .first_op = op, .ops = &.{}, .leading = leading, .units = undefined };
    switch (body.*) {
        .matmul => |*a| {
            if (a.needs.any()) try appendRows(allocator, stages, body, op, leading);
            try stages.append(allocator, alone);
        },
        .paged_attention => {
            try stages.append(allocator, alone);
            try stages.append(allocator, alone);
            stages.items[stages.items.len - 1].kind = .combine;
        },
        else => try appendRows(allocator, stages, body, op, leading),
    }
}

fn linkProducts(stages: []Stage, bodies: []const Body) void {
    var next: ?u32 = null;
    var index = stages.len;
    while (index > 0) {
        index -= 1;
        const stage = &stages[index];
        stage.next_product = next;
        if (stage.kind == .units and bodies[stage.first_op] == .matmul) next = @intCast(index);
    }
}

/// Joins the stage before when that has the same rows. A gather reads rows of others: it begins a stage.
fn appendRows(allocator: std.mem.Allocator, stages: *std.ArrayList(Stage), body: *const Body, op: u32, leading: Leading) !void {
    const last = if (stages.items.len > 0) &stages.items[stages.items.len - 1] else null;
    if (last) |stage| {
        const same = stage.leading.symbol == leading.symbol and stage.leading.addend == leading.addend;
        if (stage.kind == .rows and same and body.* != .gather_rows) {
            stage.ops = try std.mem.concat(allocator, u32, &.{ stage.ops, &.{op} });
            return;
        }
    }
    const list = try allocator.dupe(u32, &.{op});
    try stages.append(allocator, .{ .kind = .rows, .first_op = op, .ops = list, .leading = leading, .units = undefined });
}
