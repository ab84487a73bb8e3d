import type { PlannedStage, PlanReport } from '../protocol';
import { bytesText } from './nearest';

/** A plan in words. */

type Told = Omit<PlanReport, 'summary' | 'explanation'>;

/** `22 minutes`: as exact as an estimate is. */
export function durationText(seconds: number): string {
  const counted = (count: number, unit: string) => `${count} ${unit}${count === 1 ? '' : 's'}`;
  if (seconds < 10) return 'a few seconds';
  if (seconds < 90) return counted(Math.round(seconds / 5) * 5, 'second');
  if (seconds < 5400) return counted(Math.round(seconds / 60), 'minute');
  const hours = seconds / 3600;
  return hours < 10 ? `${hours.toFixed(1).replace('.0', '')} hours` : counted(Math.round(hours), 'hour');
}

/**
 * One sentence: `fits: 9.8 of 16.0 GB, about 22 minutes on this GPU; at 480p about 6 minutes`.
 * @param where the device in the sentence's words.
 */
export function summarize(report: Told, where: string): string {
  if (!report.fits) return report.refused!.message;
  const { peakBytes, budgetBytes, seconds, lower } = report;
  const peak = bytesText(peakBytes!);
  const [number, unit] = peak.split(' ');
  const budget = budgetBytes === null ? '' : bytesText(budgetBytes);
  const memory =
    budgetBytes === null ? peak : budget.endsWith(unit!) ? `${number} of ${budget}` : `${peak} of ${budget}`;
  const time = seconds === null ? '' : `, about ${durationText(seconds)} ${where}`;
  const smallest = lower.at(-1);
  const less =
    smallest?.fits && smallest.seconds !== null
      ? `; at ${smallest.resolution} about ${durationText(smallest.seconds)}`
      : '';
  return `fits: ${memory}${time}${less}`;
}

const STAGE_NAMES: Record<PlannedStage['name'], string> = {
  text: 'text encoder',
  high: 'high-noise steps',
  low: 'low-noise steps',
  decode: 'decoding',
};

/** The summary, a table of the stages, and what was decided, line by line. */
export function explain(report: Told, summary: string): string {
  const { width, height, frames, stages } = report;
  const head = [summary, `${width} × ${height} pixels, ${frames} frames`];
  if (!report.fits) return head.join('\n');
  const rows = stages.map(({ name, bytes, seconds }) => [
    STAGE_NAMES[name],
    bytesText(bytes),
    seconds === null ? '' : durationText(seconds),
  ]);
  const table = [['stage', 'memory', 'time'], ...rows];
  const wide = [0, 1].map((column) => Math.max(...table.map((row) => row[column]!.length)));
  const lines = table.map(([stage, memory, time]) =>
    `${stage!.padEnd(wide[0]!)}  ${memory!.padStart(wide[1]!)}  ${time}`.trimEnd(),
  );
  return [...head, '', ...lines, '', ...decisionLines(report)].join('\n');
}

function decisionLines(report: Told): string[] {
  const { residency, slots, textEncoder, chunkTokens, headGroups, queryRows, vaeTile, filmTile } = report;
  const weights = {
    all: 'all on the GPU',
    one: 'one network at a time',
    streamed: `streamed, ${slots} blocks at a time`,
  }[residency!];
  const saving = [
    report.branchOrder === 'branch-major' ? 'one prompt after the other' : undefined,
    report.textKeys === 'each-block' ? 'text keys made in each block' : undefined,
    report.headSweeps! > 1 ? `heads in ${report.headSweeps} sweeps` : undefined,
  ].filter((line) => line !== undefined);
  const lines = [
    `weights: ${weights}; text encoder ${textEncoder}`,
    `tokens: chunks of ${chunkTokens}, heads in ${headGroups} groups, attention ${queryRows} rows at a time`,
    ...(saving.length > 0 ? [`to save memory: ${saving.join(', ')}`] : []),
    `decoder: ${vaeTile === null || vaeTile === undefined ? 'whole frames' : `tiles of ${8 * vaeTile} pixels`}`,
  ];
  if (filmTile) lines.push(`FILM: runs of ${filmTile[1]} × ${filmTile[0]} pixels`);
  return lines;
}
