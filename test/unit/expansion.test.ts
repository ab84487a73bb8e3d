import { describe, expect, it } from 'vitest';
import { type ExpansionEngine, expandPrompt } from '../../src/expansion/engine';
import { INSTRUCTIONS, languageOf } from '../../src/expansion/instructions';
import { type LanguageModelApi, promptApiEngine } from '../../src/expansion/prompt-api';
import { expandByRules, ruleEngine } from '../../src/expansion/rules';
import { problemOf, tidy } from '../../src/expansion/validate';
import type { LogEntry } from '../../src/protocol';

const GOOD =
  'Daylight, soft light, medium shot. A grey cat with green eyes sits on a white windowsill and turns its head slowly while leaves move behind the glass.';
const GOOD_ZH = '日光，柔光，中景。一只绿眼睛的灰色虎斑猫坐在白色的木窗台上，尾巴缓缓地左右摆动，树叶在风中晃动。';

describe('languageOf', () => {
  it.each([
    ['a cat', 'en'],
    ['', 'en'],
    ['窗台上的猫', 'zh'],
    ['一只cat坐在窗台上', 'zh'],
    ['un chat', 'en'],
    ['猫が窓にいる', 'en'],
    ['my friend 小明 walks', 'en'],
  ] as const)('%s is expanded in %s', (prompt, language) => {
    expect(languageOf(prompt)).toBe(language);
  });
});

describe('problemOf', () => {
  it.each([
    [GOOD, 'en'],
    [GOOD_ZH, 'zh'],
    [GOOD.replace('Daylight', 'Notebooks in daylight'), 'en'],
    [GOOD.replace('Daylight', 'Oklahoma plains in daylight'), 'en'],
    [GOOD.replace('Daylight', 'Surely-footed goats, daylight'), 'en'],
  ] as const)('accepts %s', (text, language) => {
    expect(problemOf(text, language)).toBeUndefined();
  });

  it.each([
    [`Sure! ${GOOD}`, 'en', 'talks about'],
    [`Here is the prompt. ${GOOD}`, 'en', 'talks about'],
    [`Here's a prompt: ${GOOD}`, 'en', 'talks about'],
    [`OK. ${GOOD}`, 'en', 'talks about'],
    [`好的，${GOOD_ZH}`, 'zh', 'talks about'],
    [
      "I'm sorry, but I cannot help with that request because it is against the rules that I was given by others.",
      'en',
      'refusal',
    ],
    ['抱歉，我无法提供这样的内容，请换一个不同的想法再试一次，谢谢你的理解和支持。', 'zh', 'refusal'],
    ['A cat.', 'en', '15 to 300'],
    ['', 'en', 'not in English'],
    ['word '.repeat(301).trim(), 'en', 'has 301 words'],
    ['一只猫。', 'zh', '20 to 500'],
    [GOOD_ZH, 'en', 'not in English'],
    [GOOD, 'zh', 'not in Chinese'],
  ] as const)('refuses %s', (text, language, why) => {
    expect(problemOf(text, language)).toContain(why);
  });

  it('accepts the examples of the instructions', () => {
    for (const [language, marker] of [
      ['en', 'Prompt: '],
      ['zh', '提示词：'],
    ] as const) {
      const examples = INSTRUCTIONS[language].split('\n').filter((line) => line.startsWith(marker));
      expect(examples.length).toBeGreaterThan(0);
      for (const example of examples) expect(problemOf(tidy(example), language)).toBeUndefined();
    }
  });
});

describe('tidy', () => {
  it.each([
    ['<think>\nhm\n</think>\n\nA cat.', 'A cat.'],
    ['Prompt: "A cat."', 'A cat.'],
    ['**Prompt:** A\n\ncat. ', 'A cat.'],
    ['```text\nA cat.\n```', 'A cat.'],
    ['提示词：一只猫。', '一只猫。'],
    ['A "big" cat', 'A "big" cat'],
  ])('makes of %j: %j', (answer, text) => {
    expect(tidy(answer)).toBe(text);
  });
});

describe('expandByRules', () => {
  it('adds the settings that are missing, and motion', () => {
    expect(expandByRules(' a red circle ', 'en')).toBe(
      'Daylight, soft light, medium shot, centred composition. a red circle. The background moves slightly.',
    );
    expect(expandByRules('窗台上的猫', 'zh')).toBe('日光，柔光，中景，中心构图。窗台上的猫。背景有轻微的运动。');
  });

  it('repeats nothing that the prompt says', () => {
    expect(expandByRules('Close-up of a cat walking at night under neon lights, symmetrical.', 'en')).toBe(
      'Close-up of a cat walking at night under neon lights, symmetrical.',
    );
    expect(expandByRules('watercolour, a fox runs', 'en')).toBe('watercolour, a fox runs.');
    expect(expandByRules('夜里的灯光下，特写，一只猫走过，对称构图', 'zh')).toBe(
      '夜里的灯光下，特写，一只猫走过，对称构图。',
    );
  });

  it('makes something of nothing', () => {
    expect(expandByRules('', 'en')).toContain('medium shot');
  });
});

describe('expandPrompt', () => {
  const engine = (name: string, expand: ExpansionEngine['expand']): ExpansionEngine => ({ name, expand });
  const run = async (engines: ExpansionEngine[], accept?: (text: string) => Promise<string | undefined>) => {
    const log: LogEntry[] = [];
    return { ...(await expandPrompt('a cat', engines, (entry) => log.push(entry), undefined, accept)), log };
  };

  it('uses the first engine that answers, and tells it language and rules', async () => {
    const told: unknown[] = [];
    const made = await run([
      engine('absent', async () => undefined),
      engine('first', async (prompt, context) => {
        told.push(prompt, context.language, context.instructions);
        return `Prompt: ${GOOD}`;
      }),
      engine('second', async () => 'never'),
    ]);
    expect(made).toMatchObject({ prompt: GOOD, engine: 'first', log: [{ level: 'info' }] });
    expect(told).toEqual(['a cat', 'en', INSTRUCTIONS.en]);
  });

  it('passes over an engine that fails, with a line in the log', async () => {
    const failing = engine('broken', async () => {
      throw new Error('no memory');
    });
    const made = await run([failing, ruleEngine]);
    expect(made.engine).toBe('rules');
    expect(made.prompt).toContain('a cat');
    expect(made.log).toMatchObject([
      { level: 'warning', message: expect.stringContaining('"broken" failed: no memory') },
      {},
    ]);
    expect(await run([failing])).toMatchObject({ prompt: 'a cat', engine: null });
  });

  it('uses the original where the answer is none, or is not accepted', async () => {
    const refusing = engine('m', async () => "I'm sorry, I can't.");
    expect(await run([refusing, ruleEngine])).toMatchObject({
      prompt: 'a cat',
      engine: null,
      log: [{ level: 'warning', message: expect.stringContaining('"m" is a refusal') }],
    });
    const good = engine('m', async () => GOOD);
    const made = await run([good], async (text) => (text === GOOD ? 'was flagged' : undefined));
    expect(made).toMatchObject({ prompt: 'a cat', engine: null });
  });

  it('ends with its signal', async () => {
    const controller = new AbortController();
    const aborting = engine('m', async () => {
      controller.abort();
      throw new Error('stopped');
    });
    const pending = expandPrompt('a cat', [aborting, ruleEngine], () => undefined, controller.signal);
    await expect(pending).rejects.toMatchObject({ code: 'aborted' });
  });
});

describe('promptApiEngine', () => {
  const api = (
    availability: Awaited<ReturnType<LanguageModelApi['availability']>>,
    calls: unknown[],
  ): LanguageModelApi => ({
    availability: async () => availability,
    create: async (options) => {
      calls.push(options);
      return { prompt: async (text) => `answer to ${text}`, destroy: () => calls.push('destroyed') };
    },
  });
  const context = { language: 'en', instructions: 'rules' } as const;

  it('asks a model that is there, and frees it', async () => {
    const calls: unknown[] = [];
    expect(await promptApiEngine(api('available', calls)).expand('a cat', context)).toBe(
      'answer to Idea: a cat\nPrompt:',
    );
    expect(calls).toMatchObject([{ initialPrompts: [{ role: 'system', content: 'rules' }] }, 'destroyed']);
  });

  it('starts no download, and speaks no Chinese', async () => {
    const calls: unknown[] = [];
    for (const state of ['unavailable', 'downloadable', 'downloading'] as const) {
      expect(await promptApiEngine(api(state, calls)).expand('a cat', context)).toBeUndefined();
    }
    const chinese = { language: 'zh', instructions: 'rules' } as const;
    expect(await promptApiEngine(api('available', calls)).expand('猫', chinese)).toBeUndefined();
    expect(await promptApiEngine(undefined).expand('a cat', context)).toBeUndefined();
    expect(calls).toEqual([]);
  });
});
