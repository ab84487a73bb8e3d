import type { ExpansionEngine } from './engine';
import type { ExpansionLanguage } from './instructions';

/** The expander that is always there: the film settings that a prompt leaves open, in fixed words. Deterministic. */

/** A setting, the words by which a prompt shows that it has one, and what is said otherwise. */
interface Setting {
  present: RegExp;
  text: string;
}

/** A drawn style, for which film settings make no sense. */
const DRAWN: Readonly<Record<ExpansionLanguage, RegExp>> = {
  en: /\b(animation|animated|anime|cartoon|comic|drawing|drawn|illustration|line art|oil painting|origami|painting|pixel art|sketch|vector|watercolou?r)\b/i,
  zh: /动画|动漫|卡通|漫画|插画|水彩|油画|素描|像素|水墨|剪纸|简笔画/,
};

const SETTINGS: Readonly<Record<ExpansionLanguage, readonly Setting[]>> = {
  en: [
    {
      present: /\b(dawn|day|daylight|daytime|dusk|evening|midnight|moonlit|morning|night|noon|sunrise|sunset)\b/i,
      text: 'daylight',
    },
    { present: /\b(backlit|dark|dim|glow\w*|hard light|light(ing|s)?|lit|neon|shadow\w*|soft)\b/i, text: 'soft light' },
    { present: /\b(close-?up|long shot|medium|shot|wide)\b/i, text: 'medium shot' },
    { present: /\b(balanced|cent(er|re)(ed)?|composition|symmetr\w+)\b/i, text: 'centred composition' },
  ],
  zh: [
    { present: /日光|白天|早晨|清晨|上午|中午|下午|傍晚|黄昏|日出|日落|夜|月光|黎明/, text: '日光' },
    { present: /柔光|硬光|灯光|光线|光影|逆光|霓虹|阴影|昏暗/, text: '柔光' },
    { present: /特写|近景|中景|全景|远景|镜头/, text: '中景' },
    { present: /构图|对称|居中/, text: '中心构图' },
  ],
};

/** Words of motion; a prompt without any gets some behind its subject. */
const MOTION: Readonly<Record<ExpansionLanguage, RegExp>> = {
  en: /\b\w{2,}ing\b|\b(bounces|climbs|crawls|dances|drifts|drives|falls|flies|floats|flows|grows|jumps|moves|rises|rolls|rotates|runs|shrinks|slides|spins|swims|turns|walks|waves)\b/i,
  zh: /走|跑|跳|飞|飘|游|转|移动|落|升|摇|动|流|爬|舞|骑|开/,
};

const STILL: Readonly<Record<ExpansionLanguage, string>> = {
  en: 'The background moves slightly.',
  zh: '背景有轻微的运动。',
};

/**
 * The prompt with the settings in front that it does not have, and with slight motion behind if nothing moves in it.
 */
export function expandByRules(prompt: string, language: ExpansionLanguage): string {
  const text = prompt.trim();
  const settings = DRAWN[language].test(text)
    ? []
    : SETTINGS[language].filter(({ present }) => !present.test(text)).map((setting) => setting.text);
  const chinese = language === 'zh';
  const ended = /[.!?。！？…]$/.test(text) || text === '' ? text : `${text}${chinese ? '。' : '.'}`;
  const still = MOTION[language].test(text) ? '' : STILL[language];
  const list = settings.join(chinese ? '，' : ', ');
  const intro = list && `${list.charAt(0).toUpperCase()}${list.slice(1)}${chinese ? '。' : '.'}`;
  return [intro, ended, still].filter((part) => part !== '').join(chinese ? '' : ' ');
}

/** {@link expandByRules} as the last engine in the line. Its answer needs no checking. */
export const ruleEngine: ExpansionEngine = {
  name: 'rules',
  trusted: true,
  expand: async (prompt, { language }) => expandByRules(prompt, language),
};
