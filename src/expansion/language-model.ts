import type { Message, TextGenerationPipeline } from '@huggingface/transformers';
import { throwIfAborted } from '../errors';
import type { Ort } from '../gpu/ort';
import type { LanguageModel } from '../protocol';
import type { ExpansionEngine } from './engine';

/** A causal language model at a URL, run by transformers.js on our device and in our queue. */

/** Most tokens of an answer: `max_new_tokens` of Wan2.2 `wan/utils/prompt_extend.py`. */
const MAX_NEW_TOKENS = 512;

/**
 * The engine for the model at `url`. The model is loaded for one prompt and freed behind it, before diffusion needs the
 * memory.
 * @param f16 whether the device has half floats, which decides the weights that are asked for unless
 * {@link LanguageModel.dtype} does.
 */
export function languageModelEngine({ url, dtype }: LanguageModel, ort: Ort, f16: boolean): ExpansionEngine {
  return {
    name: 'language-model',
    expand: (prompt, { instructions, signal }) =>
      ort.lend('language model', async ({ env: runtime }, provider) => {
        // Set before the library looks: it would fetch the runtime from a public server otherwise.
        runtime.wasm.wasmPaths ??= {};
        const { env, InterruptableStoppingCriteria, pipeline } = await import('@huggingface/transformers');
        // The model's files lie right below the URL, and nothing is asked of any other place.
        Object.assign(env, {
          allowLocalModels: false,
          allowRemoteModels: true,
          remoteHost: url,
          remotePathTemplate: '.',
          fetch: (input: string | URL, init?: RequestInit) => fetch(input, { ...init, ...(signal && { signal }) }),
        });
        const generator: TextGenerationPipeline = await pipeline('text-generation', 'model', {
          device: 'webgpu',
          dtype: dtype ?? (f16 ? 'q4f16' : 'q4'),
          session_options: { executionProviders: [provider] },
        });
        const stop = new InterruptableStoppingCriteria();
        const interrupt = () => stop.interrupt();
        signal?.addEventListener('abort', interrupt);
        try {
          throwIfAborted(signal);
          const conversation: Message[] = [
            { role: 'system', content: instructions },
            { role: 'user', content: `Idea: ${prompt}\nPrompt:` },
          ];
          const options = {
            max_new_tokens: MAX_NEW_TOKENS,
            do_sample: false, // the same answer for the same prompt
            stopping_criteria: stop,
            tokenizer_encode_kwargs: { enable_thinking: false }, // Qwen3 thinks aloud unless told not to
          };
          const [answer] = await generator(conversation, options);
          throwIfAborted(signal);
          return (answer!.generated_text as Message[]).at(-1)!.content as string;
        } finally {
          signal?.removeEventListener('abort', interrupt);
          await generator.dispose();
        }
      }),
  };
}
