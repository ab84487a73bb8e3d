import { setTimeout } from 'node:timers/promises';
import { ZoetropeError } from '../../src/errors';
import { fault, LIMITS, type Limits, measure, type Outcome, type Parser, processorMs } from './meter';
import { type Layout, mutate } from './mutate';
import { Random } from './random';

/** A parser with what its inputs are made of. */
export interface FuzzTarget {
  name: string;
  layout: Layout;
  /** Inputs to begin with, valid ones first. */
  seeds: readonly Uint8Array[];
  words: readonly string[];
  /** Makes an input from nothing, by the grammar of the format. */
  generate?(random: Random): Uint8Array;
  parse: Parser;
  limits?: Partial<Limits>;
  /** Share of the inputs of a run, where 1 is usual: less for what takes longer. */
  share: number;
}

export interface FuzzReport {
  name: string;
  inputs: number;
  accepted: number;
  /** Different ways in which inputs were accepted or refused, by the words of the message. */
  outcomes: number;
  bytes: number;
  seconds: number;
  slowestMs: number;
  /** Largest ratio of buffers to the input, of inputs of at least 256 bytes. */
  bufferRatio: number;
}

/** The first fault of a run, with the input. */
export class FuzzFault extends Error {
  constructor(
    target: string,
    readonly input: Uint8Array,
    index: number,
    seed: number,
    why: string,
  ) {
    const base64 = Buffer.from(input.subarray(0, 3000)).toString('base64');
    super(`${target}, input ${index} of seed ${seed} (${input.length} bytes, base64 ${base64}): ${why}`);
  }
}

/** Inputs that did something new are changed further; so many are kept. */
const CORPUS = 256;
/** Further runs of an input that took too much. */
const PATIENCE = 8;
/** Inputs shorter than this say nothing about ratios. */
const RATIO_BYTES = 256;

/** What makes two refusals the same: the words of the message without names and numbers. */
function signature({ value, error }: Outcome): string {
  if (!(error instanceof ZoetropeError)) return typeof value === 'string' ? value : 'accepted';
  return `${error.code}: ${error.message.replace(/"(?:[^"\\]|\\.)*"|\[[^\]]*\]|[-+.\d]+(e[-+]?\d+)?/g, '#').slice(0, 160)}`;
}

/**
 * Whether a fault shows again: something of V8's own may fall into one measurement, what the parser does happens each
 * time.
 */
async function repeats(parse: Parser, input: Uint8Array, limits: Limits): Promise<boolean> {
  for (let i = 0; i < PATIENCE; i++) if (fault(await measure(parse, input), input.length, limits)) return true;
  return false;
}

/**
 * The quickest of some runs after a slow one, with longer and longer pauses: a collection of garbage takes them all
 * otherwise.
 */
async function quickest(parse: Parser, input: Uint8Array, first: Outcome, limitMs: number): Promise<number> {
  let best = first.milliseconds;
  for (let i = 0; i < PATIENCE && best > limitMs; i++) {
    await setTimeout(2 ** i);
    best = Math.min(best, await processorMs(parse, input));
  }
  return best;
}

/** Gives a parser so many inputs. Throws {@link FuzzFault} at the first that it does not stand. */
export async function fuzz(target: FuzzTarget, inputs: number, seed: number): Promise<FuzzReport> {
  const { name, parse, layout, words } = target;
  const limits = { ...LIMITS, ...target.limits };
  const random = new Random(seed);
  const corpus = [...target.seeds];
  const maxBytes = 2 * Math.max(...corpus.map(({ length }) => length)) + 512;
  const seen = new Set<string>();
  const report: FuzzReport = {
    name,
    inputs,
    accepted: 0,
    outcomes: 0,
    bytes: 0,
    seconds: 0,
    slowestMs: 0,
    bufferRatio: 0,
  };
  // What V8 does once (tables, compiled patterns) is no input's doing.
  for (const input of corpus) for (let i = 0; i < 3; i++) await measure(parse, input);
  const began = performance.now();
  for (let index = 0; index < inputs; index++) {
    let input: Uint8Array;
    if (index < target.seeds.length) input = corpus[index]!;
    else if (target.generate && random.chance(0.2)) input = target.generate(random);
    else
      input = mutate(random.pick(random.chance(0.5) ? target.seeds : corpus), random, {
        layout,
        words,
        corpus,
        maxBytes,
      });
    const outcome = await measure(parse, input);
    const why = fault(outcome, input.length, limits);
    if (why && (await repeats(parse, input, limits))) throw new FuzzFault(name, input, index, seed, why);
    if (outcome.milliseconds > limits.milliseconds) {
      const best = await quickest(parse, input, outcome, limits.milliseconds);
      if (best > limits.milliseconds) throw new FuzzFault(name, input, index, seed, `it took ${best.toFixed(1)} ms`);
      report.slowestMs = Math.max(report.slowestMs, best);
    } else report.slowestMs = Math.max(report.slowestMs, outcome.milliseconds);
    report.bytes += input.length;
    if (outcome.error === undefined) report.accepted++;
    if (input.length >= RATIO_BYTES) {
      report.bufferRatio = Math.max(report.bufferRatio, (outcome.bufferBytes - limits.besidesBytes) / input.length);
    }
    const kind = signature(outcome);
    if (seen.has(kind)) continue;
    seen.add(kind);
    if (corpus.length < CORPUS) corpus.push(input);
  }
  report.outcomes = seen.size;
  report.seconds = (performance.now() - began) / 1000;
  return report;
}

/** Inputs of each target when there are so many in all. */
export function shareOut(targets: readonly FuzzTarget[], inputs: number): number[] {
  const sum = targets.reduce((total, { share }) => total + share, 0);
  return targets.map(({ share }) => Math.ceil((inputs * share) / sum));
}
