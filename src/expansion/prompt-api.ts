import type { ExpansionContext, ExpansionEngine } from './engine';

/** The language model that some browsers have built in (Prompt API, Chrome 148). Pages have it, workers do not. */

/** The part of the API that is called. */
export interface LanguageModelApi {
  availability(options: object): Promise<'unavailable' | 'downloadable' | 'downloading' | 'available'>;
  create(options: object): Promise<{
    prompt(text: string, options?: { signal?: AbortSignal }): Promise<string>;
    destroy(): void;
  }>;
}

/**
 * The engine, given the browser's `LanguageModel`; undefined where there is none. Only a model that is there already is
 * used: a download of gigabytes is for a person to begin. Its languages are few, so Chinese prompts are passed over.
 */
export function promptApiEngine(api: LanguageModelApi | undefined): ExpansionEngine {
  return {
    name: 'prompt-api',
    async expand(prompt, { language, instructions, signal }: ExpansionContext) {
      if (!api || language !== 'en') return undefined;
      const languages = {
        expectedInputs: [{ type: 'text', languages: ['en'] }],
        expectedOutputs: [{ type: 'text', languages: ['en'] }],
      };
      if ((await api.availability(languages)) !== 'available') return undefined;
      const session = await api.create({
        ...languages,
        initialPrompts: [{ role: 'system', content: instructions }],
        ...(signal && { signal }),
      });
      try {
        return await session.prompt(`Idea: ${prompt}\nPrompt:`, signal ? { signal } : {});
      } finally {
        session.destroy();
      }
    },
  };
}
