//! NVIDIA's library of matrix products, where the machine has it: opened at run time like the driver, one handle for a
//! device. Nothing needs it; without it the kernels of `matmul.cu` compute every product.
//!
//! All matrices are as the library's columns see them: a row of ours is a column of it. A product is
//! `d[m, n] = alpha * a[k, m]^T b[k, n] + beta * c[m, n]`, sums in f32. Which algorithm computes it follows from its
//! shape alone, so a shape's sums have one order; another number of columns may have another one.

const std = @import("std");
const status = @import("../abi/status.zig");
const driver = @import("driver.zig");

const Status = enum(c_int) { success = 0, _ };
const Handle = *opaque {};
const Descriptor = *opaque {};
const Layout = *opaque {};
const Preference = *opaque {};

/// Types of elements, by the numbers of `cudaDataType`.
pub const Type = enum(c_int) { f32 = 0, f16 = 2, bf16 = 14 };

/// How products are summed, by the numbers of `cublasComputeType_t`.
pub const Compute = enum(c_int) {
    f32 = 68,
    /// Inputs in f32, of which 10 bits of the fraction count.
    tf32 = 77,
};

const transpose_a: c_int = 3;
const operation_transposed: i32 = 1;
const layout_type: c_int = 0;
const layout_rows: c_int = 2;
const layout_columns: c_int = 3;
const layout_stride: c_int = 4;
const preference_workspace: c_int = 1;
/// Of a, b, c and d, one after the other.
const preference_alignment_a: c_int = 5;

/// What every address and every stride is a multiple of, in bytes.
pub const alignment = 16;

const Choice = extern struct { data: [8]u64 };

const Candidate = extern struct {
    algorithm: Choice,
    workspace_bytes: usize,
    state: Status,
    waves: f32,
    reserved: [4]c_int,

    comptime {
        std.debug.assert(@sizeOf(Candidate) == 96);
    }
};

/// One field per function, named as the library exports it.
const Functions = struct {
    cublasLtGetVersion: *const fn () callconv(.c) usize,
    cublasLtCreate: *const fn (*?Handle) callconv(.c) Status,
    cublasLtDestroy: *const fn (Handle) callconv(.c) Status,
    cublasLtMatmulDescCreate: *const fn (*?Descriptor, Compute, Type) callconv(.c) Status,
    cublasLtMatmulDescDestroy: *const fn (Descriptor) callconv(.c) Status,
    cublasLtMatmulDescSetAttribute: *const fn (Descriptor, c_int, *const anyopaque, usize) callconv(.c) Status,
    cublasLtMatrixLayoutCreate: *const fn (*?Layout, Type, u64, u64, i64) callconv(.c) Status,
    cublasLtMatrixLayoutDestroy: *const fn (Layout) callconv(.c) Status,
    cublasLtMatrixLayoutSetAttribute: *const fn (Layout, c_int, *const anyopaque, usize) callconv(.c) Status,
    cublasLtMatmulPreferenceCreate: *const fn (*?Preference) callconv(.c) Status,
    cublasLtMatmulPreferenceDestroy: *const fn (Preference) callconv(.c) Status,
    cublasLtMatmulPreferenceSetAttribute: *const fn (Preference, c_int, *const anyopaque, usize) callconv(.c) Status,
    cublasLtMatmulAlgoGetHeuristic: *const fn (Handle, Descriptor, Layout, Layout, Layout, Layout, Preference, c_int, *Candidate, *c_int) callconv(.c) Status,
    cublasLtMatmul: *const fn (Handle, Descriptor, *const f32, u64, Layout, u64, Layout, *const f32, u64, Layout, u64, Layout, *const Choice, u64, usize, driver.Stream) callconv(.c) Status,
};

/// Names the library, or by an empty value none; for tests, which put an emulated one in its place.
const path_variable = "MISTRALRS_CUDA_CUBLASLT";
const default_paths = [_][*:0]const u8{ "libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so.11" };

/// The shape of a product; strides count elements from one column of the library's to the next.
pub const Problem = struct {
    inputs: Type,
    compute: Compute,
    m: u32,
    n: u32,
    k: u32,
    a_stride: u64,
    b_stride: u64,
    c_stride: u64,
    d_stride: u64,
};

/// Addresses of a product's matrices. `c` is not read where `beta` is 0.
pub const Operands = struct {
    a: u64,
    b: u64,
    c: u64,
    d: u64,
    alpha: f32 = 1,
    beta: f32 = 0,
};

const Algorithm = struct { choice: Choice, workspace_bytes: usize };

pub const Library = struct {
    functions: Functions,
    handle: Handle,
    /// In the order of `Compute`'s fields.
    descriptors: [2]Descriptor,
    /// Of a, b, c and d; their numbers are those of the product at hand.
    layouts: [4]Layout,
    preference: Preference,
    workspace_bytes: usize,
    version: usize,
    /// Of every shape that was asked for; null where the library has none. There are no more of them than shapes of
    /// weights times numbers of rows.
    algorithms: std.AutoHashMapUnmanaged(Problem, ?Algorithm) = .empty,

    /// Bytes that products may use besides their operands: what NVIDIA advises for the capability.
    pub fn workspaceFor(capability: u32) usize {
        return if (capability >= 90) 32 << 20 else 4 << 20;
    }

    /// The library of the current context, or why there is none, in words written to `reason`.
    pub fn open(capability: u32, reason: *std.Io.Writer) ?Library {
        if (std.c.getenv(path_variable)) |path| {
            if (path[0] != 0) return openFile(path, capability, reason);
            reason.print("{s} is empty", .{path_variable}) catch {};
            return null;
        }
        // Another driver's memory is nothing to the real library.
        if (driver.isReplaced()) {
            reason.writeAll("the driver is not NVIDIA's") catch {};
            return null;
        }
        for (default_paths, 0..) |path, index| {
            if (index > 0) reason.writeAll("; ") catch {};
            if (openFile(path, capability, reason)) |library| return library;
        }
        return null;
    }

    fn openFile(path: [*:0]const u8, capability: u32, reason: *std.Io.Writer) ?Library {
        const file = std.c.dlopen(path, .{ .NOW = true }) orelse {
            reason.print("{s}", .{if (std.c.dlerror()) |text| std.mem.span(text) else std.mem.span(path)}) catch {};
            return null;
        };
        var functions: Functions = undefined;
        inline for (@typeInfo(Functions).@"struct".fields) |field| {
            const symbol = std.c.dlsym(file, field.name) orelse {
                reason.print("{s} has no {s}", .{ path, field.name }) catch {};
                return null;
            };
            @field(functions, field.name) = @ptrCast(@alignCast(symbol));
        }
        return prepare(functions, workspaceFor(capability)) catch {
            reason.print("{s} cannot use the device", .{path}) catch {};
            return null;
        };
    }

    fn prepare(functions: Functions, workspace_bytes: usize) error{Refused}!Library {
        var handle: ?Handle = null;
        try accept(functions.cublasLtCreate(&handle));
        errdefer _ = functions.cublasLtDestroy(handle.?);
        var library: Library = .{
            .functions = functions,
            .handle = handle.?,
            .descriptors = undefined,
            .layouts = undefined,
            .preference = undefined,
            .workspace_bytes = workspace_bytes,
            .version = functions.cublasLtGetVersion(),
        };
        var preference: ?Preference = null;
        try accept(functions.cublasLtMatmulPreferenceCreate(&preference));
        errdefer _ = functions.cublasLtMatmulPreferenceDestroy(preference.?);
        library.preference = preference.?;
        try accept(functions.cublasLtMatmulPreferenceSetAttribute(preference.?, preference_workspace, &workspace_bytes, @sizeOf(usize)));
        for (0..library.layouts.len) |matrix| {
            const bytes: u32 = alignment;
            try accept(functions.cublasLtMatmulPreferenceSetAttribute(preference.?, preference_alignment_a + @as(c_int, @intCast(matrix)), &bytes, 4));
        }
        var descriptors: usize = 0;
        errdefer for (library.descriptors[0..descriptors]) |made| {
            _ = functions.cublasLtMatmulDescDestroy(made);
        };
        for (std.enums.values(Compute)) |compute| {
            var descriptor: ?Descriptor = null;
            try accept(functions.cublasLtMatmulDescCreate(&descriptor, compute, .f32));
            library.descriptors[descriptors] = descriptor.?;
            descriptors += 1;
            try accept(functions.cublasLtMatmulDescSetAttribute(descriptor.?, transpose_a, &operation_transposed, 4));
        }
        var layouts: usize = 0;
        errdefer for (library.layouts[0..layouts]) |made| {
            _ = functions.cublasLtMatrixLayoutDestroy(made);
        };
        for (&library.layouts) |*kept| {
            var layout: ?Layout = null;
            try accept(functions.cublasLtMatrixLayoutCreate(&layout, .f32, 1, 1, 1));
            kept.* = layout.?;
            layouts += 1;
        }
        return library;
    }

    /// Major, minor and patch of the version.
    pub fn versionParts(library: *const Library) struct { usize, usize, usize } {
        const version = library.version;
        return .{ version / 10_000, version / 100 % 100, version % 100 };
    }

    pub fn close(library: *Library) void {
        library.algorithms.deinit(std.heap.c_allocator);
        for (library.layouts) |layout| _ = library.functions.cublasLtMatrixLayoutDestroy(layout);
        for (library.descriptors) |descriptor| _ = library.functions.cublasLtMatmulDescDestroy(descriptor);
        _ = library.functions.cublasLtMatmulPreferenceDestroy(library.preference);
        _ = library.functions.cublasLtDestroy(library.handle);
    }

    /// Whether the library computes products of this shape. Asks it when the shape is new.
    pub fn has(library: *Library, problem: Problem) status.Error!bool {
        return try library.find(problem) != null;
    }

    fn find(library: *Library, problem: Problem) status.Error!?Algorithm {
        if (library.algorithms.get(problem)) |known| return known;
        const found = library.ask(problem) catch null;
        try library.algorithms.put(std.heap.c_allocator, problem, found);
        return found;
    }

    fn ask(library: *Library, problem: Problem) error{Refused}!?Algorithm {
        try library.describe(problem);
        const a, const b, const c, const d = library.layouts;
        var candidate: Candidate = undefined;
        var count: c_int = 0;
        try accept(library.functions.cublasLtMatmulAlgoGetHeuristic(library.handle, library.descriptorOf(problem), a, b, c, d, library.preference, 1, &candidate, &count));
        if (count < 1 or candidate.state != .success or candidate.workspace_bytes > library.workspace_bytes) return null;
        return .{ .choice = candidate.algorithm, .workspace_bytes = candidate.workspace_bytes };
    }

    fn descriptorOf(library: *const Library, problem: Problem) Descriptor {
        return library.descriptors[
            switch (problem.compute) {
                .f32 => 0,
                .tf32 => 1,
            }
        ];
    }

    /// Makes the layouts those of a product.
    fn describe(library: *Library, p: Problem) error{Refused}!void {
        const shapes = [_]struct { Type, u64, u64, u64 }{
            .{ p.inputs, p.k, p.m, p.a_stride },
            .{ p.inputs, p.k, p.n, p.b_stride },
            .{ .f32, p.m, p.n, p.c_stride },
            .{ .f32, p.m, p.n, p.d_stride },
        };
        const set = library.functions.cublasLtMatrixLayoutSetAttribute;
        for (library.layouts, shapes) |layout, shape| {
            const element, const rows, const columns, const stride = shape;
            try accept(set(layout, layout_type, &element, 4));
            try accept(set(layout, layout_rows, &rows, 8));
            try accept(set(layout, layout_columns, &columns, 8));
            try accept(set(layout, layout_stride, &stride, 8));
        }
    }

    /// Puts a product on the stream; `has` was true of its shape. `workspace` has `workspace_bytes` bytes.
    pub fn multiply(library: *Library, problem: Problem, operands: *const Operands, workspace: u64, stream: driver.Stream) error{Refused}!void {
        const algorithm = library.algorithms.get(problem).?.?;
        try library.describe(problem);
        const a, const b, const c, const d = library.layouts;
        try accept(library.functions.cublasLtMatmul(
            library.handle,
            library.descriptorOf(problem),
            &operands.alpha,
            operands.a,
            a,
            operands.b,
            b,
            &operands.beta,
            if (operands.beta == 0) operands.d else operands.c,
            c,
            operands.d,
            d,
            &algorithm.choice,
            workspace,
            library.workspace_bytes,
            stream,
        ));
    }
};

fn accept(result: Status) error{Refused}!void {
    if (result != .success) return error.Refused;
}
