/**
 * Hugging Face's Jinja interpreter with Python's semantics where it has JavaScript's or none: how values print,
 * compare and convert, methods of strings, filters on values of any kind. Everything else is the library's.
 */

import { type Environment, Interpreter } from "@huggingface/jinja";
import { attributeOf, FILTERS } from "./filters.ts";
import { requireRoom } from "./growth.ts";
import { RenderBudget, type RenderLimits } from "./limits.ts";
import { keepMark, marked, markupMethod } from "./markup.ts";
import { dictionaryMethod, pythonOperation, pythonTest } from "./operators.ts";
import { type Arguments, STRING_METHODS } from "./string-methods.ts";
import {
  boolean,
  callable,
  entriesOf,
  generator,
  isInteger,
  isLazy,
  isMarkup,
  isMissing,
  isNone,
  isText,
  itemsOf,
  iterate,
  list,
  mapping,
  missing,
  str,
  text,
  type Value,
} from "./values.ts";

type Statement = NonNullable<Parameters<Interpreter["evaluate"]>[0]>;

/** The library does not export the types of its syntax tree; these are the parts that are looked at. */
interface Node {
  readonly type: string;
}
interface Binary extends Node {
  readonly operator: { readonly value: string };
  readonly left: Node;
  readonly right: Node;
}
interface Call extends Node {
  readonly callee: Node;
  readonly args: readonly Node[];
}
interface Member extends Node {
  readonly object: Node;
  readonly property: Node & { readonly value?: unknown };
  readonly computed: boolean;
}
interface Filtered extends Node {
  readonly operand: Node;
  readonly filter: Call | (Node & { readonly value: string });
}
interface Loop extends Node {
  readonly iterable: Node & { readonly lhs?: Node };
}
interface Assigned extends Node {
  readonly value: Node | null;
  readonly body: readonly Node[];
}
interface Tested extends Node {
  readonly operand: Node;
  readonly negate: boolean;
  readonly test: { readonly value: string };
}
interface Keyword extends Node {
  readonly key: { readonly value: string };
  readonly value: Node;
}

export class PythonInterpreter extends Interpreter {
  readonly #budget: RenderBudget;

  /** `limits` are of everything that this interpreter evaluates. */
  constructor(environment: Environment, limits: RenderLimits) {
    super(environment);
    this.#budget = new RenderBudget(limits);
  }

  override evaluate(statement: Statement | undefined, environment: Environment): Value {
    const value = this.evaluated(statement, environment);
    if (isText(value)) this.#budget.requireCharacters(value.value.length);
    else this.#budget.requireItems(itemsOf(value)?.length ?? 0);
    return value;
  }

  private evaluated(statement: Statement | undefined, environment: Environment): Value {
    const node = statement as unknown as Node | undefined;
    switch (node?.type) {
      case "Value":
        return (node as unknown as { value: Value }).value;
      case "Output":
        return text(str(this.value((node as unknown as { expression: Node }).expression, environment)));
      case "BinaryExpression":
        return this.binary(node as Binary, environment);
      case "FilterExpression":
        return this.filtered(node as Filtered, environment);
      case "FilterStatement":
        return this.filterBlock(node as Filtered & { body: Node[] }, environment);
      case "CallExpression":
        return this.call(node as Call, environment);
      case "MemberExpression":
        return this.member(node as Member, environment);
      case "TestExpression":
        return this.tested(node as Tested, environment);
      case "ObjectLiteral":
        return this.dictionary((node as unknown as { value: Map<Node, Node> }).value, environment);
      case "Set":
        return this.assigned(node as Assigned, environment);
      case "For":
        return this.loop(node as Loop, environment);
      default:
        return super.evaluate(statement, environment);
    }
  }

  private value(node: Node, environment: Environment): Value {
    return this.evaluate(node as unknown as Statement, environment);
  }

  private library(node: Node, environment: Environment): Value {
    return super.evaluate(node as unknown as Statement, environment);
  }

  private binary(node: Binary, environment: Environment): Value {
    const operator = node.operator.value;
    if (operator === "and" || operator === "or") return this.library(node, environment);
    const left = this.value(node.left, environment);
    const right = this.value(node.right, environment);
    const own = pythonOperation(operator, left, right, this.#budget);
    return own ?? this.library({ ...node, left: known(left), right: known(right) } as Binary, environment);
  }

  private filtered(node: Filtered, environment: Environment): Value {
    const operand = this.value(node.operand, environment);
    const isCall = node.filter.type === "CallExpression";
    const name = isCall
      ? ((node.filter as Call).callee as unknown as { value: string }).value
      : (node.filter as { value: string }).value;
    const args = isCall ? this.arguments((node.filter as Call).args, environment) : NO_ARGUMENTS;
    const filter = Object.hasOwn(FILTERS, name) ? FILTERS[name] : undefined;
    requireRoom(name, operand, args, this.#budget);
    if (filter !== undefined) return keepMark(name, operand, filter(operand, args));
    const special = this.higherOrder(name, operand, args, environment);
    return special ?? this.library({ ...node, operand: known(operand) } as Filtered, environment);
  }

  private filterBlock(node: Filtered & { readonly body: Node[] }, environment: Environment): Value {
    const body = this.library({ type: "Program", body: node.body } as Node, environment);
    return this.filtered(
      { type: "FilterExpression", operand: known(body), filter: node.filter },
      environment,
    );
  }

  private tested(node: Tested, environment: Environment): Value {
    const operand = this.value(node.operand, environment);
    const holds = pythonTest(node.test.value, operand);
    if (holds !== undefined) return boolean(holds !== node.negate);
    return this.library({ ...node, operand: known(operand) } as Tested, environment);
  }

  /** Filters that apply other filters or tests, named by their first argument. */
  private higherOrder(
    name: string,
    operand: Value,
    args: Arguments,
    environment: Environment,
  ): Value | undefined {
    const [first, ...rest] = args.positional;
    if (name === "map") {
      const attribute = args.named.get("attribute");
      const items = iterate(operand) ?? [];
      if (attribute !== undefined) {
        const otherwise = args.named.get("default") ?? missing();
        return generator(items.map((item) => orElse(attributeOf(item, str(attribute)), otherwise)));
      }
      const filter = {
        type: "CallExpression",
        callee: { type: "Identifier", value: str(first!) },
        args: rest.map(known),
      };
      return generator(
        items.map((item) =>
          this.filtered({ type: "FilterExpression", operand: known(item), filter }, environment),
        ),
      );
    }
    const selects = /^(select|reject)(attr)?$/.exec(name);
    if (selects === null) return undefined;
    const byAttribute = selects[2] !== undefined;
    const [testName, ...parameters] = byAttribute ? rest : args.positional;
    return generator(
      (iterate(operand) ?? []).filter((item) => {
        const subject = byAttribute ? attributeOf(item, str(first!)) : item;
        const holds =
          testName === undefined
            ? subject.__bool__().value
            : this.test(str(testName), subject, parameters, environment);
        return holds === (selects[1] === "select");
      }),
    );
  }

  private test(
    name: string,
    subject: Value,
    parameters: readonly Value[],
    environment: Environment,
  ): boolean {
    const operators: Readonly<Record<string, string>> = {
      eq: "==",
      equalto: "==",
      ne: "!=",
      lt: "<",
      gt: ">",
      le: "<=",
      ge: ">=",
      in: "in",
    };
    const operator = operators[name] ?? (/^([=!<>]=|[<>])$/.test(name) ? name : undefined);
    if (operator !== undefined)
      return pythonOperation(operator, subject, parameters[0]!, this.#budget)?.value === true;
    const node = {
      type: "TestExpression",
      operand: known(subject),
      negate: false,
      test: { type: "Identifier", value: name },
    };
    return this.value(node, environment).value === true;
  }

  private call(node: Call, environment: Environment): Value {
    if (node.callee.type !== "MemberExpression" || (node.callee as Member).computed)
      return this.library(node, environment);
    const callee = node.callee as Member;
    const object = this.value(callee.object, environment);
    const name = String(callee.property.value);
    const result = this.method(object, name, node.args, environment);
    if (result !== undefined) return result;
    return this.library({ ...node, callee: { ...callee, object: known(object) } } as Call, environment);
  }

  private method(
    object: Value,
    name: string,
    nodes: readonly Node[],
    environment: Environment,
  ): Value | undefined {
    if (isText(object) && Object.hasOwn(STRING_METHODS, name)) {
      const args = this.arguments(nodes, environment);
      requireRoom(name, object, args, this.#budget);
      return isMarkup(object)
        ? markupMethod(object.value, name, args)
        : STRING_METHODS[name]!(object.value, args);
    }
    const entries = entriesOf(object);
    const method = entries === undefined ? undefined : dictionaryMethod(entries, name);
    return method?.(this.arguments(nodes, environment));
  }

  private member(node: Member, environment: Environment): Value {
    const object = this.value(node.object, environment);
    if (isMissing(object)) throw new Error(`${describe(node.object)} is undefined`);
    if (isLazy(object)) return missing();
    const part = this.part(node, object, environment);
    return isMarkup(object) ? marked(part) : part;
  }

  private part(node: Member, object: Value, environment: Environment): Value {
    if (node.computed && node.property.type !== "SliceExpression") {
      const key = this.value(node.property, environment);
      const entries = entriesOf(object);
      if (entries !== undefined && !isText(key)) return entries.get(key.value) ?? missing();
      if (isText(object) && isInteger(key)) {
        const character = Array.from(object.value).at(key.value);
        return character === undefined ? missing() : text(character);
      }
      if (isMissing(key) || isNone(key)) return missing();
      return this.library({ ...node, object: known(object), property: known(key) } as Member, environment);
    }
    // An attribute is a method before it is a key: `schema.items` is no way to get the key "items".
    const entries = node.computed ? undefined : entriesOf(object);
    const method = entries === undefined ? undefined : dictionaryMethod(entries, String(node.property.value));
    if (method !== undefined) return callable((positional) => method({ positional, named: new Map() }));
    return this.library({ ...node, object: known(object) } as Member, environment);
  }

  private dictionary(nodes: ReadonlyMap<Node, Node>, environment: Environment): Value {
    const entries = new Map<unknown, Value>();
    for (const [key, item] of nodes)
      entries.set(this.value(key, environment).value, this.value(item, environment));
    return mapping(entries);
  }

  /** What a block makes is evaluated as a whole, so that it counts against the limits. */
  private assigned(node: Assigned, environment: Environment): Value {
    if (node.value !== null) return this.library(node, environment);
    const block = this.value({ type: "Program", body: node.body } as Node, environment);
    return this.library({ ...node, value: known(block) } as Assigned, environment);
  }

  private loop(node: Loop, environment: Environment): Value {
    const { iterable } = node;
    const filtered = iterable.type === "SelectExpression";
    const subject = this.value(filtered ? iterable.lhs! : iterable, environment);
    const items = iterate(subject) ?? (isMissing(subject) ? [] : undefined);
    if (items === undefined) throw new TypeError(`${describe(iterable)} is not iterable`);
    this.#budget.requireItems(items.length);
    // Unpacking is for lists only in the library.
    const plain = list(items.map((item) => (item.type === "TupleValue" ? list(itemsOf(item)!) : item)));
    const replaced = filtered ? { ...iterable, lhs: known(plain) } : known(plain);
    return this.library({ ...node, iterable: replaced } as Loop, environment);
  }

  private arguments(nodes: readonly Node[], environment: Environment): Arguments {
    const positional: Value[] = [];
    const named = new Map<string, Value>();
    for (const node of nodes) {
      if (node.type === "KeywordArgumentExpression") {
        const { key, value } = node as Keyword;
        named.set(key.value, this.value(value, environment));
      } else if (node.type === "SpreadExpression") {
        const spread = this.value((node as unknown as { argument: Node }).argument, environment);
        for (const item of iterate(spread) ?? []) positional.push(item);
      } else positional.push(this.value(node, environment));
    }
    return { positional, named };
  }
}

const NO_ARGUMENTS: Arguments = { positional: [], named: new Map() };

/** A node that stands for a value already worked out. */
function known(value: Value): Node {
  return { type: "Value", value } as Node;
}

function orElse(value: Value, otherwise: Value): Value {
  return isMissing(value) ? otherwise : value;
}

/** The name of a variable or attribute, for messages. */
function describe(node: Node): string {
  if (node.type === "Identifier") return `'${String((node as unknown as { value: string }).value)}'`;
  if (node.type !== "MemberExpression") return "the value";
  return `'${String((node as Member).property.value ?? "item")}'`;
}
