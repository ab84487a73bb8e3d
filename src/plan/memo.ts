/**
 * Results by what they are of, as long as the configuration lives. Predictions follow every tensor and are asked for
 * often.
 */
export class Memo<Config extends object, Result> {
  private readonly known = new WeakMap<Config, Map<string, Result>>();

  of(config: Config, key: string, make: () => Result): Result {
    const results = this.known.get(config) ?? new Map<string, Result>();
    this.known.set(config, results);
    if (!results.has(key)) results.set(key, make());
    return results.get(key)!;
  }
}
