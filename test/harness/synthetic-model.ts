import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { dataBeginFor } from '../../src/checkpoint/safetensors';
import { largestEntries, planShards } from '../../src/checkpoint/storage';
import { defaultSizes } from '../../src/checkpoint/variants';
import { byteRange } from '../../src/cli/server';
import { type DitConfig, parseUmt5Config, parseVaeConfig } from '../../src/config';
import {
  type ComponentName,
  componentShapes,
  MANIFEST_FILE,
  MAX_PIECE_BYTES,
  type Manifest,
  type ManifestFile,
  type ShardTensor,
  tensorBytes,
} from '../../src/manifest';
import { TEXT_ENCODER, VAE } from './checkpoint';

/**
 * A model of any size from a server on this machine, without a file: shapes of Wan, 4-bit, and bytes that are made when
 * they are asked for. A piece is the same noise as every other one but for its number, so that no two have the same
 * hash.
 */

const NOISE = Buffer.alloc(MAX_PIECE_BYTES);
for (let i = 0, word = 1; i < NOISE.length; i += 4) {
  word = (Math.imul(word, 1664525) + 1013904223) >>> 0; // Numerical Recipes' generator: fast, and no two pieces need more.
  NOISE.writeUInt32LE(word, i);
}

/** Bytes of a file. Every piece begins with its number in the model. */
function bytesAt(firstPiece: number, begin: number, end: number): Buffer {
  const parts: Buffer[] = [];
  for (let at = begin; at < end; ) {
    const piece = Math.floor(at / MAX_PIECE_BYTES);
    const from = at - piece * MAX_PIECE_BYTES;
    const to = Math.min(MAX_PIECE_BYTES, from + end - at);
    const number = Buffer.alloc(8);
    number.writeUInt32LE(firstPiece + piece + 1);
    if (from < 8) parts.push(number.subarray(from, Math.min(8, to)));
    if (to > 8) parts.push(NOISE.subarray(Math.max(8, from), to));
    at += to - from;
  }
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
}

function hashOf(number: number, sizeBytes: number): string {
  return createHash('sha256')
    .update(bytesAt(number, 0, sizeBytes))
    .digest('hex');
}

/** Files of a component, without its pieces. */
function filesOf(component: ComponentName, manifest: Pick<Manifest, 'dit' | 'umt5' | 'vae'>): ManifestFile[] {
  return planShards(component, componentShapes(manifest, component), 'q4').map(({ path, tensors }) => {
    const entries = new Map(tensors.flatMap(largestEntries));
    let end = dataBeginFor(entries);
    const ranges: Record<string, ShardTensor> = {};
    for (const [name, entry] of entries) {
      const begin = end;
      end += tensorBytes(entry);
      ranges[name] = { ...entry, range: [begin, end] };
    }
    return { path, sizeBytes: end, pieces: [], tensors: ranges };
  });
}

/** A server of the model. */
export interface SyntheticModel {
  url: string;
  sizeBytes: number;
  close(): Promise<void>;
}

/** Starts the server of a model with these numbers; those of the other parts are tiny. */
export async function serveSynthetic(dit: DitConfig): Promise<SyntheticModel> {
  const umt5 = parseUmt5Config({ ...TEXT_ENCODER, d_model: dit.textDim }, 'test');
  const vae = parseVaeConfig(VAE, 'test');
  const manifest: Manifest = {
    format: 1,
    name: 'synthetic',
    license: 'none',
    variant: 'custom',
    quantization: 'q4',
    dit,
    umt5,
    vae,
    boundary: null,
    sizes: defaultSizes('custom'),
    recommended: {},
    preview: { weights: Array.from({ length: vae.zDim }, () => [0, 0, 0]), bias: [0, 0, 0] },
    components: {},
  };
  manifest.components = {
    tokenizer: [{ path: 'tokenizer.json', sizeBytes: 1000, pieces: [] }],
    text_encoder: filesOf('text_encoder', manifest),
    high: filesOf('high', manifest),
    vae: filesOf('vae', manifest),
  };
  const files = new Map<string, { file: ManifestFile; firstPiece: number }>();
  let pieces = 0;
  for (const file of Object.values(manifest.components).flat()) {
    files.set(file.path, { file, firstPiece: pieces });
    for (let begin = 0; begin < file.sizeBytes; begin += MAX_PIECE_BYTES) {
      const sizeBytes = Math.min(MAX_PIECE_BYTES, file.sizeBytes - begin);
      file.pieces.push({ sizeBytes, sha256: hashOf(pieces, sizeBytes) });
      pieces++;
    }
  }
  const json = Buffer.from(JSON.stringify(manifest));
  const server = createServer((request, response) => {
    response.setHeader('Access-Control-Allow-Origin', '*');
    response.setHeader('Access-Control-Allow-Headers', 'Range');
    response.setHeader('Access-Control-Expose-Headers', 'Content-Range, ETag');
    if (request.method === 'OPTIONS') return response.writeHead(204).end();
    const path = request.url!.replace('/m/', '');
    const found = files.get(path);
    const sizeBytes = path === MANIFEST_FILE ? json.length : found?.file.sizeBytes;
    if (sizeBytes === undefined) return response.writeHead(404).end();
    const range = byteRange(request.headers.range, sizeBytes);
    if (range === 'unsatisfiable') return response.writeHead(416).end();
    const [begin, end] = range ?? [0, sizeBytes];
    response.statusCode = range ? 206 : 200;
    response.setHeader('Content-Length', end - begin);
    if (range) response.setHeader('Content-Range', `bytes ${begin}-${end - 1}/${sizeBytes}`);
    response.end(found ? bytesAt(found.firstPiece, begin, end) : json.subarray(begin, end));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/m/`,
    sizeBytes: [...files.values()].reduce((sum, { file }) => sum + file.sizeBytes, 0),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
