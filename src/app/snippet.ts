/** A finished request as text to take away. Pure. */
import type { Request, RequestField, ResolvedRequest } from '../index';

/** Every field as it was used, as JSON that any client of the endpoint accepts. */
export function requestJson(request: ResolvedRequest): string {
  return JSON.stringify(request, undefined, 2);
}

/**
 * A program that makes the same video with this library. The prompt and the seed, which have no default, are always
 * written, other fields only where they differ from the endpoint's.
 *
 * @param model URL of the model folder as `load` takes it.
 */
export function requestCode(request: ResolvedRequest, fields: readonly RequestField[], model: string): string {
  const lines = fields
    .filter((field) => request[field.name] !== field.default)
    .map(({ name }) => `  ${name}: ${literal(request[name])},`);
  return `import { load } from 'zoetrope';

const zoetrope = await load({ model: ${literal(model)} });
const { video } = await zoetrope.generate({
${lines.join('\n')}
});
`;
}

/** JSON is a subset of JavaScript's literals, so whatever a prompt holds stays inside its quotes. */
function literal(value: Request[keyof Request]): string {
  return JSON.stringify(value);
}
