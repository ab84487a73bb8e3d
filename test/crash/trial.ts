import { createHash } from 'node:crypto';
import type { BrowserContext, CDPSession, Page } from 'playwright-core';
import { messageOf } from '../../src/errors';
import type { Request } from '../../src/index';
import { type Chromium, openChromium } from '../harness/chromium';

/** A job that something happens to, in Chromium: at a submission to the GPU that is chosen beforehand. */

/**
 * Chromium gives a page no GPU any more when its process has crashed a few times; these let it be crashed as often as a
 * test likes. `--disable-domain-blocking-for-3d-apis`: crashes are not held against the site;
 * `--disable-gpu-process-crash-limit`: nor against the GPU.
 */
export const CRASH_FLAGS = ['--disable-domain-blocking-for-3d-apis', '--disable-gpu-process-crash-limit'];

/**
 * What happens: `device.destroy()`; `Browser.crashGpuProcess` over CDP; `Page.crash` over CDP, which ends the tab's
 * process; the device says that it is out of memory; or it is destroyed, and the browser offers no adapter any more.
 */
export type Kind = 'destroy' | 'gpu' | 'tab' | 'memory' | 'gone';

/** How a job went. */
export interface Outcome {
  /** SHA-256 of the frames, RGB24. */
  sha256: string;
  /** Submissions to the GPU. */
  submits: number;
  /** What was submitted before each blow fell. */
  struckAt: number[];
  /** Steps that had been reported when a run ended, and the step behind which the next one went on. */
  resumed: { reported: number; from: number }[];
  /** Whether a person had to press Continue. */
  clicked: boolean;
}

/** What the patched worker and the page say to each other. */
type Message =
  | { arm: Kind | 'count'; at: number[] }
  | { armed: true }
  | { struck: number }
  | { ask: true }
  | { submits: number };

/**
 * Runs in the worker before its own script: counts submissions and strikes at some of them. Its text is what is sent.
 */
function strikes(): void {
  const channel = new BroadcastChannel('crash-test');
  let kind = 'count';
  let at: number[] = [];
  let submits = 0;
  let device: GPUDevice | undefined;
  let gone = false;
  channel.onmessage = ({ data }) => {
    if (data.ask) channel.postMessage({ submits });
    if (!data.arm) return;
    kind = data.arm;
    at = data.at;
    submits = 0;
    gone = false;
    channel.postMessage({ armed: true });
  };
  const { requestAdapter } = GPU.prototype;
  GPU.prototype.requestAdapter = async function (options) {
    return gone ? null : requestAdapter.call(this, options);
  };
  const { requestDevice } = GPUAdapter.prototype;
  GPUAdapter.prototype.requestDevice = async function (...options) {
    device = await requestDevice.apply(this, options);
    return device;
  };
  const { submit } = GPUQueue.prototype;
  GPUQueue.prototype.submit = function (buffers) {
    submit.call(this, buffers);
    submits++;
    if (at[0] !== submits) return undefined;
    at.shift();
    channel.postMessage({ struck: submits });
    // A tab dies here, not wherever its worker has got to by the time that the browser ends it.
    for (const end = performance.now() + 20_000; kind === 'tab' && performance.now() < end; );
    gone = kind === 'gone';
    if (kind === 'destroy' || gone) device?.destroy();
    if (kind === 'memory') {
      const error = new GPUOutOfMemoryError('as the test wants it');
      device?.dispatchEvent(new GPUUncapturedErrorEvent('uncapturederror', { error }));
    }
    return undefined;
  };
}

/** A browser with one site whose jobs are struck. */
export class CrashSite {
  private page: Page | undefined;
  private browserSession: CDPSession | undefined;
  /** Steps that the present run has reported, from the page. */
  private reported = 0;
  private outcome: Pick<Outcome, 'struckAt' | 'resumed'> = { struckAt: [], resumed: [] };
  private onStruck: () => void = () => undefined;

  private constructor(
    private readonly chromium: Chromium,
    private readonly context: BrowserContext,
    private readonly request: Request,
    private readonly model: string,
  ) {}

  /** @param folders further folders of the server, and the model among them. */
  static async open(
    request: Request,
    folders: Record<string, string> = {},
    model = '/models/demo/',
  ): Promise<CrashSite> {
    const chromium = await openChromium(folders, CRASH_FLAGS);
    const context = await chromium.browser.newContext();
    const site = new CrashSite(chromium, context, request, model);
    await context.route(/engine-.*\.js$/, async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, body: `(${strikes.toString()})();\n${await response.text()}` });
    });
    await context.exposeBinding('tell', (_, message: { step?: number; from?: number; struck?: number }) => {
      if (message.struck !== undefined) {
        site.outcome.struckAt.push(message.struck);
        site.onStruck();
      }
      // A run tells where it goes on before it reports a step; one that tells nothing and reports fewer steps began
      // anew.
      const now = message.from ?? message.step ?? site.reported;
      if (message.from !== undefined || now < site.reported)
        site.outcome.resumed.push({ reported: site.reported, from: now });
      site.reported = now;
    });
    return site;
  }

  async close(): Promise<void> {
    await this.chromium.close();
  }

  /** Runs the job to its end through whatever happens at the given submissions. */
  async run(kind: Kind | 'count', at: readonly number[]): Promise<Outcome> {
    this.page ??= await this.openPage();
    const { page } = this;
    this.reported = 0;
    this.outcome = { struckAt: [], resumed: [] };
    const crashed = new Promise<'crashed'>((resolve) => page.once('crash', () => resolve('crashed')));
    this.onStruck = () => void this.strike(kind, page);
    await this.arm(page, kind, at);
    const job = this.follow(page, null);
    job.catch(() => undefined); // A crash rejects it, and is looked at first.
    const first = await Promise.race([job, crashed]);
    if (first !== 'crashed') return { ...this.outcome, ...first, clicked: false };
    this.page = undefined;
    await page.close();
    this.page = await this.openPage();
    const last = await this.follow(this.page, await keptJob(this.page));
    return { ...this.outcome, ...last, clicked: true };
  }

  /**
   * As {@link run}; a job that gives up, since it lost its device more often than it tries without a step between, is
   * continued by a person.
   */
  async persist(kind: Kind, at: readonly number[]): Promise<Outcome> {
    try {
      return await this.run(kind, at);
    } catch (error) {
      if (!messageOf(error).includes('device-lost')) throw error;
      const last = await this.follow(this.page!, await keptJob(this.page!));
      return { ...this.outcome, ...last, clicked: true };
    }
  }

  /** Runs a job that is refused in the end, and gives why, and then what a person gets who continues it. */
  async refused(kind: Kind, at: readonly number[]): Promise<{ why: string; continued: Outcome }> {
    const why = await this.run(kind, at).then(
      () => 'not refused',
      (error: Error) => error.message,
    );
    this.outcome = { struckAt: [], resumed: [] };
    await this.arm(this.page!, 'count', []);
    const last = await this.follow(this.page!, await keptJob(this.page!));
    return { why, continued: { ...this.outcome, ...last, clicked: true } };
  }

  private async strike(kind: Kind | 'count', page: Page): Promise<void> {
    if (kind === 'gpu') {
      this.browserSession ??= await this.chromium.browser.newBrowserCDPSession();
      await this.browserSession.send('Browser.crashGpuProcess');
    }
    if (kind === 'tab') {
      const session = await this.context.newCDPSession(page);
      await session.send('Page.crash').catch(() => undefined); // Nobody is left to answer.
    }
  }

  private async openPage(): Promise<Page> {
    const page = await this.context.newPage();
    await page.goto(`${this.chromium.url}?idle`);
    await page.evaluate(async (model) => {
      const channel = new BroadcastChannel('crash-test');
      channel.addEventListener('message', ({ data }) => data.struck !== undefined && tell({ struck: data.struck }));
      globalThis.opened = await zoetrope.load({ model });
    }, this.model);
    return page;
  }

  private async arm(page: Page, kind: Kind | 'count', at: readonly number[]): Promise<void> {
    const order: Message = { arm: kind, at: [...at] };
    await page.evaluate(
      (message) =>
        new Promise<void>((resolve) => {
          const channel = new BroadcastChannel('crash-test');
          channel.onmessage = ({ data }) => data.armed && resolve();
          channel.postMessage(message);
        }),
      order,
    );
  }

  /** Begins a job, or continues the one of that id, and hashes what comes of it. */
  private async follow(page: Page, id: string | null): Promise<Pick<Outcome, 'sha256' | 'submits'>> {
    const { rgb24, submits } = await page.evaluate(
      async ([request, kept]) => {
        const options = {
          rgb24: true,
          onProgress: ({ stage, done }: { stage: string; done: number }) => {
            if (stage === 'diffusion') tell({ step: done });
          },
          onLog: ({ message }: { message: string }) => {
            const from = /Going on behind step (\d+)/.exec(message)?.[1];
            if (from !== undefined) tell({ from: Number(from) });
          },
        };
        const made =
          kept === null ? await opened.generate(request, options) : await opened.jobs.continue(kept, options);
        URL.revokeObjectURL(made.video.url);
        const submits = await new Promise<number>((resolve) => {
          const channel = new BroadcastChannel('crash-test');
          channel.onmessage = ({ data }) => data.submits !== undefined && resolve(data.submits);
          channel.postMessage({ ask: true });
        });
        const bytes = new Uint8Array(made.frames!.rgb24);
        return { rgb24: Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''), submits };
      },
      [this.request, id] as const,
    );
    return { sha256: createHash('sha256').update(rgb24, 'latin1').digest('hex'), submits };
  }
}

/** The one job that is to be continued. */
function keptJob(page: Page): Promise<string> {
  return page.evaluate(async () => {
    const jobs = await opened.jobs.list();
    if (jobs.length !== 1 || jobs[0]!.state !== 'interrupted') throw new Error(`Kept: ${JSON.stringify(jobs)}`);
    return jobs[0]!.id;
  });
}

declare global {
  /** Tells the test how a job goes. */
  var tell: (message: { step?: number; from?: number; struck?: number }) => void;
}

/** What is wrong with a job that was struck; undefined when it is as it should be. */
export function faultOf(outcome: Outcome, undisturbed: Outcome, blows: number): string | undefined {
  if (outcome.sha256 !== undisturbed.sha256) return 'other frames';
  if (outcome.struckAt.length !== blows) return `struck ${outcome.struckAt.length} times of ${blows}`;
  const lost = outcome.resumed.find(({ reported, from }) => from < reported);
  return lost && `went on behind step ${lost.from} of ${lost.reported}`;
}
