import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findBrowser } from '../../src/cli/browser';
import { demoModel } from '../harness/chromium';
import { readMovie } from '../harness/movie';

const command = resolve(import.meta.dirname, '../../bin/zoetrope.js');

interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

describe('zoetrope generate', () => {
  let folder: string;
  let env: NodeJS.ProcessEnv;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'zoetrope-command-'));
    const { path, env: libraries } = await findBrowser(true);
    env = { ...process.env, ...libraries, CHROME_PATH: path };
  });

  afterAll(() => rmSync(folder, { recursive: true }));

  function run(...args: string[]): Promise<Outcome> {
    return new Promise((done) => {
      execFile(process.execPath, [command, ...args], { env, cwd: folder }, (error, stdout, stderr) => {
        done({ code: error === null ? 0 : Number(error.code), stdout, stderr });
      });
    });
  }

  const quick = ['--num-frames', '17', '--num-inference-steps', '2', '--aspect-ratio', '1:1'];

  /** Makes a video and its raw frames. */
  async function make(name: string, prompt: string, seed: string, interpolation: string[]) {
    const files = ['-o', `${name}.mp4`, '--frames', `${name}.rgb`];
    const wanted = ['--prompt', prompt, '--seed', seed, ...interpolation];
    const { code, stdout, stderr } = await run('generate', ...wanted, ...files, ...quick, '--json');
    expect([code, stderr]).toEqual([0, '']);
    return { answer: JSON.parse(stdout), frames: readFileSync(join(folder, `${name}.rgb`)) };
  }

  /** The video that the others are compared with; made once. */
  let firstMade: ReturnType<typeof make> | undefined;
  const first = () => {
    firstMade ??= make('first', 'a red circle moving right', '7', ['--num-interpolated-frames', '0']);
    return firstMade;
  };

  it('writes the same frames for the same seed, and others for another seed or prompt', async () => {
    const none = ['--interpolator-model', 'none'];
    const one = await first();
    const same = await make('same', 'a red circle moving right', '7', none);
    const seed = await make('seed', 'a red circle moving right', '8', none);
    const prompt = await make('prompt', 'a blue star in the night sky', '7', none);

    expect(one.frames).toHaveLength(17 * 64 * 64 * 3);
    expect(Buffer.compare(one.frames, same.frames)).toBe(0);
    expect(Buffer.compare(one.frames, seed.frames)).not.toBe(0);
    expect(Buffer.compare(one.frames, prompt.frames)).not.toBe(0);
    expect(one.answer).toMatchObject({
      video: {
        url: join(folder, 'first.mp4'),
        content_type: 'video/mp4',
        file_name: 'first.mp4',
        file_size: statSync(join(folder, 'first.mp4')).size,
      },
      prompt: 'a red circle moving right',
      seed: 7,
      request: { num_inference_steps: 2, aspect_ratio: '1:1' },
      timings: { totalMs: expect.any(Number) },
    });
    const movie = await readMovie(new Uint8Array(readFileSync(join(folder, 'first.mp4'))));
    expect([movie.width, movie.height, movie.packets.length]).toEqual([64, 64, 17]);
    expect(readdirSync(folder).filter((name) => name.endsWith('.part'))).toEqual([]);
  });

  it('puts four frames into each pair and keeps the decoded ones, written fast', async () => {
    const plain = await first();
    const rife = ['--interpolator-model', 'rife', '--num-interpolated-frames', '4'];
    const fast = ['--video-write-mode', 'fast'];
    const smooth = await make('smooth', 'a red circle moving right', '7', [...rife, ...fast]);
    console.log(
      `Decoding and encoding, without and with 64 new frames: ${[plain, smooth].map(({ answer }) => Math.round(answer.timings.decodeMs)).join(' and ')} ms`,
    );
    const movie = await readMovie(new Uint8Array(readFileSync(join(folder, 'smooth.mp4'))));
    expect([movie.width, movie.height, movie.packets.length]).toEqual([64, 64, 81]);
    movie.packets.forEach(({ timestamp, duration }, index) => {
      expect(timestamp).toBeCloseTo(index / 80, 6);
      expect(duration).toBeCloseTo(1 / 80, 6);
    });
    // The write mode's key frames: one a second, which is every 80 frames. The encoder may add some.
    expect([0, 80].map((index) => movie.packets[index]!.type)).toEqual(['key', 'key']);
    expect(movie.packets.filter(({ type }) => type === 'key').length).toBeLessThan(10);
    const size = 64 * 64 * 3;
    expect(smooth.frames).toHaveLength(81 * size);
    const frame = (index: number) => smooth.frames.subarray(index * size, (index + 1) * size);
    for (let i = 0; i < 17; i++) {
      expect(Buffer.compare(frame(5 * i), plain.frames.subarray(i * size, (i + 1) * size)), `frame ${i}`).toBe(0);
    }
    expect(Buffer.compare(frame(2), frame(0))).not.toBe(0);
  });

  it('refuses a bad request before a browser starts, as text and as JSON', async () => {
    const text = await run('generate', '--prompt', 'x', '--num-frames', 'many');
    expect(text).toMatchObject({ code: 1, stdout: '' });
    expect(text.stderr).toMatch(/^zoetrope: .*num_frames.*"many".*\(bad-request\)\n$/);
    const json = await run('generate', '--prompt', 'x', '--num-frame', '17', '--json');
    expect(json).toMatchObject({ code: 1, stderr: '' });
    expect(JSON.parse(json.stdout).error).toMatchObject({
      code: 'bad-request',
      detail: [{ loc: ['body', 'num_frame'], type: 'extra_forbidden', input: '17' }],
    });
    const flag = await run('generate', '--prompt');
    expect([flag.code, flag.stderr]).toEqual([1, expect.stringContaining('(bad-request)')]);
  });

  it('brings the engine’s own refusals back', async () => {
    const { code, stdout } = await run('generate', '--prompt', 'x', '--interpolator-model', 'film', '--json');
    expect(code).toBe(1);
    expect(JSON.parse(stdout).error).toMatchObject({
      code: 'missing-component',
      detail: [{ loc: ['body', 'interpolator_model'] }],
    });
  });

  it('refuses a folder that is no model, and a browser that is none', async () => {
    const model = await run('generate', '--prompt', 'x', '--model', folder);
    expect(model).toMatchObject({ code: 1, stderr: expect.stringMatching(/zoetrope\.json.*\(unreadable-source\)/) });
    const before = env;
    env = { ...env, CHROME_PATH: '/nowhere/chrome' };
    const browser = await run('generate', '--prompt', 'x');
    env = before;
    expect(browser).toMatchObject({ code: 1, stderr: expect.stringMatching(/CHROME_PATH.*\(unsupported-device\)/) });
  });

  it('takes a model that `zoetrope serve` serves', async () => {
    const served = spawn(process.execPath, [command, 'serve', demoModel, '--port', '0'], { env });
    try {
      const url = await new Promise<string>((done, fail) => {
        served.stdout.on('data', (text) => done(String(text).match(/http:\S+/)![0]));
        served.on('close', () => fail(new Error('zoetrope serve ended')));
      });
      const page = new URL(url);
      expect(page.searchParams.get('model')).toBe('models/demo/');
      expect(await (await fetch(page)).text()).toContain('<title>Zoetrope</title>');
      const model = new URL(page.searchParams.get('model')!, page).href;
      const files = ['-o', 'served.mp4', '--model', model];
      const { code, stdout, stderr } = await run('generate', '--prompt', 'x', ...files, ...quick);
      expect([code, stderr.includes('%')]).toEqual([0, true]);
      expect(stdout).toMatch(/^served\.mp4: \d+ bytes, seed \d+, [\d.]+ s\n$/);
    } finally {
      served.kill();
    }
  });

  it('stops at an interrupt and leaves no file', async () => {
    const args = ['generate', '--prompt', 'x', '--aspect-ratio', '1:1', '--num-frames', '17', '-o', 'cancelled.mp4'];
    const child = spawn(process.execPath, [command, ...args], { env, cwd: folder });
    let stderr = '';
    child.stderr.on('data', (chunk) => {
      stderr += chunk;
      if (String(chunk).includes('%')) child.kill('SIGINT');
    });
    const code = await ended(child);
    expect(stderr).toContain('(aborted)');
    expect(code).toBe(130);
    expect(existsSync(join(folder, 'cancelled.mp4'))).toBe(false);
    expect(readdirSync(folder).filter((name) => name.endsWith('.part'))).toEqual([]);
  });
});

function ended(child: ChildProcess): Promise<number | null> {
  return new Promise((done) => child.on('close', done));
}
