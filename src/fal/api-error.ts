import { type ErrorDetail, ZoetropeError } from '../errors';
import type { Failure } from './failure';

/** A failed call as `@fal-ai/client` throws it: code that reads `status` and `body` there reads them here. */
export class ApiError extends ZoetropeError {
  /** HTTP status that the hosted API would give. */
  readonly status: number;
  readonly body: Failure['body'];
  readonly requestId: string;

  constructor({ status, body, code, message }: Failure, requestId: string) {
    super(code, message, { detail: typeof body.detail === 'string' ? [] : body.detail });
    this.name = 'ApiError';
    this.status = status;
    this.body = body;
    this.requestId = requestId;
  }
}

/** A refused request, status 422. */
export class ValidationError extends ApiError {
  constructor(failure: Failure, requestId: string) {
    super(failure, requestId);
    this.name = 'ValidationError';
  }

  get fieldErrors(): readonly ErrorDetail[] {
    return this.detail;
  }

  /** Problems whose path ends with the field. */
  getFieldErrors(field: string): ErrorDetail[] {
    return this.detail.filter(({ loc }) => loc.at(-1) === field);
  }
}
