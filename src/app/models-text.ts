/** Stored models in words, and what can be done with each. Pure. */
import type { StorageUse, StoredModel, StoreProgress, Verification } from '../index';
import { formatBytes, formatClock } from './format';

/** What a person can do with a model of the list. */
export type ModelAction = 'open' | 'pause' | 'resume' | 'cancel' | 'stop' | 'verify' | 'repair' | 'delete';

/** Work of this page on a model. */
export type ModelWork = 'download' | 'verify' | 'repair';

export const ACTION_TEXTS: Record<ModelAction, string> = {
  open: 'Open',
  pause: 'Pause',
  resume: 'Resume',
  cancel: 'Cancel',
  stop: 'Stop',
  verify: 'Verify',
  repair: 'Repair',
  delete: 'Delete',
};

/** @param working what this page is doing with the model, if anything. */
export function actionsFor(
  model: Pick<StoredModel, 'state' | 'busy' | 'url'>,
  working: ModelWork | undefined,
): ModelAction[] {
  if (working === 'download') return ['pause', 'cancel'];
  if (working) return ['stop'];
  if (model.busy) return [];
  if (model.state === 'complete') return ['open', 'verify', 'delete'];
  if (model.url === null) return ['delete'];
  return [model.state === 'partial' ? 'resume' : 'repair', 'delete'];
}

/** `14.0 MB, complete` or what is missing. */
export function stateText({ state, busy, sizeBytes, storedBytes, url }: StoredModel): string {
  if (busy) return 'Another tab is working on it';
  if (state === 'complete') return `${formatBytes(sizeBytes)}, complete`;
  const remedy = url === null ? '; import or download it again to complete it' : '';
  if (state === 'partial') return `${formatBytes(storedBytes)} of ${formatBytes(sizeBytes)}${remedy}`;
  return `Its manifest is damaged${remedy}`;
}

/** `1.20 GB of 9.80 GB, 45.0 MB/s, about 3 min 10 s left`. */
export function progressText(progress: StoreProgress): string {
  const { state, doneBytes, totalBytes, bytesPerSecond, remainingMs, note } = progress;
  if (state === 'retrying') return note;
  const parts = [`${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`];
  if (state === 'verifying') parts.unshift('Verifying');
  if (state === 'importing') parts[0] += ' of the sources';
  if (bytesPerSecond !== null) parts.push(`${formatBytes(bytesPerSecond)}/s`);
  if (remainingMs !== null && doneBytes < totalBytes) parts.push(`about ${formatClock(remainingMs)} left`);
  return state === 'waiting' ? `${note} ${parts[0]}` : parts.join(', ');
}

/** `14.0 MB used, 60.0 GB free. …` */
export function storageText({ usedBytes, quotaBytes, persisted }: StorageUse): string {
  const free = Math.max(0, quotaBytes - usedBytes);
  const kept = persisted
    ? 'The browser keeps it when the disk gets full.'
    : 'The browser may delete it when the disk gets full.';
  return `${formatBytes(usedBytes)} used, ${formatBytes(free)} free. ${kept}`;
}

/** What a verification says to a person. */
export function verificationText({ complete, broken, verifiedBytes }: Verification): string {
  if (broken.length > 0) {
    const pieces = broken.length === 1 ? 'One piece was' : `${broken.length} pieces were`;
    return `${pieces} damaged and will be fetched again. ${formatBytes(verifiedBytes)} are as published.`;
  }
  return complete
    ? `All ${formatBytes(verifiedBytes)} are as published.`
    : `${formatBytes(verifiedBytes)} are as published; the rest is missing.`;
}
