import type { Reporter, SerializedError, TestModule } from 'vitest/node';

/**
 * Ends a run with the names of the tests that were skipped and the line `N passed, N failed, N skipped`. A file or
 * suite that breaks outside its tests, and an error that nobody caught, count as one failure each.
 */
export default class CountReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    let passed = 0;
    let failed = unhandled.length;
    const skipped: string[] = [];
    for (const module of modules) {
      failed += module.errors().length;
      for (const suite of module.children.allSuites()) failed += suite.errors().length;
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state === 'passed') passed++;
        else if (state === 'failed') failed++;
        else skipped.push(`${module.relativeModuleId} > ${test.fullName}`);
      }
    }
    if (skipped.length > 0) console.log(`Skipped:\n${skipped.map((name) => `  ${name}`).join('\n')}\n`);
    console.log(`${passed} passed, ${failed} failed, ${skipped.length} skipped`);
  }
}
