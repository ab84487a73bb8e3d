import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { ZoetropeError } from '../errors';
import { MANIFEST_FILE } from '../manifest';

/** Where this package keeps its page and its models. */

/** Root of the package: two folders above this module, both in `src/cli` and in `dist/cli`. */
export const packageRoot = resolve(import.meta.dirname, '../..');

/** Version of the package, e.g. `0.1.0`. */
export function packageVersion(): string {
  return JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')).version;
}

/** The built page. Throws `unreadable-source` when it is not built. */
export function pageFolder(): string {
  const folder = join(packageRoot, 'dist/page');
  if (existsSync(join(folder, 'index.html'))) return folder;
  throw new ZoetropeError(
    'unreadable-source',
    `The page is not built: ${folder} has no index.html. Run npm run build.`,
  );
}

/**
 * Folder of the models that come with the package: the repository's own where there is one, else the built page's copy.
 */
export function modelsFolder(): string {
  const own = join(packageRoot, 'public/models');
  return existsSync(own) ? own : join(packageRoot, 'dist/page/models');
}

/** Whether a folder is a model, i.e. holds a manifest. */
export function isModelFolder(folder: string): boolean {
  return existsSync(join(folder, MANIFEST_FILE));
}
