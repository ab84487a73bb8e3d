import { execFileSync } from 'node:child_process';
import { resolve } from 'node:path';

/** Builds the page, the library and the command once before the tests that use them. */
export default function buildPage(): void {
  const root = resolve(import.meta.dirname, '../..');
  const vite = resolve(root, 'node_modules/vite/bin/vite.js');
  for (const mode of ['production', 'library', 'cli']) {
    execFileSync(process.execPath, [vite, 'build', '--mode', mode, '--logLevel', 'warn'], {
      cwd: root,
      stdio: ['ignore', 'inherit', 'inherit'],
      env: { ...process.env, NODE_ENV: 'production' }, // a test run's own value would build for development
    });
  }
}
