import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ZoetropeError } from '../../src/errors';
import { cleanPrompt } from '../../src/text/clean';
import { createTokenizer, MAX_TOKENS } from '../../src/text/tokenizer';

type Case = [text: string, ids: number[]];

const read = (path: string) => JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8'));
const shared = new URL('../../../shared/', import.meta.url);
const umt5 = new URL('data/umt5-tokenizer/', shared);
const demo = new URL('data/demo-model/', shared);

/** Small Unigram model with the reference's ids of 328 texts; provenance in test/golden/README.md. */
const small = read('../golden/unigram.json') as { tokenizer: SmallJson; cases: Case[] };
interface SmallJson {
  added_tokens: Record<string, unknown>[];
  normalizer: unknown;
  pre_tokenizer: unknown;
  post_processor: unknown;
  model: { type: string; unk_id: number; vocab: [string, number][]; byte_fallback: boolean };
}

/** Random texts of a fixed seed (mulberry32), made of what the small model treats differently. */
function randomTexts(seed: number, count: number, longest: number): string[] {
  const parts = [
    'a',
    'b',
    'c',
    'aa',
    'e',
    ' ',
    '   ',
    '▁',
    '\t',
    ',',
    '🐱',
    '小',
    '猫',
    'ꙮ',
    '\ud83d',
    '<x>',
    '</s>',
    '[',
  ];
  const random = () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return Array.from({ length: count }, () =>
    Array.from({ length: Math.floor(random() * longest) }, () => parts[Math.floor(random() * parts.length)]).join(''),
  );
}

describe('encode, small vocabulary', () => {
  const tokenizer = createTokenizer(small.tokenizer);
  const encode = (text: string) => [...tokenizer.encode(text)];

  it('gives the ids of the reference for every case', () => {
    expect(small.cases).toHaveLength(328);
    expect(small.cases.map(([text]) => [text, encode(text)])).toEqual(small.cases);
  });

  it('ends an empty text at once', () => {
    expect(tokenizer.encode('')).toEqual(Int32Array.of(1));
  });

  it('counts ids past the pieces when an added token has one', () => {
    expect(tokenizer.idCount).toBe(small.tokenizer.model.vocab.length);
    const json = structuredClone(small.tokenizer);
    json.added_tokens.push({ id: 99, content: '<far>' });
    const wider = createTokenizer(json);
    expect(wider.idCount).toBe(100);
    expect([...wider.encode('<far>')]).toEqual([99, 1]);
  });

  it('finds the best of all segmentations of a word', () => {
    const scores = new Map(small.tokenizer.model.vocab);
    const unknown = Math.min(...scores.values()) - 10;
    /** Best sum over every way to cut the word, by recursion. */
    const bestSum = (characters: string[]): number =>
      characters.length === 0
        ? 0
        : Math.max(
            ...characters.map((_, cut) => {
              const score = scores.get(characters.slice(0, cut + 1).join('')) ?? (cut === 0 ? unknown : -Infinity);
              return score === -Infinity ? score : score + bestSum(characters.slice(cut + 1));
            }),
          );
    const words = randomTexts(5, 400, 9).map((text) => `▁${text.replace(/[▁ <[\]>]/g, '')}`);
    const known = words.filter((word) => !encode(word).includes(3)); // merged unknowns hide how many they were
    expect(known.length).toBeGreaterThan(100);
    for (const word of known) {
      const ids = encode(word).slice(0, -1);
      const sum = ids.reduce((total, id) => total + small.tokenizer.model.vocab[id]![1], 0);
      expect(sum, word).toBeCloseTo(bestSum([...word]), 9);
    }
  });

  it('scores an unknown code point 10 below the worst piece', () => {
    const json = structuredClone(small.tokenizer);
    /** "xyz" is "xy" (worst, -50) + "z", or unknown + "yz" (-1): -50 + z against -60 - 1. */
    const encodeWith = (z: number) => {
      json.model.vocab = [...small.tokenizer.model.vocab, ['xy', -50], ['z', z], ['yz', -1]];
      return [...createTokenizer(json).encode('xyz')];
    };
    expect(encodeWith(-10.9)).toEqual([8, 32, 33, 1]);
    expect(encodeWith(-11.1)).toEqual([8, 3, 34, 1]);
  });

  it('keeps ids in range and one end token last, for random texts of any length', () => {
    for (const text of randomTexts(11, 300, 900)) {
      const ids = tokenizer.encode(text);
      expect(ids.length).toBeLessThanOrEqual(MAX_TOKENS);
      expect(ids.at(-1)).toBe(1);
      expect(ids.every((id) => id >= 0 && id < tokenizer.idCount)).toBe(true);
    }
  });

  it('cuts a long text to its first 511 ids and the end token', () => {
    const words = (count: number) => tokenizer.encode(Array(count).fill('abc').join(' b '));
    expect(encode('a '.repeat(510).trim())).toHaveLength(511);
    expect(encode('a '.repeat(511).trim())).toHaveLength(512);
    expect(encode('a '.repeat(512).trim())).toEqual(encode('a '.repeat(511).trim()));
    expect(words(1000)).toEqual(words(300));
    expect(encode('<x>'.repeat(600))).toEqual([...Array(511).fill(4), 1]);
  });

  it('does not choke on one very long word', () => {
    expect(encode('猫'.repeat(200_000))).toHaveLength(512);
    expect(encode('ꙮ'.repeat(200_000))).toEqual([8, 3, 1]);
  });
});

describe('createTokenizer refuses', () => {
  const refusals: [string, unknown, RegExp][] = [
    ['no object', null, /the content must be an object, got null/],
    ['text', '{}', /the content must be an object/],
    ['no model', { ...small.tokenizer, model: undefined }, /"model" must be an object/],
    ['BPE', withModel({ type: 'BPE' }), /"model\.type" must be "Unigram", got "BPE"/],
    ['byte fallback', withModel({ byte_fallback: true }), /byte_fallback/],
    ['no pieces', withModel({ vocab: [] }), /must hold pieces/],
    ['pieces that are no list', withModel({ vocab: { a: 1 } }), /"model\.vocab" must be an array/],
    ['a piece that is no pair', withModel({ vocab: ['a'] }), /"model\.vocab\[0\]" must be an array, got "a"/],
    ['a piece without score', withModel({ vocab: [['a', null]] }), /"model\.vocab\[0\]" must be a piece and its score/],
    ['a piece without text', withModel({ vocab: [[1, 2]] }), /"model\.vocab\[0\]" must be a piece and its score/],
    [
      'a repeated piece',
      withModel({
        vocab: [
          ['a', -1],
          ['a', -2],
        ],
      }),
      /must not repeat a piece, got "a" twice/,
    ],
    ['no unknown id', withModel({ unk_id: undefined }), /"model\.unk_id" must be an id of the 32 pieces/],
    ['an unknown id out of range', withModel({ unk_id: 32 }), /"model\.unk_id".*got 32/],
    ['a fractional unknown id', withModel({ unk_id: 0.5 }), /"model\.unk_id".*got 0.5/],
    ['no added tokens', { ...small.tokenizer, added_tokens: undefined }, /"added_tokens" must be an array/],
    [
      'no end token',
      { ...small.tokenizer, added_tokens: small.tokenizer.added_tokens.slice(2) },
      /the end token "<\/s>"/,
    ],
    ['an added token without id', withAdded({ content: '<y>' }), /"added_tokens\[7\]" must have a content and an id/],
    ['an empty added token', withAdded({ content: '', id: 5 }), /"added_tokens\[7\]" must have a content and an id/],
    [
      'a stripping added token',
      withAdded({ content: '<y>', id: 5, lstrip: true }),
      /"lstrip" of the added token "<y>"/,
    ],
    ['no normalizer', { ...small.tokenizer, normalizer: null }, /"normalizer" must be an object/],
    ['no rule', { ...small.tokenizer, normalizer: { type: 'Sequence', normalizers: [] } }, /"normalizers" must be/],
    ['another normalizer', { ...small.tokenizer, normalizer: { type: 'NFKC' } }, /"normalizer" must only replace/],
    ['no pre-tokenizer', { ...small.tokenizer, pre_tokenizer: null }, /"pre_tokenizer" must be an object/],
    ['a white-space pre-tokenizer', withMetaspace({ type: 'WhitespaceSplit' }), /"pre_tokenizer" must be a Metaspace/],
    ['a Metaspace without prefix', withMetaspace({ prepend_scheme: 'never' }), /always prepends/],
    ['a Metaspace without split', withMetaspace({ split: false }), /"split":false/],
    ['no post-processor', { ...small.tokenizer, post_processor: null }, /"post_processor" must be an object/],
    [
      'an end token before the text',
      {
        ...small.tokenizer,
        post_processor: { type: 'TemplateProcessing', single: [{ SpecialToken: { id: '</s>' } }] },
      },
      /must append "<\/s>" \(1\) and nothing else/,
    ],
    [
      'another id for the end token',
      {
        ...small.tokenizer,
        post_processor: { ...(small.tokenizer.post_processor as object), special_tokens: { '</s>': { ids: [2] } } },
      },
      /must append "<\/s>" \(1\) and nothing else/,
    ],
  ];

  it.each(refusals)('%s', (_name, json, message) => {
    let thrown: unknown;
    try {
      createTokenizer(json);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(ZoetropeError);
    expect((thrown as ZoetropeError).code).toBe('bad-checkpoint');
    expect((thrown as ZoetropeError).message).toMatch(message);
    expect((thrown as ZoetropeError).message).toMatch(/^tokenizer\.json: .* Take the tokenizer\.json that belongs to/);
  });

  it('but takes the older spelling of the same Metaspace', () => {
    const older = { type: 'Metaspace', replacement: '▁', add_prefix_space: true };
    const tokenizer = createTokenizer({ ...small.tokenizer, pre_tokenizer: older });
    expect(small.cases.map(([text]) => [...tokenizer.encode(text)])).toEqual(small.cases.map(([, ids]) => ids));
  });

  function withModel(change: Record<string, unknown>) {
    return { ...small.tokenizer, model: { ...small.tokenizer.model, ...change } };
  }
  function withAdded(token: Record<string, unknown>) {
    return { ...small.tokenizer, added_tokens: [...small.tokenizer.added_tokens, token] };
  }
  function withMetaspace(change: Record<string, unknown>) {
    return { ...small.tokenizer, pre_tokenizer: { ...(small.tokenizer.pre_tokenizer as object), ...change } };
  }
});

describe.skipIf(!existsSync(umt5))('google/umt5-xxl (needs ../shared/data/umt5-tokenizer)', () => {
  const load = () => createTokenizer(read(new URL('tokenizer.json', umt5).href));
  let cached: ReturnType<typeof load> | undefined;
  const encode = (text: string) => {
    cached ??= load();
    return [...cached.encode(text)];
  };

  it('gives every id on which two other implementations agree', () => {
    const { agreed } = read(new URL('golden.json', umt5).href) as { agreed: { text: string; ids: number[] }[] };
    expect(agreed.length).toBeGreaterThanOrEqual(25);
    expect(agreed.map(({ text }) => ({ text, ids: encode(text) }))).toEqual(agreed);
  });

  it.each(read('../golden/tokenizer.json') as Case[])('gives the ids of the reference: %j', (text, ids) => {
    expect(encode(text)).toEqual(ids);
  });

  it('has 256,300 ids and cuts a prompt of 10,000 words', () => {
    const ids = encode('a cat '.repeat(5000));
    expect(cached!.idCount).toBe(256_300);
    expect(ids).toHaveLength(512);
    expect(ids.slice(0, 4)).toEqual([289, 6283, 289, 6283]);
    expect(ids.at(-1)).toBe(1);
  });

  it.each(['pipeline-cfg', 'pipeline-nocfg', 'pipeline-lightning'])('gives the ids of fixture %s', async (name) => {
    const { inputs } = read(new URL(`fixtures/${name}/case.json`, shared).href) as {
      inputs: { name: string; value?: unknown }[];
    };
    const value = (key: string) => inputs.find((input) => input.name === key)!.value;
    expect(encode(await cleanPrompt(value('prompt') as string))).toEqual(value('ids'));
    if (value('negative_ids')) {
      expect(encode(await cleanPrompt(value('negative_prompt') as string))).toEqual(value('negative_ids'));
    }
  });
});

describe.skipIf(!existsSync(demo))('demo model (needs ../shared/data/demo-model)', () => {
  const load = () => createTokenizer(read(new URL('tokenizer/tokenizer.json', demo).href));

  /** Reads one I32 tensor of a safetensors file. */
  function readIds(file: URL, name: string): number[] {
    const bytes = readFileSync(file);
    const headerEnd = 8 + Number(bytes.readBigUInt64LE(0));
    const [begin, end] = JSON.parse(bytes.toString('utf8', 8, headerEnd))[name].data_offsets as [number, number];
    return Array.from({ length: (end - begin) / 4 }, (_, i) => bytes.readInt32LE(headerEnd + begin + 4 * i));
  }

  it.each(['red-circle-right', 'negative-prompt', 'wide'])('gives the ids of golden %s', async (name) => {
    const folder = new URL(`golden/${name}/`, demo);
    const { prompt, negative_prompt: negative } = read(new URL('case.json', folder).href);
    const tensors = new URL('golden.safetensors', folder);
    const tokenizer = load();
    expect([...tokenizer.encode(await cleanPrompt(prompt))]).toEqual(readIds(tensors, 'token_ids'));
    expect([...tokenizer.encode(await cleanPrompt(negative))]).toEqual(readIds(tensors, 'negative_token_ids'));
  });

  it('keeps ids in range for random texts', () => {
    const tokenizer = load();
    for (const text of randomTexts(17, 200, 300)) {
      expect(tokenizer.encode(text).every((id) => id >= 0 && id < tokenizer.idCount)).toBe(true);
    }
  });
});
