import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import * as installation from '../../src/cli/installation';
import { runServe, servedFolders } from '../../src/cli/serve';
import { byteRange, requestPath, type StaticServer, startServer } from '../../src/cli/server';

describe('byteRange', () => {
  it.each([
    ['bytes=0-0', [0, 1]],
    ['bytes=0-9', [0, 10]],
    ['bytes=3-5', [3, 6]],
    ['bytes=3-', [3, 10]],
    ['bytes=9-', [9, 10]],
    ['bytes=5-99', [5, 10]],
    ['bytes=-3', [7, 10]],
    ['bytes=-99', [0, 10]],
    ['bytes=10-', 'unsatisfiable'],
    ['bytes=10-12', 'unsatisfiable'],
    ['bytes=-0', 'unsatisfiable'],
    ['bytes=5-3', undefined],
    ['bytes=-', undefined],
    ['bytes=0-1,3-4', undefined],
    ['lines=0-1', undefined],
    ['', undefined],
    [undefined, undefined],
  ])('%s of 10 bytes is %o', (header, range) => {
    expect(byteRange(header, 10)).toEqual(range);
  });

  it('finds nothing in an empty file', () => {
    expect(byteRange('bytes=0-', 0)).toBe('unsatisfiable');
    expect(byteRange('bytes=-5', 0)).toBe('unsatisfiable');
  });
});

describe('requestPath', () => {
  it.each([
    ['/', '/'],
    ['/a/b.js?x=../..', '/a/b.js'],
    ['/a%20b', '/a b'],
    ['/..a/b..c', '/..a/b..c'],
    ['/a/../b', undefined],
    ['/..', undefined],
    ['/./a', undefined],
    ['/%2e%2e/a', undefined],
    ['/a/%2E%2E', undefined],
    ['/a%5c..%5cb', undefined],
    ['/a%00b', undefined],
    ['//host/a', undefined],
    ['/C:/a', undefined],
    ['/%', undefined],
    ['http://host/a', undefined],
  ])('%s is %s', (url, path) => {
    expect(requestPath(url)).toBe(path);
  });
});

describe('startServer', () => {
  let folder: string;
  let server: StaticServer;
  const received: [string, string][] = [];

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'zoetrope-server-'));
    mkdirSync(join(folder, 'page'));
    mkdirSync(join(folder, 'model'));
    writeFileSync(join(folder, 'secret.txt'), 'secret');
    writeFileSync(join(folder, 'page/index.html'), '<p>page</p>');
    writeFileSync(join(folder, 'page/code.wasm'), '0123456789');
    writeFileSync(join(folder, 'page/empty.bin'), '');
    writeFileSync(join(folder, 'model/weights.safetensors'), 'weights');
    server = await startServer({
      folders: { '/': join(folder, 'page'), '/models/demo/': join(folder, 'model') },
      cors: true,
      receive: async (name, body) => {
        const chunks: Buffer[] = [];
        for await (const chunk of body) chunks.push(chunk);
        if (name === 'bad') throw new Error('disk full');
        received.push([name, Buffer.concat(chunks).toString()]);
      },
    });
  });

  afterAll(async () => {
    await server?.close();
    rmSync(folder, { recursive: true });
  });

  const get = (path: string, init?: RequestInit) => fetch(new URL(path, server.url), init);

  it('gives index.html for a folder, with its type', async () => {
    const response = await get('/?x=1');
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe('text/html; charset=utf-8');
    expect(await response.text()).toBe('<p>page</p>');
  });

  it('gives wasm the type that streaming compilation needs', async () => {
    expect((await get('/code.wasm')).headers.get('content-type')).toBe('application/wasm');
    expect((await get('/models/demo/weights.safetensors')).headers.get('content-type')).toBe(
      'application/octet-stream',
    );
  });

  it('gives a range, and the whole without one', async () => {
    const part = await get('/code.wasm', { headers: { Range: 'bytes=2-4' } });
    expect(part.status).toBe(206);
    expect(part.headers.get('content-range')).toBe('bytes 2-4/10');
    expect(part.headers.get('content-length')).toBe('3');
    expect(await part.text()).toBe('234');
    expect(await (await get('/code.wasm')).text()).toBe('0123456789');
  });

  it('refuses a range outside the file', async () => {
    const response = await get('/code.wasm', { headers: { Range: 'bytes=10-' } });
    expect(response.status).toBe(416);
    expect(response.headers.get('content-range')).toBe('bytes */10');
  });

  it.each<[string, (modified: string) => RequestInit, number]>([
    ['HEAD, for which there are no ranges', () => ({ method: 'HEAD' }), 200],
    ['another version', () => ({ headers: { 'If-Range': new Date(0).toUTCString() } }), 200],
    ['an ETag, which it has none of', () => ({ headers: { 'If-Range': '"1"' } }), 200],
    ['this version', (modified) => ({ headers: { 'If-Range': modified } }), 206],
  ])('asked for a range of %s', async (_, init, status) => {
    const modified = (await get('/code.wasm')).headers.get('last-modified')!;
    const { headers, ...rest } = init(modified);
    const response = await get('/code.wasm', { ...rest, headers: { ...headers, Range: 'bytes=2-4' } });
    expect([response.status, response.headers.get('content-length')]).toEqual([status, status === 206 ? '3' : '10']);
  });

  it('finds nothing by a name that the disk refuses, and does not tell where it looked', async () => {
    const response = await get(`/${'a'.repeat(300)}`);
    expect(response.status).toBe(404);
    expect(await response.text()).not.toContain(folder);
  });

  it('gives an empty file', async () => {
    const response = await get('/empty.bin');
    expect([response.status, response.headers.get('content-length'), await response.text()]).toEqual([200, '0', '']);
  });

  it('answers HEAD with the length alone', async () => {
    const response = await get('/code.wasm', { method: 'HEAD' });
    expect([response.status, response.headers.get('content-length'), await response.text()]).toEqual([200, '10', '']);
  });

  it('says that nothing changed', async () => {
    const modified = (await get('/code.wasm')).headers.get('last-modified')!;
    expect((await get('/code.wasm', { headers: { 'If-Modified-Since': modified } })).status).toBe(304);
  });

  it('takes the folder with the longest prefix', async () => {
    expect(await (await get('/models/demo/weights.safetensors')).text()).toBe('weights');
    expect((await get('/weights.safetensors')).status).toBe(404);
  });

  it('finds neither missing files nor folders without a slash', async () => {
    expect((await get('/nothing.js')).status).toBe(404);
    expect((await get('/models/demo')).status).toBe(404);
    expect((await get('/models/demo/')).status).toBe(404);
  });

  it.each(['/../secret.txt', '/%2e%2e/secret.txt', '/models/demo/../../secret.txt', '/..%2fsecret.txt'])(
    'does not leave its folders by %s',
    async (path) => {
      // fetch would resolve the dots itself, so the request line is written here.
      const status = await new Promise((resolve, reject) => {
        request(server.url, { path }, (response) => resolve(response.resume().statusCode))
          .on('error', reject)
          .end();
      });
      expect(status).toBe(400);
    },
  );

  it('lets pages of other origins read ranges', async () => {
    const preflight = await get('/code.wasm', { method: 'OPTIONS' });
    expect([preflight.status, preflight.headers.get('access-control-allow-headers')]).toEqual([204, 'Range']);
    const response = await get('/code.wasm');
    expect(response.headers.get('access-control-allow-origin')).toBe('*');
    expect(response.headers.get('access-control-expose-headers')).toContain('Content-Range');
  });

  it('takes uploads where it may, and nothing else', async () => {
    expect((await get('/upload/video', { method: 'PUT', body: 'movie' })).status).toBe(204);
    expect(received).toEqual([['video', 'movie']]);
    const failed = await get('/upload/bad', { method: 'PUT', body: 'movie' });
    expect([failed.status, await failed.text()]).toEqual([500, 'disk full\n']);
    expect((await get('/code.wasm', { method: 'PUT', body: 'x' })).status).toBe(405);
    expect((await get('/code.wasm', { method: 'POST', body: 'x' })).status).toBe(405);
  });

  it('refuses uploads and other origins unless told', async () => {
    const plain = await startServer({ folders: { '/': join(folder, 'page') } });
    try {
      expect((await fetch(`${plain.url}upload/video`, { method: 'PUT', body: 'x' })).status).toBe(405);
      expect((await fetch(plain.url)).headers.get('access-control-allow-origin')).toBeNull();
    } finally {
      await plain.close();
    }
  });

  it('names the port that cannot be had', async () => {
    const port = Number(new URL(server.url).port);
    await expect(startServer({ folders: {}, port })).rejects.toMatchObject({
      code: 'unreadable-source',
      message: expect.stringContaining(`port ${port}`),
    });
  });
});

describe('zoetrope serve', () => {
  it('refuses a folder that is none', () => {
    expect(() => servedFolders(join(tmpdir(), 'zoetrope-none'))).toThrow('is no folder');
    expect(() => servedFolders(import.meta.filename)).toThrow('is no folder');
  });

  it('takes another port where its own is taken, and not where the address is wrong', async () => {
    vi.spyOn(installation, 'pageFolder').mockReturnValue(tmpdir());
    // An address of documentation (RFC 5737), which no machine has.
    await expect(runServe({ host: '203.0.113.1' })).rejects.toThrow('port 8080');
  });
});
