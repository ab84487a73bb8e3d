import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { join, posix, resolve } from 'node:path';
import { parseSync } from 'vite';
import { describe, expect, it } from 'vitest';

/**
 * Imports go one way. Each line may import from the lines above it and from its own module (a folder, or a file at the
 * top of src); members of the first line also from each other.
 */
const BRACKETS = [
  ['src/errors', 'src/floats', 'src/protocol', 'src/request', 'src/shape', 'src/config', 'src/manifest', 'src/part'],
  ['src/onnx', 'src/gpu'],
  ['kernels', 'src/checkpoint', 'src/store'],
  ['src/text', 'src/diffusion', 'src/vae', 'src/interpolate', 'src/video', 'src/safety', 'src/expansion'],
  ['src/plan'],
  ['src/import'],
  ['src/progress', 'src/probe'],
  ['src/pipeline', 'src/fal'],
  ['src/model', 'src/recovery', 'src/calibration'],
  ['workers'],
  ['src/client'],
  ['src/index'],
  ['src/app', 'src/cli'],
];

const ROOT = resolve(import.meta.dirname, '../..');

/** One import of a file: a path of the repository without its ending, or the name of a package. */
interface Import {
  from: string;
  specifier: string;
  /** Repository path of a relative import. */
  file: string | undefined;
}

/** Static and dynamic imports and re-exports of a source, types included, with what they name. */
function specifiersOf(path: string, source: string): string[] {
  const { module, errors } = parseSync(path, source);
  if (errors.length > 0) throw new Error(`${path} does not parse: ${errors[0]?.message}`);
  const reexported = module.staticExports.flatMap(({ entries }) => entries.map((entry) => entry.moduleRequest?.value));
  const dynamic = module.dynamicImports.map(({ moduleRequest: { start, end } }) =>
    literal(path, source.slice(start, end)),
  );
  const typed = [...source.matchAll(/\bimport\((['"])([^'"]+)\1\)/g)].map((match) => match[2]!);
  const all = [...module.staticImports.map((entry) => entry.moduleRequest.value), ...reexported, ...dynamic, ...typed];
  return [...new Set(all.filter((specifier) => specifier !== undefined))];
}

/** The text of `import('…')`; a computed one cannot be checked. */
function literal(path: string, expression: string): string {
  const match = expression.match(/^(['"`])([^'"`$]+)\1$/);
  if (!match) throw new Error(`${path} imports ${expression}: an import names its module as a literal.`);
  return match[2]!;
}

function importsOf(path: string, source: string): Import[] {
  return specifiersOf(path, source).map((specifier) => {
    const bare = specifier.replace(/\?.*$/, '');
    const relative = bare.startsWith('.');
    return { from: path, specifier, file: relative ? posix.join(posix.dirname(path), bare) : undefined };
  });
}

/** The member of a bracket that a file belongs to, e.g. `src/gpu` of `src/gpu/ort.ts`; undefined outside all. */
function moduleOf(file: string): string | undefined {
  const path = file.replace(/\.(ts|tsx|wgsl|css|json)$/, '');
  return BRACKETS.flat().find((member) => path === member || path.startsWith(`${member}/`));
}

/** Why an import is against the rules, or undefined. */
function violation({ from, specifier, file }: Import): string | undefined {
  const here = moduleOf(from);
  if (here === undefined) return `${from} is in no bracket of the architecture`;
  if (file === undefined) {
    if (isBuiltin(specifier) && here !== 'src/cli') return `${from} imports ${specifier} outside src/cli`;
    const muxer = specifier === 'mp4-muxer' || specifier.startsWith('mp4-muxer/');
    if (muxer && from !== 'src/video/mp4.ts') return `${from} imports ${specifier}, only src/video/mp4.ts may`;
    return undefined;
  }
  const there = moduleOf(file);
  if (there === undefined) return `${from} imports ${file}, which is in no bracket of the architecture`;
  if (here === there) return undefined;
  const level = (member: string) => BRACKETS.findIndex((bracket) => bracket.includes(member));
  if (level(there) < level(here) || (level(here) === 0 && level(there) === 0)) return undefined;
  return `${from} imports ${file}: ${here} may not see ${there}`;
}

/** Import rings as `a -> b -> a`, each file at most once. */
function rings(imports: readonly Import[]): string[] {
  const targets = new Map<string, string[]>();
  for (const { from, file } of imports) {
    const name = from.replace(/\.tsx?$/, '');
    targets.set(name, [...(targets.get(name) ?? []), ...(file === undefined ? [] : [file.replace(/\.tsx?$/, '')])]);
  }
  const done = new Set<string>();
  const found: string[] = [];
  const visit = (file: string, trail: readonly string[]): void => {
    const begin = trail.indexOf(file);
    if (begin >= 0) found.push([...trail.slice(begin), file].join(' -> '));
    if (begin >= 0 || done.has(file)) return;
    for (const next of targets.get(file) ?? []) visit(next, [...trail, file]);
    done.add(file);
  };
  for (const file of targets.keys()) visit(file, []);
  return found;
}

/** TypeScript files of the shipped folders by repository path. */
function sources(): Map<string, string> {
  const found = new Map<string, string>();
  const read = (folder: string): void => {
    for (const entry of readdirSync(join(ROOT, folder), { withFileTypes: true })) {
      const path = `${folder}/${entry.name}`;
      if (entry.isDirectory()) read(path);
      else if (/\.tsx?$/.test(path)) found.set(path, readFileSync(join(ROOT, path), 'utf8'));
    }
  };
  for (const folder of ['src', 'workers', 'kernels']) if (existsSync(join(ROOT, folder))) read(folder);
  return found;
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}

describe('the sources', () => {
  const files = sources();
  const imports = [...files].flatMap(([path, source]) => importsOf(path, source));

  it('are found', () => {
    expect(files.has('src/errors.ts')).toBe(true);
    expect(imports.some(({ from, file }) => from === 'src/gpu/ort.ts' && file === 'src/errors')).toBe(true);
  });

  it('import only to the left, node: only in src/cli, mp4-muxer only in src/video/mp4.ts', () => {
    expect(imports.map(violation).filter((problem) => problem !== undefined)).toEqual([]);
  });

  it('each belong to a bracket', () => {
    expect([...files.keys()].filter((path) => moduleOf(path) === undefined)).toEqual([]);
  });

  // No folder stands for its index file: the rings below are found by file names.
  it('import files by their names', () => {
    const missing = imports.filter(
      ({ file }) => file && !['', '.ts', '.tsx'].some((ending) => isFile(join(ROOT, file + ending))),
    );
    expect(missing).toEqual([]);
  });

  it('have no import rings', () => {
    expect(rings(imports)).toEqual([]);
  });
});

describe('the rules', () => {
  const problem = (from: string, source: string) => importsOf(from, source).map(violation);

  it.each([
    ['src/gpu/device.ts', "import { f } from '../onnx/graph'"],
    ['src/onnx/graph.ts', "import type { Gpu } from '../gpu/device'"],
    ['src/text/umt5.ts', "export { f } from '../vae/decoder'"],
    ['src/text/umt5.ts', "export * from '../vae/decoder'"],
    ['src/text/umt5.ts', "const f = await import('../vae/decoder')"],
    ['src/text/umt5.ts', "type F = import('../vae/decoder').F;"],
    ['src/text/umt5.ts', "import '../vae/decoder'"],
    ['kernels/combine.ts', "import { f } from '../src/store/opfs'"],
    ['src/store/opfs.ts', "import source from '../../kernels/combine.wgsl?raw'"],
    ['src/request.ts', "import { f } from './plan'"],
    ['src/plan.ts', "import { f } from './pipeline'"],
    ['src/index.ts', "import { f } from './app/page'"],
    ['src/app/page.ts', "import { f } from '../cli/serve'"],
    ['src/gpu/device.ts', "import { f } from '../../test/harness/dawn'"],
    ['src/gpu/device.ts', "import { readFile } from 'node:fs/promises'"],
    ['workers/engine.ts', "import 'node:fs'"],
    ['workers/engine.ts', "import 'fs'"],
    ['src/video/encode.ts', "import { Muxer } from 'mp4-muxer'"],
    ['src/gpu/device.ts', "const muxer = await import('mp4-muxer/build/mp4-muxer.mjs')"],
    ['src/stray.ts', "import { f } from './errors'"],
  ])('refuse, in %s: %s', (from, source) => {
    expect(problem(from, source)).toEqual([expect.stringContaining(from)]);
  });

  it.each([
    ['src/request.ts', "import { ZoetropeError } from './errors'"],
    ['src/gpu/ort.ts', "import { f } from './memory'"],
    ['kernels/combine.ts', "import { f } from '../src/gpu/kernel'; import source from './combine.wgsl?raw'"],
    ['src/vae/stream.ts', "import { f } from '../../kernels/i420'"],
    ['src/plan.ts', "import { f } from './diffusion/dit'"],
    ['workers/engine.ts', "import { f } from '../src/pipeline'"],
    ['src/cli/serve.ts', "import { f } from '../index'; import { readFile } from 'node:fs/promises'"],
    ['src/video/mp4.ts', "import { Muxer } from 'mp4-muxer'"],
    ['src/gpu/ort.ts', "// import { f } from '../onnx/graph'\nconst text = \"import '../onnx/graph'\";"],
  ])('allow, in %s: %s', (from, source) => {
    expect(problem(from, source).filter((each) => each !== undefined)).toEqual([]);
  });

  it('find rings of two and three files and no others', () => {
    const imports = [
      ...importsOf('src/gpu/a.ts', "import './b'; import './d'"),
      ...importsOf('src/gpu/b.ts', "import type { C } from './c'; import './d'"),
      ...importsOf('src/gpu/c.ts', "import './a'"),
      ...importsOf('src/gpu/d.ts', "import './e'"),
      ...importsOf('src/gpu/e.ts', "import './d'"),
    ];
    expect(rings(imports)).toEqual([
      'src/gpu/a -> src/gpu/b -> src/gpu/c -> src/gpu/a',
      'src/gpu/d -> src/gpu/e -> src/gpu/d',
    ]);
  });

  it('refuse an import that is computed', () => {
    expect(() => importsOf('src/gpu/a.ts', 'import(name)')).toThrow('literal');
  });
});
