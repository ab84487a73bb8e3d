/** Optional parts that lie beside a model, in folders of their own: what such a folder states. */
import type { ManifestFile } from './manifest';

/** Parts that have a folder. */
export type PartName = 'film' | 'rife';

/**
 * Contents of a part's `zoetrope.json`. A part is found at `../<part>/` of a model folder, so that models of one server
 * share it; `part` tells its manifest from a model's.
 */
export interface PartManifest {
  /** Version of this file's layout. */
  format: 1;
  part: PartName;
  /** Name for people, e.g. "RIFE 4.6". */
  name: string;
  /** SPDX identifier of the weights' licence. */
  license: string;
  /** Safetensors shards. */
  files: ManifestFile[];
}
