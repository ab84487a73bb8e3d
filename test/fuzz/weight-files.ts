import { openTensors } from '../../src/checkpoint/file-tensors';
import { identify } from '../../src/checkpoint/identify';
import { parseObject } from '../../src/checkpoint/json';
import { readNcnn } from '../../src/checkpoint/ncnn';
import { openSafetensors, openSharded } from '../../src/checkpoint/safetensors';
import { hasVocabulary, tokenizerFromGguf, tokenizerFromSentencePiece } from '../../src/checkpoint/sentencepiece';
import { nameWeights } from '../../src/checkpoint/weights';
import { ditShapes, umt5Shapes, vaeShapes } from '../../src/config';
import { encodeF16, floatBytes } from '../../src/floats';
import type { ByteSource } from '../../src/manifest';
import { SHAPES, safetensors, type TestTensor } from '../harness/checkpoint';
import { type GgufTestTensor, type GgufTestValue, ggufFile, toQ8 } from '../harness/gguf';
import { memoryFolder } from '../harness/memory-folder';
import { seededFloats } from '../harness/near';
import { latin1 } from './json-text';
import type { Random } from './random';
import type { FuzzTarget } from './runner';

/** Parsers of other people's weight files. */

const utf8 = (text: string) => new TextEncoder().encode(text);

/** A file that refuses, as an exception of its own, to be read where it is not. */
export function fileOf(bytes: Uint8Array): ByteSource {
  return {
    sizeBytes: bytes.length,
    async read(begin, end) {
      if (!(Number.isInteger(begin) && begin >= 0 && begin <= end && end <= bytes.length)) {
        throw new RangeError(`bytes ${begin} to ${end} of ${bytes.length} were asked for`);
      }
      return bytes.slice(begin, end);
    },
  };
}

const small = (dtype: string, ...shape: number[]): TestTensor => {
  const size = { F32: 4, F16: 2, BF16: 2, I64: 8 }[dtype] ?? 1;
  const count = shape.reduce((product, length) => product * length, size);
  return { dtype, shape, values: new Uint8Array(count).fill(0x3c) };
};

const PLAIN = safetensors(
  new Map([
    ['a.weight', small('F16', 4, 2)],
    ['a.bias', small('F32', 4)],
    ['model.diffusion_model.b.weight', small('BF16', 2, 3, 1)],
    ['scalar', small('I64')],
    ['empty', small('U8', 0, 7)],
  ]),
);

const safetensorsFile: FuzzTarget = {
  name: 'safetensors',
  layout: 'safetensors',
  seeds: [PLAIN, safetensors(new Map()), safetensors(new Map([['x', small('F8_E4M3', 3)]]))],
  words: ['__metadata__', 'data_offsets', 'dtype', 'shape', 'F32', 'F8_E5M2', 'BOOL', '__proto__'],
  share: 2,
  async parse(input) {
    const source = await openSafetensors(fileOf(input), 'file');
    for (const name of source.entries.keys()) await source.read(name);
  },
};

const SHARDS = memoryFolder([
  ['a.safetensors', safetensors(new Map([['x', small('F16', 2)]]))],
  [
    'b.safetensors',
    safetensors(
      new Map([
        ['y', small('F16', 2)],
        ['z', small('F16', 1)],
      ]),
    ),
  ],
]);

const index: FuzzTarget = {
  name: 'safetensors.index.json',
  layout: 'json',
  seeds: [
    '{"metadata":{"total_size":10},"weight_map":{"x":"a.safetensors","y":"b.safetensors","z":"b.safetensors"}}',
    '{"weight_map":{"x":"a.safetensors"}}',
    '{"weight_map":{"x":"../a.safetensors","y":"c:\\\\b","z":"http://a/b"}}',
  ].map(utf8),
  words: ['weight_map', 'a.safetensors', '../a.safetensors', 'a/../../b', '/etc/passwd', 'x', '__proto__'],
  share: 2,
  parse: (input) =>
    openSharded(
      { open: async (path) => (path === 'm.safetensors.index.json' ? fileOf(input) : SHARDS.open(path)) },
      '',
      'm',
    ),
  // The two shards are read besides the input.
  limits: { besidesBytes: 4096 },
};

const fp8: FuzzTarget = {
  name: 'fp8',
  layout: 'safetensors',
  seeds: [
    safetensors(
      new Map([
        ['a.weight', small('F8_E4M3', 4, 8)],
        ['a.weight_scale', small('F32', 4, 1)],
        ['a.input_scale', small('F32')],
        ['b.weight', small('F8_E5M2', 2, 2)],
        ['b.scale_weight', small('F32', 1)],
        ['scaled_fp8', small('F8_E4M3', 0)],
      ]),
    ),
    safetensors(
      new Map([
        ['a.weight', small('F8_E4M3', 2, 2)],
        ['a.comfy_quant', { dtype: 'U8', shape: [26], values: utf8('{"format":"float8_e4m3fn"}') }],
        ['a.weight_scale', small('F32', 2)],
        ['c.weight', small('I8', 2, 2)],
        ['c.weight_scale', small('F16', 2)],
      ]),
    ),
  ],
  words: ['.weight', '.scale_weight', '.weight_scale', '.comfy_quant', 'scaled_fp8', 'F8_E4M3', 'I8', 'float8_e5m2'],
  share: 2,
  parse: async (input) => void (await openTensors(fileOf(input), 'file')),
};

/** Names and shapes of models as a file would list them. */
function listed(shapes: ReadonlyMap<string, readonly number[]>): Uint8Array {
  return utf8(JSON.stringify(Object.fromEntries(shapes)));
}

/** Recognition sees names and shapes alone, whatever file they come from; here they come as JSON. */
const recognition: FuzzTarget = {
  name: 'names and shapes',
  layout: 'json',
  seeds: [listed(SHAPES.transformer), listed(SHAPES.text_encoder), listed(SHAPES.vae)],
  words: [
    'blocks.0.attn1.to_q.weight',
    'blocks.99999999.x',
    'lora_up',
    'enc.blk.0.attn_q.weight',
    'vace_x',
    'conv2.weight',
  ],
  share: 1,
  parse(input) {
    const tensors = new Map(
      Object.entries(parseObject(input, 'list')).map(([name, shape]) => [
        name,
        {
          shape:
            Array.isArray(shape) && shape.length <= 8 && shape.every(Number.isSafeInteger) ? (shape as number[]) : [1],
          storage: 'F16',
          sizeBytes: 0,
          readFloats: async () => new Float32Array(0),
        },
      ]),
    );
    const source = { what: 'file', format: 'safetensors' as const, tensors, keys: new Map() };
    const part = identify(source);
    if (part.kind === 'dit') nameWeights(source, ditShapes(part.config), part.scheme, 'file');
    else if (part.kind === 'text_encoder') nameWeights(source, umt5Shapes(part.config), part.scheme, 'file');
    else if (part.config) nameWeights(source, vaeShapes(part.config), part.scheme(part.config), 'file');
  },
};

const VOCABULARY: Record<string, GgufTestValue> = {
  'general.architecture': { type: 8, value: 't5encoder' },
  'tokenizer.ggml.model': { type: 8, value: 't5' },
  'tokenizer.ggml.tokens': { type: 9, of: 8, value: ['<pad>', '</s>', '<unk>', '▁a', '<extra_id_0>'] },
  'tokenizer.ggml.scores': { type: 9, of: 6, value: [0, 0, 0, -1.5, 0] },
  'tokenizer.ggml.token_type': { type: 9, of: 5, value: [3, 3, 2, 1, 4] },
};
const GGUF_WORDS = ['general.alignment', 'comfy.gguf.orig_shape.a', 'GGUF', 'tokenizer.ggml.tokens', 'wan'];

function randomGguf(random: Random): Uint8Array {
  const keys: Record<string, GgufTestValue> = {};
  for (let i = random.below(4); i > 0; i--) {
    const values: GgufTestValue[] = [
      { type: 4, value: 2 ** random.below(33) },
      { type: 8, value: random.pick(GGUF_WORDS) },
      { type: 9, of: 5, value: Array.from({ length: random.below(12) }, () => random.below(9) - 1) },
      { type: 9, of: 8, value: Array.from({ length: random.below(5) }, () => random.pick(GGUF_WORDS)) },
    ];
    keys[random.chance(0.7) ? random.pick(GGUF_WORDS) : `key ${i}`] = random.pick(values);
  }
  const tensors = new Map<string, GgufTestTensor>();
  for (let i = random.below(4); i > 0; i--) {
    const shape = Array.from({ length: random.below(5) }, () => random.below(5) * random.pick([1, 32]));
    tensors.set(random.pick(['a', 'b', 'c', 'model.diffusion_model.a']), {
      type: random.below(32),
      shape,
      bytes: new Uint8Array(random.below(200)),
    });
  }
  return ggufFile(keys, tensors);
}

const GGUF_INPUTS = {
  layout: 'binary' as const,
  seeds: [
    ggufFile(
      { 'general.alignment': { type: 4, value: 32 }, 'comfy.gguf.orig_shape.a': { type: 9, of: 5, value: [2, 16] } },
      new Map([
        ['a', { type: 8, shape: [1, 32], bytes: toQ8(seededFloats(1, 32)) }],
        ['b', { type: 0, shape: [3], bytes: new Uint8Array(12) }],
      ]),
    ),
    ggufFile(VOCABULARY, new Map([['enc.blk.0.attn_q.weight', { type: 1, shape: [2, 2], bytes: new Uint8Array(8) }]])),
  ],
  words: GGUF_WORDS,
  generate: randomGguf,
};

/** Values asked for at once: the longest block of the format. */
const GGUF_SLICE = 256;

/** Takes a text part by part, as what writes it does. */
function takeParts(parts: Iterable<Uint8Array>, step: () => void): void {
  step();
  for (const _ of parts) step();
}

const gguf: FuzzTarget = {
  ...GGUF_INPUTS,
  name: 'GGUF',
  share: 2,
  parse: async (input) => void (await openTensors(fileOf(input), 'file')),
};

const ggufContents: FuzzTarget = {
  ...GGUF_INPUTS,
  name: 'GGUF, vocabulary and values',
  share: 1,
  async parse(input, step) {
    const { tensors, keys } = await openTensors(fileOf(input), 'file');
    step();
    for (const { shape, readFloats } of tensors.values()) {
      const count = shape.reduce((product, size) => product * size, 1);
      for (let begin = 0; readFloats && begin < count; begin += GGUF_SLICE) {
        await readFloats(begin, Math.min(count, begin + GGUF_SLICE));
        step();
      }
    }
    if (hasVocabulary(keys)) takeParts(tokenizerFromGguf(keys, 'file'), step);
  },
};

/** A field of a protobuf message: bytes, or a varint. */
function field(number: number, value: Uint8Array | number): Uint8Array {
  if (typeof value === 'number') return Uint8Array.of(number * 8, value);
  return Uint8Array.of(number * 8 + 2, value.length, ...value);
}

function piece(text: string, score: number, type?: number): Uint8Array {
  const float = floatBytes(Float32Array.of(score));
  return field(
    1,
    Uint8Array.of(...field(1, utf8(text)), 2 * 8 + 5, ...float, ...(type === undefined ? [] : field(3, type))),
  );
}

const sentencePiece: FuzzTarget = {
  name: 'SentencePiece',
  layout: 'binary',
  seeds: [
    Uint8Array.of(
      ...piece('<pad>', 0, 3),
      ...piece('</s>', 0, 3),
      ...piece('<unk>', 0, 2),
      ...piece('▁a', -1.25),
      ...piece('<extra_id_0>', -3, 4),
      ...field(2, field(3, 1)),
      ...field(3, Uint8Array.of(...field(1, utf8('identity')), ...field(2, new Uint8Array(0)))),
    ),
    Uint8Array.of(...piece('</s>', 0), ...piece('<unk>', 0)),
  ],
  words: ['</s>', '<unk>', '<extra_id_1>', '\x0a\x05\x0a\x03', '\x1a\x02\x12\x00', '\x12\x02\x18\x02'],
  generate: (random) =>
    Uint8Array.of(
      ...piece('</s>', 0),
      ...piece('<unk>', 0),
      ...Array.from({ length: random.below(12) }, (_, i) => [
        ...piece(random.pick([`<extra_id_${i}>`, '\u0001\u0002', '"\\', '▁', '🐱', `${i}`]), random.below(100) / -7),
      ]).flat(),
    ),
  share: 3,
  parse: (input, step) => takeParts(tokenizerFromSentencePiece(input, 'file'), step),
};

const GRAPH = `7767517
4 5
Input in0 0 1 in0
Convolution c 1 1 in0 1 0=2 1=1 3=2 4=1 5=1 6=6 9=2 -23310=1,2.000000e-01
Split s 1 2 1 2 3
Deconvolution d 1 1 2 4 0=1 1=1 5=1 6=3
`;
const TAG = Uint8Array.of(0x47, 0x6b, 0x30, 0x01);
const half = (count: number) => floatBytes(encodeF16(seededFloats(count, count)));
const BIN = Uint8Array.of(...TAG, ...half(6), ...new Uint8Array(8), ...TAG, ...half(3), 0, 0, ...new Uint8Array(4));

const ncnnParam: FuzzTarget = {
  name: 'ncnn .param',
  layout: 'binary',
  seeds: [utf8(GRAPH), utf8('7767517\n0 0\n')],
  words: ['0=', '-23310=', '6=99999999999', '1e999', ' 1 1 ', '\n', 'Convolution', '9007199254740993', '-1', 'in0 '],
  generate: (random) =>
    latin1(
      GRAPH.split('\n')
        .map((line) => line.replace(/\d+/g, (digits) => (random.chance(0.1) ? `${2 ** random.below(60)}` : digits)))
        .join('\n'),
    ),
  share: 3,
  parse: async (input) => void (await readNcnn(fileOf(input), fileOf(BIN), 'net')),
};

const ncnnBin: FuzzTarget = {
  name: 'ncnn .bin',
  layout: 'binary',
  seeds: [BIN],
  words: ['\x47\x6b\x30\x01'],
  share: 1,
  parse: async (input) => void (await readNcnn(fileOf(utf8(GRAPH)), fileOf(input), 'net')),
  // The file is read, once its length, and its 16-bit floats become 32-bit ones, twice its length.
  limits: { bufferFactor: 3 },
};

export const WEIGHT_FILES: readonly FuzzTarget[] = [
  safetensorsFile,
  index,
  fp8,
  recognition,
  gguf,
  ggufContents,
  sentencePiece,
  ncnnParam,
  ncnnBin,
];
