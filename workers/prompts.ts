import { unlessAborted } from '../src/errors';
import type { ExpansionEngine } from '../src/expansion/engine';
import type { Gpu } from '../src/gpu/device';
import type { Ort } from '../src/gpu/ort';
import type { JobOptions, Report } from '../src/protocol';
import type { TextChecker } from '../src/safety/checker';
import { httpFolder } from '../src/store/http';

/** Who judges and who expands a job's prompt. */

/** The rules of checker and expansion come in files of their own, which most jobs do not need. */
const RULE_CHECKER: TextChecker = {
  name: 'rules',
  check: async (text) => (await import('../src/safety/rules')).ruleChecker.check(text),
};
const RULE_ENGINE: ExpansionEngine = {
  name: 'rules',
  trusted: true,
  expand: async (prompt, context) => (await import('../src/expansion/rules')).ruleEngine.expand(prompt, context),
};

/** The engines that a job asks for; those of the page are called across the boundary. */
export function expansionEngines(
  { expanders = ['rules'], pageExpanders = [], languageModel }: JobOptions,
  report: Report,
  { ort, gpu }: { ort: Ort; gpu: Gpu },
): ExpansionEngine[] {
  return expanders.flatMap((name) => {
    if (name === 'rules') return [RULE_ENGINE];
    if (name === 'language-model') {
      if (!languageModel) return [];
      const expand: ExpansionEngine['expand'] = async (prompt, context) => {
        const { languageModelEngine } = await import('../src/expansion/language-model');
        return languageModelEngine(languageModel, ort, gpu.f16).expand(prompt, context);
      };
      return [{ name, expand }];
    }
    if (!pageExpanders.includes(name)) return [];
    // A function of the page's may not care for its signal.
    const expand: ExpansionEngine['expand'] = async (prompt, { language, instructions, signal }) =>
      report.expand && unlessAborted(report.expand(name, prompt, language, instructions), signal);
    return [{ name, expand }];
  });
}

/** The rules, then the caller's classifier. */
export function textCheckers({ textClassifier }: JobOptions, ort: Ort): TextChecker[] {
  if (!textClassifier) return [RULE_CHECKER];
  const check: TextChecker['check'] = async (text, signal) => {
    const { classifierAt } = await import('../src/safety/classifier');
    return classifierAt(httpFolder(textClassifier.url, { signal }), ort, textClassifier).check(text, signal);
  };
  return [RULE_CHECKER, { name: textClassifier.name, check }];
}
