/** What the page of a test loads: the client as npm has it, unmodified. */
export { ApiError, createFalClient, fal, ValidationError } from '@fal-ai/client';
