import { computeAll } from './diffusion/cache';
import { RatioRecorder } from './diffusion/calibration';
import { denoise } from './diffusion/denoise';
import { residualBytes } from './diffusion/residuals';
import { ZoetropeError } from './errors';
import type { Acceleration } from './manifest';
import { denoiseHost, encodePrompts, type Host, Parts } from './pipeline';
import { planVideo } from './plan';
import { deviceBudget } from './plan/device';
import { ProgressMeter, StageClock } from './progress';
import type { Report } from './protocol';
import { type Request, resolveRequest } from './request';

/**
 * Measures the ratios that `acceleration: "regular"` goes by: one run of the request with every step computed, of which
 * only the residuals' magnitudes are kept. Throws what a generation throws, and `bad-request` where a branch does not
 * run or an expert has fewer than two steps.
 */
export function calibrate(request: Request, host: Host, report: Report): Promise<Acceleration> {
  return host.gpu.job(host.signal, () => measureRatios(request, host, report));
}

async function measureRatios(request: Request, host: Host, report: Report): Promise<Acceleration> {
  const { model } = host;
  const resolved = resolveRequest({ ...request, acceleration: 'none' }, host.available, host.randomSeed);
  const { guidance_scale, guidance_scale_2 } = resolved;
  if (guidance_scale === 1 || guidance_scale_2 === 1) {
    throw new ZoetropeError(
      'bad-request',
      `Both guidance branches are measured, so no guidance scale may be 1; got ${guidance_scale} and ${guidance_scale_2}.`,
    );
  }
  const budget = deviceBudget(host.gpu, host.budgetBytes, host.pace);
  const { dit } = planVideo(resolved, model.manifest, budget).denoise;
  const residuals = residualBytes(model.manifest.dit, dit, 2);
  const plan = planVideo(resolved, model.manifest, { ...budget, budgetBytes: budget.budgetBytes - residuals });
  model.arrange(plan.weights);
  const meter = new ProgressMeter({ ...plan.work, decode: 0 }, host.now, report.progress);
  const parts = new Parts(host, meter, new StageClock(host.now));
  const [positive, negative] = await encodePrompts([resolved.prompt, resolved.negative_prompt], host, parts, meter);
  const { schedule } = plan.denoise;
  const evaluations = computeAll(schedule, resolved, 'keep');
  const recorder = new RatioRecorder();
  meter.report('diffusion', 0, schedule.timesteps.length);
  const latents = await denoise(
    { ...plan.denoise, evaluations },
    positive!,
    negative!,
    denoiseHost(host, parts, plan, meter),
    async ({ index, stage, residuals }) => {
      recorder.add(stage, schedule.sigmas[index]!, await residuals!.norms(0), await residuals!.norms(1));
      meter.report('diffusion', index + 1, schedule.timesteps.length);
    },
  );
  latents[Symbol.dispose]();
  return recorder.result(model.manifest.boundary);
}
