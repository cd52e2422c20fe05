//! Buffers of the CPU device: zeroed pages, memory of the caller, or a read-only view of a file.

const std = @import("std");
const builtin = @import("builtin");
const status = @import("../abi/status.zig");

const huge_page_bytes = 2 << 20;

pub const Buffer = struct {
    memory: [*]u8,
    bytes: u64,
    writable: bool,
    /// Pages to unmap when the buffer is freed; null for memory of the caller.
    mapping: ?[]align(std.heap.page_size_min) u8,

    /// Zeroed memory that the system hands out page by page when it is first touched.
    pub fn create(bytes: u64) status.Error!Buffer {
        return reserve(bytes, 0);
    }

    /// The same for memory that is read as a stream: in huge pages where the system has them, so that it comes into
    /// being 2 MiB at a time. Walking 4 KiB pages costs a third of the bandwidth of the caches, a tenth of the memory's.
    pub fn createHuge(bytes: u64) status.Error!Buffer {
        if (builtin.os.tag != .linux or bytes < huge_page_bytes) return create(bytes);
        const buffer = try reserve(bytes, huge_page_bytes);
        const length = std.mem.alignForward(u64, bytes, std.heap.pageSize());
        // A system without huge pages refuses, which changes nothing but speed.
        _ = std.c.madvise(@ptrCast(@alignCast(buffer.memory)), length, std.c.MADV.HUGEPAGE);
        return buffer;
    }

    /// `alignment`: 0, or a multiple of the page size.
    fn reserve(bytes: u64, alignment: u64) status.Error!Buffer {
        const length = try mappable(bytes + alignment);
        const pages = std.c.mmap(null, length, .{ .READ = true, .WRITE = true }, .{ .TYPE = .PRIVATE, .ANONYMOUS = true }, -1, 0);
        if (pages == std.c.MAP_FAILED)
            return status.fail(error.OutOfMemory, "cannot reserve {d} bytes of memory", .{bytes});
        const address = @intFromPtr(pages);
        const lead = if (alignment == 0) 0 else std.mem.alignForward(usize, address, alignment) - address;
        return fromPages(pages, length, lead, bytes, true);
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

    pub fn holds(buffer: *const Buffer, address: [*]const u8) bool {
        return @intFromPtr(address) -% @intFromPtr(buffer.memory) < buffer.bytes;
    }

    /// Gives the resident pages of a file view back that lie whole between two of its addresses; they are read again
    /// from the file when they are touched.
    pub fn dropPages(buffer: *const Buffer, from: [*]const u8, bytes: usize) void {
        if (buffer.writable or buffer.mapping == null) return;
        const page = std.heap.pageSize();
        const first = std.mem.alignForward(usize, @intFromPtr(from), page);
        const end = std.mem.alignBackward(usize, @intFromPtr(from) + bytes, page);
        if (first < end) _ = std.c.madvise(@ptrFromInt(first), end - first, std.c.MADV.DONTNEED);
    }

    /// All of them.
    pub fn dropAllPages(buffer: *const Buffer) void {
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
