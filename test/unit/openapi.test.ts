import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { fieldTable, openapiDocument } from '../../src/fal/openapi';
import { MAX_PROMPT_LENGTH, requestFields } from '../../src/request';

const root = resolve(import.meta.dirname, '../..');
const read = (path: string) => readFileSync(resolve(root, path), 'utf8');

describe('the API document', () => {
  it('is the one that public/openapi.json holds; npm run openapi writes it', () => {
    expect(JSON.parse(read('public/openapi.json'))).toEqual(openapiDocument());
  });

  it('is the table that docs/api.md shows', () => {
    expect(read('docs/api.md')).toContain(`\n${fieldTable()}\n`);
  });

  it('describes the request field by field', () => {
    const { components } = openapiDocument() as { components: { schemas: Record<string, Record<string, unknown>> } };
    const input = components.schemas.TextToVideoInput!;
    expect(input.required).toEqual(['prompt']);
    expect(input.additionalProperties).toBe(false);
    expect(input['x-fal-order-properties']).toEqual(requestFields.map(({ name }) => name));
    const properties = input.properties as Record<string, Record<string, unknown>>;
    expect(properties.prompt).toMatchObject({ type: 'string', maxLength: MAX_PROMPT_LENGTH });
    expect(properties.num_frames).toMatchObject({ type: 'integer', minimum: 17, maximum: 121, default: 81 });
    expect(properties.guidance_scale).toMatchObject({ type: 'number', minimum: 1, maximum: 10, default: 3.5 });
    expect(properties.video_quality).toMatchObject({ enum: ['low', 'medium', 'high', 'maximum'], default: 'high' });
    expect(properties.seed).toMatchObject({ type: ['integer', 'null'], minimum: 0 });
    expect(properties.seed).not.toHaveProperty('default');
  });

  it('refers only to schemas that it has', () => {
    const document = openapiDocument() as { components: { schemas: object } };
    const names = [...JSON.stringify(document).matchAll(/#\/components\/schemas\/(\w+)/g)].map((match) => match[1]);
    expect(names.length).toBeGreaterThan(5);
    for (const name of names) expect(document.components.schemas).toHaveProperty(name!);
  });
});
