import { importRifeTorch } from '../../src/checkpoint/rife-torch';
import { type RifeConfig, rifeConfig, rifeShapes } from '../../src/part/rife';
import { openPart, type VerifiedPart } from '../../src/store/verified';
import { safetensors, type TestTensor } from './checkpoint';
import { memoryFolder } from './memory-folder';
import { seededFloats, seededUniform } from './near';
import { asHeld } from './typed';

/** Random networks of the RIFE 4 family, since no trained weights but those of 4.6 are at hand. */

/**
 * The versions with few channels: what tells them apart is the encoder, the count of blocks and the last block's 24
 * channels.
 */
export const SMALL_RIFE = {
  '4.6': smallRife(0, [16, 16, 8, 8]),
  '4.22.lite': smallRife(8, [16, 16, 8, 8]),
  '4.25': smallRife(4, [16, 16, 8, 16, 8]),
  '4.25.lite': smallRife(4, [16, 8, 8, 8, 24]),
  '4.26.heavy': smallRife(16, [8, 16, 8, 8, 8]),
} as const;

/** A network by its encoder's and its blocks' channels, told as a file of it would be. */
export function smallRife(encoder: number, channels: readonly number[]): RifeConfig {
  const entry = (...shape: number[]) => ({ dtype: 'F32' as const, shape });
  const entries = new Map(
    channels.map((width, block) => [`block${block}.conv0.1.0.weight`, entry(width, width / 2, 3, 3)]),
  );
  if (encoder > 0) entries.set('encode.cnn3.weight', entry(16, encoder, 4, 4));
  return rifeConfig(entries);
}

/**
 * Weights by their PyTorch names, `beta` included: half floats, and powers of two for `beta`, so that an import
 * multiplies them without rounding. Scaled so that values neither vanish nor grow, and flows reach some pixels.
 */
export function randomRife(config: RifeConfig, seed: number): Map<string, TestTensor & { values: Float32Array }> {
  const tensors = new Map<string, TestTensor & { values: Float32Array }>();
  const uniform = seededUniform(seed);
  for (const [name, shape] of rifeShapes(config)) {
    const count = shape.reduce((product, size) => product * size, 1);
    // Four of a transposed convolution's sixteen weights meet in a value.
    const fan = name.includes('lastconv') || name.includes('cnn3') ? 4 * shape[0]! : count / shape[0]!;
    const gain = name.includes('convblock') ? 0.7 : name.includes('lastconv') ? 0.5 : 1.3;
    const scale = name.endsWith('.bias') ? 0.1 : gain / Math.sqrt(fan);
    const values = asHeld('f16', seededFloats(seed + tensors.size, count, scale));
    tensors.set(name, { shape: [...shape], values });
    const block = /^(block\d+\.convblock\.\d+)\.conv\.bias$/.exec(name)?.[1];
    if (block === undefined) continue;
    const betas = Float32Array.from({ length: count }, () => 2 ** -Math.floor(3 * uniform()));
    tensors.set(`${block}.beta`, { shape: [1, count, 1, 1], values: betas });
  }
  return tensors;
}

/** The tensors as ComfyUI's files name them, with some of what training leaves. */
export function comfyRife(tensors: ReadonlyMap<string, TestTensor>): Uint8Array {
  const named = new Map([...tensors].map(([name, tensor]) => [name.replace(/^block(\d+)\./, 'blocks.$1.'), tensor]));
  named.set('teacher.conv0.0.0.weight', { shape: [1], values: new Float32Array(1) });
  named.set('caltime.weight', { shape: [1], values: new Float32Array(1) });
  return safetensors(named);
}

/** The tensors as a part, by way of a file of ComfyUI's naming. */
export async function importedRife(tensors: ReadonlyMap<string, TestTensor>): Promise<VerifiedPart> {
  const bytes = comfyRife(tensors);
  const file = { sizeBytes: bytes.length, read: async (begin: number, end: number) => bytes.slice(begin, end) };
  const sink = memoryFolder();
  await importRifeTorch({ file, what: 'rife.safetensors', sink, license: 'MIT' });
  return openPart(sink, 'rife');
}
