/**
 * Takes one entry out of a zip archive on the disk, streaming (PKWARE APPNOTE 6.3, sections 4.3.7, 4.3.12, 4.3.16).
 * Stored and deflated entries; no zip64, no encryption: a wheel has neither.
 */

import { createReadStream, createWriteStream, renameSync, rmSync } from "node:fs";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { crc32, createInflateRaw } from "node:zlib";
import { malformed, quoted } from "./malformed.ts";
import { PositionedFile } from "./positioned-file.ts";

const END_SIGNATURE = 0x06054b50;
const CENTRAL_SIGNATURE = 0x02014b50;
const LOCAL_SIGNATURE = 0x04034b50;
const END_BYTES = 22;
const COMMENT_BYTES_MAX = 65_535;

interface ZipEntry {
  readonly method: number;
  readonly crc: number;
  readonly compressedBytes: number;
  readonly bytes: number;
  /** Where its data begins in the archive. */
  readonly dataOffset: number;
}

/**
 * Writes the entry `name` of the archive at `zipPath` to `targetPath`, which appears only when it is complete and
 * its length and CRC are right. Throws `invalid_model_file`.
 */
export async function extractZipEntry(
  zipPath: string,
  name: string,
  targetPath: string,
  onBytes: (bytesDone: number, bytesTotal: number) => void,
): Promise<void> {
  const entry = PositionedFile.use(zipPath, (file) => findEntry(file, name));
  if (entry.method !== 0 && entry.method !== 8) {
    throw malformed(
      zipPath,
      entry.dataOffset,
      `entry ${quoted(name)} has compression method ${entry.method}`,
    );
  }
  const partPath = `${targetPath}.${process.pid}.incomplete`;
  let bytes = 0;
  let crc = 0;
  const check = new Transform({
    transform(piece: Uint8Array, _encoding, done) {
      bytes += piece.length;
      crc = crc32(piece, crc);
      onBytes(bytes, entry.bytes);
      // More than announced is damage, and could fill the disk.
      done(
        bytes > entry.bytes
          ? malformed(zipPath, entry.dataOffset, `entry ${quoted(name)} is too long`)
          : null,
        piece,
      );
    },
  });
  try {
    const { dataOffset, compressedBytes } = entry;
    const source = createReadStream(zipPath, { start: dataOffset, end: dataOffset + compressedBytes - 1 });
    const target = createWriteStream(partPath);
    if (entry.method === 8) await pipeline(source, createInflateRaw(), check, target);
    else await pipeline(source, check, target);
    if (bytes !== entry.bytes || crc !== entry.crc) {
      throw malformed(zipPath, dataOffset, `entry ${quoted(name)} does not have the length and CRC it says`);
    }
    renameSync(partPath, targetPath);
  } catch (error) {
    rmSync(partPath, { force: true });
    const code = (error as { code?: unknown }).code;
    if (typeof code === "string" && code.startsWith("Z_")) {
      throw malformed(zipPath, entry.dataOffset, `entry ${quoted(name)} cannot be inflated (${code})`);
    }
    throw error;
  }
}

function findEntry(file: PositionedFile, name: string): ZipEntry {
  const tail = Buffer.alloc(Math.min(file.bytes, END_BYTES + COMMENT_BYTES_MAX));
  file.readInto(tail, file.bytes - tail.length);
  let end = tail.length - END_BYTES;
  while (end >= 0 && tail.readUInt32LE(end) !== END_SIGNATURE) end--;
  if (end < 0) throw malformed(file.path, undefined, "not a zip archive: it has no end record");
  const directoryBytes = tail.readUInt32LE(end + 12);
  const directoryOffset = tail.readUInt32LE(end + 16);
  if (directoryOffset + directoryBytes > file.bytes) {
    throw malformed(file.path, directoryOffset, "the directory of the zip archive leaves the file");
  }
  const directory = Buffer.alloc(directoryBytes);
  file.readInto(directory, directoryOffset);
  for (let at = 0; at + 46 <= directory.length && directory.readUInt32LE(at) === CENTRAL_SIGNATURE; ) {
    const nameEnd = at + 46 + directory.readUInt16LE(at + 28);
    if (directory.toString("utf8", at + 46, nameEnd) === name) return locateData(file, directory, at, name);
    at = nameEnd + directory.readUInt16LE(at + 30) + directory.readUInt16LE(at + 32);
  }
  throw malformed(file.path, directoryOffset, `the zip archive has no entry ${quoted(name)}`);
}

function locateData(file: PositionedFile, directory: Buffer, at: number, name: string): ZipEntry {
  const localOffset = directory.readUInt32LE(at + 42);
  const compressedBytes = directory.readUInt32LE(at + 20);
  const local = Buffer.alloc(30);
  if (localOffset + local.length > file.bytes) {
    throw malformed(file.path, localOffset, `entry ${quoted(name)} leaves the file`);
  }
  file.readInto(local, localOffset);
  const dataOffset = localOffset + 30 + local.readUInt16LE(26) + local.readUInt16LE(28);
  if (
    local.readUInt32LE(0) !== LOCAL_SIGNATURE ||
    dataOffset + compressedBytes > file.bytes ||
    compressedBytes === 0
  ) {
    throw malformed(file.path, localOffset, `entry ${quoted(name)} is damaged`);
  }
  return {
    method: directory.readUInt16LE(at + 10),
    crc: directory.readUInt32LE(at + 16),
    compressedBytes,
    bytes: directory.readUInt32LE(at + 24),
    dataOffset,
  };
}
