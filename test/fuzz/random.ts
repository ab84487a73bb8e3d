import { seededUniform } from '../harness/near';

/** Seeded choices. */
export class Random {
  readonly #uniform: () => number;

  constructor(seed: number) {
    this.#uniform = seededUniform(seed);
  }

  /** A whole number from 0 to `count` - 1. */
  below(count: number): number {
    return Math.floor(this.#uniform() * count);
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  chance(share: number): boolean {
    return this.#uniform() < share;
  }

  /** Small numbers often, large ones seldom: up to 2^`bits` - 1. */
  length(bits: number): number {
    return this.below(2 ** this.below(bits + 1));
  }
}
