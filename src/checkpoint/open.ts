import { ditShapes, umt5Shapes, type VaeConfig, vaeShapes } from '../config';
import { ZoetropeError } from '../errors';
import { type ByteSource, type ComponentName, checkLayers } from '../manifest';
import { checkParts, openDiffusers, readPipeline, refuseSameExperts } from './diffusers';
import type { Part } from './identify';
import { openIfThere } from './safetensors';
import { type Found, type FoundPart, findParts, type ImportSource } from './sources';
import { variantOf } from './variants';
import { type Checkpoint, nameWeights, type Weights } from './weights';

/** `boundary` of wan/configs/wan_t2v_A14B.py: where the experts change, which their files do not say. */
const EXPERT_BOUNDARY = 0.875;
/** The endpoint's default shift, for files without a scheduler's configuration. */
const DEFAULT_SHIFT = 5;

type Kind = Part['kind'];
type PartOf<K extends Kind> = FoundPart & { part: Extract<Part, { kind: K }> };

function refuse(message: string): never {
  throw new ZoetropeError('bad-checkpoint', message);
}

function partsOf<K extends Kind>({ parts }: Found, kind: K): PartOf<K>[] {
  const all = parts.filter((found): found is PartOf<K> => found.part.kind === kind);
  const explicit = all.filter((found) => found.explicit);
  return explicit.length > 0 ? explicit : all;
}

/** The one part of a kind. */
function only<K extends Kind>(found: Found, kind: K, name: string, where: string): PartOf<K> {
  const [part, second] = partsOf(found, kind);
  if (!part) refuse(`No source holds ${name}. Add one: ${where}.`);
  if (second) refuse(`Both ${part.path} and ${second.path} hold ${name}. Give one of them.`);
  return part;
}

/**
 * Which file is which expert. Two files need their roles from their names or from the person; a single one of A14B's
 * size that is named after an expert is half a model.
 */
export function assignExperts<T extends Pick<FoundPart, 'path' | 'role'>>(experts: readonly T[]): { high: T; low?: T } {
  const list = experts.map(({ path, role }) => `${path} (${role ?? 'not told'})`).join(', ');
  const [first, second] = experts;
  if (!first) refuse('No source holds a diffusion model. Add the expert files, or the folder that they are in.');
  if (experts.length > 2) refuse(`There are ${experts.length} diffusion models: ${list}. A model has one or two.`);
  if (!second) {
    if (first.role === 'low') {
      refuse(`${first.path} is the low-noise expert alone. Add the high-noise one of the same release.`);
    }
    return { high: first };
  }
  const high = experts.find(({ role }) => role === 'high');
  const low = experts.find(({ role }) => role === 'low');
  if (!high || !low) {
    refuse(
      `Which file is the high-noise expert and which the low-noise one is not clear: ${list}. Say it with --high and --low.`,
    );
  }
  return { high, low };
}

function vaeConfigOf({ part, path }: PartOf<'vae'>, given: VaeConfig | undefined): VaeConfig {
  const config = given ?? part.config;
  if (config) return config;
  return refuse(
    `${path}: this VAE has ${part.baseDim} channels where Wan 2.1's has 96, and the file does not hold its latents' statistics. Give its config.json (diffusers) as well.`,
  );
}

async function chooseTokenizer({ tokenizers }: Found): Promise<ByteSource> {
  const best = Math.max(...tokenizers.map(({ rank }) => rank));
  const candidates = tokenizers.filter(({ rank }) => rank === best);
  const [first] = candidates;
  if (!first) {
    refuse(
      'No source holds a tokenizer. Add google/umt5-xxl’s tokenizer.json, or a text encoder file that carries it.',
    );
  }
  const explicit = candidates.filter(({ rank }) => rank === 2);
  if (explicit.length > 1)
    refuse(`Both ${explicit[0]!.path} and ${explicit[1]!.path} are tokenizers. Give one of them.`);
  return first.open();
}

async function assemble(found: Found): Promise<Checkpoint> {
  const experts = assignExperts(partsOf(found, 'dit'));
  const text = only(found, 'text_encoder', 'a text encoder', 'umt5_xxl (ComfyUI, GGUF or a text_encoder folder)');
  const decoder = only(found, 'vae', 'a VAE', 'wan_2.1_vae.safetensors or a vae folder');
  const dit = experts.high.part.config;
  const umt5 = text.part.config;
  const vae = vaeConfigOf(decoder, found.vaeConfig);
  checkParts(dit, umt5, vae);
  // Of Wan 2.1's 14B, of the same sizes, the folder `transformer` is the whole model.
  const whole = /(^|[\\/])transformer$/.test(experts.high.path);
  if (!experts.low && experts.high.role === 'high' && !whole && variantOf(dit, 2) === 'a14b') {
    refuse(`${experts.high.path} is the high-noise expert alone. Add the low-noise one of the same release.`);
  }
  if (experts.low && JSON.stringify(experts.low.part.config) !== JSON.stringify(dit)) {
    refuse(`${experts.low.path} has other sizes than ${experts.high.path}; both experts must have the same.`);
  }
  const configs = { dit, umt5, vae };
  const expert = ({ tensors, part, path }: PartOf<'dit'>): Weights => {
    checkLayers(configs, 'high', tensors.tensors.size, path);
    return nameWeights(tensors, ditShapes(part.config), part.scheme, path);
  };
  checkLayers(configs, 'text_encoder', text.tensors.tensors.size, text.path);
  checkLayers(configs, 'vae', decoder.tensors.tensors.size, decoder.path);
  const weights = {
    text_encoder: nameWeights(text.tensors, umt5Shapes(umt5), text.part.scheme, text.path),
    high: expert(experts.high),
    vae: nameWeights(decoder.tensors, vaeShapes(vae), decoder.part.scheme(vae), decoder.path),
    ...(experts.low && { low: expert(experts.low) }),
  };
  if (weights.low) await refuseSameExperts(weights.high, weights.low);
  const tokenizer = await chooseTokenizer(found);
  const boundary = experts.low ? EXPERT_BOUNDARY : null;
  return { dit, umt5, vae, boundary, shift: DEFAULT_SHIFT, tokenizer, weights };
}

/**
 * Opens a checkpoint from whatever a person has: one folder in the diffusers layout, or any mix of files and folders
 * that together hold one or two diffusion experts, a text encoder, a VAE and a tokenizer. What each is, its content
 * tells; which expert, its name. Names, shapes, dtypes and that the parts fit are checked without reading the weights.
 * Throws `bad-checkpoint` and `unreadable-source`.
 */
export async function openCheckpoint(sources: readonly ImportSource[], signal?: AbortSignal): Promise<Checkpoint> {
  const [first] = sources;
  if (!first) throw new ZoetropeError('bad-request', 'An import needs at least one source: a file, a folder or a URL.');
  if (sources.length === 1 && first.folder && (await openIfThere(first.folder, 'model_index.json'))) {
    return openDiffusers(first.folder, signal);
  }
  return assemble(await findParts(sources, signal));
}

/** Some components of a checkpoint, opened and checked; what no source tells is absent. */
export interface OpenedComponents extends Partial<Pick<Checkpoint, 'dit' | 'umt5' | 'vae' | 'tokenizer' | 'shift'>> {
  /** As of {@link Checkpoint}; undefined where an expert's release cannot be told from it alone. */
  boundary: number | null | undefined;
  weights: Checkpoint['weights'];
}

/** The expert files of these roles; a single file needs no role where one expert is asked for. */
function expertsOf(found: Found, wanted: readonly ('high' | 'low')[]): Partial<Record<'high' | 'low', PartOf<'dit'>>> {
  const experts: Partial<Record<'high' | 'low', PartOf<'dit'>>> = {};
  const all = partsOf(found, 'dit');
  for (const role of wanted) {
    const named = all.filter((part) => part.role === role);
    const single = named.length === 0 && all.length === 1 && (wanted.length === 1 || role === 'high') ? all : named;
    const [part, second] = single;
    if (!part || (part.role !== undefined && part.role !== role)) {
      refuse(
        `No source is the ${role}-noise expert. Add its file, and say which it is with --${role} where its name does not.`,
      );
    }
    if (second) refuse(`Both ${part.path} and ${second.path} are the ${role}-noise expert. Give one of them.`);
    experts[role] = part;
  }
  return experts;
}

/**
 * Opens some components of whatever sources hold them, each checked as {@link openCheckpoint} checks it; other parts of
 * the sources are passed over. Throws `bad-checkpoint` and `unreadable-source`.
 */
export async function openComponents(
  sources: readonly ImportSource[],
  wanted: readonly ComponentName[],
  signal?: AbortSignal,
): Promise<OpenedComponents> {
  const found = await findParts(sources, signal);
  const wants = (name: ComponentName) => wanted.includes(name);
  const opened: OpenedComponents = { boundary: undefined, weights: {} };
  for (const { folder } of sources) {
    if (folder && (await openIfThere(folder, 'model_index.json'))) Object.assign(opened, await readPipeline(folder));
  }
  const experts = expertsOf(found, (['high', 'low'] as const).filter(wants));
  for (const [role, { part, tensors, path }] of Object.entries(experts) as ['high' | 'low', PartOf<'dit'>][]) {
    if (opened.dit && JSON.stringify(opened.dit) !== JSON.stringify(part.config)) {
      refuse(`${path} has other sizes than the other expert; both must have the same.`);
    }
    opened.dit = part.config;
    opened.weights[role] = nameWeights(tensors, ditShapes(part.config), part.scheme, path);
  }
  const { high, low } = opened.weights;
  if (high && low) await refuseSameExperts(high, low);
  // One of A14B's size that is named after an expert is half a model, as in a whole import.
  const half = experts.high?.role === 'high' && variantOf(experts.high.part.config, 2) === 'a14b';
  if (opened.boundary === undefined && (low || half)) opened.boundary = EXPERT_BOUNDARY;
  if (wants('text_encoder')) {
    const text = only(found, 'text_encoder', 'a text encoder', 'umt5_xxl (ComfyUI, GGUF or a text_encoder folder)');
    opened.umt5 = text.part.config;
    opened.weights.text_encoder = nameWeights(text.tensors, umt5Shapes(opened.umt5), text.part.scheme, text.path);
  }
  if (wants('vae')) {
    const decoder = only(found, 'vae', 'a VAE', 'wan_2.1_vae.safetensors or a vae folder');
    opened.vae = vaeConfigOf(decoder, found.vaeConfig);
    opened.weights.vae = nameWeights(
      decoder.tensors,
      vaeShapes(opened.vae),
      decoder.part.scheme(opened.vae),
      decoder.path,
    );
  }
  if (wants('tokenizer')) opened.tokenizer = await chooseTokenizer(found);
  return opened;
}
