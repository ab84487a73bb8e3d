#!/usr/bin/env node
// Starts the built command, and builds it first in a checkout where that has not happened yet.
import { execSync } from 'node:child_process';
import { existsSync } from 'node:fs';

const built = new URL('../dist/cli/main.js', import.meta.url);
const page = new URL('../dist/page/index.html', import.meta.url);
if (!existsSync(built) || !existsSync(page)) {
  execSync('npm run build', { cwd: new URL('..', import.meta.url), stdio: ['ignore', 2, 2] });
}
const { main } = await import(built.href);
await main(process.argv.slice(2));
