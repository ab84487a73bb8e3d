import { writeComponents } from '../checkpoint/component-writer';
import { checkParts } from '../checkpoint/diffusers';
import {
  checkLabels,
  copyTokenizer,
  type ManifestFacts,
  manifestOf,
  previewOf,
  type WriteModelOptions,
  writeManifest,
} from '../checkpoint/import';
import { fingerprintOf, Journal, type ResumableFolder } from '../checkpoint/journal';
import type { OpenedComponents } from '../checkpoint/open';
import { openIfThere } from '../checkpoint/safetensors';
import type { Checkpoint } from '../checkpoint/weights';
import { ZoetropeError } from '../errors';
import { type ComponentName, MANIFEST_FILE, type Manifest } from '../manifest';
import { MAX_MANIFEST_BYTES, parseManifest } from '../store/manifest-reader';

/** Importing some components of a model into a folder that has, or will have, the others. */

/** Components in the order in which they are told. */
export const COMPONENT_NAMES: readonly ComponentName[] = ['high', 'low', 'text_encoder', 'vae', 'tokenizer'];

/** What a folder holds while components are missing; a model's `zoetrope.json` is there only when none is. */
const PARTIAL_FILE = 'zoetrope-partial.json';
/** The same while it is being written, since the cut of that must not forget the components that are there. */
const PARTIAL_COPY = 'zoetrope-partial-new.json';

/** Contents of {@link PARTIAL_FILE}: of a manifest what is known by now. */
type Facts = Partial<Omit<ManifestFacts, 'components'>> &
  Pick<ManifestFacts, 'components' | 'quantization'> &
  Partial<Pick<Manifest, 'name' | 'license' | 'sizes' | 'acceleration'>>;

/** Names of components from a comma-separated list. Throws `bad-request` for other names. */
export function parseComponents(list: string): ComponentName[] {
  const names = list.split(',').map((name) => name.trim());
  const wrong = names.find((name) => !COMPONENT_NAMES.some((known) => known === name));
  if (wrong !== undefined) {
    const allowed = COMPONENT_NAMES.join(', ');
    throw new ZoetropeError('bad-request', `A component is one of ${allowed}, separated by commas; got "${wrong}".`);
  }
  return COMPONENT_NAMES.filter((name) => names.includes(name));
}

/** Components without which the folder is no model. */
function missingOf({ components, boundary, dit, umt5, vae }: Facts): ComponentName[] {
  const two = (boundary ?? null) !== null || components.low !== undefined;
  const known: Partial<Record<ComponentName, unknown>> = {
    high: dit,
    low: dit,
    text_encoder: umt5,
    vae,
    tokenizer: true,
  };
  return COMPONENT_NAMES.filter((name) => {
    if (name === 'low' && !two) return false;
    return components[name] === undefined || known[name] === undefined;
  });
}

async function readWhole(folder: ResumableFolder, path: string): Promise<Uint8Array | undefined> {
  const file = await openIfThere(folder, path);
  return file && file.sizeBytes <= MAX_MANIFEST_BYTES ? file.read(0, file.sizeBytes) : undefined;
}

/** What a folder without a manifest holds; undefined for nothing. */
async function partialFacts(folder: ResumableFolder): Promise<Facts | undefined> {
  for (const path of [PARTIAL_FILE, PARTIAL_COPY]) {
    const bytes = await readWhole(folder, path);
    try {
      const facts = bytes && (JSON.parse(new TextDecoder().decode(bytes)) as Partial<Facts> | null);
      if (typeof facts?.components === 'object' && facts.components !== null) return facts as Facts;
    } catch {
      // Its write was cut: the other one is whole.
    }
  }
  return undefined;
}

/** What the folder holds: a model, some components, or nothing. */
async function existingFacts(folder: ResumableFolder): Promise<Facts | undefined> {
  const bytes = await readWhole(folder, MANIFEST_FILE);
  if (!bytes) return partialFacts(folder);
  try {
    const model = parseManifest(bytes);
    // The recommended shift is the checkpoint's own where it has one.
    return { ...model, shift: Number(model.recommended.shift ?? 5) };
  } catch (error) {
    const facts = await partialFacts(folder); // Removed after the manifest was written, so that write was cut.
    if (facts) return facts;
    throw error;
  }
}

function refuse(message: string): never {
  throw new ZoetropeError('bad-request', message);
}

/** What the folder will keep beside the new components. Throws where they cannot be of one model. */
function kept(
  existing: Facts,
  opened: OpenedComponents,
  wanted: readonly ComponentName[],
  quantization: string,
): Facts {
  const components = { ...existing.components };
  for (const name of wanted) delete components[name];
  const left = Object.keys(components).filter((name) => name !== 'tokenizer');
  if (left.length > 0 && existing.quantization !== quantization) {
    refuse(
      `The folder holds ${left.join(', ')} as ${existing.quantization}. Give --quant ${existing.quantization}, or another folder.`,
    );
  }
  const experts = left.filter((name) => name === 'high' || name === 'low');
  if (experts.length > 0 && opened.dit && JSON.stringify(opened.dit) !== JSON.stringify(existing.dit)) {
    refuse(
      `The folder's ${experts.join()}-noise expert has other sizes than the new one; both must have the same. Give another folder.`,
    );
  }
  // Measured ratios are of the very experts that they were measured with.
  const replaced = wanted.some((name) => name === 'high' || name === 'low');
  return { ...existing, ...(replaced && { acceleration: undefined }), components };
}

/** How components are imported. */
export interface ComponentImportOptions
  extends Pick<
    WriteModelOptions,
    'quantization' | 'license' | 'sizes' | 'convert' | 'ahead' | 'onProgress' | 'signal'
  > {
  /** Name for people. Default: the one that the folder's model has or was told, else `defaultName`. */
  name?: string | undefined;
  defaultName: string;
  folder: ResumableFolder;
  wanted: readonly ComponentName[];
}

/** What an import of components comes to. */
export interface ComponentImport {
  /** What the folder holds now. */
  components: Manifest['components'];
  /** What it still lacks; with nothing missing it is a model, of this manifest. */
  missing: ComponentName[];
  manifest: Manifest | undefined;
}

async function writeFacts(folder: ResumableFolder, facts: Facts): Promise<void> {
  for (const path of [PARTIAL_COPY, PARTIAL_FILE]) {
    const file = await folder.create(path);
    try {
      await file.write(0, new TextEncoder().encode(JSON.stringify(facts)));
    } finally {
      await file.close();
    }
  }
  await folder.remove(PARTIAL_COPY);
}

/** Removes what {@link importComponents} notes in a folder that is a model now. */
export async function removePartial(folder: ResumableFolder): Promise<void> {
  for (const path of [PARTIAL_FILE, PARTIAL_COPY]) await folder.remove(path);
}

/** Components in the order in which a whole import lists them, so that the same model has the same manifest. */
function inOrder(components: Manifest['components']): Manifest['components'] {
  const order: readonly ComponentName[] = ['tokenizer', 'text_encoder', 'high', 'low', 'vae'];
  return Object.fromEntries(order.flatMap((name) => (components[name] ? [[name, components[name]]] : [])));
}

/**
 * Imports components into a folder, replacing those of the same names, and makes it a model when none is missing.
 * Stopped, it goes on like any import. Throws `bad-request` where the folder's other components are of another storage
 * or size, `bad-checkpoint` where the parts do not fit together, and what writing throws.
 */
export async function importComponents(
  opened: OpenedComponents,
  options: ComponentImportOptions,
): Promise<ComponentImport> {
  const { folder, wanted, quantization, defaultName, signal } = options;
  const existing = await existingFacts(folder);
  const base: Facts = existing ? kept(existing, opened, wanted, quantization) : { components: {}, quantization };
  const { weights, tokenizer, ...told } = opened;
  const known = Object.fromEntries(Object.entries(told).filter(([, value]) => value !== undefined));
  // What an earlier import was told and this one is not, stays.
  const { name = base.name, license = base.license, sizes = base.sizes } = options;
  checkLabels({ name: name ?? defaultName, license });
  const lasting = {
    ...(name !== undefined && { name }),
    ...(license !== undefined && { license }),
    ...(sizes && { sizes }),
  };
  const facts: Facts = { ...base, ...known, ...lasting, quantization };
  if (facts.dit && facts.umt5 && facts.vae) checkParts(facts.dit, facts.umt5, facts.vae);
  // Before the model is taken apart, so that a stopped import forgets none of the other components.
  await writeFacts(folder, base);
  await folder.remove(MANIFEST_FILE);
  const none = { sizeBytes: 0, read: async () => new Uint8Array(0) };
  // The writer looks at the configurations of the components that are there, which are known.
  const checkpoint = { ...facts, weights, tokenizer: tokenizer ?? none } as unknown as Checkpoint;
  const journal = await Journal.open(folder, await fingerprintOf(checkpoint, [quantization, wanted]));
  if (tokenizer) facts.components = { ...facts.components, tokenizer: [await copyTokenizer(folder, { tokenizer })] };
  const written = await writeComponents(checkpoint, { ...options, sink: folder, journal: { journal, folder } });
  facts.components = inOrder({ ...facts.components, ...written });
  if (weights.vae) facts.preview = await previewOf(checkpoint, signal);
  const missing = missingOf(facts);
  let manifest: Manifest | undefined;
  if (missing.length > 0) await writeFacts(folder, facts);
  else {
    const single = { boundary: facts.boundary ?? null, shift: facts.shift ?? 5 };
    const all = { ...(facts as ManifestFacts), ...single };
    const { components, ...rest } = manifestOf(all, { name: defaultName, ...lasting });
    const { acceleration = rest.acceleration } = base;
    manifest = { ...rest, ...(acceleration && { acceleration }), components };
    parseManifest(new TextEncoder().encode(JSON.stringify(manifest)));
    await writeManifest(folder, manifest);
    await removePartial(folder);
  }
  await journal.remove();
  return { components: facts.components, missing, manifest };
}
