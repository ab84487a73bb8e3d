import { Tokenizer } from '@huggingface/tokenizers';
import { messageOf, ZoetropeError } from '../errors';

/** Cuts a text into the pieces that a classifier can take. */
export type Cut = (text: string) => readonly (readonly number[])[];

/**
 * Reads the `tokenizer.json` of a classifier, WordPiece, BPE or Unigram, as Hugging Face's library does.
 * @param maxTokens most ids in a piece, those that the model wants round every text included
 * @returns a function that gives at least one piece, each with the model's special tokens round it
 * @throws ZoetropeError `bad-checkpoint` for what is no tokenizer, or one whose special tokens leave no room
 */
export function createCut(tokenizerJson: unknown, maxTokens: number): Cut {
  const refuse = (reason: string): never => {
    throw new ZoetropeError(
      'bad-checkpoint',
      `The text classifier's tokenizer.json cannot be used: ${reason}. Use the file that belongs to the model.`,
    );
  };
  // The library takes whatever a file holds and stumbles over it later.
  const attempt = <T>(action: () => T): T => {
    try {
      return action();
    } catch (error) {
      return refuse(messageOf(error));
    }
  };
  const tokenizer = attempt(() => new Tokenizer(tokenizerJson as object, {}));
  return (text) => {
    const whole = attempt(() => tokenizer.encode(text).ids);
    const inner = attempt(() => tokenizer.encode(text, { add_special_tokens: false }).ids);
    const begin = beginOf(whole, inner);
    const [before, after] = [whole.slice(0, begin), whole.slice(begin + inner.length)];
    const room = maxTokens - before.length - after.length;
    if (room < 1) refuse(`its special tokens fill all ${maxTokens} that the model takes`);
    const pieces: number[][] = [];
    for (let at = 0; at < Math.max(1, inner.length); at += room) {
      pieces.push([...before, ...inner.slice(at, at + room), ...after]);
    }
    return pieces;
  };
}

/** Where the text's own ids begin among all of them. Behind a first token such as `[CLS]`, as a rule. */
function beginOf(whole: readonly number[], inner: readonly number[]): number {
  const most = whole.length - inner.length;
  if (inner.length === 0) return Math.min(1, most);
  for (let begin = 0; begin < most; begin++) {
    if (inner.every((id, i) => whole[begin + i] === id)) return begin;
  }
  return most;
}
