//! The CUDA library: the C ABI over the executor. Handles are addresses that only their owner thread may pass.
//!
//! Lifetimes: a device outlives its programs and buffers; a buffer outlives the programs that name it. No function
//! keeps a pointer past its return. A device that failed says so on every later call; freeing still works.

const std = @import("std");
const images = @import("cuda_images");
const interface = @import("abi/interface.zig");
const status = @import("abi/status.zig");
const driver = @import("cuda/driver.zig");
const Device = @import("cuda/device.zig").Device;
const memory_module = @import("cuda/memory.zig");
const GraphTotals = @import("cuda/graphs.zig").Totals;
const Executor = @import("cuda/executor.zig").Executor;
const ExecutorOptions = @import("cuda/executor.zig").Options;

const Buffer = memory_module.Buffer;
const Status = status.Status;
const allocator = std.heap.c_allocator;

fn report(failure: status.Error) i32 {
    return @intFromEnum(status.statusOf(failure));
}

fn answer(result: status.Error!void) i32 {
    result catch |failure| return report(failure);
    return ok;
}

const ok = @intFromEnum(Status.ok);

/// Fills `out`, whose `size` the caller has set.
export fn mistral_info(out: *interface.Info) i32 {
    return answer(out.fill("cuda", 0));
}

/// Copies the reason of this thread's last failure; returns its length in bytes, which may exceed the capacity.
export fn mistral_last_error(out: [*]u8, capacity: u64) u64 {
    return status.copyText(out, capacity);
}

/// Devices that the driver shows. Fails, with the reason, where there is no driver.
export fn mistral_device_count(out: *u32) i32 {
    out.* = driver.deviceCount() catch |failure| return report(failure);
    return ok;
}

export fn mistral_device_open(options: *const interface.DeviceOptions, out: *?*Device) i32 {
    options.check() catch |failure| return report(failure);
    if (options.threads != 0)
        return report(status.fail(error.InvalidArgument, "a CUDA device has no threads to choose; {d} were named", .{options.threads}));
    out.* = Device.open(options.index) catch |failure| return report(failure);
    return ok;
}

export fn mistral_device_close(device: *Device) i32 {
    device.close();
    return ok;
}

/// Fills `out`, whose `size` the caller has set.
export fn mistral_device_info(device: *Device, out: *interface.DeviceInfo) i32 {
    return answer(fillInfo(device, out));
}

fn fillInfo(device: *Device, out: *interface.DeviceInfo) status.Error!void {
    try out.check();
    out.* = describe(device, try device.memory());
}

fn describe(device: *const Device, memory: Device.Memory) interface.DeviceInfo {
    return .{
        .size = @sizeOf(interface.DeviceInfo),
        .capability = device.capability,
        .units = device.multiprocessors,
        .integrated = @intFromBool(device.integrated),
        .memory_free = memory.free,
        .memory_total = memory.total,
        .name_bytes = @intCast(device.name_bytes),
        .reserved = 0,
        .name = device.name,
    };
}

/// Tells of a device without opening it: no context is made. What is free of its memory is not known then, and 0.
export fn mistral_cuda_describe(index: u32, out: *interface.DeviceInfo) i32 {
    return answer(describeClosed(index, out));
}

/// Copies what computes products of many rows: cuBLASLt with its version, or why it is not used. Opens the library.
/// Returns the text's length in bytes, which may exceed the capacity; `is_library` becomes 1 or 0.
export fn mistral_cuda_products(device: *Device, is_library: *u32, out: [*]u8, capacity: u64) u64 {
    device.enter() catch {};
    const text = device.productsText();
    is_library.* = @intFromBool(device.products() != null);
    const count = @min(capacity, text.len);
    @memcpy(out[0..count], text[0..count]);
    return text.len;
}

/// The least compute capability that the kernels were compiled for, 75 for 7.5.
export fn mistral_cuda_capability_min() u32 {
    return images.capability_min;
}

fn describeClosed(index: u32, out: *interface.DeviceInfo) status.Error!void {
    try out.check();
    var device = try Device.examine(index);
    out.* = describe(&device, .{ .free = 0, .total = try device.totalBytes() });
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

/// Zeroed memory.
export fn mistral_buffer_create(device: *Device, bytes: u64, kind: interface.BufferKind, out: *?*Buffer) i32 {
    return keep(Buffer.create(device, bytes, kind), out);
}

/// Memory that the device does not own cannot be made its own without a copy.
export fn mistral_buffer_wrap(_: *Device, _: [*]u8, _: u64, _: *?*Buffer) i32 {
    return report(status.fail(error.InvalidArgument, "a CUDA device cannot use memory of the caller; create a buffer", .{}));
}

/// A read-only copy of `bytes` of a file from `offset`. `path` ends in a zero byte.
export fn mistral_buffer_map_file(device: *Device, path: [*:0]const u8, offset: u64, bytes: u64, out: *?*Buffer) i32 {
    return keep(Buffer.mapFile(device, path, offset, bytes, null), out);
}

/// The same; `progress` is told the bytes that are on their way, on the calling thread.
export fn mistral_cuda_map_file(
    device: *Device,
    path: [*:0]const u8,
    offset: u64,
    bytes: u64,
    progress: memory_module.Progress,
    out: *?*Buffer,
) i32 {
    return keep(Buffer.mapFile(device, path, offset, bytes, progress), out);
}

/// Address of the first byte, for the host; 0 when only the device sees it.
export fn mistral_buffer_address(buffer: *const Buffer) u64 {
    return @intFromPtr(buffer.host);
}

export fn mistral_buffer_free(buffer: *Buffer) i32 {
    buffer.free();
    allocator.destroy(buffer);
    return ok;
}

export fn mistral_buffer_write(buffer: *Buffer, offset: u64, source: [*]const u8, bytes: u64) i32 {
    checkRange(buffer, offset, bytes) catch |failure| return report(failure);
    if (!buffer.writable) return report(status.fail(error.InvalidArgument, "the buffer is a read-only view of a file", .{}));
    return answer(buffer.write(offset, source[0..bytes]));
}

export fn mistral_buffer_read(buffer: *const Buffer, offset: u64, target: [*]u8, bytes: u64) i32 {
    checkRange(buffer, offset, bytes) catch |failure| return report(failure);
    return answer(buffer.read(offset, target[0..bytes]));
}

fn checkRange(buffer: *const Buffer, offset: u64, bytes: u64) status.Error!void {
    const end = std.math.add(u64, offset, bytes) catch std.math.maxInt(u64);
    if (end > buffer.bytes)
        return status.fail(error.InvalidArgument, "bytes {d} to {d} of a buffer of {d}", .{ offset, end, buffer.bytes });
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
    if (flags & ~interface.flag_deterministic != 0)
        return report(status.fail(error.InvalidArgument, "program flags 0x{x}; CUDA reads weights as they lie and knows no more than 0x{x}", .{ flags, interface.flag_deterministic }));
    const options: ExecutorOptions = .{ .is_deterministic = flags & interface.flag_deterministic != 0 };
    out.* = Executor.create(device, words[0..word_count], buffers[0..buffer_count], options) catch |failure| return report(failure);
    return ok;
}

/// Runs one step; `dims` holds one value per symbolic dimension. Returns when the outputs are written.
export fn mistral_program_run(program: *Executor, dims: [*]const u32, dim_count: u64) i32 {
    if (dim_count != program.dims_max.len)
        return report(status.fail(error.InvalidArgument, "{d} dimensions; the program has {d}", .{ dim_count, program.dims_max.len }));
    return answer(program.run(dims[0..dim_count]));
}

/// Lets steps of decoding be captured as CUDA graphs that take up to this many bytes together; 0, as it is at first,
/// makes none.
export fn mistral_cuda_graph_budget(program: *Executor, bytes: u64) i32 {
    program.graphs.budget_bytes = bytes;
    return ok;
}

export fn mistral_cuda_graph_totals(program: *const Executor, out: *GraphTotals) i32 {
    out.* = program.graphs.totals;
    return ok;
}

/// Bytes the program holds besides its buffers.
export fn mistral_program_workspace_bytes(program: *const Executor) u64 {
    return program.workspaceBytes();
}

export fn mistral_program_free(program: *Executor) i32 {
    program.free();
    return ok;
}

/// Waits for all work of the device.
export fn mistral_synchronize(device: *Device) i32 {
    device.enter() catch |failure| return report(failure);
    return answer(device.synchronize());
}
