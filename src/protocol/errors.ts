import { transferHandlers } from 'comlink';
import { type ErrorDetail, ZoetropeError, type ZoetropeErrorCode } from '../errors';

/** How errors cross the worker boundary whole. */

interface ThrownValue {
  value: unknown;
}

interface SerializedError {
  zoetrope?: { code: ZoetropeErrorCode; message: string; detail: readonly ErrorDetail[]; stack: string | undefined };
  other?: unknown;
}

/**
 * Teaches comlink to carry {@link ZoetropeError} with its code and details; by itself it keeps name, message and stack
 * only. Both sides of the boundary call this before they expose or wrap anything.
 */
export function carryErrors(): void {
  const original = transferHandlers.get('throw')!;
  transferHandlers.set('throw', {
    canHandle: original.canHandle,
    serialize(thrown: ThrownValue): [SerializedError, Transferable[]] {
      const { value } = thrown;
      if (value instanceof ZoetropeError) {
        const { code, message, detail, stack } = value;
        return [{ zoetrope: { code, message, detail, stack } }, []];
      }
      const [other, transferables] = original.serialize(thrown);
      return [{ other }, transferables];
    },
    deserialize({ zoetrope, other }: SerializedError): never {
      if (!zoetrope) return original.deserialize(other) as never;
      const error = new ZoetropeError(zoetrope.code, zoetrope.message, { detail: zoetrope.detail });
      if (zoetrope.stack) error.stack = zoetrope.stack;
      throw error;
    },
  });
}
