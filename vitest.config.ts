import { defineConfig } from 'vitest/config';

/**
 * `unit` is pure; `shader` compiles on Dawn's null backend; `gpu` runs on a (software) Vulkan device; `browser` drives Chromium.
 * The projects run one after the other, so that the timed ones have the machine to themselves; the software GPU leaves room for two files.
 */
export default defineConfig({
  test: {
    reporters: ['default', './test/harness/reporter.ts'],
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts'],
          environment: 'node',
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: 'shader',
          include: ['test/shader/**/*.test.ts'],
          environment: 'node',
          testTimeout: 120_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: 'gpu',
          include: ['test/gpu/**/*.test.ts'],
          environment: 'node',
          maxWorkers: 2,
          pool: 'forks',
          testTimeout: 300_000,
          hookTimeout: 300_000,
          sequence: { groupOrder: 2 },
        },
      },
      {
        test: {
          name: 'browser',
          include: ['test/browser/**/*.test.ts'],
          environment: 'node',
          globalSetup: ['test/harness/build-page.ts'],
          fileParallelism: false,
          testTimeout: 600_000,
          hookTimeout: 300_000,
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
});
