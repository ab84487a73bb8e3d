import { execFileSync } from 'node:child_process';
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { brotliDecompressSync } from 'node:zlib';
import type { Browser } from 'playwright-core';
import { messageOf, ZoetropeError } from '../errors';

/** Finds a Chromium with WebGPU and a video encoder, and starts it without a window. */

/** A program and the environment that it needs. */
export interface BrowserProgram {
  path: string;
  env: Record<string, string>;
}

/** Where Chrome, Chromium and Edge are usually installed, best first. */
export function usualPaths(platform: NodeJS.Platform, env: NodeJS.ProcessEnv): string[] {
  if (platform === 'darwin') {
    return ['/Applications', join(env.HOME ?? '', 'Applications')].flatMap((folder) =>
      ['Google Chrome', 'Chromium', 'Microsoft Edge'].map((name) => `${folder}/${name}.app/Contents/MacOS/${name}`),
    );
  }
  if (platform === 'win32') {
    const folders = [env.PROGRAMFILES, env['PROGRAMFILES(X86)'], env.LOCALAPPDATA].filter((path) => path !== undefined);
    return ['Google\\Chrome\\Application\\chrome.exe', 'Microsoft\\Edge\\Application\\msedge.exe'].flatMap((path) =>
      folders.map((folder) => `${folder}\\${path}`),
    );
  }
  const folders = (env.PATH ?? '').split(':').filter((path) => path.startsWith('/'));
  const names = ['google-chrome', 'google-chrome-stable', 'chromium', 'chromium-browser', 'microsoft-edge'];
  return names.flatMap((name) => [...new Set([...folders, '/usr/bin', '/snap/bin'])].map((path) => `${path}/${name}`));
}

/**
 * The browser to use: `CHROME_PATH`, else an installed one, else the one in the npm package `@sparticuz/chromium`.
 * Throws `unsupported-device` that says how to get one.
 * @param bundledFirst prefers the package's browser to installed ones, so that tests run the same one everywhere.
 */
export async function findBrowser(bundledFirst = false): Promise<BrowserProgram> {
  const named = process.env.CHROME_PATH;
  if (named) {
    if (runnable(named)) return { path: named, env: {} };
    throw new ZoetropeError('unsupported-device', `CHROME_PATH is ${named}, which is no program that can be started.`);
  }
  const installed = () => {
    const path = usualPaths(process.platform, process.env).find(runnable);
    return path === undefined ? undefined : { path, env: {} };
  };
  const found = bundledFirst ? ((await bundledBrowser()) ?? installed()) : (installed() ?? (await bundledBrowser()));
  if (found) return found;
  throw new ZoetropeError(
    'unsupported-device',
    'No Chrome, Chromium or Edge was found. Install one, name its program in CHROME_PATH, or on Linux x64 run ' +
      '`npm install @sparticuz/chromium`.',
  );
}

function runnable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * Unpacks the browser of `@sparticuz/chromium` once per version, 210 MB; undefined where there is none for this
 * machine.
 */
async function bundledBrowser(): Promise<BrowserProgram | undefined> {
  if (process.platform !== 'linux' || process.arch !== 'x64') return undefined;
  let archives: string;
  let version: string;
  try {
    const main = createRequire(import.meta.url).resolve('@sparticuz/chromium');
    archives = join(dirname(main), '../bin');
    version = JSON.parse(readFileSync(join(dirname(main), '../package.json'), 'utf8')).version;
  } catch {
    return undefined;
  }
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'zoetrope');
  const folder = join(cache, `chromium-${version}`);
  try {
    if (!existsSync(folder)) unpack(archives, cache, folder);
    return { path: join(folder, 'chromium'), env: libraryPath(folder) };
  } catch (cause) {
    throw new ZoetropeError(
      'unsupported-device',
      `The browser could not be unpacked to ${folder}: ${messageOf(cause)}`,
      {
        cause,
      },
    );
  }
}

/**
 * Unpacks beside the goal and renames, so that two starts at once, or one that is interrupted, leave a whole browser.
 */
function unpack(archives: string, cache: string, folder: string): void {
  mkdirSync(cache, { recursive: true });
  const part = mkdtempSync(`${folder}.`);
  try {
    const inflate = (name: string) => brotliDecompressSync(readFileSync(join(archives, `${name}.br`)));
    writeFileSync(join(part, 'chromium'), inflate('chromium'), { mode: 0o755 });
    for (const name of ['swiftshader.tar', 'al2023.tar']) {
      execFileSync('tar', ['xf', '-', '-C', part], { input: inflate(name) });
    }
    renameSync(part, folder);
  } catch (error) {
    rmSync(part, { recursive: true, force: true });
    if (!existsSync(folder)) throw error; // else another start was faster
  }
}

/** The archive's copies of NSS and expat are for machines without them; the system's own are newer. */
function libraryPath(folder: string): Record<string, string> {
  const report = execFileSync('ldd', [join(folder, 'chromium')], { encoding: 'utf8' });
  if (!report.includes('not found')) return {};
  return { LD_LIBRARY_PATH: [join(folder, 'lib'), process.env.LD_LIBRARY_PATH].filter(Boolean).join(':') };
}

/**
 * Arguments for Chromium. WebGPU is off by default in headless and Linux builds; with it on, Chromium takes a GPU where
 * it finds one and its own SwiftShader elsewhere.
 */
export function browserArguments(platform: NodeJS.Platform): string[] {
  const shared = [
    '--enable-unsafe-webgpu',
    '--ignore-gpu-blocklist',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--no-first-run',
    '--disable-quic',
  ];
  // WebGPU on Linux is Vulkan, which is off by default and needs no surface here.
  return platform === 'linux' ? [...shared, '--enable-features=Vulkan', '--disable-vulkan-surface'] : shared;
}

/**
 * Starts a browser without a window. Throws `unsupported-device` that says what is missing.
 * @param further arguments beside {@link browserArguments}.
 */
export async function startBrowser(program: BrowserProgram, further: readonly string[] = []): Promise<Browser> {
  const { chromium } = await import('playwright-core').catch((cause) => {
    throw new ZoetropeError('unsupported-device', 'playwright-core is missing. Run `npm install playwright-core`.', {
      cause,
    });
  });
  try {
    return await chromium.launch({
      executablePath: program.path,
      args: [...browserArguments(process.platform), ...further],
      env: { ...process.env, ...program.env } as Record<string, string>,
      // On Linux the sandbox needs user namespaces, which root, containers and some distributions do not have; the only
      // page that is opened is our own.
      chromiumSandbox: process.platform !== 'linux',
      // An interrupt cancels the job first, see `generate`.
      handleSIGINT: false,
      handleSIGTERM: false,
      handleSIGHUP: false,
    });
  } catch (cause) {
    throw new ZoetropeError('unsupported-device', `${program.path} did not start: ${messageOf(cause)}`, { cause });
  }
}
