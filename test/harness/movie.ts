import { BufferSource, EncodedPacketSink, Input, MP4 } from 'mediabunny';
import type { Page } from 'playwright-core';
import type { Chromium } from './chromium';

/** MP4 files as an independent demuxer and the browser's decoder see them. */

/** One encoded picture. */
export interface Packet {
  type: 'key' | 'delta';
  /** Seconds. */
  timestamp: number;
  duration: number;
  data: Uint8Array;
}

/** What a file says. */
export interface Movie {
  /** Of the whole file, e.g. `video/mp4; codecs="avc1.64000a"`. */
  mimeType: string;
  config: VideoDecoderConfig;
  width: number;
  height: number;
  packets: Packet[];
}

/** Reads an MP4 file with mediabunny, which shares no code with the writer. */
export async function readMovie(file: Uint8Array<ArrayBuffer>): Promise<Movie> {
  using input = new Input({ source: new BufferSource(file), formats: [MP4] });
  const track = await input.getPrimaryVideoTrack();
  const config = await track?.getDecoderConfig();
  if (!track || !config) throw new Error('The file has no video track that can be decoded.');
  const packets: Packet[] = [];
  for await (const { type, timestamp, duration, data } of new EncodedPacketSink(track).packets()) {
    packets.push({ type, timestamp, duration, data });
  }
  return {
    mimeType: await input.getMimeType(),
    config,
    width: track.displayWidth,
    height: track.displayHeight,
    packets,
  };
}

/** Frames as RGBA, 8 bits, row-major, in the order in which they are shown. */
export async function decodeMovie(chromium: Chromium, page: Page, movie: Movie): Promise<Uint8ClampedArray[]> {
  const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');
  const { description, ...config } = movie.config;
  await page.evaluate(
    async ({ config, description, packets, width, height }) => {
      const bytes = (text: string) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
      const canvas = new OffscreenCanvas(width, height);
      const context = canvas.getContext('2d', { willReadFrequently: true })!;
      const shown: { timestamp: number; rgba: Uint8ClampedArray }[] = [];
      await new Promise<void>((resolve, reject) => {
        const decoder = new VideoDecoder({
          output(frame) {
            context.drawImage(frame, 0, 0);
            shown.push({ timestamp: frame.timestamp, rgba: context.getImageData(0, 0, width, height).data });
            frame.close();
          },
          error: reject,
        });
        decoder.configure({ ...config, ...(description && { description: bytes(description) }) });
        for (const { type, timestamp, data } of packets) {
          decoder.decode(new EncodedVideoChunk({ type, timestamp: timestamp * 1e6, data: bytes(data) }));
        }
        decoder.flush().then(resolve, reject);
      });
      shown.sort((a, b) => a.timestamp - b.timestamp);
      await fetch('/upload/decoded', { method: 'PUT', body: new Blob(shown.map(({ rgba }) => rgba as BlobPart)) });
    },
    {
      config,
      description: description && base64(new Uint8Array(description as ArrayBuffer)),
      packets: movie.packets.map((packet) => ({ ...packet, data: base64(packet.data) })),
      width: movie.width,
      height: movie.height,
    },
  );
  const all = chromium.take('decoded');
  const size = movie.width * movie.height * 4;
  return Array.from({ length: all.length / size }, (_, index) => {
    return new Uint8ClampedArray(all.slice(index * size, (index + 1) * size));
  });
}
