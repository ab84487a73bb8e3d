import { statSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { Command } from 'commander';
import { ZoetropeError } from '../errors';
import { isModelFolder, modelsFolder, pageFolder } from './installation';
import { type ServerOptions, type StaticServer, startServer } from './server';

/** Port of `zoetrope serve` when none is named; any free one where it is taken. */
const DEFAULT_PORT = 8080;

/** What `zoetrope serve` takes. */
export interface ServeArguments {
  /** A model folder, or a folder of model folders. Default: the models that come with the package. */
  folder?: string;
  port?: number;
  host: string;
}

/**
 * The page at `/` and models below `/models/`; a single model goes by the name of its folder. `model` is its URL,
 * relative. Throws `unreadable-source` where there is no such folder.
 */
export function servedFolders(folder: string | undefined): { folders: Record<string, string>; model?: string } {
  const models = folder === undefined ? undefined : resolve(folder);
  if (models !== undefined && !statSync(models, { throwIfNoEntry: false })?.isDirectory()) {
    throw new ZoetropeError('unreadable-source', `${models} is no folder. Name a model folder, or a folder of them.`);
  }
  const folders = { '/': pageFolder(), '/models/': modelsFolder() };
  if (models === undefined) return { folders };
  if (!isModelFolder(models)) return { folders: { ...folders, '/models/': models } };
  const model = `models/${encodeURIComponent(basename(models))}/`;
  return { folders: { ...folders, [`/models/${basename(models)}/`]: models }, model };
}

/** Starts the server and tells its address. */
export async function runServe({ folder, port, host }: ServeArguments): Promise<StaticServer> {
  const { folders, model } = servedFolders(folder);
  const server = await listen({ folders, host, cors: true }, port);
  console.log(`Zoetrope: ${server.url}${model === undefined ? '' : `?model=${model}`}`);
  return server;
}

async function listen(options: ServerOptions, port: number | undefined): Promise<StaticServer> {
  try {
    return await startServer({ ...options, port: port ?? DEFAULT_PORT });
  } catch (error) {
    const taken = ((error as Error).cause as NodeJS.ErrnoException | undefined)?.code === 'EADDRINUSE';
    if (port !== undefined || !taken) throw error;
    return startServer(options);
  }
}

/** The `serve` command. It runs until it is interrupted. */
export function serveCommand(): Command {
  return new Command('serve')
    .description('Serve the page and models, with byte ranges and for pages of other origins')
    .argument('[folder]', 'a model folder or a folder of them; default: the models of this package')
    .option('--port <number>', `port; default ${DEFAULT_PORT}, or a free one where it is taken`, portNumber)
    .option('--host <address>', 'address to listen on; 0.0.0.0 opens it to the network', '127.0.0.1')
    .action(async (folder: string | undefined, options: Omit<ServeArguments, 'folder'>) => {
      await runServe(folder === undefined ? options : { ...options, folder });
    });
}

function portNumber(text: string): number {
  if (/^\d{1,5}$/.test(text) && Number(text) < 65536) return Number(text);
  throw new ZoetropeError('bad-request', `--port is a whole number from 0 to 65535, got ${JSON.stringify(text)}.`);
}
