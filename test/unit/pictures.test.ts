import { describe, expect, it } from 'vitest';
import type { HostModel } from '../../src/gpu/ort';
import { checkFrames, coloursOf, judgeFrames, resize, SIDE, sampleFrames } from '../../src/safety/pictures';
import { pictureGraph, samePadding, type TfModel } from '../../src/safety/tfjs';

describe('samePadding', () => {
  it.each([
    [224, 3, 2, [0, 1]],
    [112, 3, 1, [1, 1]],
    [7, 3, 2, [1, 1]],
    [56, 1, 1, [0, 0]],
    [5, 4, 1, [1, 2]],
  ] as const)('%i pixels, kernel %i, stride %i', (size, kernel, stride, expected) => {
    expect(samePadding(size, kernel, stride)).toEqual(expected);
  });
});

describe('pictureGraph', () => {
  const weights = [{ name: 'w', shape: [2], dtype: 'float32', quantization: { dtype: 'uint8', scale: 1, min: 0 } }];
  const model = (op: string): TfModel => ({
    modelTopology: { node: [{ name: 'n', op, input: [] }] },
    weightsManifest: [{ paths: [], weights: weights as TfModel['weightsManifest'][0]['weights'] }],
  });

  it('refuses other operators and weights of another length', () => {
    expect(() => pictureGraph(model('LSTM'), new Uint8Array(2), SIDE)).toThrow('LSTM');
    expect(() => pictureGraph(model('Placeholder'), new Uint8Array(1), SIDE)).toThrow('end inside "w"');
    expect(() => pictureGraph(model('Placeholder'), new Uint8Array(3), SIDE)).toThrow('1 bytes');
  });
});

describe('pictures', () => {
  it('come back from I420: white, black, red, green, blue', () => {
    const colours = {
      white: [235, 128, 128],
      black: [16, 128, 128],
      red: [63, 102, 240],
      green: [173, 42, 26],
      blue: [32, 240, 118],
    };
    const seen = Object.entries(colours).map(([name, [y, u, v]]) => {
      const data = Uint8Array.from({ length: 6 }, (_, i) => (i < 4 ? y! : i === 4 ? u! : v!));
      const planes = coloursOf({ data, width: 2, height: 2 });
      return [name, ...[0, 4, 8].map((at) => Math.round(planes[at]! * 50) / 50)];
    });
    expect(seen).toEqual([
      ['white', 1, 1, 1],
      ['black', 0, 0, 0],
      ['red', 1, 0, 0],
      ['green', 0, 1, 0],
      ['blue', 0, 0, 1],
    ]);
  });

  it('find their chroma', () => {
    const data = new Uint8Array(4 * 4 * 1.5).fill(128);
    data[16 + 3] = 200; // U of the lower right corner
    const planes = coloursOf({ data, width: 4, height: 4 });
    const blue = planes.subarray(32);
    expect(Array.from(blue, (value) => (value > 0.6 ? 1 : 0)).join('')).toBe('0000000000110011');
  });

  it('keep their corners when resized', () => {
    const planes = Float32Array.from({ length: 3 * 2 * 3 }, (_, i) => i);
    const out = resize(planes, 3, 2);
    expect([out[0], out[SIDE - 1], out[SIDE * (SIDE - 1)], out.at(-1)]).toEqual([0, 2, 3, 17]);
    expect(resize(new Float32Array(3).fill(0.5), 1, 1).every((value) => value === 0.5)).toBe(true);
  });
});

describe('sampleFrames', () => {
  it.each([
    [1, [0]],
    [3, [0, 1, 2]],
    [17, [1, 3, 5, 7, 9, 11, 13, 15]],
    [80, [5, 15, 25, 35, 45, 55, 65, 75]],
  ])('of %i', (count, expected) => {
    const sampled = [...sampleFrames(count)];
    expect(sampled).toHaveLength(expected.length);
    expect(sampled.every((frame, i) => Math.abs(frame - expected[i]!) <= 1 && frame < count)).toBe(true);
  });
});

describe('judgeFrames', () => {
  const frame = (unsafe: number) => [0, unsafe / 2, 1 - unsafe, unsafe / 2, 0];

  it.each([
    [[0.4, 0.5, 0.5], false],
    [[0.6, 0.6, 0.4], true],
    [[0, 0, 0, 0.86], true],
    [[0, 0, 0, 0.84], false],
    [[], false],
  ])('%j: %s', (frames, flagged) => {
    expect(judgeFrames(frames.map(frame)).flagged).toBe(flagged);
  });

  it('only reports Sexy', () => {
    expect(judgeFrames([[0, 0, 0, 0, 1]])).toMatchObject({ flagged: false, categories: { Sexy: 1 } });
  });
});

describe('checkFrames', () => {
  const run = async (porn: number, count: number) => {
    let looked = 0;
    const model: HostModel = {
      inputNames: ['picture'],
      async run() {
        looked++;
        return { probabilities: Float32Array.of(0, 0, 1 - porn, porn, 0) };
      },
      release: async () => undefined,
    };
    async function* frames() {
      for (let i = 0; i < count; i++) yield { data: new Uint8Array(6), width: 2, height: 2, i };
    }
    const passed: number[] = [];
    const error = await (async () => {
      for await (const { i } of checkFrames(frames(), count, model)) passed.push(i);
    })().catch((reason) => reason);
    return { error, passed, looked };
  };

  it('passes every frame on and looks at eight', async () => {
    const { error, passed, looked } = await run(0.1, 17);
    expect([error, passed.length, looked]).toEqual([undefined, 17, 8]);
  });

  it('refuses behind the last frame', async () => {
    const { error, passed } = await run(0.9, 5);
    expect(passed).toHaveLength(5);
    expect(error).toMatchObject({
      code: 'content-policy-violation',
      detail: [{ loc: ['body'], type: 'content_policy_violation', ctx: { checker: 'frames' } }],
    });
  });
});
