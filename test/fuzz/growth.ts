import { parseObject } from '../../src/checkpoint/json';
import { measure } from './meter';
import type { FuzzTarget } from './runner';

/** Inputs that grow, of every list and every repeatable part of a format: time and memory must grow as they do. */

export interface Growth {
  /** Name of the target. */
  target: string;
  /** What there is more and more of. */
  what: string;
  /** The input with so many of them. */
  make(count: number): Uint8Array;
}

export interface GrowthReport {
  target: string;
  what: string;
  bytes: number;
  /** Time of the largest input, and how many times that of one of an eighth of its length. */
  milliseconds: number;
  timeRatio: number;
  /** Bytes of buffers, and of strings and objects, for each byte of the largest input. */
  buffersPerByte: number;
  objectsPerByte: number;
}

/** How many times as long the larger of two inputs is. */
const GROWTH_STEP = 8;
/** Shorter times say nothing, longer inputs take too long. */
const LEAST_MS = 3;
const SHORTEST_MS = 0.2;
/** Configurations and graphs longer than 1 MiB are not read at all. */
const MOST_BYTES = 1_000_000;
/**
 * Most that the time may grow from one input to one of eight times its length: 8 is linear, 64 quadratic. Measured are
 * up to 24 on a busy machine, where garbage is collected and tables outgrow the caches.
 */
export const MAX_TIME_RATIO = 32;
/** Runs of each input, small and large in turn. */
const RUNS = 5;
const PATIENT_RUNS = 40;

/** What runs of one input took at best. Time is the processor's, since others use the machine too. */
class Best {
  milliseconds = Infinity;
  /** Garbage that was collected in between makes one run's bytes too few. */
  bufferBytes = 0;
  heapBytes = 0;

  async run(parse: FuzzTarget['parse'], input: Uint8Array): Promise<void> {
    const before = process.cpuUsage();
    const { bufferBytes, heapBytes } = await measure(parse, input);
    const { user, system } = process.cpuUsage(before);
    this.milliseconds = Math.min(this.milliseconds, (user + system) / 1000);
    this.bufferBytes = Math.max(this.bufferBytes, bufferBytes);
    this.heapBytes = Math.max(this.heapBytes, heapBytes);
  }
}

/** Grows an input until it takes long enough to time, and compares it with one of an eighth of its size. */
export async function grow({ target, what, make }: Growth, parse: FuzzTarget['parse']): Promise<GrowthReport> {
  let count = 64;
  for (;;) {
    const input = make(count);
    const best = new Best();
    for (let i = 0; i < 3; i++) await best.run(parse, input);
    if (best.milliseconds >= LEAST_MS || input.length * GROWTH_STEP * 2 > MOST_BYTES) break;
    count *= 2;
  }
  const [small, large] = [make(count), make(count * GROWTH_STEP)];
  const [first, last] = [new Best(), new Best()];
  const ratio = () => last.milliseconds / Math.max(first.milliseconds, SHORTEST_MS);
  // What is too slow for a moment only gets more runs to show it.
  for (let i = 0; i < RUNS || (i < PATIENT_RUNS && ratio() >= MAX_TIME_RATIO); i++) {
    await first.run(parse, small);
    await last.run(parse, large);
  }
  return {
    target,
    what,
    bytes: large.length,
    milliseconds: last.milliseconds,
    timeRatio: ratio(),
    buffersPerByte: last.bufferBytes / large.length,
    objectsPerByte: last.heapBytes / large.length,
  };
}

const utf8 = (text: string) => new TextEncoder().encode(text);

/** A list of `count` things. */
const many = (count: number, thing: (i: number) => string) =>
  Array.from({ length: count }, (_, i) => thing(i)).join(',');

function framed(json: string, dataBytes = 0): Uint8Array {
  const text = utf8(json);
  const file = new Uint8Array(8 + text.length + dataBytes);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  return file;
}

const empty = (i: number) => `"t${i}.weight":{"dtype":"F8_E4M3","shape":[0],"data_offsets":[0,0]}`;

/** Growing JSON of any kind, where only the shared reader sees the difference. */
function jsonGrowths(target: string, frame: (json: string) => Uint8Array): Growth[] {
  const grown = (what: string, json: (count: number) => string): Growth => ({
    target,
    what,
    make: (count) => frame(json(count)),
  });
  return [
    grown('names', (count) => `{${many(count, (i) => `"n${i}":0`)}}`),
    grown('a name', (count) => `{"${'n'.repeat(count)}":0}`),
    grown('a name twice', (count) => `{"${'n'.repeat(count)}":0,"${'n'.repeat(count)}":0}`),
    grown('escapes', (count) => `{"${'\\u0001'.repeat(count)}":0}`),
    grown('backslashes', (count) => `{"a":"${'\\'.repeat(count)}`),
    grown('white space', (count) => `{"a"${' '.repeat(count)}:0}`),
    grown('brackets', (count) => `{"a":${'['.repeat(count)}`),
    grown('closing brackets', (count) => `{${']'.repeat(count)}`),
    grown('empty lists', (count) => `{"a":[${many(count, () => '[]')}]}`),
    grown('empty objects', (count) => `{"a":[${many(count, () => '{}')}]}`),
    grown('numbers', (count) => `{"a":[${many(count, () => '1e20')}]}`),
    grown('digits', (count) => `{"a":${'9'.repeat(count)}}`),
    grown('quotes', (count) => `{${'"'.repeat(count)}`),
    grown('strings', (count) => `{"a":[${many(count, () => '""')}]}`),
    grown('wide characters', (count) => `{"a":"${'▁'.repeat(count)}"}`),
  ];
}

/** The bytes of a GGUF file with one string key, then so many more keys. */
function ggufKeys(count: number, key: (i: number, out: number[]) => void, tensors = 0): Uint8Array {
  const out: number[] = [];
  for (let i = 0; i < count; i++) key(i, out);
  const file = new Uint8Array(24 + out.length);
  const view = new DataView(file.buffer);
  file.set(utf8('GGUF'));
  view.setUint32(4, 3, true);
  view.setBigUint64(8, BigInt(tensors), true);
  view.setBigUint64(16, BigInt(tensors > 0 ? 0 : count), true);
  file.set(out, 24);
  return file;
}

const u32 = (value: number) => [value & 255, (value >> 8) & 255, (value >> 16) & 255, value >>> 24];
const u64 = (value: number) => [...u32(value), 0, 0, 0, 0];
const named = (i: number) => {
  const name = utf8(`n${i}`);
  return [...u64(name.length), ...name];
};

/** A protobuf field of bytes. */
function field(number: number, bytes: readonly number[]): number[] {
  return [number * 8 + 2, bytes.length, ...bytes];
}

function pieces(count: number, text: (i: number) => string): Uint8Array {
  const out: number[] = [...field(1, field(1, [...utf8('</s>')])), ...field(1, field(1, [...utf8('<unk>')]))];
  for (let i = 0; i < count; i++) out.push(...field(1, [...field(1, [...utf8(text(i))]), 21, 0, 0, 128, 191]));
  return Uint8Array.from(out);
}

const param = (lines: string) => utf8(`7767517\n1 1\n${lines}\n`);

/** What may grow, by the name of the target. `sample` is a valid input of each. */
export function growths(sample: (target: string) => Uint8Array): Growth[] {
  const replaced = (target: string, what: string, member: string, value: (count: number) => string): Growth => ({
    target,
    what,
    make(count) {
      const text = new TextDecoder().decode(sample(target));
      const json = parseObject(utf8(text), target);
      const marked = JSON.stringify(json, (key, old) => (key === member ? '@@' : old));
      return utf8(marked.replace('"@@"', () => value(count)));
    },
  });
  return [
    ...jsonGrowths('safetensors', (json) => framed(json)),
    { target: 'safetensors', what: 'tensors', make: (count) => framed(`{${many(count, empty)}}`) },
    {
      target: 'safetensors',
      what: 'metadata',
      make: (count) => framed(`{"__metadata__":{${many(count, (i) => `"m${i}":"v"`)}}}`),
    },
    {
      target: 'safetensors',
      what: 'axes',
      make: (count) => framed(`{"a":{"dtype":"U8","shape":[${many(count, () => '1')}],"data_offsets":[0,1]}}`, 1),
    },
    {
      target: 'safetensors',
      what: 'a dtype of numbers',
      make: (count) => framed(`{"a":{"dtype":[${many(count, () => '1e20')}],"shape":[],"data_offsets":[0,1]}}`, 1),
    },
    {
      target: 'safetensors.index.json',
      what: 'names',
      make: (count) => utf8(`{"weight_map":{${many(count, (i) => `"n${i}":"a.safetensors"`)}}}`),
    },
    {
      target: 'safetensors.index.json',
      what: 'files',
      make: (count) => utf8(`{"weight_map":{${many(count, (i) => `"n${i}":"f${i}.safetensors"`)}}}`),
    },
    { target: 'fp8', what: 'tensors', make: (count) => framed(`{${many(count, empty)}}`) },
    {
      target: 'names and shapes',
      what: 'names',
      make: (count) => utf8(`{"patch_embedding.weight":[1],${many(count, (i) => `"blocks.${i}.x":[1]`)}}`),
    },
    {
      target: 'names and shapes',
      what: 'a name',
      make: (count) => utf8(`{"${'.lora_'.repeat(count)}":[1]}`),
    },
    {
      target: 'GGUF',
      what: 'keys',
      make: (count) => ggufKeys(count, (i, out) => out.push(...named(i), ...u32(4), ...u32(1))),
    },
    {
      target: 'GGUF',
      what: 'strings of a list',
      make(count) {
        const list = Array.from({ length: count }, () => u64(0)).flat();
        return ggufKeys(1, (i, out) => {
          for (const byte of [...named(i), ...u32(9), ...u32(8), ...u64(count), ...list]) out.push(byte);
        });
      },
    },
    {
      target: 'GGUF',
      what: 'tensors',
      make: (count) =>
        ggufKeys(count, (i, out) => out.push(...named(i), ...u32(1), ...u64(0), ...u32(0), ...u64(0)), count),
    },
    { target: 'SentencePiece', what: 'pieces', make: (count) => pieces(count, (i) => `${i}`) },
    { target: 'SentencePiece', what: 'sentinels', make: (count) => pieces(count, (i) => `<extra_id_${i}>`) },
    {
      target: 'SentencePiece',
      what: 'control characters',
      make: (count) => pieces(count, (i) => `${i}${'\u0001'.repeat(99)}`),
    },
    {
      target: 'SentencePiece',
      what: 'empty fields',
      make: (count) => new Uint8Array(2 * count).map((_, i) => (i % 2 ? 0 : 34)),
    },
    { target: 'ncnn .param', what: 'digits', make: (count) => param(`Input i 0 1 o 0=${'1'.repeat(count)}x`) },
    {
      target: 'ncnn .param',
      what: 'values',
      make: (count) => param(`Input i 0 1 o -23310=${count},${many(count, () => '1')}`),
    },
    { target: 'ncnn .param', what: 'spaces', make: (count) => param(`Input${' '.repeat(count)}i 0 1 o`) },
    { target: 'ncnn .param', what: 'spaces at the end', make: (count) => param(`Input i 0 1 o${' '.repeat(count)}x`) },
    {
      target: 'ncnn .param',
      what: 'lines',
      make: (count) => param(many(count, (i) => `Input i${i} 0 1 o${i}`).replaceAll(',', '\n')),
    },
    { target: 'ncnn .param', what: 'carriage returns', make: (count) => param('\r'.repeat(count)) },
    ...jsonGrowths('tokenizer.json', utf8),
    replaced('tokenizer.json', 'pieces', 'vocab', (count) => `[${many(count, (i) => `["p${i}",-1]`)}]`),
    replaced(
      'tokenizer.json',
      'added tokens',
      'added_tokens',
      (count) => `[${many(count, (i) => `{"content":"a${i}","id":${i}}`)},{"content":"</s>","id":1}]`,
    ),
    replaced('tokenizer.json', 'a piece', 'vocab', (count) => `[["${'a'.repeat(count)}",-1]]`),
    replaced('tokenizer.json', 'a normalizer', 'normalizer', (count) => `[${many(count, () => '1e20')}]`),
    replaced('tokenizer.json of a classifier', 'pieces', 'vocab', (count) => `{${many(count, (i) => `"p${i}":${i}`)}}`),
    replaced('transformer/config.json', 'a patch size', 'patch_size', (count) => `[${many(count, () => '1e20')}]`),
    replaced('vae/config.json', 'levels', 'dim_mult', (count) => `[${many(count, () => '1')}]`),
    replaced('vae/config.json', 'means', 'latents_mean', (count) => `[${many(count, () => '1e20')}]`),
    replaced('zoetrope.json', 'components', 'components', (count) => `{${many(count, (i) => `"c${i}":[]`)}}`),
    replaced('zoetrope.json', 'pieces', 'pieces', (count) => `[${many(count, () => '{"sizeBytes":1,"sha256":""}')}]`),
    replaced('zoetrope.json', 'settings', 'recommended', (count) => `{${many(count, (i) => `"s${i}":1`)}}`),
    replaced(
      'zoetrope.json of FILM',
      'tensors',
      'tensors',
      (count) => `{${many(count, (i) => `"t${i}":{"dtype":"U8","shape":[0],"range":[0,0]}`)}}`,
    ),
    replaced('zoetrope.json of RIFE', 'a name', 'name', (count) => `"${'n'.repeat(count)}"`),
    replaced('import journal', 'components', 'done', (count) => `{${many(count, (i) => `"c${i}":[]`)}}`),
  ];
}
