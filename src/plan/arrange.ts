import type { Manifest } from '../manifest';
import {
  type LivingBuffers,
  type PlannedBuffers,
  passBuffers,
  residualBuffers,
  type StageName,
  sumBytes,
  textKeyBuffers,
} from './buffers';
import { type DecodeChoice, type DecodeTask, decodeChoice } from './decode';
import { bindingLimit, type DeviceBudget } from './device';
import { type Arrangement, FEWEST_SLOTS, heldBytes, modelBytes, STREAM_SLOTS, type WeightBytes } from './residency';
import { largestText, passScratch, textScratch } from './scratch';
import {
  attentionType,
  chunkLength,
  fitsBindings,
  groupHeads,
  groupsPerSweep,
  type Measures,
  NO_MEASURES,
  type Sequence,
} from './transformer';

/** What is arranged. */
export interface Task {
  manifest: Pick<Manifest, 'dit' | 'umt5' | 'components'>;
  sequence: Sequence;
  decode: DecodeTask;
  /** Experts that the schedule uses, in their order, and how many of the prompts each reads. */
  experts: readonly { name: 'high' | 'low'; prompts: number }[];
  /** Tokens of each prompt that is encoded. */
  promptRows: readonly number[];
  /** Guidance branches whose residuals are kept for steps that reuse them, 0 to 2. */
  residualBranches: number;
  /** Latents that solver and passes hold, and bytes of one. */
  latents: number;
  latentBytes: number;
}

/** How a job is held in memory. */
export interface Arranged extends Arrangement {
  /** What the passes give up. */
  measures: Measures;
  decode: DecodeChoice;
  /** Everything that the GPU holds, and when. */
  buffers: LivingBuffers[];
}

/** A task that does not fit, and what it would take: Infinity where a single tensor exceeds the device's bindings. */
export interface Shortfall {
  leastBytes: number;
}

/**
 * What passes give up where memory is short, from the cheapest on: long chunks; text keys that are kept, which takes
 * half a percent at 720p; one sweep over the weights for both guidance branches, which doubles what is streamed; and
 * one projection of keys and values, which takes a twentieth for each further sweep and saves memory with f32 operands
 * only.
 */
const MEASURES: readonly Measures[] = [
  NO_MEASURES,
  { ...NO_MEASURES, mostChunkTokens: 1024 },
  { ...NO_MEASURES, mostChunkTokens: 1024, textKeys: 'each-block' },
  { ...NO_MEASURES, mostChunkTokens: 256, textKeys: 'each-block' },
  ...[1, 4, 8].flatMap((sweeps): Measures[] => [
    { mostChunkTokens: 1024, textKeys: 'each-block', branchOrder: 'branch-major', sweeps },
    { mostChunkTokens: 256, textKeys: 'each-block', branchOrder: 'branch-major', sweeps },
  ]),
];

/** Weights of the experts, from the most comfortable on. `all` is tried before. */
const RESIDENCIES = [
  { residency: 'one', slots: STREAM_SLOTS },
  { residency: 'streamed', slots: STREAM_SLOTS },
  { residency: 'streamed', slots: FEWEST_SLOTS },
] as const;

const NOTHING: WeightBytes = { total: 0, outside: 0, block: 0, blocks: 0, largest: 0 };

/**
 * The fastest arrangement within bindings and budget. Everything stays where everything fits; otherwise each stage
 * makes room for the next and takes the cheapest measures that suffice: streamed weights cost next to nothing, short
 * chunks little, tiles some, and one guidance branch after the other the weights a second time.
 */
export function arrange(task: Task, limits: DeviceBudget): Arranged | Shortfall {
  const { manifest, sequence } = task;
  if (!fitsBindings(manifest.dit, sequence, limits)) return { leastBytes: Number.POSITIVE_INFINITY };
  const bytes = modelBytes(manifest.components);
  const whole = everything(task, limits, bytes);
  if (whole) return whole;

  const text = chooseText(task, limits, bytes.text_encoder ?? NOTHING);
  const pass = choosePass(task, limits, bytes);
  const decode = decodeChoice(task.decode, limits.budgetBytes - task.latentBytes);
  if ('leastBytes' in text || 'leastBytes' in pass || 'leastBytes' in decode) {
    const least = (found: object | Shortfall) => ('leastBytes' in found ? found.leastBytes : 0);
    return { leastBytes: Math.max(least(text), least(pass), least(decode) + task.latentBytes) };
  }
  const { residency, slots, measures } = pass;
  return {
    residency,
    slots,
    textSlots: text.slots,
    measures,
    decode,
    buffers: [
      ...living('text', 'text', [...text.weights, ...text.buffers]),
      ...task.experts.flatMap((expert) => [
        ...living(expert.name, expert.name, pass.weights(expert.name)),
        ...living(expert.name, expert.name, workOf(task, limits, measures, expert)),
      ]),
      ...living('decode', 'decode', [latentsOf(task)]),
      ...living('decode', 'decode', [...decode.weights, ...decode.buffers]),
    ],
  };
}

/** All weights on the GPU at once, and every stage at its fastest; undefined where that does not fit. */
function everything(task: Task, limits: DeviceBudget, bytes: ReturnType<typeof modelBytes>): Arranged | undefined {
  const decode = decodeChoice(task.decode, Number.POSITIVE_INFINITY);
  if ('leastBytes' in decode) return undefined;
  const weights = [
    ...weightBuffers('text encoder', bytes.text_encoder, null, limits),
    ...weightBuffers('high-noise expert', bytes.high, null, limits),
    ...weightBuffers('low-noise expert', bytes.low, null, limits),
    ...decode.weights,
  ];
  const buffers = [
    ...living('text', 'decode', weights),
    ...living('text', 'text', textBuffers(task, limits)),
    ...task.experts.flatMap((expert) => living(expert.name, expert.name, workOf(task, limits, NO_MEASURES, expert))),
    ...living('decode', 'decode', [latentsOf(task)]),
    ...living('decode', 'decode', decode.buffers),
  ];
  const peak = Math.max(...STAGES.map((stage) => sumBytes(buffersOf(buffers, stage))));
  if (peak > limits.budgetBytes) return undefined;
  return { residency: 'all', slots: STREAM_SLOTS, textSlots: null, measures: NO_MEASURES, decode, buffers };
}

/** Whether the text encoder is whole or streamed. */
function chooseText(task: Task, limits: DeviceBudget, bytes: WeightBytes) {
  const buffers = textBuffers(task, limits);
  let leastBytes = Number.POSITIVE_INFINITY;
  for (const slots of [null, STREAM_SLOTS, FEWEST_SLOTS]) {
    const weights = weightBuffers('text encoder', bytes, slots, limits);
    leastBytes = sumBytes(weights) + sumBytes(buffers);
    if (leastBytes <= limits.budgetBytes) return { slots, weights, buffers };
  }
  return { leastBytes };
}

/** What the text encoder works in. */
function textBuffers({ manifest, promptRows }: Task, limits: DeviceBudget): PlannedBuffers[] {
  const bytes = textScratch(manifest, promptRows, bindingLimit(limits));
  const largestBytes = Math.min(bytes, largestText(manifest.umt5, promptRows));
  return [{ name: 'text', count: 3 * promptRows.length, bytes, largestBytes }];
}

/** How an expert's weights and activations are held. */
function choosePass(task: Task, limits: DeviceBudget, bytes: ReturnType<typeof modelBytes>) {
  let leastBytes = Number.POSITIVE_INFINITY;
  const holdings = RESIDENCIES.map(({ residency, slots }) => {
    const weights = (expert: 'high' | 'low') =>
      weightBuffers(`${expert}-noise expert`, bytes[expert], residency === 'one' ? null : slots, limits);
    return { residency, slots, weights, heldBytes: task.experts.map(({ name }) => sumBytes(weights(name))) };
  });
  for (const measures of MEASURES) {
    const works = task.experts.map((expert) => sumBytes(workOf(task, limits, measures, expert)));
    for (const { heldBytes: held, ...holding } of holdings) {
      const peak = Math.max(...works.map((bytes, index) => bytes + held[index]!));
      leastBytes = Math.min(leastBytes, peak);
      if (peak <= limits.budgetBytes) return { ...holding, measures };
    }
  }
  return { leastBytes };
}

/** What an expert works in. */
function workOf(
  task: Task,
  limits: DeviceBudget,
  { mostChunkTokens, textKeys, branchOrder, sweeps }: Measures,
  { name, prompts }: Task['experts'][number],
): PlannedBuffers[] {
  const { sequence, promptRows, latents, latentBytes, residualBranches } = task;
  const { dit } = task.manifest;
  const { tokens, latentFrames, latentHeight, latentWidth } = sequence;
  const type = attentionType(limits);
  const headsOfGroup = groupHeads(dit, tokens, limits);
  const cut = {
    tokens,
    grid: [latentFrames, latentHeight / 2, latentWidth / 2] as const,
    type,
    chunkTokens: chunkLength(dit, tokens, limits, mostChunkTokens),
    groupHeads: headsOfGroup,
    groupsPerSweep: groupsPerSweep(dit, headsOfGroup, sweeps),
    streams: branchOrder === 'branch-major' ? 1 : promptRows.length,
  };
  const rows = promptRows.slice(0, prompts);
  const scratch = passScratch(task.manifest, name, cut.chunkTokens, rows, bindingLimit(limits));
  return [
    ...passBuffers(dit, cut, latents, latentBytes),
    ...residualBuffers(dit, cut, residualBranches),
    ...textKeyBuffers(dit, { type, textKeys }, rows, latentBytes),
    {
      name: 'scratch of graphs',
      count: 1,
      bytes: scratch,
      largestBytes: Math.min(scratch, cut.chunkTokens * 4 * Math.max(dit.dim, dit.ffnDim)),
    },
  ];
}

/** The finished latents. */
function latentsOf({ latentBytes }: Task): PlannedBuffers {
  return { name: 'latents', count: 1, bytes: latentBytes, largestBytes: latentBytes };
}

function weightBuffers(
  name: string,
  bytes: WeightBytes | undefined,
  slots: number | null,
  limits: DeviceBudget,
): PlannedBuffers[] {
  if (!bytes) return [];
  const held = heldBytes(bytes, slots);
  return [
    { name: `weights of ${name}`, count: 1, bytes: held, largestBytes: Math.min(bytes.largest, bindingLimit(limits)) },
  ];
}

function living(from: StageName, to: StageName, groups: readonly PlannedBuffers[]): LivingBuffers[] {
  return groups.map(({ name, count, bytes, largestBytes }) => ({ name, count, bytes, largestBytes, from, to }));
}

/** Stages in the order of time. */
export const STAGES: readonly StageName[] = ['text', 'high', 'low', 'decode'];

/** What is held in a stage. */
export function buffersOf(buffers: readonly LivingBuffers[], stage: StageName): LivingBuffers[] {
  const at = STAGES.indexOf(stage);
  return buffers.filter(({ from, to }) => STAGES.indexOf(from) <= at && at <= STAGES.indexOf(to));
}
