import { type Command, Option } from 'commander';
import { parseRequest, type Request, type RequestField, requestFields } from '../request';

/** Command-line flags for every field of the request. Values are parsed here and judged by `parseRequest` alone. */

/** `num_frames` as `num-frames`. */
export function flagName(field: string): string {
  return field.replaceAll('_', '-');
}

/** Adds one flag for each field of the request. */
export function addRequestFlags(command: Command): Command {
  for (const field of requestFields) {
    const name = `--${flagName(field.name)} <${field.kind === 'enum' ? 'choice' : field.kind}>`;
    command.addOption(new Option(name, describe(field)).argParser((text: string) => flagValue(field, text)));
  }
  return command;
}

function describe(field: RequestField): string {
  const facts = [
    field.options?.join(' | '),
    field.kind !== 'string' && field.min !== undefined && field.max !== undefined
      ? `${field.min} to ${field.max === Number.MAX_SAFE_INTEGER ? '2^53 - 1' : field.max}`
      : undefined,
    field.default === undefined || field.default === '' ? undefined : `default ${field.default}`,
  ].filter((fact) => fact !== undefined);
  return facts.length > 0 ? `${field.description} (${facts.join('; ')})` : field.description;
}

/** A flag's text as the kind of its field. What is no such value stays text, which `parseRequest` refuses by name. */
export function flagValue(field: Pick<RequestField, 'kind'>, text: string): string | number | boolean {
  if (field.kind === 'integer' || field.kind === 'number') {
    // Number('') and Number(' ') are 0, and Number('0x10') is 16: only decimal numbers are meant.
    return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : text;
  }
  if (field.kind === 'boolean' && (text === 'true' || text === 'false')) return text === 'true';
  return text;
}

/**
 * The request that flags say, checked. `unknown` are the arguments that no flag of the command explains; a
 * `--name value` among them counts as a field of that name. Throws `bad-request`, as the library does.
 */
export function requestFromFlags(options: Record<string, unknown>, unknown: readonly string[]): Request {
  const fields: Record<string, unknown> = Object.create(null);
  for (const { name } of requestFields) {
    const key = flagName(name).replace(/-(.)/g, (_, letter: string) => letter.toUpperCase());
    if (options[key] !== undefined) fields[name] = options[key];
  }
  for (let at = 0; at < unknown.length; at++) {
    const [flag, inline] = unknown[at]!.split(/=(.*)/s, 2) as [string, string | undefined];
    const next = unknown[at + 1];
    const value = inline ?? (flag.startsWith('--') && next !== undefined && !next.startsWith('--') ? next : undefined);
    if (inline === undefined && value !== undefined) at++;
    fields[flag.replace(/^--/, '').replaceAll('-', '_')] = value ?? true;
  }
  return parseRequest({ ...fields });
}
