import { readFileSync } from 'node:fs';
import type { VideoHost } from '../../src/video/encode';

/** WebCodecs for Node: an encoder that gives a canned chunk of a real H.264 stream for each frame, at once. */

const golden = JSON.parse(readFileSync(new URL('../golden/avc-64x64.json', import.meta.url), 'utf8'));
const bytes = (base64: string) => new Uint8Array(Buffer.from(base64, 'base64'));
const chunks = golden.chunks.map(({ data }: { data: string }) => bytes(data)) as Uint8Array[];

/** Takes frames of any size; the chunks are those of a picture of 64 by 64. */
export const replayHost = {
  VideoFrame: class {
    constructor(
      _: Uint8Array,
      readonly init: VideoFrameBufferInit,
    ) {}
    close(): void {}
  },
  VideoEncoder: class extends EventTarget {
    static isConfigSupported = async () => ({ supported: true });
    state = 'unconfigured';
    encodeQueueSize = 0;
    private count = 0;
    constructor(private readonly init: VideoEncoderInit) {
      super();
    }
    configure(): void {}
    encode({ init }: { init: VideoFrameBufferInit }, { keyFrame }: { keyFrame: boolean }): void {
      const data = keyFrame ? chunks[0]! : chunks[1]!;
      const chunk = {
        type: keyFrame ? 'key' : 'delta',
        timestamp: init.timestamp,
        duration: init.duration,
        byteLength: data.byteLength,
        copyTo: (target: Uint8Array) => target.set(data),
      };
      const decoderConfig = { ...golden.decoderConfig, description: bytes(golden.decoderConfig.description) };
      this.init.output(chunk as never, this.count++ === 0 ? { decoderConfig } : undefined);
    }
    async flush(): Promise<void> {}
    close(): void {}
  },
} as unknown as VideoHost;
