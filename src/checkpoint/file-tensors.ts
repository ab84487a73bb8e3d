import { throwIfAborted, ZoetropeError } from '../errors';
import { decodeFloats } from '../floats';
import type { ByteSource } from '../manifest';
import type { FileTensor } from './file-tensor';
import { safetensorsTensors } from './fp8';
import { type GgufHeader, type GgufTensor, isGguf, readGguf } from './gguf';
import { decodeBlocks, repackBlocks } from './gguf-blocks';
import { openSafetensors } from './safetensors';

/** The tensors of a file or of a set of files, by their names there. */
export interface FileTensors {
  /** For messages: the path. */
  what: string;
  format: 'safetensors' | 'GGUF';
  tensors: ReadonlyMap<string, FileTensor>;
  /** Keys of a GGUF file; empty for safetensors. */
  keys: GgufHeader['keys'];
}

/** Prefixes that tools put before the original names of the diffusion model. */
const PREFIXES = ['model.diffusion_model.', 'diffusion_model.'] as const;

/** Removes a tool's prefix where names have it. Throws when two tensors would get one name. */
function stripPrefix(tensors: ReadonlyMap<string, FileTensor>, what: string): Map<string, FileTensor> {
  const stripped = new Map<string, FileTensor>();
  for (const [name, tensor] of tensors) {
    const prefix = PREFIXES.find((candidate) => name.startsWith(candidate)) ?? '';
    const short = name.slice(prefix.length);
    if (stripped.has(short)) {
      throw new ZoetropeError(
        'bad-checkpoint',
        `${what} holds "${short}" with and without the prefix "${prefix}". Download it again.`,
      );
    }
    stripped.set(short, tensor);
  }
  return stripped;
}

function ggufTensor(file: ByteSource, { type, shape, range: [first] }: GgufTensor, sizeBytes: number): FileTensor {
  const bytesOf = (begin: number, end: number) => {
    if (begin % type.values !== 0 || end % type.values !== 0) {
      throw new ZoetropeError('internal', `Values ${begin} to ${end} of a tensor in blocks of ${type.values}.`);
    }
    const from = (begin / type.values) * type.bytes;
    const to = (end / type.values) * type.bytes;
    return from === to ? Promise.resolve(new Uint8Array(0)) : file.read(first + from, first + to);
  };
  const bits: readonly (4 | 8)[] = type.name === 'Q8_0' ? [8] : type.name === 'Q4_0' ? [4, 8] : [];
  return {
    shape,
    storage: type.name,
    sizeBytes,
    readFloats: async (begin, end) => {
      const bytes = await bytesOf(begin, end);
      return type.decode ? decodeBlocks(type, bytes) : decodeFloats(bytes, type.name as 'F32' | 'F16' | 'BF16');
    },
    ...(bits.length > 0 && {
      blocks: {
        bits,
        read: async (begin: number, end: number, wanted: 4 | 8) =>
          repackBlocks(type, await bytesOf(begin, end), wanted),
      },
    }),
  };
}

/** The true shape that ComfyUI's converter notes for a tensor which it reshaped, if it did. */
function originalShape({ keys }: GgufHeader, name: string, { shape }: GgufTensor, what: string): number[] {
  const noted = keys.get(`comfy.gguf.orig_shape.${name}`);
  if (noted === undefined) return shape;
  const sizes = typeof noted === 'object' && noted.count <= 8 ? noted.values().map(Number) : [];
  const product = (list: readonly number[]) => list.reduce((all, size) => all * size, 1);
  if (sizes.length === 0 || sizes.some((size) => !(size > 0)) || product(sizes) !== product(shape)) {
    throw new ZoetropeError(
      'bad-checkpoint',
      `${what} notes for "${name}" [${shape}] the original shape [${sizes}]. Download it again.`,
    );
  }
  return sizes;
}

async function openGguf(file: ByteSource, what: string, signal: AbortSignal | undefined): Promise<FileTensors> {
  const header = await readGguf(file, what, signal);
  const tensors = new Map<string, FileTensor>();
  for (const [name, tensor] of header.tensors) {
    const shape = originalShape(header, name, tensor, what);
    tensors.set(name, { ...ggufTensor(file, tensor, tensor.range[1] - tensor.range[0]), shape });
  }
  return { what, format: 'GGUF', tensors: stripPrefix(tensors, what), keys: header.keys };
}

/** Wraps the tensors of an opened safetensors file or set. */
export async function fromSafetensors(
  source: Parameters<typeof safetensorsTensors>[0],
  what: string,
): Promise<FileTensors> {
  return {
    what,
    format: 'safetensors',
    tensors: stripPrefix(await safetensorsTensors(source, what), what),
    keys: new Map(),
  };
}

/** Begins of files that hold weights in a form which no browser can read safely. */
async function refuseOtherFormats(file: ByteSource, what: string): Promise<void> {
  const [a, b] = file.sizeBytes >= 8 ? await file.read(0, 2) : [];
  const zip = a === 0x50 && b === 0x4b;
  const pickle = a === 0x80 && b !== undefined && b >= 2 && b <= 5 && /\.(pth?|bin|ckpt)$/i.test(what);
  if (zip || pickle) {
    throw new ZoetropeError(
      'bad-checkpoint',
      `${what} is a PyTorch file (pickle), which runs code when it is read. Use the safetensors or GGUF file of the same model, e.g. from the -Diffusers repository or Comfy-Org's repackaged one.`,
    );
  }
}

/** Opens a single safetensors or GGUF file; which it is, its first bytes tell. Throws `bad-checkpoint`. */
export async function openTensors(file: ByteSource, what: string, signal?: AbortSignal): Promise<FileTensors> {
  throwIfAborted(signal);
  if (await isGguf(file)) return openGguf(file, what, signal);
  await refuseOtherFormats(file, what);
  return fromSafetensors(await openSafetensors(file, what), what);
}
