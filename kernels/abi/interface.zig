//! The structs and numbers of the C ABI that every backend's library shares (`kernels/cpu.zig`, `kernels/cuda.zig`;
//! `src/backend/library.ts` has the other side). Fixed-width fields only; `size` lets either side grow a struct.

const std = @import("std");
const status = @import("status.zig");

pub const version = 3;

/// What a library is.
pub const Info = extern struct {
    size: u32,
    abi_version: u32,
    /// Bytes of the name, not terminated.
    level_bytes: u32,
    /// Of a device; 0 where devices have no threads to choose.
    threads_max: u32,
    /// Instruction-set level of a CPU library, else the backend's name.
    level: [48]u8,

    comptime {
        std.debug.assert(@sizeOf(Info) == 64);
    }

    pub fn fill(out: *Info, level: []const u8, threads_max: u32) status.Error!void {
        if (out.size != @sizeOf(Info))
            return status.fail(error.InvalidArgument, "info struct has {d} bytes, expected {d}", .{ out.size, @sizeOf(Info) });
        out.* = .{ .size = @sizeOf(Info), .abi_version = version, .level_bytes = @intCast(level.len), .threads_max = threads_max, .level = @splat(0) };
        @memcpy(out.level[0..level.len], level);
    }
};

/// Which device to open and how.
pub const DeviceOptions = extern struct {
    size: u32,
    /// Of the devices that the backend shows; the CPU is device 0.
    index: u32,
    /// Threads of a CPU device, the calling one included; 0 for others.
    threads: u32,
    reserved: u32,

    comptime {
        std.debug.assert(@sizeOf(DeviceOptions) == 16);
    }

    pub fn check(options: *const DeviceOptions) status.Error!void {
        if (options.size != @sizeOf(DeviceOptions) or options.reserved != 0)
            return status.fail(error.InvalidArgument, "device options have {d} bytes, expected {d}", .{ options.size, @sizeOf(DeviceOptions) });
    }
};

/// What a device is.
pub const DeviceInfo = extern struct {
    size: u32,
    /// Compute capability, 80 for 8.0; 0 of a CPU.
    capability: u32,
    /// Multiprocessors, or threads.
    units: u32,
    /// 1 when the device shares the host's memory.
    integrated: u32,
    /// Of the device's own memory; both 0 when it has none.
    memory_free: u64,
    memory_total: u64,
    name_bytes: u32,
    reserved: u32,
    name: [128]u8,

    comptime {
        std.debug.assert(@sizeOf(DeviceInfo) == 168);
    }

    pub fn check(info: *const DeviceInfo) status.Error!void {
        if (info.size != @sizeOf(DeviceInfo))
            return status.fail(error.InvalidArgument, "device info has {d} bytes, expected {d}", .{ info.size, @sizeOf(DeviceInfo) });
    }
};

/// Where a buffer lies. On the CPU it is always the host's memory.
pub const BufferKind = enum(u32) {
    /// Memory of the device.
    device = 0,
    /// Memory that the host writes and reads between steps, and that the device sees.
    host = 1,
    /// Memory of the device that is used in large pieces: weights, caches. It may come into being 2 MiB at a time.
    bulk = 2,
    _,
};

/// Bit of the flags of `mistral_program_create`: keep copies, re-laid for speed, of the weights that have a
/// faster layout.
pub const flag_repack: u32 = 1;
/// Bit of the same: the bits of a row's results depend on that row alone, never on how many rows a step has. On the
/// CPU they always do.
pub const flag_deterministic: u32 = 2;
