import { ZoetropeError } from './errors';
import type { Gpu } from './gpu/device';
import { residentBlocks, Weights } from './gpu/weights';
import { rifeModel } from './interpolate/rife';
import { loadRife } from './interpolate/rife-weights';
import type { LoadOptions, Model } from './pipeline';
import { Residency } from './store/residency';
import type { OpenModelOptions, VerifiedModel, VerifiedPart } from './store/verified';
import { createTokenizer } from './text/tokenizer';
import { EMBEDDING } from './text/umt5';
import { loadVae } from './vae/decoder';

/**
 * A model folder on a device: every part is loaded when a job first needs it, and stays.
 * @param rife the interpolator beside the model, where there is one.
 */
export function residentModel(gpu: Gpu, verified: VerifiedModel, rife?: VerifiedPart): Model & Disposable {
  const residency = new Residency((name, options) => {
    if (name !== 'rife') return verified.component(name, options);
    if (rife) return rife.open(options);
    throw new ZoetropeError('missing-component', `There is no RIFE interpolator beside the model "${manifest.name}".`);
  });
  const { manifest } = verified;
  return {
    manifest,

    tokenizer: (load) =>
      residency.get('tokenizer', openOptions(load), async (source) => {
        const text = new TextDecoder().decode(await source.readFile('tokenizer.json'));
        return createTokenizer(JSON.parse(text));
      }),

    textEncoder: (load) =>
      residency.get('text_encoder', openOptions(load), async (source) => {
        const names = [...source.entries.keys()].filter((name) => name !== EMBEDDING);
        const weights = await Weights.upload(gpu, source, { names, signal: load.signal });
        const blocks = residentBlocks(weights, 'encoder.block.');
        return { weights: blocks, source, [Symbol.dispose]: () => weights[Symbol.dispose]() };
      }),

    expert(stage, load) {
      // A model of one expert has it as `high`, and no schedule of its asks for another.
      if (!manifest.components[stage]) {
        throw new ZoetropeError('missing-component', `The model "${manifest.name}" has no ${stage}-noise expert.`);
      }
      return residency.get(stage, openOptions(load), async (source) => {
        const weights = await Weights.upload(gpu, source, { signal: load.signal });
        return { ...residentBlocks(weights, 'blocks.'), [Symbol.dispose]: () => weights[Symbol.dispose]() };
      });
    },

    vae: (load) => residency.get('vae', openOptions(load), (source) => loadVae(gpu, manifest.vae, source, load.signal)),

    async interpolator(kind, load) {
      if (kind === 'film') {
        throw new ZoetropeError('missing-component', `The model "${manifest.name}" has no FILM interpolator.`);
      }
      return rifeModel(
        gpu,
        await residency.get('rife', openOptions(load), (source) => loadRife(gpu, source, load.signal)),
      );
    },

    [Symbol.dispose]: () => residency[Symbol.dispose](),
  };
}

function openOptions({ signal, onProgress }: LoadOptions): OpenModelOptions {
  return { signal, onProgress: ({ doneBytes, totalBytes }) => onProgress(doneBytes, totalBytes) };
}
