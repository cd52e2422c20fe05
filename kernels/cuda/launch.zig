//! What a step does: kernel launches, and calls of a library between them, made once from the ops of a program. What changes from step to step, the
//! dimensions, changes the grids alone; kernels read the live dimensions from the program's `Step`.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const program_module = @import("../abi/program.zig");
const status = @import("../abi/status.zig");
const Device = @import("device.zig").Device;
const driver = @import("driver.zig");
pub const c = @import("cuda_parameters");

const Op = program_module.Op;
const Program = program_module.Program;
const Tensor = program_module.Tensor;

/// The most blocks of a grid's y and z.
pub const parts_max = 65535;

/// Blocks in each direction; a launch of no blocks is left out.
pub const Grid = struct { x: u32, y: u32 = 1, z: u32 = 1 };

/// A leading dimension on the host: constant, or a symbolic dimension plus an addend.
pub const Rows = struct {
    symbol: u32,
    addend: u32,

    pub fn of(tensor: *const Tensor) Rows {
        return .{ .symbol = tensor.symbol, .addend = tensor.shape[0] };
    }
    pub fn at(rows: Rows, dims: []const u32) u32 {
        return rows.addend + if (rows.symbol == 0) 0 else dims[rows.symbol - 1];
    }
};

/// How a grid follows from the dimensions.
pub const GridRule = union(enum) {
    fixed: Grid,
    /// x: one block per `per_block` rows.
    rows: struct { rows: Rows, per_block: u32 = 1, y: u32 = 1, z: u32 = 1 },
    /// Anything else. `context` lives as long as the program (`Lowering.arena`).
    computed: struct { context: *const anyopaque, grid: *const fn (context: *const anyopaque, dims: []const u32) Grid },

    pub fn at(rule: GridRule, dims: []const u32) Grid {
        return switch (rule) {
            .fixed => |grid| grid,
            .rows => |r| .{ .x = std.math.divCeil(u32, r.rows.at(dims), r.per_block) catch unreachable, .y = r.y, .z = r.z },
            .computed => |r| r.grid(r.context, dims),
        };
    }
};

pub const Launch = struct {
    name: []const u8,
    work: union(enum) { kernel: KernelWork, call: Call },

    const KernelWork = struct {
        function: driver.Function,
        grid: GridRule,
        threads: u32,
        shared_bytes: u32,
        parameters: *const anyopaque,
    };

    /// Puts the launch on the device's stream, with the grid of these dimensions.
    pub fn submit(launch: *const Launch, device: *Device, dims: []const u32) status.Error!void {
        const kernel = switch (launch.work) {
            .kernel => |kernel| kernel,
            .call => |call| return call.submit(call.context, dims),
        };
        const grid = kernel.grid.at(dims);
        if (grid.x == 0 or grid.y == 0 or grid.z == 0) return;
        const parameters = [1]*const anyopaque{kernel.parameters};
        const result = device.driver.cuLaunchKernel(kernel.function, grid.x, grid.y, grid.z, kernel.threads, 1, 1, kernel.shared_bytes, device.stream, &parameters, null);
        try device.checkFor(result, "launching the kernel", launch.name);
    }
};

/// Work that a library puts on the device's stream, or leaves out for these dimensions. They are those of a grid: a
/// captured step has its bucket's, so the work covers rows that may not be live, in memory that is there for them.
/// `context` lives as long as the program.
pub const Call = struct {
    context: *const anyopaque,
    submit: *const fn (context: *const anyopaque, dims: []const u32) status.Error!void,
};

/// A kernel to be launched for an op.
pub const Kernel = struct {
    name: [:0]const u8,
    grid: GridRule,
    threads: u32,
    shared_bytes: u32 = 0,
};

/// What a family needs to turn the op at hand into launches.
pub const Lowering = struct {
    /// Lives as long as the program.
    arena: std.mem.Allocator,
    device: *Device,
    program: *const Program,
    /// Whether a row's bits may depend on nothing but that row.
    is_deterministic: bool,
    /// The file of kernels, without `.cu`.
    family: []const u8 = "",
    op: *const Op = undefined,
    op_index: u32 = 0,
    /// Device addresses of the tensors, staged inputs at their copies.
    addresses: []const u64,
    step_address: u64,
    /// Memory that the op may use between its own launches; as much as `workspaceBytes` of the family asked for.
    workspace_address: u64,
    launches: std.ArrayList(Launch) = .empty,

    pub fn tensor(l: *const Lowering, operand: usize) *const Tensor {
        return l.program.operand(l.op, operand).?;
    }

    pub fn maybe(l: *const Lowering, operand: usize) ?*const Tensor {
        return l.program.operand(l.op, operand);
    }

    /// Device address of an operand; 0 when it is absent. `@ptrFromInt` makes it what the struct wants.
    pub fn address(l: *const Lowering, operand: usize) u64 {
        const id = l.op.operands[operand];
        return if (id == ops.absent_tensor) 0 else l.addresses[id];
    }

    pub fn matrix(l: *const Lowering, operand: usize) c.struct_Matrix {
        const stride = if (l.maybe(operand)) |t| t.stride else 0;
        return .{ .data = @ptrFromInt(l.address(operand)), .stride = stride };
    }

    pub fn leading(l: *const Lowering, operand: usize) c.struct_Leading {
        const t = l.tensor(operand);
        return .{ .step = @ptrFromInt(l.step_address), .symbol = t.symbol, .addend = t.shape[0] };
    }

    /// The operand's rows, for a grid.
    pub fn rows(l: *const Lowering, operand: usize) Rows {
        return .of(l.tensor(operand));
    }

    /// Whether all rows of an f32 operand begin at multiples of 16 bytes; an absent one does.
    pub fn hasVectorRows(l: *const Lowering, operand: usize) bool {
        const t = l.maybe(operand) orelse return true;
        return l.address(operand) % 16 == 0 and (t.stride % 4 == 0 or t.rank == 1);
    }

    /// Blocks of `per_block` that cover `count`, for a grid's y or z.
    pub fn parts(_: *const Lowering, count: u64, per_block: u32) status.Error!u32 {
        const needed = std.math.divCeil(u64, count, per_block) catch unreachable;
        if (needed > parts_max)
            return status.fail(error.InvalidProgram, "a row of {d} elements is too wide for CUDA", .{count});
        return @intCast(needed);
    }

    /// `<stem>_<dtype>`.
    pub fn kernelName(l: *const Lowering, comptime stem: []const u8, dtype: ops.DType) status.Error![:0]const u8 {
        return std.fmt.allocPrintSentinel(l.arena, stem ++ "_{s}", .{@tagName(dtype)}, 0);
    }

    /// Adds a launch. `parameters` is the struct that the kernel takes; it is copied.
    pub fn launch(l: *Lowering, kernel: Kernel, parameters: anytype) status.Error!void {
        const kept = try l.arena.create(@TypeOf(parameters));
        kept.* = parameters;
        try l.launches.append(l.arena, .{
            .name = try l.arena.dupe(u8, kernel.name),
            .work = .{ .kernel = .{
                .function = try l.device.function(l.family, kernel.name, kernel.shared_bytes),
                .grid = kernel.grid,
                .threads = kernel.threads,
                .shared_bytes = kernel.shared_bytes,
                .parameters = kept,
            } },
        });
    }

    /// Adds a library's work.
    pub fn call(l: *Lowering, name: []const u8, work: Call) status.Error!void {
        try l.launches.append(l.arena, .{ .name = name, .work = .{ .call = work } });
    }
};
