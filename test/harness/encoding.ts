import { chooseEncoder, type I420Frame, i420Bytes } from '../../src/video/encode';
import { encodeMp4 } from '../../src/video/file';
import { encoderCandidates } from '../../src/video/levels';

/** The encoder's side of a generation, for pages of tests. */

const SIDE = 64;

/** Grey pictures from black to white, each brighter than the one before. */
async function* ramp(count: number): AsyncGenerator<I420Frame> {
  for (let i = 0; i < count; i++) {
    const data = new Uint8Array(i420Bytes(SIDE, SIDE)).fill(128);
    data.fill(16 + Math.round((219 * i) / (count - 1)), 0, SIDE * SIDE);
    yield { data, width: SIDE, height: SIDE };
  }
}

/** A file of `count` such pictures, through the encoder that a generation would choose. */
export async function encodeRamp(count: number, framesPerSecond: number): Promise<ArrayBuffer> {
  const format = { width: SIDE, height: SIDE, framesPerSecond, quality: 'high', writeMode: 'balanced' } as const;
  const settings = await chooseEncoder(globalThis, encoderCandidates(format));
  const options = { host: globalThis, settings, frameCount: count, writeMode: 'balanced' } as const;
  return (await encodeMp4(ramp(count), options)).data;
}
