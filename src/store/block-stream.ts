import { ZoetropeError } from '../errors';
import type { Gpu } from '../gpu/device';
import { Staging } from '../gpu/staging';
import { type BlockWeights, Weights, type WeightView } from '../gpu/weights';
import type { TensorSink, TensorSource } from '../manifest';
import type { StreamCosts } from '../protocol';

/** How blocks are streamed. */
export interface StreamOptions {
  /** Name prefix of blocks, e.g. `blocks.`; an index follows. */
  prefix: string;
  /** Blocks of the network. */
  count: number;
  /** Blocks on the GPU at a time, 2 or more: one computes while the next ones come. */
  slots: number;
  /** Names outside the blocks that are not uploaded, such as an embedding table. */
  except?: readonly string[];
  signal?: AbortSignal | undefined;
  maxBindingBytes?: number;
  /** Milliseconds, any origin. */
  now(): number;
  /** Counted up. Default: an account of its own. */
  costs?: StreamCosts;
}

/** Nothing streamed yet. */
export const noStreamCosts = (): StreamCosts => ({ uploadedBytes: 0, stallMs: 0, blocks: 0, ready: 0 });

/**
 * A network whose blocks pass through a few slots of GPU memory: while a block computes, the next ones are read and written
 * into the other slots, through mapped staging buffers. A write is queued behind the commands that still read the slot, so
 * nothing waits for the GPU before the staging buffers are full. Blocks are asked for in order, round after round; any other order works and waits.
 */
export class BlockStream implements BlockWeights, Disposable {
  readonly outer: WeightView;
  private readonly slots: { block: number; loading: Promise<Weights>; weights?: Weights }[] = [];
  private readonly costs: StreamCosts;
  private readonly staging: Staging;
  private disposed = false;

  private constructor(
    private readonly gpu: Gpu,
    private readonly source: TensorSource,
    private readonly options: StreamOptions,
    private readonly outside: Weights,
  ) {
    this.outer = outside.at('');
    this.costs = options.costs ?? noStreamCosts();
    this.staging = new Staging(gpu, largestTensorBytes(source, options.prefix));
  }

  /** Uploads what lies outside the blocks. Throws `internal` for fewer than two slots. */
  static async open(gpu: Gpu, source: TensorSource, options: StreamOptions): Promise<BlockStream> {
    const { prefix, slots, except = [], signal, maxBindingBytes } = options;
    if (!Number.isInteger(slots) || slots < 2) {
      throw new ZoetropeError('internal', `Streaming needs 2 slots or more, got ${slots}.`);
    }
    const names = [...source.entries.keys()].filter((name) => !name.startsWith(prefix) && !except.includes(name));
    const outside = await Weights.upload(gpu, source, { names, signal, maxBindingBytes });
    return new BlockStream(gpu, source, options, outside);
  }

  /** Costs so far. */
  report(): StreamCosts {
    return { ...this.costs };
  }

  async block(index: number): Promise<WeightView> {
    const { count, now } = this.options;
    const slot = this.slots.find(({ block }) => block === index) ?? this.fetch(index, index);
    this.costs.blocks++;
    if (slot.weights) this.costs.ready++;
    const began = now();
    const weights = await slot.loading;
    this.costs.stallMs += now() - began;
    // The next block goes into the slot that is furthest behind; the present one stays.
    for (let ahead = 1; ahead < Math.min(this.options.slots, count); ahead++) {
      const next = (index + ahead) % count;
      if (!this.slots.some(({ block }) => block === next)) this.fetch(next, index);
    }
    return weights.at('');
  }

  /** Frees every buffer once what is under way has ended. */
  [Symbol.dispose](): void {
    this.disposed = true;
    this.outside[Symbol.dispose]();
    const loads = this.slots.splice(0).map(({ loading }) =>
      loading.then(
        (weights) => weights[Symbol.dispose](),
        () => undefined,
      ),
    );
    Promise.all(loads).then(() => this.staging[Symbol.dispose]());
  }

  /** Starts loading a block, in a new slot or in that of the block which comes last after `present`. */
  private fetch(index: number, present: number): BlockStream['slots'][number] {
    const { count, slots } = this.options;
    const source = this.blockSource(index);
    let loading: Promise<Weights>;
    let old: (typeof this.slots)[number] | undefined;
    if (this.slots.length >= slots) {
      const distance = ({ block }: { block: number }) => (block - present + count) % count;
      const candidates = this.slots.filter(({ block }) => block !== present);
      old = candidates.reduce((last, slot) => (distance(slot) > distance(last) ? slot : last));
      this.slots.splice(this.slots.indexOf(old), 1);
    }
    if (old) loading = old.loading.catch(() => undefined).then((weights) => this.load(source, weights));
    else loading = this.load(source, undefined);
    const slot: BlockStream['slots'][number] = { block: index, loading };
    this.slots.push(slot);
    loading.then(
      (weights) => {
        slot.weights = weights;
      },
      () => {
        // A failed block is forgotten, so that the next call tries again and reports.
        const at = this.slots.indexOf(slot);
        if (at >= 0) this.slots.splice(at, 1);
      },
    );
    return slot;
  }

  private async load(source: TensorSource, into: Weights | undefined): Promise<Weights> {
    const { signal, maxBindingBytes } = this.options;
    const { staging } = this;
    try {
      if (this.disposed) throw new ZoetropeError('internal', 'The stream of weights was closed.');
      if (into) await into.reload(source, signal);
      return into ?? (await Weights.upload(this.gpu, source, { signal, maxBindingBytes, staging }));
    } catch (error) {
      into?.[Symbol.dispose]();
      throw error;
    }
  }

  /** The tensors of a block under their names inside it. */
  private blockSource(index: number): TensorSource {
    const prefix = `${this.options.prefix}${index}.`;
    const names = [...this.source.entries].filter(([name]) => name.startsWith(prefix));
    const scan = this.source.scan?.bind(this.source);
    return {
      entries: new Map(names.map(([name, entry]) => [name.slice(prefix.length), entry])),
      read: async (name) => {
        const bytes = await this.source.read(prefix + name);
        this.costs.uploadedBytes += bytes.byteLength;
        return bytes;
      },
      ...(scan && {
        scan: (name: string, begin: number, end: number, sink: TensorSink) => {
          this.costs.uploadedBytes += end - begin;
          return scan(prefix + name, begin, end, sink);
        },
      }),
    };
  }
}

/** Bytes of the largest tensor inside blocks, where it takes most: as float32. */
function largestTensorBytes({ entries }: TensorSource, prefix: string): number {
  const sizes = [...entries]
    .filter(([name]) => name.startsWith(prefix))
    .map(([, { dtype, shape }]) => shape.reduce((product, size) => product * size, dtype === 'U8' ? 1 : 4));
  return Math.max(16, ...sizes);
}
