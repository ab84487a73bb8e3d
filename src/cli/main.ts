import { Command, CommanderError } from 'commander';
import { messageOf, ZoetropeError } from '../errors';
import { calibrateCommand } from './calibrate';
import { generateCommand } from './generate';
import { importCommand } from './import';
import { inspectCommand } from './inspect';
import { packageVersion } from './installation';
import { planCommand } from './plan';
import { serveCommand } from './serve';
import { verifyCommand } from './verify';

export { serveSlices } from './convert-pool';

/** The `zoetrope` command. */

/** What shells expect of a program that an interrupt ended: 128 + SIGINT. */
const INTERRUPTED = 130;

/** Every error as one of ours. Commander's own complaints are about what was asked for. */
export function typed(error: unknown): ZoetropeError {
  if (error instanceof ZoetropeError) return error;
  if (error instanceof CommanderError) {
    return new ZoetropeError('bad-request', error.message.replace(/^error: /, ''), { cause: error });
  }
  return new ZoetropeError('internal', messageOf(error), { cause: error });
}

/** An error as a person reads it, or as JSON. */
export function errorText({ code, message, detail }: ZoetropeError, json: boolean): string {
  if (json) return JSON.stringify({ error: { code, message, detail } }, null, 2);
  return `zoetrope: ${message} (${code})`;
}

/** This module where it is built, for threads to load; Node cannot load the sources. */
function builtScript(): URL | undefined {
  return import.meta.url.endsWith('.js') ? new URL(import.meta.url) : undefined;
}

/** Runs the command line and sets the exit code: 0, 1 after an error, 130 after an interrupt. */
export async function main(args: readonly string[]): Promise<void> {
  const program = new Command('zoetrope')
    .description('Text to video in a browser: Wan 2.2 on WebGPU')
    .version(packageVersion());
  const commands = [
    generateCommand(),
    planCommand(),
    importCommand(builtScript()),
    inspectCommand(),
    calibrateCommand(),
    verifyCommand(),
    serveCommand(),
  ];
  for (const command of commands) program.addCommand(command);
  for (const command of [program, ...program.commands]) {
    command.exitOverride().configureOutput({ outputError: () => undefined });
  }
  try {
    await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    // Help and the version are printed by then.
    if (error instanceof CommanderError && error.exitCode === 0) return;
    if (error instanceof CommanderError && error.code === 'commander.help') {
      process.exitCode = 1;
      return;
    }
    const failure = typed(error);
    const json = ['generate', 'inspect', 'plan'].includes(args[0] ?? '') && args.includes('--json');
    (json ? process.stdout : process.stderr).write(`${errorText(failure, json)}\n`);
    process.exitCode = failure.code === 'aborted' ? INTERRUPTED : 1;
  }
}
