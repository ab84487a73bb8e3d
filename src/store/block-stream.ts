import { unlessAborted, ZoetropeError } from '../errors';
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

/** A slot and what it holds, or is being filled with. */
interface Slot {
  /** {@link NOBODYS} where nobody needs what is in it. */
  block: number;
  loading: Promise<Weights>;
  weights?: Weights;
}

const NOBODYS = -1;

/** Nothing streamed yet. */
const noStreamCosts = (): StreamCosts => ({ uploadedBytes: 0, stallMs: 0, blocks: 0, ready: 0 });

/**
 * A network whose blocks pass through a few slots of GPU memory: while a block computes, the next ones are read and
 * written into the other slots, through mapped staging buffers. A write is queued behind the commands that still read
 * the slot, so nothing waits for the GPU before the staging buffers are full. Blocks are asked for in order, round
 * after round; any other order works and waits.
 */
export class BlockStream implements BlockWeights, Disposable {
  readonly outer: WeightView;
  /** The network whose first blocks come behind the last one; its block i is block `count` + i here. */
  private next: TensorSource | undefined;
  private readonly costs: StreamCosts;
  private disposed = false;
  private handedOver = false;

  private constructor(
    private readonly gpu: Gpu,
    private readonly source: TensorSource,
    private readonly options: StreamOptions,
    private readonly outside: Weights,
    private readonly staging: Staging,
    private slots: Slot[],
  ) {
    this.outer = outside.at('');
    this.costs = options.costs ?? noStreamCosts();
  }

  /** Uploads what lies outside the blocks. Throws `internal` for fewer than two slots. */
  static async open(gpu: Gpu, source: TensorSource, options: StreamOptions): Promise<BlockStream> {
    const { prefix, slots } = options;
    if (!Number.isInteger(slots) || slots < 2) {
      throw new ZoetropeError('internal', `Streaming needs 2 slots or more, got ${slots}.`);
    }
    const outside = await uploadOutside(gpu, source, options);
    return new BlockStream(gpu, source, options, outside, new Staging(gpu, largestTensorBytes(source, prefix)), []);
  }

  /** Costs so far. */
  report(): StreamCosts {
    return { ...this.costs };
  }

  /**
   * Says that a network of the same kind takes over behind the last block: its first blocks are read into the slots
   * that come free, instead of this one's first blocks.
   * @param next its tensors; undefined takes it back.
   */
  followWith(next: TensorSource | undefined): void {
    this.next = next;
    if (!next) for (const slot of this.slots) if (slot.block >= this.options.count) slot.block = NOBODYS;
  }

  /**
   * Opens the network of {@link followWith} in the slots of this one, with the blocks that are there. This one is over
   * then.
   */
  async handOver(next: TensorSource): Promise<BlockStream> {
    const { gpu, options, slots, staging } = this;
    const { count } = options;
    // A run in between took its memory, or an attempt to hand it over has failed.
    if (this.disposed || this.handedOver) return BlockStream.open(gpu, next, options);
    for (const slot of slots) slot.block = this.next && slot.block >= count ? slot.block - count : NOBODYS;
    this.outside[Symbol.dispose]();
    this.slots = [];
    this.handedOver = true;
    try {
      return new BlockStream(gpu, next, options, await uploadOutside(gpu, next, options), staging, slots);
    } catch (error) {
      freeSlots(slots, staging);
      throw error;
    }
  }

  async block(index: number): Promise<WeightView> {
    const { count, now } = this.options;
    const slot = this.slots.find(({ block }) => block === index) ?? this.fetch(index, index);
    this.costs.blocks++;
    if (slot.weights) this.costs.ready++;
    const began = now();
    const weights = await unlessAborted(slot.loading, this.gpu.memory.signal);
    this.costs.stallMs += now() - began;
    // The next block goes into the slot that is furthest behind; the present one stays.
    for (let ahead = 1; ahead < Math.min(this.options.slots, count); ahead++) {
      const next = this.next ? index + ahead : (index + ahead) % count;
      if (!this.slots.some(({ block }) => block === next)) this.fetch(next, index);
    }
    return weights.at('');
  }

  /** Frees every buffer once what is under way has ended. */
  [Symbol.dispose](): void {
    if (this.handedOver) return;
    this.disposed = true;
    this.outside[Symbol.dispose]();
    freeSlots(this.slots.splice(0), this.staging);
  }

  /** Starts loading a block, in a new slot or in that of the block which comes last after `present`. */
  private fetch(index: number, present: number): Slot {
    const { slots } = this;
    const source = this.blockSource(index);
    let loading: Promise<Weights>;
    let old: Slot | undefined;
    if (slots.length >= this.options.slots) {
      const candidates = slots.filter(({ block }) => block !== present);
      const wait = ({ block }: Slot) => this.blocksUntil(block, present);
      old = candidates.reduce((last, slot) => (wait(slot) > wait(last) ? slot : last));
      slots.splice(slots.indexOf(old), 1);
    }
    if (old) loading = old.loading.catch(() => undefined).then((weights) => this.load(source, weights));
    else loading = this.load(source, undefined);
    const slot: Slot = { block: index, loading };
    slots.push(slot);
    loading.then(
      (weights) => {
        slot.weights = weights;
      },
      () => {
        // A failed block is forgotten, so that the next call tries again and reports.
        const at = slots.indexOf(slot);
        if (at >= 0) slots.splice(at, 1);
      },
    );
    return slot;
  }

  /** How many blocks are asked for before `block` is, Infinity where it is not asked for again. */
  private blocksUntil(block: number, present: number): number {
    const { count } = this.options;
    if (block === NOBODYS) return Number.POSITIVE_INFINITY;
    if (this.next) return block < present ? Number.POSITIVE_INFINITY : block - present;
    return (block - present + count) % count;
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
    const { count } = this.options;
    const from = index < count ? this.source : this.next!;
    const prefix = `${this.options.prefix}${index % count}.`;
    const names = [...from.entries].filter(([name]) => name.startsWith(prefix));
    const scan = from.scan?.bind(from);
    return {
      entries: new Map(names.map(([name, entry]) => [name.slice(prefix.length), entry])),
      read: async (name) => {
        const bytes = await from.read(prefix + name);
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

/** Uploads what lies outside the blocks. */
function uploadOutside(gpu: Gpu, source: TensorSource, options: StreamOptions): Promise<Weights> {
  const { prefix, except = [], signal, maxBindingBytes } = options;
  const names = [...source.entries.keys()].filter((name) => !name.startsWith(prefix) && !except.includes(name));
  return Weights.upload(gpu, source, { names, signal, maxBindingBytes });
}

/** Frees slots once what is under way has ended, then what carried it. */
function freeSlots(slots: readonly Slot[], staging: Staging): void {
  const loads = slots.map(({ loading }) =>
    loading.then(
      (weights) => weights[Symbol.dispose](),
      () => undefined,
    ),
  );
  Promise.all(loads).then(() => staging[Symbol.dispose]());
}
