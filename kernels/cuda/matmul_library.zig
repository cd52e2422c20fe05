//! Products of many rows through cuBLASLt, where the device has it: x as rows of 16-bit floats, a product for each
//! weight, and what the library leaves over. The kernels of `matmul.cu` stay in the program for the other steps.
//!
//! A step takes this way when it has more rows than one tile of our own kernel. Up to there the weights are read once
//! by either, so that the memory is the limit; from there on ours multiplies with a third to a half of the rate that
//! the library reaches. Precise products are three passes, each of which reads the weights again: by the same count
//! they win from about 90 rows on, which is the next bucket. Block-quantised weights become bfloat16 for it, in
//! pieces that the second cache holds: 4.6 bytes of traffic per weight against 0.56, worth it from about 270 rows on.
//!
//! The sums of a row may depend on how many rows there are, so a deterministic program never comes here.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const program_module = @import("../abi/program.zig");
const status = @import("../abi/status.zig");
const cublaslt = @import("cublaslt.zig");
const Device = @import("device.zig").Device;
const launch = @import("launch.zig");

const c = launch.c;
const Rows = launch.Rows;
const Tensor = program_module.Tensor;

const family = "matmul_library";
const o = ops.matmul.operand;

/// Rows of x that the library's products need more than.
const rows_above = c.MATMUL_TOKENS * c.MATMUL_TILES;
const block_rows_above = 256;
/// Bytes of weights that become bfloat16 at a time.
const piece_bytes = 32 << 20;
const parts_precise = 3;
const threads = 256;
const alignment = 256;

/// A weight of the op, with what belongs to it.
pub const Part = struct {
    weight: *const Tensor,
    address: u64,
    /// Null without one.
    bias: u64,
    /// Column of out where it begins.
    column: u32,
};

pub const Request = struct {
    parts: []const Part,
    is_fast: bool,
    is_block: bool,
    has_residual: bool,

    /// How x lies beside a weight.
    fn formOf(request: Request, weight: *const Tensor) Form {
        return switch (weight.dtype) {
            .f32 => .f32,
            .f16 => if (request.is_fast) .f16 else .f16_parts,
            else => if (request.is_fast) .bf16 else .bf16_parts,
        };
    }

    fn rowsAbove(request: Request) u32 {
        return if (request.is_block) block_rows_above else rows_above;
    }
};

const Form = enum {
    /// As it is.
    f32,
    bf16,
    f16,
    bf16_parts,
    f16_parts,

    fn parts(form: Form) u32 {
        return switch (form) {
            .f32 => 0,
            .bf16, .f16 => 1,
            .bf16_parts, .f16_parts => parts_precise,
        };
    }

    fn isScaled(form: Form) bool {
        return form == .f16 or form == .f16_parts;
    }

    /// Factor of the product with each part.
    fn factor(form: Form, part: u32) f32 {
        return if (form == .f16_parts) std.math.pow(f32, 2, -11 * @as(f32, @floatFromInt(part))) else 1;
    }
};

/// Where everything lies in an op's workspace.
const Layout = struct {
    rows_at: std.EnumArray(Form, u64) = .initFill(0),
    scales_at: u64 = 0,
    weights_at: u64 = 0,
    sums_at: u64 = 0,
    library_at: u64 = 0,
    bytes: u64 = 0,

    fn of(device: *const Device, request: Request, rows_max: u32, k: u32) Layout {
        var layout: Layout = .{};
        var apart: u32 = 0;
        var done: std.EnumSet(Form) = .initEmpty();
        var piece: u64 = 0;
        for (request.parts) |part| {
            const form = request.formOf(part.weight);
            if (!done.contains(form)) layout.rows_at.set(form, layout.take(@as(u64, rows_max) * form.parts() * rowBytes(k)));
            done.insert(form);
            if (request.has_residual and form.isScaled()) apart = @max(apart, part.weight.shape[0]);
            if (request.is_block) piece = @max(piece, @min(part.weight.shape[0], pieceRows(k)) * rowBytes(k));
        }
        layout.scales_at = layout.take(@as(u64, rows_max) * 4);
        layout.weights_at = layout.take(piece);
        layout.sums_at = layout.take(@as(u64, rows_max) * sumsStride(apart) * 4);
        layout.library_at = layout.take(cublaslt.Library.workspaceFor(device.capability));
        return layout;
    }

    fn take(layout: *Layout, bytes: u64) u64 {
        const at = layout.bytes;
        layout.bytes = std.mem.alignForward(u64, at + bytes, alignment);
        return at;
    }
};

/// Elements of a row of 16-bit floats, padded to what the library wants.
fn rowStride(k: u32) u32 {
    return std.mem.alignForward(u32, k, cublaslt.alignment / 2);
}

fn rowBytes(k: u32) u64 {
    return @as(u64, rowStride(k)) * 2;
}

fn pieceRows(k: u32) u32 {
    return @intCast(@max(64, piece_bytes / rowBytes(k) / 64 * 64));
}

/// Elements between rows of sums that are not made in out.
fn sumsStride(columns: u32) u32 {
    return std.mem.alignForward(u32, columns, cublaslt.alignment / 4);
}

/// Bytes of workspace that the library's way needs; 0 where it is not taken.
pub fn workspaceBytes(device: *const Device, request: Request, rows_max: u32, k: u32) u64 {
    if (!isWanted(request, rows_max)) return 0;
    return Layout.of(device, request, rows_max, k).bytes;
}

fn isWanted(request: Request, rows_max: u32) bool {
    return rows_max > request.rowsAbove() and (request.is_fast or !request.is_block);
}

const Product = struct {
    /// For any number of rows: n is not set.
    problem: cublaslt.Problem,
    operands: cublaslt.Operands,
};

/// The products of an op, for the number of rows of a step.
pub const Plan = struct {
    device: *Device,
    rows: Rows,
    above: u32,
    workspace: u64,
    products: std.ArrayList(Product) = .empty,

    /// Whether the library computes a step of these dimensions.
    pub fn takes(plan: *const Plan, dims: []const u32) bool {
        const rows = plan.rows.at(dims);
        if (rows <= plan.above) return false;
        const library = plan.device.products() orelse return false;
        for (plan.products.items) |product| {
            if (!(library.has(withRows(product.problem, rows)) catch return false)) return false;
        }
        return true;
    }
};

fn withRows(problem: cublaslt.Problem, rows: u32) cublaslt.Problem {
    var whole = problem;
    whole.n = rows;
    return whole;
}

/// A launch that is left out where the library does not compute.
const Around = struct {
    plan: *const Plan,
    /// Blocks: this many, or one for each row.
    x: ?u32,
    y: u32,

    fn grid(context: *const anyopaque, dims: []const u32) launch.Grid {
        const around: *const Around = @ptrCast(@alignCast(context));
        if (!around.plan.takes(dims)) return .{ .x = 0 };
        return .{ .x = around.x orelse around.plan.rows.at(dims), .y = around.y };
    }
};

const Call = struct {
    plan: *const Plan,
    first: usize,
    count: usize,

    fn submit(context: *const anyopaque, dims: []const u32) status.Error!void {
        const call: *const Call = @ptrCast(@alignCast(context));
        const plan = call.plan;
        if (!plan.takes(dims)) return;
        const library = plan.device.products().?;
        for (plan.products.items[call.first..][0..call.count]) |*product| {
            library.multiply(withRows(product.problem, plan.rows.at(dims)), &product.operands, plan.workspace, plan.device.stream) catch
                return plan.device.breakDown("multiplying with cuBLASLt: it refused a product that it had offered");
        }
    }
};

/// Adds the launches of the library's way, and says for which steps they compute. Null where there is no such way.
pub fn lower(l: *launch.Lowering, request: Request, workspace: u64) status.Error!?*const Plan {
    const rows_max = l.rows(o.x).at(l.program.dims);
    if (l.is_deterministic or !isWanted(request, rows_max) or !isAligned(l, request)) return null;
    if (l.device.products() == null) return null;
    const own_family = l.family;
    l.family = family;
    defer l.family = own_family;
    const k = l.tensor(o.x).shape[1];
    const plan = try l.arena.create(Plan);
    const layout = Layout.of(l.device, request, rows_max, k);
    plan.* = .{ .device = l.device, .rows = l.rows(o.x), .above = request.rowsAbove(), .workspace = workspace + layout.library_at };
    var builder: Builder = .{ .l = l, .request = request, .layout = layout, .plan = plan, .base = workspace, .k = k };
    var done: std.EnumSet(Form) = .initOne(.f32);
    for (request.parts) |part| {
        const form = request.formOf(part.weight);
        if (!done.contains(form)) try builder.writeRows(form);
        done.insert(form);
        try builder.multiply(part, form);
    }
    return plan;
}

/// Whether every matrix lies as the library is told.
fn isAligned(l: *const launch.Lowering, request: Request) bool {
    const width = cublaslt.alignment;
    if (!isAlignedMatrix(l, o.out) or !isAlignedMatrix(l, o.residual)) return false;
    for (request.parts) |part| {
        if (part.column * 4 % width != 0) return false;
        if (!request.is_block and (part.address % width != 0 or part.weight.strideBytes() % width != 0)) return false;
        if (part.weight.dtype == .f32 and !isAlignedMatrix(l, o.x)) return false;
    }
    return true;
}

fn isAlignedMatrix(l: *const launch.Lowering, operand: usize) bool {
    const tensor = l.maybe(operand) orelse return true;
    return l.address(operand) % cublaslt.alignment == 0 and tensor.strideBytes() % cublaslt.alignment == 0;
}

const Builder = struct {
    l: *launch.Lowering,
    request: Request,
    layout: Layout,
    plan: *Plan,
    base: u64,
    k: u32,

    fn grid(b: *const Builder, x: ?u32, y: u32) status.Error!launch.GridRule {
        const kept = try b.l.arena.create(Around);
        kept.* = .{ .plan = b.plan, .x = x, .y = y };
        return .{ .computed = .{ .context = kept, .grid = Around.grid } };
    }

    fn rowsAddress(b: *const Builder, form: Form, part: u32) u64 {
        const rows_max = b.plan.rows.at(b.l.program.dims);
        return b.base + b.layout.rows_at.get(form) + part * rows_max * rowBytes(b.k);
    }

    fn writeRows(b: *const Builder, form: Form) status.Error!void {
        const l = b.l;
        const name = switch (form) {
            .f32 => unreachable,
            inline else => |tag| "library_rows_" ++ @tagName(tag),
        };
        try l.launch(.{ .name = name, .grid = try b.grid(null, 1), .threads = threads }, c.struct_LibraryRows{
            .rows = l.leading(o.x),
            .x = l.matrix(o.x),
            .out = @ptrFromInt(b.rowsAddress(form, 0)),
            .scales = if (form.isScaled()) @ptrFromInt(b.base + b.layout.scales_at) else null,
            .part_stride = @as(u64, b.plan.rows.at(l.program.dims)) * rowStride(b.k),
            .row_stride = rowStride(b.k),
            .k = b.k,
            .vectors = @intFromBool(b.k % 4 == 0 and l.hasVectorRows(o.x)),
        });
    }

    fn multiply(b: *const Builder, part: Part, form: Form) status.Error!void {
        const features = part.weight.shape[0];
        if (!b.request.is_block) {
            try b.addProducts(part, form, .{ .address = part.address, .stride = part.weight.stride, .first = 0, .count = features });
        } else {
            var first: u32 = 0;
            while (first < features) : (first += pieceRows(b.k)) {
                const piece: Piece = .{ .address = b.base + b.layout.weights_at, .stride = rowStride(b.k), .first = first, .count = @min(pieceRows(b.k), features - first) };
                try b.writeWeights(part, piece);
                try b.addProducts(part, form, piece);
            }
        }
        if (part.bias != 0 or form.isScaled()) try b.finish(part, form);
    }

    /// Rows of a weight as the library reads them.
    const Piece = struct { address: u64, stride: u64, first: u32, count: u32 };

    fn writeWeights(b: *const Builder, part: Part, piece: Piece) status.Error!void {
        const l = b.l;
        const name = try l.kernelName("library_weights", part.weight.dtype);
        const grid_rule = try b.grid(piece.count, try l.parts(b.k / 8, threads));
        try l.launch(.{ .name = name, .grid = grid_rule, .threads = threads }, c.struct_LibraryWeights{
            .data = @ptrFromInt(part.address + piece.first * part.weight.strideBytes()),
            .row_bytes = part.weight.strideBytes(),
            .out = @ptrFromInt(piece.address),
            .row_stride = piece.stride,
            .rows = piece.count,
            .k = b.k,
        });
    }

    /// The first product begins with the residual, or with nothing; the others add to it, the smallest part last.
    fn addProducts(b: *const Builder, part: Part, form: Form, piece: Piece) status.Error!void {
        const l = b.l;
        const residual_tensor = if (form.isScaled()) null else l.maybe(o.residual);
        const begin = (part.column + piece.first) * 4;
        const sums = b.sumsOf(part, form);
        const d = @intFromPtr(sums.data) + piece.first * 4;
        const first = b.plan.products.items.len;
        const passes = @max(1, form.parts());
        for (0..passes) |index| {
            const pass: u32 = @intCast(index);
            const residual = if (pass == 0) residual_tensor else null;
            try b.plan.products.append(l.arena, .{
                .problem = .{
                    .inputs = switch (form) {
                        .f32 => .f32,
                        .f16, .f16_parts => .f16,
                        .bf16, .bf16_parts => .bf16,
                    },
                    .compute = if (form == .f32 and b.request.is_fast) .tf32 else .f32,
                    .m = piece.count,
                    .n = 0,
                    .k = b.k,
                    .a_stride = piece.stride,
                    .b_stride = if (form == .f32) l.tensor(o.x).stride else rowStride(b.k),
                    .c_stride = if (residual) |tensor| tensor.stride else sums.stride,
                    .d_stride = sums.stride,
                },
                .operands = .{
                    .a = piece.address,
                    .b = if (form == .f32) l.address(o.x) else b.rowsAddress(form, pass),
                    .c = if (residual != null) l.address(o.residual) + begin else d,
                    .d = d,
                    .alpha = form.factor(pass),
                    .beta = if (pass > 0 or residual != null) 1 else 0,
                },
            });
        }
        const call = try l.arena.create(Call);
        call.* = .{ .plan = b.plan, .first = first, .count = passes };
        try l.call("cuBLASLt", .{ .context = call, .submit = Call.submit });
    }

    /// Where the products with a weight are summed: in out, but where that may be a residual that is added behind.
    fn sumsOf(b: *const Builder, part: Part, form: Form) c.struct_Matrix {
        if (!b.request.has_residual or !form.isScaled()) return b.columnsOf(o.out, part);
        return .{ .data = @ptrFromInt(b.base + b.layout.sums_at), .stride = sumsStride(part.weight.shape[0]) };
    }

    fn columnsOf(b: *const Builder, operand: usize, part: Part) c.struct_Matrix {
        var matrix = b.l.matrix(operand);
        matrix.data = @ptrFromInt(@intFromPtr(matrix.data) + part.column * 4);
        return matrix;
    }

    fn finish(b: *const Builder, part: Part, form: Form) status.Error!void {
        const l = b.l;
        const columns = part.weight.shape[0];
        const adds_residual = b.request.has_residual and form.isScaled();
        try l.launch(.{ .name = "library_finish", .grid = try b.grid(null, try l.parts(columns, threads)), .threads = threads }, c.struct_LibraryFinish{
            .rows = l.leading(o.x),
            .out = b.columnsOf(o.out, part),
            .sums = b.sumsOf(part, form),
            .residual = if (adds_residual) b.columnsOf(o.residual, part) else .{ .data = null, .stride = 0 },
            .scales = if (form.isScaled()) @ptrFromInt(b.base + b.layout.scales_at) else null,
            .bias = @ptrFromInt(part.bias),
            .columns = columns,
            .spare = 0,
        });
    }
};
