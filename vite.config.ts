import { defineConfig, type Plugin, type UserConfig } from 'vite';

/** Takes comments and idle spaces, more than a third of a compressed shader, out of the WGSL of builds. WGSL has no strings to respect. */
function shortShaders(): Plugin {
  return {
    name: 'short-shaders',
    apply: 'build',
    transform: {
      filter: { id: /\.wgsl\?raw$/ },
      handler(code) {
        const source: string = JSON.parse(code.slice(code.indexOf('"'), code.lastIndexOf('"') + 1));
        const bare = source.replace(/\/\/.*$|\/\*[\s\S]*?\*\//gm, '').replace(/^\s+|[ \t]+$/gm, '');
        const short = bare.replace(/\s*([{}();,:])\s*/g, '$1');
        return { code: `export default ${JSON.stringify(short)}`, map: null };
      },
    },
  };
}

/** Gives Hugging Face's library the build of ONNX Runtime that the worker has loaded, instead of one of its own. */
function oneRuntime(): Plugin {
  return {
    name: 'one-runtime',
    enforce: 'pre',
    resolveId: {
      filter: { id: /^onnxruntime-web\/webgpu$/ },
      handler(_, importer) {
        return importer?.includes('@huggingface/transformers') ? `${import.meta.dirname}/src/gpu/ort-build.ts` : null;
      },
    },
  };
}

/**
 * Puts what a worker imports at once into one file, though parts that come later import some of it too: cut up for them it would be
 * fetched together all the same, and compress worse (5 KB of 100).
 */
function oneStart(): Plugin {
  const start = new Set<string>();
  return {
    name: 'one-start',
    buildEnd() {
      const add = (id: string) => {
        if (start.has(id)) return;
        start.add(id);
        this.getModuleInfo(id)?.importedIds.forEach(add);
      };
      for (const id of this.getModuleIds()) if (this.getModuleInfo(id)?.isEntry) add(id);
    },
    outputOptions: (options) => ({
      ...options,
      codeSplitting: { groups: [{ name: 'start', test: (id: string) => start.has(id) }] },
    }),
  };
}

/** Settings of all builds. */
const shared: UserConfig = {
  plugins: [oneRuntime()],
  base: './', // the page works from any folder of any host
  // Builds have a target of their own; this is for `vite` and `vite-node`: Node 20 and Safari have no `using`.
  oxc: { target: 'es2023' },
  worker: {
    format: 'es', // the engine imports ONNX Runtime when it knows which build the browser can run
    plugins: () => [shortShaders(), oneRuntime(), oneStart()],
  },
  optimizeDeps: {
    // Found at the start, since what is found later makes the page load again.
    entries: ['index.html', 'workers/*.ts'],
    // Pre-bundling would separate ONNX Runtime from the wasm file that lies beside it, and give the other a runtime of its own.
    exclude: ['onnxruntime-web', '@huggingface/transformers'],
  },
};

/** Settings of the builds for browsers. */
const sharedBuild = {
  target: 'es2023',
  modulePreload: false as const, // nothing is imported later whose own imports would be worth fetching ahead
  chunkSizeWarningLimit: 350,
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
        ...sharedBuild,
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
  return { ...shared, build: { ...sharedBuild, outDir: 'dist/page' } };
});
