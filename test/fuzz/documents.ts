import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { openDiffusers } from '../../src/checkpoint/diffusers';
import { importFilm } from '../../src/checkpoint/film';
import { importCheckpoint } from '../../src/checkpoint/import';
import { isContinuable, isIntact, Journal } from '../../src/checkpoint/journal';
import { parseObject } from '../../src/checkpoint/json';
import type { Folder } from '../../src/manifest';
import { hashPiece } from '../../src/manifest';
import { createCut } from '../../src/safety/text-pieces';
import { parseManifest, parsePart } from '../../src/store/manifest-reader';
import { createTokenizer } from '../../src/text/tokenizer';
import { checkpointFiles } from '../harness/checkpoint';
import { randomFilm, SMALLEST_FILM } from '../harness/film';
import { memoryFolder } from '../harness/memory-folder';
import type { FuzzTarget } from './runner';
import { fileOf } from './weight-files';

/** Parsers of JSON documents: configurations, tokenizers, manifests, the journal. */

const utf8 = (text: string) => new TextEncoder().encode(text);
/** JSON as short as it can be. */
const json = (value: unknown) => utf8(JSON.stringify(value));

const FILES = checkpointFiles();
const FOLDER = memoryFolder(FILES);

/** One configuration of a checkpoint whose other files are valid. */
function configuration(path: string, words: readonly string[]): FuzzTarget {
  const folder = (input: Uint8Array): Folder => ({
    open: async (name) => (name === path ? fileOf(input) : FOLDER.open(name)),
  });
  return {
    name: path,
    layout: 'json',
    seeds: [FILES.get(path)!],
    words,
    share: 0.4,
    parse: async (input) => void (await openDiffusers(folder(input))),
    // The headers of the other files, and the vectors by which the experts are compared, are read each time.
    limits: { besidesBytes: 64 * 1024, heapBytes: 4 * 1024 * 1024, milliseconds: 40 },
  };
}

const TOKENIZER = {
  added_tokens: [
    { id: 0, content: '<pad>', single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
    { id: 1, content: '</s>', special: true },
  ],
  normalizer: {
    type: 'Sequence',
    normalizers: [{ type: 'Replace', pattern: { Regex: ' {2,}' }, content: ' ' }],
  },
  pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true },
  post_processor: {
    type: 'TemplateProcessing',
    single: [{ Sequence: { id: 'A', type_id: 0 } }, { SpecialToken: { id: '</s>', type_id: 0 } }],
    special_tokens: { '</s>': { id: '</s>', ids: [1], tokens: ['</s>'] } },
  },
  model: {
    type: 'Unigram',
    unk_id: 2,
    vocab: [
      ['<pad>', 0],
      ['</s>', 0],
      ['<unk>', 0],
      ['▁', -2],
      ['a', -3.5],
      ['▁cat', -4],
    ],
    byte_fallback: false,
  },
};

const tokenizer: FuzzTarget = {
  name: 'tokenizer.json',
  layout: 'json',
  seeds: [json(TOKENIZER)],
  words: ['</s>', 'Unigram', ' {2,}', '▁', '(', '[', '\\', 'a'.repeat(64), '*', '🐱'],
  share: 2,
  parse: (input) => void createTokenizer(parseObject(input, 'tokenizer.json')).encode('a cat  <pad>🐱▁▁(.*)\\ and'),
};

/** One of each kind of model that Hugging Face's library reads. */
const CLASSIFIERS = [
  {
    normalizer: { type: 'BertNormalizer', clean_text: true, handle_chinese_chars: true, lowercase: true },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '[CLS]', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      special_tokens: { '[CLS]': { id: '[CLS]', ids: [0], tokens: ['[CLS]'] } },
    },
    decoder: null,
    added_tokens: [{ id: 0, content: '[CLS]', special: true }],
    model: {
      type: 'WordPiece',
      vocab: { '[CLS]': 0, '[SEP]': 1, '[UNK]': 2, a: 3, '##b': 4, '.': 5 },
      unk_token: '[UNK]',
      continuing_subword_prefix: '##',
      max_input_chars_per_word: 100,
    },
  },
  {
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: null,
    added_tokens: [],
    model: { type: 'BPE', vocab: { a: 0, b: 1, ab: 2, Ġ: 3 }, merges: ['a b'] },
  },
];

const classifier: FuzzTarget = {
  name: 'tokenizer.json of a classifier',
  layout: 'json',
  seeds: CLASSIFIERS.map(json),
  words: ['[CLS]', 'WordPiece', 'BPE', 'Unigram', 'BertNormalizer', 'ByteLevel', 'Sequence', '##', 'a'],
  share: 1,
  parse: (input) => void createCut(parseObject(input, 'tokenizer.json'), 8)('A bàb. abab 小猫 ...'),
  // The library keeps a vocabulary in several tables, and makes one of all bytes.
  limits: { heapBytes: 4 * 1024 * 1024 },
};

async function importedManifest(): Promise<Uint8Array> {
  const folder = memoryFolder();
  await importCheckpoint({ folder: FOLDER, sink: folder, quantization: 'q4', name: 'test' });
  return json(JSON.parse(new TextDecoder().decode(folder.files.get('zoetrope.json'))));
}

async function filmManifest(): Promise<Uint8Array> {
  const folder = memoryFolder();
  await importFilm({ file: fileOf(randomFilm(SMALLEST_FILM, 1)), what: 'film', sink: folder });
  return json(JSON.parse(new TextDecoder().decode(folder.files.get('zoetrope.json'))));
}

const MANIFEST_WORDS = ['../x', 'a/../b', 'zoetrope.json', 'U8', 'F32', 'head.head.weight.scales', 'Zoetrope.JSON'];

function manifest(name: string, seed: Uint8Array, parse: FuzzTarget['parse'], share: number): FuzzTarget {
  return {
    name,
    layout: 'json',
    seeds: [seed],
    words: MANIFEST_WORDS,
    share,
    parse,
    // Up to 60 kB, of which every tensor is looked at: some 3 ms.
    limits: { milliseconds: 40 },
  };
}

/** A finished file and one that was begun, as an import notes them. */
async function journalState() {
  const piece = { sizeBytes: 3, sha256: await hashPiece(Uint8Array.of(1, 2, 3)) };
  const files = memoryFolder([['f', Uint8Array.of(1, 2, 3)]]);
  const tensor = { dtype: 'F16', shape: [1], range: [0, 2] };
  const file = { path: 'f', sizeBytes: 3, pieces: [piece], tensors: { a: tensor } };
  const open = { path: 'f', pieces: [null], waiting: piece, tail: piece, tensors: [['a', tensor]], partial: null };
  return { files, state: { version: 1, fingerprint: 'print', turn: 3, done: { high: [file] }, open } };
}

async function journal(): Promise<FuzzTarget> {
  const { files, state } = await journalState();
  return {
    name: 'import journal',
    layout: 'json',
    seeds: [json(state), json({ ...state, open: { ...state.open, partial: { name: 'a', slices: 1 } } })],
    words: ['high', 'vae', 'f', '../f', 'print'],
    share: 1,
    async parse(input, step) {
      // The hash is right, as it would be in a journal of another version of this code.
      const line = utf8(`${await hashPiece(input)}\n`);
      const note = new Uint8Array(line.length + input.length);
      note.set(line);
      note.set(input, line.length);
      step();
      const folder = {
        ...files,
        open: async (path: string) => (path === 'import-journal-0.json' ? fileOf(note) : files.open(path)),
      };
      const { found } = await Journal.open(folder, 'print');
      for (const list of Object.values(found.done)) for (const file of list) await isIntact(folder, file);
      if (found.open) await isContinuable(folder, found.open);
      return `${Object.keys(found.done).length} components, ${found.open ? 'a begun file' : 'nothing begun'}`;
    },
  };
}

/** All targets of this file. Their seeds take an import to make. */
export async function documents(): Promise<FuzzTarget[]> {
  const rife = readFileSync(resolve(import.meta.dirname, '../../public/models/rife/zoetrope.json'));
  return [
    configuration('model_index.json', ['WanPipeline', 'transformer_2', 'boundary_ratio']),
    configuration('scheduler/scheduler_config.json', ['flow_prediction']),
    configuration('transformer/config.json', ['num_layers', 'patch_size', 'rms_norm_across_heads']),
    configuration('text_encoder/config.json', ['num_layers', 'gated-gelu']),
    configuration('vae/config.json', ['dim_mult', 'temperal_downsample', 'latents_mean']),
    tokenizer,
    classifier,
    manifest('zoetrope.json', await importedManifest(), parseManifest, 0.4),
    manifest('zoetrope.json of FILM', await filmManifest(), (input) => parsePart(input, 'film'), 0.4),
    manifest('zoetrope.json of RIFE', json(JSON.parse(rife.toString())), (input) => parsePart(input, 'rife'), 0.4),
    await journal(),
  ];
}
