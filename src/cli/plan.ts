import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { Command, Option } from 'commander';
import { messageOf, ZoetropeError } from '../errors';
import type { PlannedModel } from '../plan';
import { type DeviceBudget, estimateBudget, GUARANTEED_LIMITS } from '../plan/device';
import { evenPace } from '../plan/pace';
import { reportPlan } from '../plan/report';
import type { PlanReport } from '../protocol';
import { type Request, resolveRequest } from '../request';
import { httpFolder } from '../store/http';
import { openModel } from '../store/verified';
import { diskFolder } from './files';
import { addRequestFlags, requestFromFlags } from './flags';
import { modelsFolder } from './installation';
import { MODEL_NAMES, type ModelName, namedModel } from './named-models';

/** `zoetrope plan`: what a request would take, told without a GPU and without weights. */

/** What `zoetrope plan` takes beside the request. */
export interface PlanArguments {
  /**
   * Model folder, URL of one, or the name of a released model, whose 4-bit import is assumed. Default: the demo model.
   */
  model?: string;
  /** GPU memory that a job may take, e.g. `8GiB`, `8GB` or a number of bytes. Default: what the library assumes. */
  budget?: string;
  /** `default`: what WebGPU guarantees; else a JSON file of a device's limits. */
  limits?: string;
  /** Operations a second, in TFLOP/s, that times are told for. Default: no times. */
  tflops?: number;
  /** Whether the device has half floats. Default true. */
  f16?: boolean;
}

/**
 * Plans a request. Throws `bad-request`, and what opening the model throws; a request that does not fit is reported,
 * not thrown.
 */
export async function runPlan(request: Request, args: PlanArguments): Promise<PlanReport> {
  const { tflops } = args;
  const limits: DeviceBudget = {
    ...(await readLimits(args.limits ?? 'default')),
    f16: args.f16 ?? true,
    cpu: false,
    budgetBytes: args.budget === undefined ? estimateBudget(undefined) : parseBytes(args.budget),
    ...(tflops !== undefined && { pace: evenPace(tflops * 1e12) }),
  };
  // Which interpolators lie beside the model is not looked up: any may be planned for.
  const parts = { film: true, rife: true, promptExpansion: true, safetyChecker: true };
  const resolved = resolveRequest(request, parts, () => 0);
  return reportPlan(resolved, await plannedModel(args.model), limits, `at ${tflops} TFLOP/s`);
}

async function plannedModel(model: string | undefined): Promise<PlannedModel> {
  if (MODEL_NAMES.includes(model as ModelName)) return namedModel(model as ModelName);
  const url = model !== undefined && /^https?:\/\//.test(model);
  const folder = url ? httpFolder(model) : diskFolder(resolve(model ?? `${modelsFolder()}/demo`));
  return (await openModel(folder)).manifest;
}

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  MB: 1e6,
  GB: 1e9,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
};

/** `8GiB`, `8 GB`, `8000000000`. Throws `bad-request` for anything else. */
export function parseBytes(text: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?)\s*([A-Za-z]*)$/.exec(text.trim()) ?? [];
  const factor = UNITS[unit ?? 'none'];
  const bytes = Math.floor(Number(number) * (factor ?? Number.NaN));
  if (bytes > 0 && Number.isSafeInteger(bytes)) return bytes;
  throw new ZoetropeError(
    'bad-request',
    `A budget is a number above 0 with MB, MiB, GB or GiB, e.g. 8GiB, got "${text}".`,
  );
}

/** Limits of `default`, or of a JSON file that holds an adapter's: those that it lacks are WebGPU's. */
async function readLimits(source: string): Promise<Pick<DeviceBudget, keyof typeof GUARANTEED_LIMITS>> {
  if (source === 'default') return GUARANTEED_LIMITS;
  let given: Partial<Record<string, unknown>>;
  try {
    given = JSON.parse(await readFile(source, 'utf8'));
    if (typeof given !== 'object' || given === null || Array.isArray(given))
      throw new TypeError('it is no JSON object');
  } catch (cause) {
    throw new ZoetropeError('unreadable-source', `${source} holds no limits: ${messageOf(cause)}.`, { cause });
  }
  const limit = (name: keyof typeof GUARANTEED_LIMITS): number => {
    const value = given[name] ?? GUARANTEED_LIMITS[name];
    if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0) return value;
    throw new ZoetropeError('bad-request', `${source}: ${name} is a number of bytes above 0, got ${value}.`);
  };
  return {
    maxStorageBufferBindingSize: limit('maxStorageBufferBindingSize'),
    maxBufferSize: limit('maxBufferSize'),
  };
}

interface PlanFlags extends Omit<PlanArguments, 'tflops'> {
  tflops?: string;
  json?: boolean;
}

/** The `plan` command. Ends with exit code 0 also where the request does not fit: that is an answer. */
export function planCommand(): Command {
  const command = new Command('plan')
    .description('Tell what a request would take in GPU memory and time, without a GPU')
    .option('--model <folder, URL or name>', `model; ${MODEL_NAMES.join(', ')} are the released ones in 4 bits`)
    .option('--budget <bytes>', 'GPU memory that a job may take, e.g. 8GiB (default: 8 GB)')
    .option('--limits <default or file>', 'what the device binds: WebGPU’s guaranteed limits, or JSON', 'default')
    .option('--tflops <number>', 'speed in TFLOP/s that times are told for; without it none are')
    .addOption(new Option('--no-f16', 'a device without half floats'))
    .option('--json', 'print everything as JSON')
    .allowUnknownOption()
    .allowExcessArguments();
  return addRequestFlags(command).action(async (flags: PlanFlags & Record<string, unknown>) => {
    const request = requestFromFlags({ prompt: '', ...flags }, command.args);
    const { tflops: speed, json, ...args } = flags;
    const tflops = speed === undefined ? undefined : Number(speed);
    if (tflops !== undefined && !(tflops > 0 && Number.isFinite(tflops))) {
      throw new ZoetropeError('bad-request', `--tflops is a number above 0, got "${speed}".`);
    }
    const report = await runPlan(request, { ...args, ...(tflops !== undefined && { tflops }) });
    console.log(json ? JSON.stringify(report, null, 2) : report.explanation);
  });
}
