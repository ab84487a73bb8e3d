import { messageOf, ZoetropeError } from '../errors';
import type { Request } from '../request/fields';

/**
 * A request as data that can be sent to the worker, which checks it: the schema is not part of the page.
 * Throws `bad-request` for what is no data, such as a function.
 */
export function plain(request: Request): Request {
  try {
    return structuredClone(request);
  } catch (error) {
    const msg = `Input should hold data only: ${messageOf(error)}`;
    throw new ZoetropeError('bad-request', `The request has a problem: ${msg}. Give strings, numbers and booleans.`, {
      detail: [{ loc: ['body'], msg, type: 'model_attributes_type' }],
    });
  }
}
