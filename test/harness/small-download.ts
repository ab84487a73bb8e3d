import { expect } from 'vitest';
import { hashPiece, MANIFEST_FILE, type Manifest } from '../../src/manifest';
import { blockBytes } from '../../src/store/arrivals';
import { type DownloadOptions, downloadModel } from '../../src/store/download';
import { listPieces } from '../../src/store/pieces';
import { type FakeHost, pieceModel, type Seen } from './store-host';

/** A small model on a fake server, and what its download leaves behind. */

/** Where the fake server has it. */
export const URL_OF_MODEL = 'https://x.test/m/';
export const files = await pieceModel();
export const manifest: Manifest = JSON.parse(new TextDecoder().decode(files.get(MANIFEST_FILE)));
export const id = await hashPiece(files.get(MANIFEST_FILE)!);
/** Bytes of all its files but the manifest. */
export const sizeBytes = [...files].reduce((sum, [path, { length }]) => sum + (path === MANIFEST_FILE ? 0 : length), 0);

/** Downloads with an alterable server. */
export function download(host: FakeHost, options: Partial<DownloadOptions> = {}): Promise<string> {
  const { signal = new AbortController().signal, onProgress = () => undefined } = options;
  return downloadModel(host, URL_OF_MODEL, { ...options, signal, onProgress });
}

/** Expects every file on the disk, whole and flushed. */
export function expectStored(host: FakeHost): void {
  for (const [path, bytes] of files) {
    const stored = host.disk.files.get(`${id} ${path === MANIFEST_FILE ? path : `model/${path}`}`)!;
    expect(Buffer.compare(stored.flushed, bytes), path).toBe(0);
    expect(stored.edited, path).toBe(false);
  }
}

/** Requests of a download without faults: one for each block of each piece. */
export const blockCount = () => {
  const list = listPieces(manifest);
  return list.pieces.reduce((sum, { begin, end }) => sum + Math.ceil((end - begin) / blockBytes(list)), 0);
};
/** Bytes of pieces that were asked for. */
export const bytesAsked = (seen: Seen[]) =>
  seen.filter(isPiece).reduce((sum, { range }) => sum + range![1] - range![0], 0);
/** Whether a request is for a part of a piece. */
export const isPiece = ({ range }: Seen) => range !== undefined;
/** Options that nothing listens to. */
export const only = () => ({ signal: new AbortController().signal, onProgress: () => undefined });
