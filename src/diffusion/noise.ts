/**
 * `torch.randn` of PyTorch's CPU generator, so that a seed means here what it means in diffusers and ComfyUI.
 *
 * Follows `ATen/core/MT19937RNGEngine.h`, `DistributionsHelper.h` and `native/cpu/DistributionTemplates.h`. Equal to
 * the last bit to PyTorch on x86-64 with AVX2; PyTorch's builds for other processors differ from that one by 5e-7 at
 * most.
 */

import { ZoetropeError } from '../errors';
import { normalPair } from './normal';

/** Words of state, and the distance of the word that the recurrence mixes in (Matsumoto and Nishimura 1998). */
const STATE_WORDS = 624;
const MIDDLE_WORD = 397;

/** PyTorch takes a seed as an unsigned 64-bit number. */
const SEED_END = 1n << 64n;

/** Values that PyTorch's vector path makes together: 8 radii and 8 angles. Shorter draws take the double path. */
const BLOCK = 16;
const HALF_BLOCK = BLOCK / 2;

/** The Mersenne Twister MT19937 as PyTorch seeds it: 32-bit words with a period of 2^19937 - 1. */
export class Mt19937 {
  readonly #state = new Uint32Array(STATE_WORDS);
  #next = STATE_WORDS;

  /**
   * @param seed whole number from 0 to 2^64 - 1 (a `number` up to 2^53 - 1). Only its low 32 bits reach the state, as
   * in   PyTorch: 42 and 2^32 + 42 give the same words.
   * @throws ZoetropeError `bad-request` for anything else.
   */
  constructor(seed: number | bigint) {
    const state = this.#state;
    state[0] = lowWord(seed);
    for (let j = 1; j < STATE_WORDS; j++) {
      const previous = state[j - 1]!;
      state[j] = Math.imul(1812433253, previous ^ (previous >>> 30)) + j;
    }
  }

  /** The next word, 0 to 2^32 - 1. */
  next(): number {
    if (this.#next === STATE_WORDS) this.#twist();
    let word = this.#state[this.#next++]!;
    word ^= word >>> 11;
    word ^= (word << 7) & 0x9d2c5680;
    word ^= (word << 15) & 0xefc60000;
    word ^= word >>> 18;
    return word >>> 0;
  }

  #twist(): void {
    const state = this.#state;
    for (let j = 0; j < STATE_WORDS; j++) {
      const joined = (state[j]! & 0x80000000) | (state[(j + 1) % STATE_WORDS]! & 0x7fffffff);
      const twisted = (joined >>> 1) ^ (joined & 1 ? 0x9908b0df : 0);
      state[j] = state[(j + MIDDLE_WORD) % STATE_WORDS]! ^ twisted;
    }
    this.#next = 0;
  }
}

/**
 * `torch.randn(count, generator=torch.Generator().manual_seed(seed))`: normals of mean 0 and deviation 1.
 *
 * A tensor of any shape is this sequence in row-major order, so a latent draws its C*T*h*w values in one call: several
 * shorter calls would give other values.
 *
 * @param seed as for {@link Mt19937}.
 * @param count number of values, a whole number from 0.
 * @throws ZoetropeError `bad-request` for a seed or a count out of range.
 */
export function torchRandn(seed: number | bigint, count: number): Float32Array<ArrayBuffer> {
  if (!Number.isSafeInteger(count) || count < 0) {
    throw new ZoetropeError('bad-request', `A number of noise values is a whole number from 0, got ${count}.`);
  }
  const engine = new Mt19937(seed);
  return count < BLOCK ? doubleNormals(engine, count) : blockNormals(engine, count);
}

/** 16 values or more: f32 uniforms in order, then block by block pairs (j, j + 8) turned into normals in place. */
function blockNormals(engine: Mt19937, count: number): Float32Array<ArrayBuffer> {
  const values = new Float32Array(count);
  fillUniform(engine, values, 0);
  const rest = count % BLOCK;
  for (let start = 0; start < count - rest; start += BLOCK) transformBlock(values, start);
  if (rest !== 0) {
    // The last 16 places are drawn afresh, over normals that the loop above has already made.
    fillUniform(engine, values, count - BLOCK);
    transformBlock(values, count - BLOCK);
  }
  return values;
}

/** Uniforms in [0, 1) of 24 bits each, from `start` to the end. */
function fillUniform(engine: Mt19937, values: Float32Array, start: number): void {
  for (let i = start; i < values.length; i++) values[i] = (engine.next() & 0xffffff) * 2 ** -24;
}

/** 8 radii and 8 angles to 16 normals, in place. */
function transformBlock(values: Float32Array, start: number): void {
  for (let j = start; j < start + HALF_BLOCK; j++) normalPair(values, j, j + HALF_BLOCK);
}

/** Fewer than 16 values: pairs in f64, the second of a pair kept for the next value. */
function doubleNormals(engine: Mt19937, count: number): Float32Array<ArrayBuffer> {
  const values = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const angle = 2 * Math.PI * uniformDouble(engine);
    const radius = Math.sqrt(-2 * Math.log1p(-uniformDouble(engine)));
    values[i] = radius * Math.cos(angle);
    if (i + 1 < count) values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

/** Uniform in [0, 1) of 53 bits: the low 53 of a 64-bit draw whose first word is the high one. */
function uniformDouble(engine: Mt19937): number {
  const high = engine.next() & 0x1fffff;
  return (high * 2 ** 32 + engine.next()) * 2 ** -53;
}

function lowWord(seed: number | bigint): number {
  const exact = typeof seed === 'bigint' || Number.isSafeInteger(seed) ? BigInt(seed) : -1n;
  if (exact < 0n || exact >= SEED_END) {
    throw new ZoetropeError(
      'bad-request',
      `A seed is a whole number from 0 to 2^64 - 1 (2^53 - 1 unless it is a bigint), got ${seed}.`,
    );
  }
  return Number(exact & 0xffffffffn);
}
