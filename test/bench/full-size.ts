import { existsSync, mkdirSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { WAN_14B } from '../../src/checkpoint/released';
import { dataBeginFor, encodeHeader, openSafetensors } from '../../src/checkpoint/safetensors';
import { largestEntries, storageOf } from '../../src/checkpoint/storage';
import { diskFolder } from '../../src/cli/files';
import { ditShapes } from '../../src/config';
import { Activations } from '../../src/diffusion/activations';
import { DitSessions } from '../../src/diffusion/block-graphs';
import { predictVelocity } from '../../src/diffusion/dit';
import { encodeTextKeys } from '../../src/diffusion/text-keys';
import { encodeF16 } from '../../src/floats';
import { Scope } from '../../src/gpu/memory';
import { SCALES_SUFFIX, type ShardTensor, type TensorEntry, tensorBytes, ZERO_POINTS_SUFFIX } from '../../src/manifest';
import { planDit } from '../../src/plan';
import { BlockStream } from '../../src/store/block-stream';
import { openTestGpu } from '../harness/dawn';
import { seededFloats } from '../harness/near';

/**
 * npm run full-size [-- --folder .cache/full-size --slots 3 --frames 1]
 *
 * One forward pass of a whole A14B expert, 40 blocks at true width, with random 4-bit weights streamed from a shard on
 * disk (8 GB, made once in the folder). Prints time, what waited for weights, and the peak of GPU memory.
 */

const FILE = 'high.safetensors';
const CHUNK_BYTES = 16 * 1024 * 1024;
const TEXT_ROWS = 12;

const { values: options } = parseArgs({
  args: process.argv.slice(2).filter((argument) => argument !== '--'),
  options: {
    folder: { type: 'string', default: '.cache/full-size' },
    slots: { type: 'string', default: '3' },
    frames: { type: 'string', default: '1' },
  },
});

/** Entries of the shard: matrices in 4-bit blocks without zero points, scales in half floats, vectors in float32. */
function shardEntries(): Map<string, TensorEntry> {
  const entries = new Map<string, TensorEntry>();
  for (const [name, shape] of ditShapes(WAN_14B)) {
    for (const [part, entry] of largestEntries({ name, shape, storage: storageOf(name, shape, 'q4') })) {
      if (part.endsWith(ZERO_POINTS_SUFFIX)) continue;
      entries.set(part, part.endsWith(SCALES_SUFFIX) ? { ...entry, dtype: 'F16' } : entry);
    }
  }
  return entries;
}

/** Writes the shard: hashed bits, scales for weights of deviation 1 / sqrt(columns), vectors round 0. */
async function writeShard(path: string): Promise<void> {
  const entries = shardEntries();
  const dataBegin = dataBeginFor(entries);
  const tensors = new Map<string, ShardTensor>();
  let at = dataBegin;
  for (const [name, entry] of entries) {
    const end = at + tensorBytes(entry);
    tensors.set(name, { ...entry, range: [at, end] });
    at = end;
  }
  const file = await open(path, 'w');
  try {
    await file.write(encodeHeader(tensors, dataBegin));
    const noise = Uint8Array.from({ length: CHUNK_BYTES }, (_, i) => Math.imul(i + 1, 0x9e3779b1) >>> 24);
    for (const [name, { dtype, shape, range }] of tensors) {
      const size = range[1] - range[0];
      if (dtype !== 'U8') {
        const count = shape.reduce((product, length) => product * length, 1);
        const scales = name.endsWith(SCALES_SUFFIX);
        const values = scales
          ? new Float32Array(count).fill(1 / (4.6 * Math.sqrt(32 * shape[1]!)))
          : seededFloats(1, count, 0.05);
        const bytes = dtype === 'F16' ? encodeF16(values) : values;
        await file.write(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
        continue;
      }
      for (let done = 0; done < size; done += CHUNK_BYTES) {
        await file.write(noise, 0, Math.min(CHUNK_BYTES, size - done));
      }
    }
  } finally {
    await file.close();
  }
}

const folder = resolve(options.folder);
const path = join(folder, FILE);
if (!existsSync(path)) {
  mkdirSync(folder, { recursive: true });
  const began = performance.now();
  await writeShard(path);
  console.log(
    `Wrote ${(statSync(path).size / 1e9).toFixed(2)} GB in ${((performance.now() - began) / 1000).toFixed(0)} s.`,
  );
}

const { gpu, ort, close } = await openTestGpu();
const frames = Number(options.frames);
const tokens = frames * 4;
const { maxBufferSize, maxStorageBufferBindingSize } = gpu.device.limits;
const limits = { maxBufferSize, maxStorageBufferBindingSize, f16: gpu.f16, cpu: gpu.cpu };
const plan = planDit(WAN_14B, { tokens, latentFrames: frames, latentHeight: 4, latentWidth: 4 }, limits);
const source = await openSafetensors(await diskFolder(folder).open(FILE), FILE);
const sessions = new DitSessions(WAN_14B, ort);
const scope = new Scope();
const now = () => performance.now();
const seconds = (from: number) => ((now() - from) / 1000).toFixed(1);
console.log(
  `${gpu.name}; ${(statSync(path).size / 1e9).toFixed(2)} GB of weights, ${tokens} tokens, ${options.slots} slots.`,
);

const stream = scope.own(
  await BlockStream.open(gpu, source, { prefix: 'blocks.', count: 40, slots: Number(options.slots), now }),
);
const activations = scope.own(new Activations(gpu, WAN_14B, plan, 1));
let began = now();
const text = { rows: TEXT_ROWS, values: seededFloats(2, TEXT_ROWS * WAN_14B.textDim) };
const [keys] = await encodeTextKeys(gpu, sessions, stream, [text], plan);
scope.own(keys!);
console.log(`Keys and values of a prompt of ${TEXT_ROWS} tokens in 40 blocks: ${seconds(began)} s.`);

const shape = [16, frames, 4, 4];
const latents = scope.own(gpu.memory.upload('latents', 'float32', shape, seededFloats(3, 256 * frames)));
const velocity = scope.own(gpu.memory.tensor('velocity', 'float32', shape));
const before = stream.report();
began = now();
await predictVelocity({ gpu, sessions, plan, activations }, stream, latents, 900, [keys!], [velocity]);
const values = await gpu.memory.readFloats(velocity);
const passMs = now() - began;
const { stallMs, blocks, ready, uploadedBytes } = stream.report();
const mean = values.reduce((sum, value) => sum + Math.abs(value), 0) / values.length;
if (!values.every(Number.isFinite) || mean === 0) throw new Error('The velocity holds no usable numbers.');
console.log(
  `Forward pass of 40 blocks: ${(passMs / 1000).toFixed(1)} s, mean magnitude of the velocity ${mean.toFixed(3)}.`,
);
console.log(
  `Waited for weights ${((stallMs - before.stallMs) / 1000).toFixed(1)} s (${ready - before.ready} of ${blocks - before.blocks} blocks were there), read ${((uploadedBytes - before.uploadedBytes) / 1e9).toFixed(2)} GB.`,
);
console.log(
  `Peak of GPU buffers: ${(gpu.memory.devicePeakBytes / 1e9).toFixed(2)} GB, all that the device holds, of which ${(1e-3 * gpu.memory.runtimeBytes).toFixed(0)} kB are ONNX Runtime's own at the end; resident set ${(process.memoryUsage().rss / 1e9).toFixed(2)} GB.`,
);
scope[Symbol.dispose]();
await sessions.release();
await close();
process.exit(0);
