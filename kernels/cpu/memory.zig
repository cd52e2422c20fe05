//! Buffers of the CPU device: zeroed pages, memory of the caller, or a read-only view of a file.

const std = @import("std");
const status = @import("../abi/status.zig");

pub const Buffer = struct {
    memory: [*]u8,
    bytes: u64,
    writable: bool,
    /// Pages to unmap when the buffer is freed; null for memory of the caller.
    mapping: ?[]align(std.heap.page_size_min) u8,

    /// Zeroed memory that the system hands out page by page when it is first touched.
    pub fn create(bytes: u64) status.Error!Buffer {
        const length = try mappable(bytes);
        const pages = std.c.mmap(null, length, .{ .READ = true, .WRITE = true }, .{ .TYPE = .PRIVATE, .ANONYMOUS = true }, -1, 0);
        if (pages == std.c.MAP_FAILED)
            return status.fail(error.OutOfMemory, "cannot reserve {d} bytes of memory", .{bytes});
        return fromPages(pages, length, 0, bytes, true);
    }

    pub fn wrap(memory: [*]u8, bytes: u64) Buffer {
        return .{ .memory = memory, .bytes = bytes, .writable = true, .mapping = null };
    }

    /// Maps `bytes` of a file from `offset` on, any offset.
    pub fn mapFile(path: [*:0]const u8, offset: u64, bytes: u64) status.Error!Buffer {
        const file = std.c.open(path, .{ .ACCMODE = .RDONLY, .CLOEXEC = true });
        if (file < 0)
            return status.fail(error.System, "cannot open {s}: {s}", .{ path, @tagName(std.c.errno(file)) });
        defer _ = std.c.close(file);
        // Pages past the end of a file exist but kill whoever touches them.
        const end = std.c.lseek(file, 0, std.c.SEEK.END);
        const wanted = std.math.add(u64, offset, bytes) catch std.math.maxInt(u64);
        if (end < 0 or @as(u64, @intCast(end)) < wanted)
            return status.fail(error.System, "{s} has {d} bytes; cannot map {d} from byte {d}", .{ path, end, bytes, offset });
        const lead = offset % std.heap.pageSize();
        const length = try mappable(lead + bytes);
        const pages = std.c.mmap(null, length, .{ .READ = true }, .{ .TYPE = .SHARED }, file, @intCast(offset - lead));
        if (pages == std.c.MAP_FAILED)
            return status.fail(error.System, "cannot map {d} bytes of {s}", .{ bytes, path });
        const buffer = fromPages(pages, length, lead, bytes, false);
        _ = std.c.madvise(@ptrCast(@alignCast(pages)), length, std.c.MADV.WILLNEED);
        return buffer;
    }

    pub fn free(buffer: *Buffer) void {
        if (buffer.mapping) |pages| _ = std.c.munmap(@ptrCast(@alignCast(pages.ptr)), pages.len);
    }

    /// Gives the resident pages of a file view back; they are read again from the file when they are touched.
    pub fn dropPages(buffer: *const Buffer) void {
        const pages = buffer.mapping orelse return;
        if (!buffer.writable) _ = std.c.madvise(@ptrCast(pages.ptr), pages.len, std.c.MADV.DONTNEED);
    }

    fn fromPages(pages: *anyopaque, length: usize, lead: u64, bytes: u64, writable: bool) Buffer {
        const start: [*]align(std.heap.page_size_min) u8 = @ptrCast(@alignCast(pages));
        return .{ .memory = start + lead, .bytes = bytes, .writable = writable, .mapping = start[0..length] };
    }
};

fn mappable(bytes: u64) status.Error!usize {
    if (bytes == 0 or bytes > 1 << 46)
        return status.fail(error.InvalidArgument, "a buffer cannot have {d} bytes", .{bytes});
    return @intCast(bytes);
}
