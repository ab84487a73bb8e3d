import type { StoreProgress } from '../protocol';

/** How work on a stored model is watched and stopped. */
export interface StoreOptions {
  /** Stops with the code `aborted`. What is there stays, and the same call continues from there. */
  signal?: AbortSignal;
  onProgress?: (progress: StoreProgress) => void;
}

/**
 * Something to import: a file, a handle of a file or folder, an address, and the expert that it holds where its name
 * does not say.
 */
export type ImportInput =
  | string
  | URL
  | File
  | FileSystemFileHandle
  | FileSystemDirectoryHandle
  | { from: string | URL | File | FileSystemFileHandle | FileSystemDirectoryHandle; role: 'high' | 'low' };
