import { attentionLaunches } from '../../kernels/attention';
import { ZoetropeError } from '../errors';
import type { Resolution } from '../manifest';
import { type Plan, planVideo } from '../plan';
import type { PlannedSize, PlanReport } from '../protocol';
import type { ResolvedRequest } from '../request';
import { videoShape } from '../shape';
import type { DeviceBudget } from './device';
import { explain, summarize } from './explain';
import type { Refusal } from './nearest';
import type { PlannedModel, PlanOptions } from './task';

/** From the largest on. */
const RESOLUTIONS: readonly Resolution[] = ['720p', '580p', '480p'];

/**
 * What a request would take, or why it is refused, for people and for programs.
 * @param where the device in a sentence's words, e.g. `on this GPU`.
 */
export function reportPlan(
  request: ResolvedRequest,
  model: PlannedModel,
  limits: DeviceBudget,
  where: string,
  options: PlanOptions = {},
): PlanReport {
  const planned = tryPlan(request, model, limits, options);
  const budgetBytes = Number.isFinite(limits.budgetBytes) ? limits.budgetBytes : null;
  const lower = lowerRequests(request, model).map((each) => sizeOf(each, model, tryPlan(each, model, limits, options)));
  const common = { ...sizeOf(request, model, planned), budgetBytes, lower };
  const report: Omit<PlanReport, 'summary' | 'explanation'> =
    'stages' in planned
      ? { ...common, ...decisions(planned) }
      : { ...common, stages: [], refused: { ...planned.refusal, message: planned.message } };
  const summary = summarize(report, where);
  return { ...report, summary, explanation: explain(report, summary) };
}

function decisions(plan: Plan): Partial<PlanReport> & Pick<PlanReport, 'stages'> {
  const { dit } = plan.denoise;
  const { tokens } = dit;
  const queries = dit.chunks[0]!.tokens;
  const heads = dit.headGroups[0]!.heads;
  const shape = { type: dit.type, queries, keys: tokens, heads, qHeads: heads, headOffset: 0, lastKeyBias: 0 };
  const work = plan.stages.reduce((sum, { flop }) => sum + flop, 0);
  return {
    residency: plan.weights.residency,
    slots: plan.weights.residency === 'streamed' ? plan.weights.slots : null,
    textEncoder: plan.weights.textSlots === null ? 'whole' : 'streamed',
    chunkTokens: queries,
    headGroups: dit.headGroups.length,
    headSweeps: Math.ceil(dit.headGroups.length / dit.groupsPerSweep),
    queryRows: attentionLaunches(shape, dit.maxMacPerDispatch)[0]!.queryCount,
    branchOrder: dit.branchOrder,
    textKeys: dit.textKeys,
    vaeTile: plan.vaeTile,
    filmTile: plan.filmTile,
    flop: work,
    stages: plan.stages,
    buffers: plan.buffers,
  };
}

/** A plan, or the refusal. */
function tryPlan(request: ResolvedRequest, model: PlannedModel, limits: DeviceBudget, options: PlanOptions) {
  try {
    return planVideo(request, model, limits, options);
  } catch (error) {
    if (!(error instanceof ZoetropeError) || error.code !== 'out-of-memory') throw error;
    return { message: error.message, refusal: error.detail[0]!.ctx as unknown as Refusal };
  }
}

function sizeOf(request: ResolvedRequest, model: PlannedModel, planned: ReturnType<typeof tryPlan>): PlannedSize {
  const { width, height, frames } = videoShape(request, model.sizes);
  const fits = 'stages' in planned;
  const [peakBytes, seconds] = fits ? [planned.peakBytes, planned.seconds] : [null, null];
  return { resolution: request.resolution, width, height, frames, fits, peakBytes, seconds };
}

/** The same request at lower resolutions that are other pixels. */
function lowerRequests(request: ResolvedRequest, { sizes }: PlannedModel): ResolvedRequest[] {
  const pixels = (resolution: Resolution) => String(sizes[resolution][request.aspect_ratio]);
  return RESOLUTIONS.slice(RESOLUTIONS.indexOf(request.resolution) + 1)
    .filter((resolution) => pixels(resolution) !== pixels(request.resolution))
    .map((resolution) => ({ ...request, resolution }));
}
