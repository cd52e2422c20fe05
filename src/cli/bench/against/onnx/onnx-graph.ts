/**
 * An ONNX model as a message: nodes in order, constants in the message or in a file beside it. Field numbers are those
 * of onnx.proto.
 */

import { MessageWriter } from "./protobuf.ts";

/** `TensorProto.DataType` */
export const ELEMENT_TYPES = { f32: 1, u8: 2, i32: 6, i64: 7 } as const;
export type ElementType = keyof typeof ELEMENT_TYPES;

const IR_VERSION = 10;
const OPERATORS_VERSION = 21;
/** Of ONNX Runtime's own operators. */
export const RUNTIME_DOMAIN = "com.microsoft";
const ATTRIBUTE_FLOAT = 1;
const ATTRIBUTE_INTEGER = 2;
const LOCATION_EXTERNAL = 1;

/** A tensor's elements in the file beside the model. */
export interface ExternalData {
  readonly file: string;
  readonly offset: number;
  readonly bytes: number;
}

/** A number has that size; a name has the same size wherever it stands. */
export type Sizes = readonly (number | string)[];

export interface NodeOptions {
  /** Operators of ONNX itself where it is absent. */
  readonly domain?: typeof RUNTIME_DOMAIN;
  /** Names of values; an empty one leaves an optional input out. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly integers?: Readonly<Record<string, number>>;
  readonly floats?: Readonly<Record<string, number>>;
}

export class OnnxGraph {
  readonly #nodes: ((graph: MessageWriter) => void)[] = [];
  readonly #constants: ((graph: MessageWriter) => void)[] = [];
  readonly #ends: ((graph: MessageWriter) => void)[] = [];

  node(type: string, { domain = undefined, inputs, outputs, integers = {}, floats = {} }: NodeOptions): void {
    this.#nodes.push((graph) =>
      graph.message(1, (node) => {
        for (const name of inputs) node.text(1, name);
        for (const name of outputs) node.text(2, name);
        node.text(3, outputs[0]!).text(4, type);
        for (const [name, value] of Object.entries(integers)) {
          node.message(5, (attribute) =>
            attribute.text(1, name).integer(3, value).integer(20, ATTRIBUTE_INTEGER),
          );
        }
        for (const [name, value] of Object.entries(floats)) {
          node.message(5, (attribute) =>
            attribute.text(1, name).float(2, value).integer(20, ATTRIBUTE_FLOAT),
          );
        }
        if (domain !== undefined) node.text(7, domain);
      }),
    );
  }

  /** A small tensor, in the message itself. */
  constant(name: string, type: ElementType, shape: readonly number[], data: Uint8Array): string {
    this.#constants.push((graph) =>
      graph.message(5, (tensor) => {
        for (const size of shape) tensor.integer(1, size);
        tensor.integer(2, ELEMENT_TYPES[type]).text(8, name).bytes(9, data);
      }),
    );
    return name;
  }

  /** A tensor in the file beside the model. */
  external(
    name: string,
    type: ElementType,
    shape: readonly number[],
    { file, offset, bytes }: ExternalData,
  ): string {
    const entries = { location: file, offset: String(offset), length: String(bytes) };
    this.#constants.push((graph) =>
      graph.message(5, (tensor) => {
        for (const size of shape) tensor.integer(1, size);
        tensor.integer(2, ELEMENT_TYPES[type]).text(8, name);
        for (const [key, value] of Object.entries(entries)) {
          tensor.message(13, (entry) => entry.text(1, key).text(2, value));
        }
        tensor.integer(14, LOCATION_EXTERNAL);
      }),
    );
    return name;
  }

  input(name: string, type: ElementType, sizes: Sizes): string {
    this.#ends.push((graph) => graph.message(11, (value) => writeValue(value, name, type, sizes)));
    return name;
  }

  output(name: string, type: ElementType, sizes: Sizes): string {
    this.#ends.push((graph) => graph.message(12, (value) => writeValue(value, name, type, sizes)));
    return name;
  }

  /** The whole model. */
  finish(name: string): Uint8Array {
    const operators = (domain: string, version: number) => (set: MessageWriter) => {
      set.text(1, domain).integer(2, version);
    };
    return new MessageWriter()
      .integer(1, IR_VERSION)
      .text(2, "mistral.ts")
      .message(7, (graph) => {
        for (const write of this.#nodes) write(graph);
        graph.text(2, name);
        for (const write of [...this.#constants, ...this.#ends]) write(graph);
      })
      .message(8, operators("", OPERATORS_VERSION))
      .message(8, operators(RUNTIME_DOMAIN, 1))
      .finish();
  }
}

function writeValue(value: MessageWriter, name: string, type: ElementType, sizes: Sizes): void {
  value.text(1, name).message(2, (types) =>
    types.message(1, (tensor) =>
      tensor.integer(1, ELEMENT_TYPES[type]).message(2, (shape) => {
        for (const size of sizes) {
          shape.message(1, (dimension) =>
            typeof size === "number" ? dimension.integer(1, size) : dimension.text(2, size),
          );
        }
      }),
    ),
  );
}
