import type { Quantization } from '../manifest';
import type { PartName } from '../part';
import type { ModelStore, StoreProgress } from '../protocol';
import type { ImportOutlook } from './inspect';

/** What crosses the boundary of the worker that imports. */

/** Something to import, as it crosses the worker boundary. */
export type SourceSpec = (
  | { kind: 'url'; url: string }
  /**
   * `path` is the name; files of one folder have it before their own, `transformer/a.safetensors` below `Wan` as
   * `Wan/transformer/…`.
   */
  | { kind: 'file'; path: string; file: Blob }
  | { kind: 'handle'; handle: FileSystemFileHandle | FileSystemDirectoryHandle }
) & {
  /** Expert that it holds, where its name does not say. */
  role?: 'high' | 'low' | undefined;
};

/** How a checkpoint becomes a stored model. */
export interface ImportSettings {
  /** Name for people. */
  name: string;
  /** Storage of the large matrices: 8-bit or 4-bit blocks, or half floats. */
  quantization: Quantization;
  /** SPDX identifier of the weights' licence. */
  license: string;
}

/** An import that was stopped before its end. */
export interface UnfinishedImport extends ImportSettings {
  id: string;
  /** What it was made from, in the words of the one who chose it: names of files and folders, or addresses. */
  sources: string[];
  /** Whether it can go on without choosing the sources again: all are addresses, or handles that the browser kept. */
  remembered: boolean;
  /** Bytes that the model will have at most. */
  sizeBytes: number;
  /** Bytes from which it will go on. */
  storedBytes: number;
  /** Being imported, here or in another tab. */
  busy: boolean;
}

/** An optional part in this browser's storage: an interpolator that every model can use. */
export interface StoredPart {
  /** For deletion. */
  id: string;
  part: PartName;
  /** Of its manifest, as {@link license}. */
  name: string;
  license: string;
  sizeBytes: number;
}

/** Importing into the store, in its worker. Every rejection is a {@link ZoetropeError}. */
export interface Importer {
  /** Tells what the sources are, from their headers alone. */
  inspect(sources: SourceSpec[]): Promise<ImportOutlook>;
  /**
   * Imports into the store, or continues to. `job` identifies the work for {@link stop}. Gives the
   * {@link StoredModel.id}, or of an optional part the {@link StoredPart.id}.
   */
  run(
    sources: SourceSpec[],
    settings: Partial<ImportSettings>,
    job: string,
    report: (progress: StoreProgress) => void,
  ): Promise<string>;
  unfinished(): Promise<UnfinishedImport[]>;
  /**
   * Sources and settings of an unfinished import that can go on without choosing again. Throws `unreadable-source` for
   * others.
   */
  recall(id: string): Promise<{ sources: SourceSpec[]; settings: ImportSettings }>;
  parts(): Promise<StoredPart[]>;
  /** Ends the work with `aborted`. What is there stays. */
  stop(job: string): void;
}

/** What the store's worker exposes. */
export interface StoreWorkerSide {
  readonly store: ModelStore;
  readonly importer: Importer;
}
