import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { fieldTable, openapiDocument } from '../src/fal/openapi';

/** npm run openapi: writes public/openapi.json, and the table of fields in docs/api.md, from the request's schema. */

const root = resolve(import.meta.dirname, '..');
writeFileSync(resolve(root, 'public/openapi.json'), `${JSON.stringify(openapiDocument(), undefined, 2)}\n`);
const path = resolve(root, 'docs/api.md');
const page = readFileSync(path, 'utf8');
const [begin, end] = ['<!-- fields: npm run openapi -->\n', '\n<!-- end of fields -->'];
if (!page.includes(begin) || !page.includes(end)) throw new Error(`docs/api.md lacks the marks round its table.`);
writeFileSync(path, page.slice(0, page.indexOf(begin) + begin.length) + fieldTable() + page.slice(page.indexOf(end)));
