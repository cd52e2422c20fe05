/** A client that speaks HTTP by hand over a socket, so that it can read nothing, half, or leave without a word. */

import { connect, type Socket } from "node:net";

export class RawClient {
  /** Everything the server has sent so far. */
  received = "";
  closed = false;
  readonly #socket: Socket;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk) => {
      this.received += chunk.toString("latin1");
    });
    socket.on("close", () => {
      this.closed = true;
    });
    socket.on("error", () => {});
  }

  static open(port: number): Promise<RawClient> {
    return new Promise((resolve, reject) => {
      const socket = connect(port, "127.0.0.1", () => resolve(new RawClient(socket)));
      socket.once("error", reject);
    });
  }

  post(path: string, body: unknown): void {
    const text = JSON.stringify(body);
    const head = `POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-length: ${Buffer.byteLength(text)}\r\n\r\n`;
    this.#socket.write(head + text);
  }

  write(text: string | Uint8Array): void {
    this.#socket.write(text);
  }

  /** Stops taking bytes; the connection stays open. */
  stopReading(): void {
    this.#socket.pause();
  }

  readAgain(): void {
    this.#socket.resume();
  }

  leave(): void {
    this.#socket.destroy();
  }
}
