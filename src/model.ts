import { parseObject } from './checkpoint/json';
import type { Stage } from './diffusion/schedule';
import { ZoetropeError } from './errors';
import type { Gpu } from './gpu/device';
import { type BlockWeights, residentBlocks, Weights } from './gpu/weights';
import type { ComponentName } from './manifest';
import type { PartName } from './part';
import { filmConfig } from './part/film';
import { rifeConfig } from './part/rife';
import type { LoadOptions, Model } from './pipeline';
import { type Arrangement, BLOCK_PREFIX } from './plan/residency';
import type { StreamCosts } from './protocol';
import type { BlockStream } from './store/block-stream';
import { Residency } from './store/residency';
import type { OpenModelOptions, VerifiedComponent, VerifiedModel, VerifiedPart } from './store/verified';
import { createTokenizer } from './text/tokenizer';
import { EMBEDDING } from './text/umt5';
import { loadVae } from './vae/decoder';

/** Optional parts by name, as far as they are there. */
export type OptionalParts = Partial<Record<PartName, VerifiedPart>>;

/**
 * A model folder on a device. Every part is loaded when a job first needs it; whether it stays, makes room for the next
 * one or passes block by block is what {@link Model.arrange} was told last.
 * @param beside the optional parts that were found beside the model.
 */
export function residentModel(gpu: Gpu, verified: VerifiedModel, beside: OptionalParts = {}): Model & Disposable {
  const parts = new Residency((name, options) => {
    if (name !== 'film' && name !== 'rife') return verified.component(name, options);
    const part = beside[name];
    if (part) return part.open(options);
    throw new ZoetropeError(
      'missing-component',
      `There is no ${name.toUpperCase()} interpolator beside the model "${manifest.name}".`,
    );
  });
  const { manifest } = verified;
  const costs: StreamCosts = { uploadedBytes: 0, stallMs: 0, blocks: 0, ready: 0 };
  /** The streamed expert that is asked for now. */
  let streaming: { stage: Stage; stream: BlockStream; next?: Stage } | undefined;
  let arrangement: Arrangement = { residency: 'all', slots: 0, textSlots: null };

  /**
   * Frees the other networks unless all may stay. They are asked for one after the other, so none of them is in use.
   */
  const makeRoom = (...wanted: (ComponentName | PartName)[]) => {
    if (arrangement.residency === 'all') return;
    for (const name of WEIGHTS) if (!wanted.includes(name)) parts.release(name);
  };

  /** Slots that a network passes through; null: it is held whole. */
  const slotsOf = (name: ComponentName, count: number): number | null => {
    const expert = arrangement.residency === 'streamed' ? arrangement.slots : null;
    const slots = name === 'text_encoder' ? arrangement.textSlots : expert;
    return slots !== null && count > slots ? slots : null;
  };

  const networkOptions = (load: LoadOptions, slots: number | null) =>
    slots === null ? openOptions(load) : LASTING_OPTIONS;

  /** A network of blocks, whole or streamed. */
  const blocks = async (
    name: ComponentName,
    count: number,
    slots: number | null,
    source: VerifiedComponent,
    signal: AbortSignal,
    heirOf?: BlockStream,
  ) => {
    const prefix = BLOCK_PREFIX[name]!;
    if (slots !== null) {
      const now = () => performance.now();
      const options = { prefix, count, slots, except: [EMBEDDING], now, costs };
      const open = async () => (await import('./store/block-stream')).BlockStream.open(gpu, source, options);
      const stream = await (heirOf ? heirOf.handOver(source) : open());
      const expert = name === 'high' || name === 'low';
      if (expert && !signal.aborted) streaming = { stage: name, stream };
      return { weights: stream as BlockWeights, [Symbol.dispose]: () => stream[Symbol.dispose]() };
    }
    const names = [...source.entries.keys()].filter((tensor) => tensor !== EMBEDDING);
    const weights = await Weights.upload(gpu, source, { names, signal });
    return { weights: residentBlocks(weights, prefix), [Symbol.dispose]: () => weights[Symbol.dispose]() };
  };

  const { film, rife } = beside;
  return {
    manifest,
    networks: {
      film: film && filmConfig(film.open().entries),
      rife: rife && rifeConfig(rife.open().entries),
    },

    tokenizer: (load) =>
      parts.get('tokenizer', openOptions(load), async (source) =>
        createTokenizer(parseObject(await source.readFile('tokenizer.json'), 'tokenizer.json')),
      ),

    arrange(weights) {
      if (JSON.stringify(weights) === JSON.stringify(arrangement)) return;
      streaming = undefined;
      for (const name of WEIGHTS) parts.release(name);
      arrangement = weights;
    },

    textEncoder(load) {
      makeRoom('text_encoder');
      const count = manifest.umt5.numLayers;
      const slots = slotsOf('text_encoder', count);
      return parts.get('text_encoder', networkOptions(load, slots), async (source) => ({
        ...(await blocks('text_encoder', count, slots, source, load.signal)),
        // Rows of the embedding table are read by every job, so none of them may cancel it.
        source: verified.component('text_encoder', LASTING_OPTIONS),
      }));
    },

    async expert(stage, load) {
      // A model of one expert has it as `high`, and no schedule of its asks for another.
      if (!manifest.components[stage]) {
        throw new ZoetropeError('missing-component', `The model "${manifest.name}" has no ${stage}-noise expert.`);
      }
      const before = streaming;
      const heirOf = before?.next === stage ? before : undefined;
      if (heirOf) makeRoom(stage, heirOf.stage);
      else makeRoom(stage);
      if (before?.stage === stage) before.stream.followWith(undefined); // another run begins
      const count = manifest.dit.numLayers;
      const slots = slotsOf(stage, count);
      try {
        return await parts.get(stage, networkOptions(load, slots), async (source) => {
          const { weights, ...disposal } = await blocks(stage, count, slots, source, load.signal, heirOf?.stream);
          return { outer: weights.outer, block: (index) => weights.block(index), ...disposal };
        });
      } finally {
        if (!load.signal.aborted) makeRoom(stage); // else another job may have begun
      }
    },

    prefetchExpert(stage, stepsBefore, load) {
      if (!manifest.components[stage]) return;
      if (arrangement.residency === 'all') {
        // A failure is reported to whoever asks for the expert, which tries again.
        this.expert(stage, load).catch(() => undefined);
      } else if (streaming && streaming.stage !== stage && stepsBefore === 1) {
        streaming.next = stage;
        streaming.stream.followWith(verified.component(stage, LASTING_OPTIONS));
      }
    },

    vae(load) {
      makeRoom('vae', 'film', 'rife');
      return parts.get('vae', openOptions(load), (source) => loadVae(gpu, manifest.vae, source, load.signal));
    },

    async interpolator(kind, load) {
      makeRoom('vae', kind);
      if (kind === 'film') {
        const [{ filmModel }, { loadFilm }] = await Promise.all([
          import('./interpolate/film'),
          import('./interpolate/film-weights'),
        ]);
        const weights = await parts.get('film', openOptions(load), (source) => loadFilm(gpu, source, load.signal));
        return filmModel(gpu, weights);
      }
      const [{ rifeModel }, { loadRife }] = await Promise.all([
        import('./interpolate/rife'),
        import('./interpolate/rife-weights'),
      ]);
      return rifeModel(gpu, await parts.get('rife', openOptions(load), (source) => loadRife(gpu, source, load.signal)));
    },

    streamCosts: () => ({ ...costs }),

    [Symbol.dispose]: () => parts[Symbol.dispose](),
  };
}

/** Components and parts that take GPU memory. */
const WEIGHTS: readonly (ComponentName | PartName)[] = ['text_encoder', 'high', 'low', 'vae', 'film', 'rife'];

/**
 * What reads on after its job, as a stream does: that must not be able to cancel what the next job reads, so it has no
 * signal.
 */
const LASTING_OPTIONS: OpenModelOptions = {};

function openOptions({ signal, onProgress }: LoadOptions): OpenModelOptions {
  return { signal, onProgress: ({ doneBytes, totalBytes }) => onProgress(doneBytes, totalBytes) };
}
