import { expect, it } from 'vitest';
import { diskFolder } from '../../src/cli/files';
import { decodeFloats } from '../../src/floats';
import { RIFE_46 } from '../../src/part/rife';
import { openPart } from '../../src/store/verified';
import { expectNear, type Tolerance } from '../harness/near';
import { hasRifeReference, rifeFolder, rifeGolden } from '../harness/rife';
import { rifeReference } from '../reference/rife';

/** The stored outputs were computed in f32, ours in float64. Measured 5.7e-6; four times that. */
const F32_GOLDEN: Tolerance = { relativeL2: 1e-5, maxAbs: 2.5e-5 };

it.skipIf(!hasRifeReference)(
  'the float64 network makes what the stored one of RIFE 4.6 made',
  async () => {
    const source = (await openPart(diskFolder(rifeFolder), 'rife')).open();
    const tensors = new Map<string, { shape: readonly number[]; values: Float32Array }>();
    for (const [name, { dtype, shape }] of source.entries) {
      const values = decodeFloats(await source.read(name), dtype as 'F16' | 'F32').slice();
      tensors.set(name, { shape, values });
    }
    const golden = rifeGolden();
    const { shape, values } = golden.get('a.img0')!;
    const pictures = [values, golden.get('a.img1')!.values] as const;
    const { scales, multiple } = RIFE_46;
    const size = [shape[1]!, shape[2]!] as const;
    const { rgb, mask } = rifeReference(tensors, { scales, multiple, encoder: false }, pictures, size, 0.5);
    expectNear(rgb, golden.get('a.out@0.5')!.values, F32_GOLDEN, 'frame');
    expectNear(mask, golden.get('a.mask_logit_final@0.5')!.values, { relativeL2: 1e-4, maxAbs: 1e-4 }, 'mask');
    expect(rgb).toHaveLength(3 * size[0] * size[1]);
  },
  120_000,
);
