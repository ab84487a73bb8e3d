import { describe, expect, it } from 'vitest';
import { type CausalConv, causalConv, causalConvLaunches, causalConvMac } from '../../kernels/causal-conv';
import { channelNorm } from '../../kernels/channel-norm';
import { type CropPlanesShape, cropPlanes } from '../../kernels/crop-planes';
import { denormalize } from '../../kernels/denormalize';
import { spatialAttention, spatialAttentionLaunches } from '../../kernels/spatial-attention';
import { ZoetropeError } from '../../src/errors';

/** A misfit would read or write past a buffer, where WebGPU clamps silently: plans refuse it. */
function expectRefusal(call: () => unknown, words: string): void {
  expect(call).toThrow(words);
  expect(call).toThrow(ZoetropeError);
}

describe('the plan of causal-conv', () => {
  const conv: CausalConv = {
    type: 'f32',
    frames: 4,
    from: [9, 10],
    into: 16,
    to: [9, 10],
    out: 96,
    taps: 3,
    kernel: 3,
  };
  const [whole] = causalConvLaunches(conv, 1e12);

  it('gives eight lanes of four channels to a square and eight squares to a workgroup', () => {
    // 4 frames of 3 × 3 squares, 3 times 32 channels.
    expect(whole).toEqual({ ...conv, first: 0, groups: 15 });
    const { prelude, overrides, params, groups } = causalConv.plan(whole!);
    expect(prelude).toEqual({ T: 'f32', X: 'f32', SPATIAL: true, PACKED: false });
    expect(overrides).toEqual({ WORKGROUP: 64 });
    expect(params).toEqual([0, 8, 4, 9, 10, 4, 24, 3, 1, 9, 10, 0, 0, 0, 0, 0, 4, 2, 0, 2]);
    expect(groups).toEqual([15, 1, 1]);
  });

  it('cuts work into launches that together are the whole', () => {
    const mac = causalConvMac(conv);
    // Of 3 taps of 4 frames, 9 meet a present frame and 3 one of the two before.
    expect(mac).toBe((15 * 64 * 16 * 4 * 16 * 9 * 9) / 4);
    const launches = causalConvLaunches(conv, mac / 4);
    expect(launches.map(({ first, groups }) => [first, groups])).toEqual([
      [0, 3],
      [3, 3],
      [6, 3],
      [9, 3],
      [12, 3],
    ]);
    expect(causalConvLaunches(conv, 1)).toHaveLength(15);
    const wide = { ...conv, from: [8000, 8000], to: [8000, 8000] } as const;
    for (const launch of causalConvLaunches(wide, 1e18)) expect(launch.groups).toBeLessThanOrEqual(65_535);
  });

  it('takes the past first, for the frames that it reaches', () => {
    const past = { type: 'f16', older: 1 } as const;
    const [launch] = causalConvLaunches(conv, 1e12, past);
    // 2 frames of 3 × 3 squares.
    expect(launch).toEqual({ ...conv, past, first: 0, groups: 9 });
    expect(causalConvMac({ ...conv, past })).toBe((9 * 64 * 16 * 4 * 16 * 9 * 3) / 2);
    const { prelude, params } = causalConv.plan(launch!);
    expect(prelude).toEqual({ T: 'f32', X: 'u32', SPATIAL: true, PACKED: true });
    expect(params).toEqual([0, 8, 2, 9, 10, 4, 24, 3, 1, 9, 10, 0, 0, 0, 0, 0, 2, 0, 1, 0]);
    const alone = { ...conv, frames: 1 };
    expect(causalConvMac({ ...alone, past })).toBe(2 * causalConvMac(alone));
    expectRefusal(() => causalConv.plan({ ...launch!, taps: 1 }), 'has a past for a kernel of three frames only');
  });

  it.each<[Partial<CausalConv>, string]>([
    [{ into: 6 }, 'got 6 to 96'],
    [{ out: 3 }, 'got 16 to 3'],
    [{ out: 4, parts: 2 }, 'got 16 to 4 in 2 parts'],
    [{ frames: 0 }, 'for 0 frames'],
    [{ firstFrame: -1 }, 'for 4 frames from -1'],
    [{ firstFrame: -1 }, 'for 4 frames from -1'],
    [{ to: [10, 10] }, 'makes [10,10] pixels of [9,10]'],
    [{ doubledFrom: [0, 0] }, 'doubles pixels'],
    [{ doubledFrom: [12, 0], taps: 1 }, 'makes [9,10] pixels of [9,10] doubled, from 12,0'],
    [{ doubledFrom: [-1, 0], taps: 1 }, 'from -1,0'],
  ])('refuses %o', (misfit, words) => {
    expectRefusal(() => causalConv.plan({ ...whole!, ...misfit }), words);
  });

  it('refuses workgroups that are not there', () => {
    expectRefusal(() => causalConv.plan({ ...whole!, first: 1 }), 'workgroups 1..16 of 15');
    expectRefusal(() => causalConv.plan({ ...whole!, groups: 0 }), 'workgroups 0..0 of 15');
  });
});

describe('the plan of spatial-attention', () => {
  const frame = { type: 'f32', height: 5, width: 7, channels: 64 } as const;

  it('gives eight queries to a workgroup and four channels to a lane', () => {
    const [launch] = spatialAttentionLaunches(frame, 1e12);
    expect(launch).toEqual({ ...frame, first: 0, blocks: 5 });
    expect(spatialAttention.plan(launch!)).toEqual({
      prelude: { T: 'f32' },
      overrides: { LANES: 16 },
      params: [0, 5, 7],
      groups: [5, 1, 1],
    });
  });

  it('keeps the workgroup memory that is guaranteed', () => {
    const bytes = (channels: number) => (8 * 16 + 2 * 16 + 4) * (channels / 4);
    expect(bytes(396)).toBeLessThanOrEqual(16_384);
    expect(bytes(400)).toBeGreaterThan(16_384);
    expectRefusal(() => spatialAttention.plan({ ...frame, channels: 400, first: 0, blocks: 5 }), 'got 400');
    expectRefusal(() => spatialAttention.plan({ ...frame, channels: 62, first: 0, blocks: 5 }), 'got 62');
  });

  it('refuses queries that are not there', () => {
    expectRefusal(() => spatialAttention.plan({ ...frame, first: 1, blocks: 5 }), 'blocks 1..6 of 5');
    expectRefusal(() => spatialAttention.plan({ ...frame, first: 0, blocks: 0 }), 'blocks 0..0 of 5');
  });
});

describe('the plans of channel-norm, denormalize and crop-planes', () => {
  it('refuse what is no norm', () => {
    const fits = { type: 'f32', positions: 1, channels: 4, silu: true } as const;
    expect(channelNorm.plan(fits).params).toEqual([1, 1, 1]);
    expectRefusal(() => channelNorm.plan({ ...fits, channels: 6 }), '[1, 6]');
    expectRefusal(() => channelNorm.plan({ ...fits, positions: 0 }), '[0, 4]');
  });

  it('refuse latents that do not come in fours', () => {
    expectRefusal(() => denormalize.plan({ type: 'f32', height: 2, width: 3, channels: 15 }), 'got [15, 2, 3]');
    expectRefusal(() => denormalize.plan({ type: 'f32', height: 0, width: 3, channels: 16 }), 'got [16, 0, 3]');
  });

  it.each<[Partial<CropPlanesShape>]>([
    [{ size: [4, 3] }],
    [{ size: [0, 3] }],
    [{ fromAt: [2, 3] }],
    [{ fromAt: [-1, 0] }],
    [{ toAt: [5, 4] }],
    [{ frames: 0 }],
    [{ toFrame: 2 }],
    [{ toFrame: -1 }],
  ])('refuse a rectangle that leaves either side: %o', (misfit) => {
    const fits: CropPlanesShape = {
      type: 'f32',
      frames: 1,
      toFrames: 2,
      toFrame: 1,
      from: [4, 5],
      fromAt: [1, 2],
      to: [7, 7],
      toAt: [4, 4],
      size: [3, 3],
    };
    expect(cropPlanes.plan(fits).params).toEqual([1, 3, 3, 4, 5, 1, 2, 7, 7, 4, 4, 2, 1]);
    expectRefusal(() => cropPlanes.plan({ ...fits, ...misfit }), 'crop-planes copies');
  });
});
