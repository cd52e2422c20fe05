//! The CPU library: the C ABI over the executor. Handles are addresses that only their owner thread may pass.
//!
//! Lifetimes: a device outlives its programs and buffers; a buffer outlives the programs that name it; memory
//! given to `mistral_buffer_wrap` outlives the buffer. No function keeps a pointer past its return otherwise.

const std = @import("std");
const build_options = @import("build_options");
const interface = @import("abi/interface.zig");
const status = @import("abi/status.zig");
const Buffer = @import("cpu/memory.zig").Buffer;
const StageTime = @import("cpu/profile.zig").StageTime;
const Executor = @import("cpu/executor.zig").Executor;
const matmul = @import("cpu/matmul.zig");
const ops = @import("abi/ops.gen.zig");
const pool = @import("cpu/pool.zig");
const tiles = @import("cpu/tiles.zig");

const Status = status.Status;
const allocator = std.heap.c_allocator;

const Device = struct { pool: pool.Pool };

fn report(failure: status.Error) i32 {
    return @intFromEnum(status.statusOf(failure));
}

const ok = @intFromEnum(Status.ok);

comptime {
    // Exports `mistral_measure`.
    _ = @import("cpu/measure.zig");
}

/// Fills `out`, whose `size` the caller has set.
export fn mistral_info(out: *interface.Info) i32 {
    out.fill(build_options.level, pool.threads_max) catch |failure| return report(failure);
    return ok;
}

/// Copies the reason of this thread's last failure; returns its length in bytes, which may exceed the capacity.
export fn mistral_last_error(out: [*]u8, capacity: u64) u64 {
    return status.copyText(out, capacity);
}

/// The processor is the one device.
export fn mistral_device_count(out: *u32) i32 {
    out.* = 1;
    return ok;
}

/// Starts a device of so many threads, the calling one included.
export fn mistral_device_open(options: *const interface.DeviceOptions, out: *?*Device) i32 {
    options.check() catch |failure| return report(failure);
    const threads = options.threads;
    if (options.index != 0)
        return report(status.fail(error.InvalidArgument, "CPU device {d} does not exist; 0 does", .{options.index}));
    if (threads == 0 or threads > pool.threads_max)
        return report(status.fail(error.InvalidArgument, "{d} threads; 1 to {d} are possible", .{ threads, pool.threads_max }));
    tiles.askPermission();
    const device = allocator.create(Device) catch |failure| return report(failure);
    device.pool.open(threads) catch |failure| {
        allocator.destroy(device);
        return report(failure);
    };
    out.* = device;
    return ok;
}

export fn mistral_device_close(device: *Device) i32 {
    device.pool.close();
    allocator.destroy(device);
    return ok;
}

/// Pins the device's threads, by turns, to `count` processors of the system's numbering, and confines the calling
/// thread, which is the owner, to them until the device is closed. After a failure there is nothing to do with the device but to close it.
export fn mistral_cpu_pin(device: *Device, processors: [*]const u32, count: u64) i32 {
    device.pool.pin(processors[0..count]) catch |failure| return report(failure);
    return ok;
}

/// How many rounds a waiting thread spins before it parks; without this call time decides.
export fn mistral_cpu_spin(device: *Device, rounds: u32) i32 {
    device.pool.spin(rounds);
    return ok;
}

/// Fills `out`, whose `size` the caller has set.
export fn mistral_device_info(device: *const Device, out: *interface.DeviceInfo) i32 {
    out.check() catch |failure| return report(failure);
    const name = build_options.level;
    out.* = .{
        .size = @sizeOf(interface.DeviceInfo),
        .capability = 0,
        .units = device.pool.count,
        .integrated = 1,
        .memory_free = 0,
        .memory_total = 0,
        .name_bytes = name.len,
        .reserved = 0,
        .name = @splat(0),
    };
    @memcpy(out.name[0..name.len], name);
    return ok;
}

fn keep(made: status.Error!Buffer, out: *?*Buffer) i32 {
    var buffer = made catch |failure| return report(failure);
    const handle = allocator.create(Buffer) catch |failure| {
        buffer.free();
        return report(failure);
    };
    handle.* = buffer;
    out.* = handle;
    return ok;
}

/// Zeroed, page-aligned memory; pages come into being when they are touched.
export fn mistral_buffer_create(_: *Device, bytes: u64, kind: interface.BufferKind, out: *?*Buffer) i32 {
    return keep(switch (kind) {
        .device, .host => Buffer.create(bytes),
        .bulk => Buffer.createHuge(bytes),
        _ => status.fail(error.InvalidArgument, "there is no memory of kind {d}", .{@intFromEnum(kind)}),
    }, out);
}

/// The caller's memory, without a copy.
export fn mistral_buffer_wrap(_: *Device, memory: [*]u8, bytes: u64, out: *?*Buffer) i32 {
    return keep(Buffer.wrap(memory, bytes), out);
}

/// A read-only view of `bytes` of a file from `offset`. `path` ends in a zero byte.
export fn mistral_buffer_map_file(_: *Device, path: [*:0]const u8, offset: u64, bytes: u64, out: *?*Buffer) i32 {
    return keep(Buffer.mapFile(path, offset, bytes), out);
}

/// Address of the first byte, for the host.
export fn mistral_buffer_address(buffer: *const Buffer) u64 {
    return @intFromPtr(buffer.memory);
}

export fn mistral_buffer_free(buffer: *Buffer) i32 {
    buffer.free();
    allocator.destroy(buffer);
    return ok;
}

export fn mistral_buffer_write(buffer: *Buffer, offset: u64, source: [*]const u8, bytes: u64) i32 {
    const range = slice(buffer, offset, bytes) catch |failure| return report(failure);
    if (!buffer.writable) return report(status.fail(error.InvalidArgument, "the buffer is a read-only view of a file", .{}));
    @memcpy(range, source);
    return ok;
}

export fn mistral_buffer_read(buffer: *const Buffer, offset: u64, target: [*]u8, bytes: u64) i32 {
    const range = slice(buffer, offset, bytes) catch |failure| return report(failure);
    @memcpy(target, range);
    return ok;
}

fn slice(buffer: *const Buffer, offset: u64, bytes: u64) status.Error![]u8 {
    const end = std.math.add(u64, offset, bytes) catch std.math.maxInt(u64);
    if (end > buffer.bytes)
        return status.fail(error.InvalidArgument, "bytes {d} to {d} of a buffer of {d}", .{ offset, end, buffer.bytes });
    return buffer.memory[offset..end];
}

/// Validates and lowers an encoded program (`src/graph/encode.ts`). `buffers` holds `buffer_count` handles.
export fn mistral_program_create(
    device: *Device,
    words: [*]const u32,
    word_count: u64,
    buffers: [*]const *Buffer,
    buffer_count: u64,
    flags: u32,
    out: *?*Executor,
) i32 {
    if (flags & ~interface.flag_repack != 0)
        return report(status.fail(error.InvalidArgument, "unknown program flags 0x{x}", .{flags}));
    out.* = Executor.create(&device.pool, words[0..word_count], buffers[0..buffer_count], flags & interface.flag_repack != 0) catch |failure| return report(failure);
    return ok;
}

/// Runs one step; `dims` holds one value per symbolic dimension. Returns when the outputs are written.
export fn mistral_program_run(program: *Executor, dims: [*]const u32, dim_count: u64) i32 {
    if (dim_count != program.dims_max.len)
        return report(status.fail(error.InvalidArgument, "{d} dimensions; the program has {d}", .{ dim_count, program.dims_max.len }));
    program.run(dims[0..dim_count]) catch |failure| return report(failure);
    return ok;
}

/// Bytes the program holds besides its buffers.
export fn mistral_program_workspace_bytes(program: *const Executor) u64 {
    return program.workspace_bytes;
}

/// Tells whether `flag_repack` re-lays weights of a type, given by its number: 1 or 0. May be asked before a device is
/// opened.
export fn mistral_cpu_has_faster_layout(dtype: u32, out: *u32) i32 {
    const wanted: ops.DType = @enumFromInt(dtype);
    const is_weight = switch (wanted) {
        .i32, .f8e4m3, _ => false,
        else => true,
    };
    if (!is_weight) return report(status.fail(error.InvalidArgument, "type {d} is no type of weights", .{dtype}));
    tiles.askPermission();
    out.* = @intFromBool(matmul.hasPanels(wanted));
    return ok;
}

/// Measures what the stages of a program work and wait from now on, from zero.
export fn mistral_cpu_profile(program: *Executor) i32 {
    program.startProfile() catch |failure| return report(failure);
    return ok;
}

/// Copies what was measured of the first `capacity` stages; returns how many stages there are.
export fn mistral_cpu_profile_read(program: *const Executor, out: ?[*]StageTime, capacity: u64) u64 {
    const times = program.times orelse return 0;
    const count = @min(capacity, times.len);
    if (out) |target| @memcpy(target[0..count], times[0..count]);
    return times.len;
}

export fn mistral_program_free(program: *Executor) i32 {
    program.free();
    return ok;
}

/// Waits for all work of the device. The CPU has none left when `mistral_program_run` returns.
export fn mistral_synchronize(_: *Device) i32 {
    return ok;
}
