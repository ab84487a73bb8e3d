import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { demoModel } from '../harness/chromium';
import { smallSizes } from '../harness/small-sizes';

/** A job of a quarter of the pixels and one branch, for many blows in little time. */
export const SMALL_REQUEST = {
  prompt: 'a red circle moving right',
  seed: 7,
  num_frames: 17,
  num_inference_steps: 3,
  guidance_scale: 1,
  guidance_scale_2: 1,
  aspect_ratio: '1:1',
  acceleration: 'none',
  interpolator_model: 'none',
} as const;

/** The demo model offering 32 by 32 pixels for every size. */
export interface SmallModel extends Disposable {
  folder: string;
}

/** Copies the demo model. */
export function smallModel(): SmallModel {
  const folder = mkdtempSync(join(tmpdir(), 'zoetrope-crash-'));
  cpSync(demoModel, folder, { recursive: true });
  const path = join(folder, 'zoetrope.json');
  const manifest = { ...JSON.parse(readFileSync(path, 'utf8')), sizes: smallSizes(32) };
  writeFileSync(path, JSON.stringify(manifest));
  return { folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true }) };
}
