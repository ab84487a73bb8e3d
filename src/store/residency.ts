import { ZoetropeError } from '../errors';
import type { ComponentName } from '../manifest';
import type { PartName } from '../part';
import type { OpenModelOptions, VerifiedComponent } from './verified';

/** A component of the model, or an optional part beside it. */
export type ResidentName = ComponentName | PartName;

/** A component that is there, or on its way. */
interface Loaded {
  loading: Promise<unknown>;
  /** What can cancel the load while it is under way. */
  signal: AbortSignal | undefined;
}

/**
 * Keeps a model's components where they were put, each loaded when first asked for: the residency of a model that fits
 * the GPU whole. A load that fails or is cancelled is forgotten, and its buffers are freed by whoever made them.
 */
export class Residency implements Disposable {
  private readonly loaded = new Map<ResidentName, Loaded>();
  private readonly owned = new Map<ResidentName, Disposable>();
  private disposed = false;

  /** @param open opens a component without fetching anything yet; throws `missing-component`. */
  constructor(private readonly open: (name: ResidentName, options: OpenModelOptions) => VerifiedComponent) {}

  /**
   * The component as `make` loads it. The cached pieces of its files are released afterwards.
   * @param make is called once for a component; what it returns is disposed with the residency if it is disposable.
   */
  async get<T>(
    component: ResidentName,
    options: OpenModelOptions,
    make: (source: VerifiedComponent) => Promise<T>,
  ): Promise<T> {
    const known = this.loaded.get(component);
    // One that a job has cancelled may be under way still, and will come to nothing.
    if (known && !known.signal?.aborted) return known.loading as Promise<T>;
    const entry: Loaded = { loading: Promise.resolve(), signal: options.signal };
    const wanted = () => !this.disposed && this.loaded.get(component) === entry;
    const loading = this.load(component, options, make, wanted);
    entry.loading = loading;
    this.loaded.set(component, entry);
    loading.then(
      () => {
        entry.signal = undefined;
      },
      () => {
        if (wanted()) this.loaded.delete(component);
      },
    );
    return loading;
  }

  /** Frees everything; later calls of {@link get} throw. */
  [Symbol.dispose](): void {
    this.disposed = true;
    this.loaded.clear();
    for (const thing of this.owned.values()) thing[Symbol.dispose]();
    this.owned.clear();
  }

  /** Frees a component that no job uses, as soon as it is there; the next {@link get} loads it again. */
  release(component: ResidentName): void {
    this.owned.get(component)?.[Symbol.dispose]();
    this.owned.delete(component);
    this.loaded.delete(component);
  }

  private async load<T>(
    component: ResidentName,
    options: OpenModelOptions,
    make: (source: VerifiedComponent) => Promise<T>,
    wanted: () => boolean,
  ): Promise<T> {
    const source = this.open(component, options);
    try {
      const made = await make(source);
      const disposable = isDisposable(made) ? made : undefined;
      if (!wanted()) {
        disposable?.[Symbol.dispose]();
        throw new ZoetropeError('internal', `The ${component} was given up while it was loading.`);
      }
      if (disposable) this.owned.set(component, disposable);
      return made;
    } finally {
      source.release();
    }
  }
}

function isDisposable(value: unknown): value is Disposable {
  return typeof value === 'object' && value !== null && Symbol.dispose in value;
}
