import { type ErrorDetail, messageOf, ZoetropeError, type ZoetropeErrorCode } from '../errors';

/** What went wrong as the hosted API would say it. */
export interface Failure {
  /** HTTP status. */
  status: number;
  body: { detail: readonly ErrorDetail[] | string; error_type?: string };
  code: ZoetropeErrorCode;
  message: string;
}

/** Refusals of the request itself; everything else is the server's fault in HTTP's terms. */
const REFUSALS: readonly ZoetropeErrorCode[] = ['bad-request', 'missing-component', 'content-policy-violation'];

/**
 * Status and body of an error: 422 with `detail` for what the caller can change in the request, 499 for a cancelled
 * one, 500 for the rest. fal's clients branch on `detail[].type` and `error_type`.
 */
export function failureOf(error: unknown): Failure {
  const code = error instanceof ZoetropeError ? error.code : 'internal';
  const message = messageOf(error);
  const detail = error instanceof ZoetropeError ? error.detail : [];
  if (REFUSALS.includes(code)) {
    const problems = detail.length > 0 ? detail : [{ loc: ['body'], msg: message, type: code.replaceAll('-', '_') }];
    return { status: 422, body: { detail: problems }, code, message };
  }
  // 499 and its name: fal's "Request Error Types", https://docs.fal.ai/model-apis/errors
  if (code === 'aborted')
    return { status: 499, body: { detail: message, error_type: 'client_cancelled' }, code, message };
  const problem = { loc: ['body'], msg: message, type: 'internal_server_error', ctx: { code } };
  return { status: 500, body: { detail: [problem] }, code, message };
}
