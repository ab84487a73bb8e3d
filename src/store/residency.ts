import { ZoetropeError } from '../errors';
import type { ComponentName } from '../manifest';
import type { PartName } from '../part';
import type { OpenModelOptions, VerifiedComponent } from './verified';

/** A component of the model, or an optional part beside it. */
export type ResidentName = ComponentName | PartName;

/**
 * Keeps a model's components where they were put, each loaded when first asked for: the residency of a model that fits the
 * GPU whole. A load that fails or is cancelled is forgotten, and its buffers are freed by whoever made them.
 */
export class Residency implements Disposable {
  private readonly loaded = new Map<ResidentName, Promise<unknown>>();
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
    const known = this.loaded.get(component) as Promise<T> | undefined;
    if (known) return known;
    const loading = this.load(component, options, make);
    this.loaded.set(component, loading);
    loading.catch(() => this.loaded.delete(component));
    return loading;
  }

  /** Frees everything; later calls of {@link get} throw. */
  [Symbol.dispose](): void {
    this.disposed = true;
    this.loaded.clear();
    for (const thing of this.owned.values()) thing[Symbol.dispose]();
    this.owned.clear();
  }

  /** Frees a component that no job uses; the next {@link get} loads it again. */
  release(component: ResidentName): void {
    this.owned.get(component)?.[Symbol.dispose]();
    this.owned.delete(component);
    this.loaded.delete(component);
  }

  private async load<T>(
    component: ResidentName,
    options: OpenModelOptions,
    make: (source: VerifiedComponent) => Promise<T>,
  ): Promise<T> {
    const source = this.open(component, options);
    try {
      const made = await make(source);
      const disposable = isDisposable(made) ? made : undefined;
      if (this.disposed) {
        disposable?.[Symbol.dispose]();
        throw new ZoetropeError('internal', `The model was closed while its ${component} was loading.`);
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
