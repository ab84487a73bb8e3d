import { appendFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { messageOf } from '../../src/errors';
import buildPage from '../harness/build-page';
import { randomOf, strikePoints } from './points';
import { SMALL_REQUEST, smallModel } from './small';
import { CrashSite, faultOf, type Kind } from './trial';

/**
 * npm run crash-test -- [--gpu 50] [--destroy 200] [--tab 20] [--small] [--blows 1] [--seed 1] [--log FILE]
 *
 * Makes one small video of the demo model over and over in Chromium, each time with one blow, or `--blows`: the GPU's
 * process crashes, the device is destroyed, or the tab's process crashes. `--small`: a quarter of the pixels and no
 * guidance. Each must end with the frames of the undisturbed video. Exits with 1 when one does not.
 */

const { values } = parseArgs({
  args: process.argv.slice(2).filter((argument) => argument !== '--'),
  options: {
    gpu: { type: 'string', default: '50' },
    destroy: { type: 'string', default: '200' },
    tab: { type: 'string', default: '20' },
    small: { type: 'boolean', default: false },
    blows: { type: 'string', default: '1' },
    seed: { type: 'string', default: '1' },
    log: { type: 'string' },
  },
});

const REQUEST = {
  prompt: 'a red circle moving right',
  seed: 7,
  num_frames: 17,
  num_inference_steps: 3,
  aspect_ratio: '1:1',
  acceleration: 'none',
  num_interpolated_frames: 0,
} as const;

const say = (line: string): void => {
  console.log(line);
  if (values.log) appendFileSync(values.log, `${line}\n`);
};

if (values.log) writeFileSync(values.log, '');
buildPage();
const random = randomOf(Number(values.seed));
const model = values.small ? smallModel() : undefined;
const site = model
  ? await CrashSite.open(SMALL_REQUEST, { '/small/': model.folder }, '/small/')
  : await CrashSite.open(REQUEST);
const undisturbed = await site.run('count', []);
const again = await site.run('count', []);
if (again.sha256 !== undisturbed.sha256) throw new Error('Two undisturbed runs give different frames.');
say(
  `undisturbed: ${again.submits} submissions, frames ${undisturbed.sha256.slice(0, 16)}, seed of the points ${values.seed}`,
);

const blows = Number(values.blows);
let failures = 0;
for (const kind of ['gpu', 'tab', 'destroy'] satisfies Kind[]) {
  const points = strikePoints(Number(values[kind]), again.submits, random);
  const began = performance.now();
  // Blows of one job come from all over it: every n-th point.
  const jobs = Math.ceil(points.length / blows);
  for (let job = 0; job < jobs; job++) {
    const struck = points.filter((_, index) => index % jobs === job).sort((a, b) => a - b);
    const since = performance.now();
    const name = `${kind} ${job + 1}/${jobs} at submission ${struck.join(', ')}`;
    try {
      const outcome = await site.persist(kind, struck);
      const fault = faultOf(outcome, undisturbed, struck.length);
      if (fault) failures++;
      const from = outcome.resumed.map(({ reported, from }) => `step ${from}, ${reported} reported`).join('; ');
      const how = outcome.clicked ? 'continued' : outcome.resumed.length > 0 ? 'went on' : 'began anew';
      const seconds = ((performance.now() - since) / 1000).toFixed(1);
      say(`${fault ? 'FAIL' : 'ok'} ${name}: ${fault ?? how}${from && ` behind ${from}`}, ${seconds} s`);
    } catch (error) {
      failures++;
      say(`FAIL ${name}: ${messageOf(error).split('\n')[0]}`);
    }
  }
  if (points.length > 0)
    say(`${kind}: ${points.length} points in ${((performance.now() - began) / 60_000).toFixed(1)} minutes`);
}
await site.close();
model?.[Symbol.dispose]();
say(`${failures} failed`);
process.exit(failures > 0 ? 1 : 0);
