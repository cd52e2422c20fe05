//! Runs a program: lowers its ops to stages once, then walks the stages with all threads of the pool.
//!
//! A stage either splits the rows of its leading dimension evenly and statically, or hands out units of work
//! from a shared counter. Two neighbouring row stages over the same leading dimension need no barrier between
//! them, because each thread meets only rows it wrote itself.

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
const Pool = @import("pool.zig").Pool;

const Body = lower.Body;
const Leading = lower.Leading;

/// Part of an op between two barriers.
const Stage = struct {
    op: u32,
    kind: Kind,
    leading: Leading,
    barrier_after: bool,

    const Kind = enum { rows, quantize, units, combine };

    fn as(stage: Stage, kind: Kind) Stage {
        var result = stage;
        result.kind = kind;
        return result;
    }
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
    /// Next unit of every stage.
    counters: []std.atomic.Value(u32),
    workspace: memory.Buffer,
    /// Weights re-laid for speed.
    panels: ?memory.Buffer,
    scratch: []align(64) u8,
    scratch_bytes_per_thread: usize,
    workspace_bytes: u64,
    dims: [program_module.dims_max]u32 = undefined,
    /// Set by the first thread that fails; the reason is read after the job has ended.
    failed: std.atomic.Value(bool) = .init(false),
    failure: Failure = undefined,

    /// Lowers an encoded program. The buffers must outlive the executor. With `repack`, block-quantised weights
    /// are copied into panels and the pages of the originals are given back to the system.
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

        const needs = try lower.measure(&program);
        var workspace = try memory.Buffer.create(@max(64, needs.workspace_bytes));
        errdefer workspace.free();
        const per_thread = std.mem.alignForward(usize, @max(64, needs.scratch_bytes), 64);
        const scratch = try allocator.alignedAlloc(u8, .@"64", per_thread * pool.count);

        const bodies = try allocator.alloc(Body, program.ops.len);
        const leadings = try allocator.alloc(Leading, program.ops.len);
        var stages: std.ArrayList(Stage) = .empty;
        for (program.ops, bodies, leadings, 0..) |*op, *body, *leading, index| {
            leading.* = lower.leadingOf(&program, op);
            body.* = lower.lower(&program, op, buffers, workspace.memory);
            try appendStages(allocator, &stages, body, @intCast(index), leading.*);
        }
        setBarriers(stages.items, bodies);
        var panels: ?memory.Buffer = if (repack) try Packing.run(pool, bodies, buffers) else null;
        errdefer if (panels) |*buffer| buffer.free();
        const counters = try allocator.alloc(std.atomic.Value(u32), stages.items.len);

        const executor = try allocator.create(Executor);
        executor.* = .{
            .arena = undefined,
            .pool = pool,
            .dims_max = program.dims,
            .bodies = bodies,
            .leadings = leadings,
            .stages = stages.items,
            .counters = counters,
            .workspace = workspace,
            .panels = panels,
            .scratch = scratch,
            .scratch_bytes_per_thread = per_thread,
            .workspace_bytes = needs.workspace_bytes + per_thread * pool.count + if (panels) |buffer| buffer.bytes else 0,
        };
        executor.arena = arena;
        return executor;
    }

    pub fn free(executor: *Executor) void {
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
        @memcpy(executor.dims[0..dims.len], dims);
        for (executor.counters) |*counter| counter.store(0, .monotonic);
        executor.failed.store(false, .monotonic);
        for (executor.bodies, executor.leadings, 0..) |*body, leading, op| {
            lower.prepare(body, leading, dims) catch |reason| return executor.explain(.{ .op = @intCast(op), .reason = reason });
        }
        executor.pool.run(runThread, executor);
        if (executor.failed.load(.acquire)) return executor.explain(executor.failure);
    }

    fn explain(executor: *Executor, failure: Failure) status.Error {
        return status.fail(error.InvalidInput, "op {d} ({s}): {s}", .{ failure.op, @tagName(executor.bodies[failure.op]), reasonText(failure.reason) });
    }

    fn runThread(context: *anyopaque, thread: u32) void {
        const executor: *Executor = @ptrCast(@alignCast(context));
        const scratch = executor.scratch[thread * executor.scratch_bytes_per_thread ..][0..executor.scratch_bytes_per_thread];
        for (executor.stages, executor.counters) |*stage, *counter| {
            if (!executor.failed.load(.monotonic)) executor.runStage(stage, counter, thread, @alignCast(scratch));
            if (stage.barrier_after) executor.pool.barrier();
        }
    }

    fn runStage(executor: *Executor, stage: *const Stage, counter: *std.atomic.Value(u32), thread: u32, scratch: []align(64) u8) void {
        const body = &executor.bodies[stage.op];
        switch (stage.kind) {
            .rows, .quantize => {
                const rows: usize = stage.leading.at(&executor.dims);
                const begin = rows * thread / executor.pool.count;
                const end = rows * (thread + 1) / executor.pool.count;
                if (begin < end) executor.runRows(stage, body, begin, end, scratch);
            },
            .units => {
                const units = executor.unitCount(body);
                while (true) {
                    const unit = counter.fetchAdd(1, .monotonic);
                    if (unit >= units) return;
                    executor.runUnit(body, unit, scratch);
                }
            },
            .combine => {
                const units = attention.combineUnitCount(&body.paged_attention.arguments);
                while (true) {
                    const unit = counter.fetchAdd(1, .monotonic);
                    if (unit >= units) return;
                    attention.runCombineUnit(&body.paged_attention.arguments, unit, @ptrCast(scratch));
                }
            },
        }
    }

    fn runRows(executor: *Executor, stage: *const Stage, body: *Body, begin: usize, end: usize, scratch: []align(64) u8) void {
        switch (body.*) {
            .matmul => |*a| for (begin..end) |token| a.x_blocks.quantize(token, a.x + token * a.x_stride, a.k),
            .gather_rows => |*a| a.rows.run(begin, end, a.x_leading.at(&executor.dims)) catch |failure| executor.fail(stage.op, failure),
            .sample => |*a| for (begin..end) |row| switch (sample.sampleRow(a, row, scratch)) {
                .ok => {},
                // Numbers of one row that overflowed are that request's misfortune, not the step's.
                .no_candidate => a.tokens[row] = -1,
                else => executor.fail(stage.op, error.Sampling),
            },
            .paged_attention => unreachable,
            inline else => |*a| a.run(begin, end) catch |failure| executor.fail(stage.op, failure),
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
    const stage: Stage = .{ .op = op, .kind = .rows, .leading = leading, .barrier_after = true };
    switch (body.*) {
        .matmul => |*a| {
            if (a.anyQuantized()) try stages.append(allocator, stage.as(.quantize));
            try stages.append(allocator, stage.as(.units));
        },
        .paged_attention => {
            try stages.append(allocator, stage.as(.units));
            try stages.append(allocator, stage.as(.combine));
        },
        else => try stages.append(allocator, stage),
    }
}

/// A barrier is left out between row stages that give every thread the same rows. A gather reads rows of others.
fn setBarriers(stages: []Stage, bodies: []const Body) void {
    for (stages[0..stages.len -| 1], stages[1..]) |*stage, *next| {
        const rows = (stage.kind == .rows or stage.kind == .quantize) and (next.kind == .rows or next.kind == .quantize);
        const same = stage.leading.symbol == next.leading.symbol and stage.leading.addend == next.leading.addend;
        stage.barrier_after = !(rows and same and bodies[next.op] != .gather_rows);
    }
    if (stages.len > 0) stages[stages.len - 1].barrier_after = false;
}
