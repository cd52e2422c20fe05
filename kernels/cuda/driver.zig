//! The part of the CUDA driver API that the backend uses, found in `libcuda.so.1` when a device is first asked
//! for. Handles are opaque; names and numbers are those of NVIDIA's `cuda.h`.

const std = @import("std");
const status = @import("../abi/status.zig");

pub const Context = *opaque {};
pub const Stream = *opaque {};
pub const Event = *opaque {};
pub const Module = *opaque {};
pub const Function = *opaque {};
pub const Graph = *opaque {};
pub const GraphExecutable = *opaque {};

pub const Result = enum(c_int) {
    success = 0,
    out_of_memory = 2,
    no_device = 100,
    _,
};

pub const Attribute = enum(c_int) {
    shared_bytes_per_block = 8,
    multiprocessors = 16,
    integrated = 18,
    capability_major = 75,
    capability_minor = 76,
    shared_bytes_per_block_on_request = 97,
};

pub const stream_non_blocking: c_uint = 1;
pub const event_disable_timing: c_uint = 2;
/// Portable and mapped into the device's addresses.
pub const host_memory_flags: c_uint = 1 | 2;
pub const function_dynamic_shared_bytes_max: c_int = 8;
/// Only calls of the capturing thread are checked against the capture.
pub const capture_thread_local: c_int = 1;

/// One field per function, named as the library exports it.
pub const Driver = struct {
    cuInit: *const fn (c_uint) callconv(.c) Result,
    cuDriverGetVersion: *const fn (*c_int) callconv(.c) Result,
    cuGetErrorName: *const fn (Result, *?[*:0]const u8) callconv(.c) Result,
    cuGetErrorString: *const fn (Result, *?[*:0]const u8) callconv(.c) Result,
    cuDeviceGetCount: *const fn (*c_int) callconv(.c) Result,
    cuDeviceGet: *const fn (*c_int, c_int) callconv(.c) Result,
    cuDeviceGetName: *const fn ([*]u8, c_int, c_int) callconv(.c) Result,
    cuDeviceTotalMem_v2: *const fn (*u64, c_int) callconv(.c) Result,
    cuDeviceGetAttribute: *const fn (*c_int, Attribute, c_int) callconv(.c) Result,
    cuDevicePrimaryCtxRetain: *const fn (*?Context, c_int) callconv(.c) Result,
    cuDevicePrimaryCtxRelease_v2: *const fn (c_int) callconv(.c) Result,
    cuCtxSetCurrent: *const fn (Context) callconv(.c) Result,
    cuCtxSynchronize: *const fn () callconv(.c) Result,
    cuMemGetInfo_v2: *const fn (*u64, *u64) callconv(.c) Result,
    cuMemAlloc_v2: *const fn (*u64, u64) callconv(.c) Result,
    cuMemFree_v2: *const fn (u64) callconv(.c) Result,
    cuMemHostAlloc: *const fn (*?[*]u8, u64, c_uint) callconv(.c) Result,
    cuMemFreeHost: *const fn ([*]u8) callconv(.c) Result,
    cuMemHostGetDevicePointer_v2: *const fn (*u64, [*]u8, c_uint) callconv(.c) Result,
    cuMemcpyHtoDAsync_v2: *const fn (u64, [*]const u8, u64, Stream) callconv(.c) Result,
    cuMemcpyDtoHAsync_v2: *const fn ([*]u8, u64, u64, Stream) callconv(.c) Result,
    cuMemsetD8Async: *const fn (u64, u8, u64, Stream) callconv(.c) Result,
    cuStreamCreate: *const fn (*?Stream, c_uint) callconv(.c) Result,
    cuStreamDestroy_v2: *const fn (Stream) callconv(.c) Result,
    cuStreamSynchronize: *const fn (Stream) callconv(.c) Result,
    cuEventCreate: *const fn (*?Event, c_uint) callconv(.c) Result,
    cuEventDestroy_v2: *const fn (Event) callconv(.c) Result,
    cuEventRecord: *const fn (Event, Stream) callconv(.c) Result,
    cuEventSynchronize: *const fn (Event) callconv(.c) Result,
    cuModuleLoadData: *const fn (*?Module, [*]const u8) callconv(.c) Result,
    cuModuleUnload: *const fn (Module) callconv(.c) Result,
    cuModuleGetFunction: *const fn (*?Function, Module, [*:0]const u8) callconv(.c) Result,
    cuFuncSetAttribute: *const fn (Function, c_int, c_int) callconv(.c) Result,
    cuLaunchKernel: *const fn (Function, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Stream, [*]const *const anyopaque, ?*anyopaque) callconv(.c) Result,
    cuStreamBeginCapture_v2: *const fn (Stream, c_int) callconv(.c) Result,
    cuStreamEndCapture: *const fn (Stream, *?Graph) callconv(.c) Result,
    cuGraphInstantiateWithFlags: *const fn (*?GraphExecutable, Graph, u64) callconv(.c) Result,
    cuGraphDestroy: *const fn (Graph) callconv(.c) Result,
    cuGraphExecDestroy: *const fn (GraphExecutable) callconv(.c) Result,
    cuGraphLaunch: *const fn (GraphExecutable, Stream) callconv(.c) Result,

    /// Name and explanation of a result, for people.
    pub fn explain(driver: *const Driver, result: Result) struct { name: []const u8, text: []const u8 } {
        var name: ?[*:0]const u8 = null;
        var text: ?[*:0]const u8 = null;
        _ = driver.cuGetErrorName(result, &name);
        _ = driver.cuGetErrorString(result, &text);
        return .{
            .name = if (name) |n| std.mem.span(n) else "unknown",
            .text = if (text) |t| std.mem.span(t) else "no explanation",
        };
    }
};

/// Names the driver library; for tests, which put an emulated driver in its place.
const path_variable = "MISTRALRS_CUDA_DRIVER";
const default_path = "libcuda.so.1";

/// Whether another driver than NVIDIA's was named.
pub fn isReplaced() bool {
    return std.c.getenv(path_variable) != null;
}

var opened: ?Driver = null;

/// Opens and initialises the driver, once per process.
pub fn open() status.Error!*const Driver {
    if (opened) |*driver| return driver;
    const path: [*:0]const u8 = std.c.getenv(path_variable) orelse default_path;
    const library = std.c.dlopen(path, .{ .NOW = true }) orelse
        return status.fail(error.Device, "CUDA cannot be used: the driver {s} cannot be opened ({s})", .{
            path, if (std.c.dlerror()) |text| std.mem.span(text) else "no reason given",
        });
    var driver: Driver = undefined;
    inline for (@typeInfo(Driver).@"struct".fields) |field| {
        const symbol = std.c.dlsym(library, field.name) orelse
            return status.fail(error.Device, "CUDA cannot be used: the driver {s} has no {s}; it is too old", .{ path, field.name });
        @field(driver, field.name) = @ptrCast(@alignCast(symbol));
    }
    const result = driver.cuInit(0);
    if (result != .success) {
        const reason = driver.explain(result);
        return status.fail(error.Device, "CUDA cannot be used: {s} ({s})", .{ reason.name, reason.text });
    }
    opened = driver;
    return &opened.?;
}

/// Devices that the driver shows.
pub fn deviceCount() status.Error!u32 {
    const driver = try open();
    var count: c_int = 0;
    const result = driver.cuDeviceGetCount(&count);
    if (result != .success) {
        const reason = driver.explain(result);
        return status.fail(error.Device, "CUDA cannot be used: {s} ({s})", .{ reason.name, reason.text });
    }
    return @intCast(count);
}
