import { defineConfig, type UserConfig } from 'vite';

/** Settings of all builds. */
const shared: UserConfig = {
  base: './', // the page works from any folder of any host
  // Builds have a target of their own; this is for `vite` and `vite-node`: Node 20 and Safari have no `using`.
  oxc: { target: 'es2023' },
  worker: { format: 'es' }, // the engine imports ONNX Runtime when it knows which build the browser can run
  optimizeDeps: {
    // Found at the start, since what is found later makes the page load again.
    entries: ['index.html', 'workers/*.ts'],
    // Pre-bundling would separate ONNX Runtime from the wasm file that lies beside it.
    exclude: ['onnxruntime-web'],
  },
};

/**
 * `vite build` makes the page; `--mode library` the module that other pages import, with its worker beside it; `--mode cli` the
 * command for Node.
 */
export default defineConfig(({ mode }): UserConfig => {
  if (mode === 'library') {
    return {
      ...shared,
      publicDir: false,
      build: {
        target: 'es2023',
        outDir: 'dist/lib',
        // Not `build.lib`, which inlines every asset, 17 MB of wasm included, into the code.
        rolldownOptions: {
          input: 'src/index.ts',
          preserveEntrySignatures: 'strict',
          output: { entryFileNames: 'index.js' },
        },
      },
    };
  }
  if (mode === 'cli') {
    return {
      publicDir: false,
      build: { target: 'node20.19', outDir: 'dist/cli', ssr: 'src/cli/main.ts' },
    };
  }
  return { ...shared, build: { target: 'es2023', outDir: 'dist/page', chunkSizeWarningLimit: 200 } };
});
