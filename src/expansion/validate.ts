import { MAX_PROMPT_LENGTH } from '../request/fields';
import type { ExpansionLanguage } from './instructions';

/** Whether what a language model answered is a prompt. Pure. */

/**
 * Bounds of an answer: the instructions ask for 60 to 200 words, or 80 to 200 characters; small models miss both ends.
 */
const LENGTHS: Readonly<Record<ExpansionLanguage, { unit: string; min: number; max: number }>> = {
  en: { unit: 'words', min: 15, max: 300 },
  zh: { unit: 'characters', min: 20, max: 500 },
};

/** How answers begin that talk about the prompt instead of being it. */
const LEAD_IN =
  /^(?:(?:sure|certainly|of course|okay|ok|absolutely|here(?:'|’)?s|here is|here are|here you|this is|the (?:expanded|rewritten|enhanced|improved|prompt)|expanded|rewritten|enhanced|i(?:'|’)?ve|i have|as requested|based on|below is|let me|note)\b|好的|当然|以下|这是|这里是|根据|下面|改写|扩写)/i;

const REFUSAL =
  /\b(i(?:'|’)?m sorry|i am sorry|i apologi[sz]e|i (?:cannot|can(?:'|’)?t|can not|won(?:'|’)?t|am unable|am not able)|as an ai|language model|not able to (?:help|assist)|against (?:my|the) (?:guidelines|policy))\b|抱歉|对不起|无法(?:提供|满足|协助|生成|帮助)|不能(?:提供|满足|协助|帮助)|作为(?:一个|一名)?(?:AI|人工智能|语言模型)/i;

/** Takes off what models put round a text: thinking, a label, quotes, Markdown; makes one paragraph of it. */
export function tidy(answer: string): string {
  return answer
    .replace(/^\s*<think>[\s\S]*?<\/think>/i, '')
    .replace(/^\s*```\w*|```\s*$/g, '')
    .replace(/^\s*(?:\*\*)?(?:prompt|提示词)(?:\*\*)?\s*[:：]\s*(?:\*\*)?/i, '')
    .replace(/\s+/g, ' ')
    .trim()
    .replace(/^(["'“「])(.*)(["'”」])$/s, '$2')
    .trim();
}

/** Why an answer is no prompt, as the end of a sentence; undefined when it is one. */
export function problemOf(text: string, language: ExpansionLanguage): string | undefined {
  if (REFUSAL.test(text)) return 'is a refusal';
  if (LEAD_IN.test(text)) return 'talks about the prompt';
  const letters = text.match(/\p{L}/gu)?.length ?? 0;
  const own = text.match(language === 'zh' ? /\p{Script=Han}/gu : /\p{Script=Latin}/gu)?.length ?? 0;
  if (own < 0.8 * letters || letters === 0) return `is not in ${language === 'zh' ? 'Chinese' : 'English'}`;
  const { unit, min, max } = LENGTHS[language];
  const length = language === 'zh' ? letters : text.split(' ').length;
  if (length < min || length > max || text.length > MAX_PROMPT_LENGTH) {
    return `has ${length} ${unit}, and ${min} to ${max} are allowed`;
  }
  return undefined;
}
