//! Buffers of a GPU: memory of the device, or memory of the host that the device sees too. Files are uploaded in
//! pieces, so that reading one piece overlaps with sending the one before.

const std = @import("std");
const BufferKind = @import("../abi/interface.zig").BufferKind;
const status = @import("../abi/status.zig");
const Device = @import("device.zig").Device;
const driver = @import("driver.zig");

/// Large enough for the full speed of a disk and of the bus.
const piece_bytes: u64 = 16 << 20;

/// Told how many bytes of a file are on their way, after every piece.
pub const Progress = *const fn (done: u64) callconv(.c) void;

pub const Buffer = struct {
    device: *Device,
    /// As the device sees it.
    address: u64,
    /// As the host sees it; null when it cannot.
    host: ?[*]u8,
    bytes: u64,
    writable: bool,

    /// Zeroed memory.
    pub fn create(device: *Device, bytes: u64, kind: BufferKind) status.Error!Buffer {
        try device.enter();
        return switch (kind) {
            .device, .bulk => buffer: {
                const buffer = try allocate(device, bytes);
                device.check(device.driver.cuMemsetD8Async(buffer.address, 0, bytes, device.stream), "clearing memory") catch |failure| {
                    _ = device.driver.cuMemFree_v2(buffer.address);
                    return failure;
                };
                break :buffer buffer;
            },
            .host => try pinned(device, bytes),
            _ => status.fail(error.InvalidArgument, "there is no memory of kind {d}", .{@intFromEnum(kind)}),
        };
    }

    fn allocate(device: *Device, bytes: u64) status.Error!Buffer {
        if (bytes == 0) return status.fail(error.InvalidArgument, "a buffer cannot have 0 bytes", .{});
        var address: u64 = 0;
        const result = device.driver.cuMemAlloc_v2(&address, bytes);
        if (result == .out_of_memory) {
            const sizes = try device.memory();
            return status.fail(error.OutOfMemory, "the CUDA device has {d} bytes free of {d}; {d} are needed", .{ sizes.free, sizes.total, bytes });
        }
        try device.check(result, "allocating memory");
        return .{ .device = device, .address = address, .host = null, .bytes = bytes, .writable = true };
    }

    fn pinned(device: *Device, bytes: u64) status.Error!Buffer {
        if (bytes == 0) return status.fail(error.InvalidArgument, "a buffer cannot have 0 bytes", .{});
        var host: ?[*]u8 = null;
        const result = device.driver.cuMemHostAlloc(&host, bytes, driver.host_memory_flags);
        if (result == .out_of_memory)
            return status.fail(error.OutOfMemory, "the system cannot lock {d} bytes of memory for the CUDA device", .{bytes});
        try device.check(result, "locking memory");
        errdefer _ = device.driver.cuMemFreeHost(host.?);
        var address: u64 = 0;
        try device.check(device.driver.cuMemHostGetDevicePointer_v2(&address, host.?, 0), "mapping locked memory");
        @memset(host.?[0..bytes], 0);
        return .{ .device = device, .address = address, .host = host, .bytes = bytes, .writable = true };
    }

    /// The bytes of a file from `offset`, in memory of the device. The program cannot write them.
    pub fn mapFile(device: *Device, path: [*:0]const u8, offset: u64, bytes: u64, progress: ?Progress) status.Error!Buffer {
        try device.enter();
        const file = std.c.open(path, .{ .ACCMODE = .RDONLY, .CLOEXEC = true });
        if (file < 0)
            return status.fail(error.System, "cannot open {s}: {s}", .{ path, @tagName(std.c.errno(file)) });
        defer _ = std.c.close(file);
        const end = std.c.lseek(file, 0, std.c.SEEK.END);
        const wanted = std.math.add(u64, offset, bytes) catch std.math.maxInt(u64);
        if (end < 0 or @as(u64, @intCast(end)) < wanted)
            return status.fail(error.System, "{s} has {d} bytes; cannot map {d} from byte {d}", .{ path, end, bytes, offset });
        var buffer = try allocate(device, bytes);
        errdefer buffer.free();
        try upload(device, &buffer, file, path, offset, progress);
        buffer.writable = false;
        return buffer;
    }

    fn upload(device: *Device, buffer: *const Buffer, file: c_int, path: [*:0]const u8, offset: u64, progress: ?Progress) status.Error!void {
        const size = @min(piece_bytes, buffer.bytes);
        var pieces = [2]Buffer{ try pinned(device, size), undefined };
        defer pieces[0].free();
        pieces[1] = try pinned(device, size);
        defer pieces[1].free();
        var sent: [2]?driver.Event = @splat(null);
        defer for (sent) |event| if (event) |made| {
            _ = device.driver.cuEventDestroy_v2(made);
        };
        for (&sent) |*event| try device.check(device.driver.cuEventCreate(event, driver.event_disable_timing), "making an event");
        var done: u64 = 0;
        var turn: usize = 0;
        while (done < buffer.bytes) : (turn += 1) {
            const which = turn % 2;
            // The piece may still be on its way.
            if (turn >= 2) try device.check(device.driver.cuEventSynchronize(sent[which].?), "uploading a file");
            const length = @min(size, buffer.bytes - done);
            try readWhole(file, path, pieces[which].host.?[0..length], offset + done);
            try device.check(device.driver.cuMemcpyHtoDAsync_v2(buffer.address + done, pieces[which].host.?, length, device.stream), "uploading a file");
            try device.check(device.driver.cuEventRecord(sent[which].?, device.stream), "uploading a file");
            done += length;
            if (progress) |tell| tell(done);
        }
        try device.synchronize();
    }

    pub fn free(buffer: *Buffer) void {
        buffer.device.tidyUp();
        if (buffer.host) |host| {
            _ = buffer.device.driver.cuMemFreeHost(host);
        } else {
            const result = buffer.device.driver.cuMemFree_v2(buffer.address);
            // A driver that noticed harm only now says so at the next call.
            if (buffer.device.failure_bytes == 0) buffer.device.check(result, "freeing memory") catch {};
        }
    }

    /// `offset` and the length are inside the buffer.
    pub fn write(buffer: *Buffer, offset: u64, source: []const u8) status.Error!void {
        const device = buffer.device;
        try device.enter();
        if (source.len == 0) return;
        try device.synchronize();
        if (buffer.host) |host| {
            @memcpy(host[offset..][0..source.len], source);
            return;
        }
        try device.check(device.driver.cuMemcpyHtoDAsync_v2(buffer.address + offset, source.ptr, source.len, device.stream), "writing memory");
        try device.synchronize();
    }

    pub fn read(buffer: *const Buffer, offset: u64, target: []u8) status.Error!void {
        const device = buffer.device;
        try device.enter();
        if (target.len == 0) return;
        try device.synchronize();
        if (buffer.host) |host| {
            @memcpy(target, host[offset..][0..target.len]);
            return;
        }
        try device.check(device.driver.cuMemcpyDtoHAsync_v2(target.ptr, buffer.address + offset, target.len, device.stream), "reading memory");
        try device.synchronize();
    }
};

fn readWhole(file: c_int, path: [*:0]const u8, target: []u8, offset: u64) status.Error!void {
    var done: usize = 0;
    while (done < target.len) {
        const count = std.c.pread(file, target[done..].ptr, target.len - done, @intCast(offset + done));
        if (count <= 0)
            return status.fail(error.System, "cannot read {s} at byte {d}", .{ path, offset + done });
        done += @intCast(count);
    }
}
