import type { VideoHost } from '../../src/video/encode';

/** WebCodecs for runs in Node that care for the frames, not for the film: every frame becomes a chunk of four bytes. */
export function fakeCodec(): VideoHost {
  class Frame {
    readonly timestamp: number;
    readonly duration: number;
    constructor(_data: Uint8Array, { timestamp, duration }: { timestamp: number; duration: number }) {
      this.timestamp = timestamp;
      this.duration = duration;
    }
    close(): void {}
  }
  class Encoder extends EventTarget {
    static isConfigSupported = async (config: VideoEncoderConfig) => ({ config, supported: true });
    state: CodecState = 'unconfigured';
    readonly encodeQueueSize = 0;
    private first = true;
    private codec = '';
    constructor(private readonly init: VideoEncoderInit) {
      super();
    }
    configure({ codec }: VideoEncoderConfig): void {
      this.state = 'configured';
      this.codec = codec;
    }
    encode({ timestamp, duration }: Frame, { keyFrame }: { keyFrame: boolean }): void {
      const chunk = { timestamp, duration, type: keyFrame ? 'key' : 'delta', byteLength: 4, copyTo: () => undefined };
      const decoderConfig = { codec: this.codec, description: Uint8Array.of(1, 100, 0, 10, 255, 224, 0) };
      this.init.output(chunk as unknown as EncodedVideoChunk, this.first ? { decoderConfig } : {});
      this.first = false;
    }
    async flush(): Promise<void> {}
    close(): void {
      this.state = 'closed';
    }
  }
  return { VideoEncoder: Encoder, VideoFrame: Frame } as unknown as VideoHost;
}
