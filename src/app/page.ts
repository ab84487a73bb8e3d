import {
  type Generation,
  load,
  type Progress,
  type Request,
  type ResumeOptions,
  type StoredJob,
  type Zoetrope,
  ZoetropeError,
} from '../index';
import { adviceFor } from './advice';
import { element, setText } from './element';
import { createForm } from './form';
import { formatBytes } from './format';
import type { LineView } from './line-view';
import type { ModelsView } from './models-view';
import { createNotice } from './notice';
import { outlineOf } from './outline';
import type { PlanView } from './plan-view';
import { createStage } from './stage';

/** How the page begins. */
export interface PageOptions {
  /** URL of the model folder, relative to the page. */
  model: string;
  /** Wait for a person or a script instead of opening the model at once. */
  idle: boolean;
}

const TITLE = 'Zoetrope';

/** Builds the page in `root` and runs it: opens the model, makes videos, shows what comes. */
export function startPage(root: HTMLElement, { model, idle }: PageOptions): void {
  let zoetrope: Zoetrope | undefined;
  /** Of the job that is running. */
  let controller: AbortController | undefined;
  /** The list of unfinished videos, loaded when there is one to show. */
  let line: LineView | undefined;
  /** Whether those that wait in line run one after the other; not before the person has said so on this page. */
  let lineRuns = false;
  let planView: Promise<PlanView> | undefined;
  let storedModels: Promise<ModelsView> | undefined;

  const status = element('p', { class: 'status' });
  const facts = element('p', { class: 'model' });
  const stage = createStage({
    model,
    onCancel: cancel,
    onUseSeed: (seed) => form.write({ seed }),
  });
  /** What keeps the page from having a model. */
  const closed = element('div', { class: 'closed' });
  const modelsButton = element('button', { type: 'button', onclick: () => void showModels() }, 'Models');
  const form = createForm({ onSubmit: () => void (controller ? addToLine() : generate()), onChange: showOutline });
  const column = element('div', {}, form.root);

  root.append(
    element('header', {}, element('h1', {}, logo(), TITLE), element('div', { class: 'beside' }, status, modelsButton)),
    element('main', {}, closed, column, stage.root),
    element('footer', {}, facts, element('p', {}, 'Zoetrope, Apache-2.0. Prompts and videos stay in this browser.')),
  );
  document.addEventListener('keydown', (event) => {
    // While a word is composed, the key is the input method's.
    if (event.key === 'Escape' && !event.isComposing && controller && !document.querySelector('dialog[open]')) cancel();
  });
  if (idle) {
    const button = element('button', { type: 'button', onclick: () => void open() }, 'Open the model');
    showClosed(element('p', { class: 'row' }, 'Opened with ?idle: no model is loaded yet. ', button), 'waiting');
  } else void open();

  /** The screen of stored models, fetched when it is first wanted. */
  async function showModels(): Promise<void> {
    storedModels ??= import('./models-view').then(({ createModelsView }) => {
      const view = createModelsView({
        model: new URL(model, document.baseURI).href,
        onDelete: closeStored,
        available: () => zoetrope?.model.available,
        onPart: () => {
          if (zoetrope && !controller) void open();
        },
      });
      root.append(view.root);
      return view;
    });
    (await storedModels).open();
  }

  async function open(): Promise<void> {
    zoetrope?.close();
    zoetrope = undefined;
    showStatus('Opening the model', 'waiting');
    closed.replaceChildren();
    stage.showOpening(model);
    form.setButton(false, 'Opening the model');
    try {
      zoetrope = await load({ model });
    } catch (error) {
      showRefusal(error);
      return;
    }
    const { name, sizeBytes } = zoetrope.model;
    showStatus(`Model ${name}, ${formatBytes(sizeBytes)}`, 'ready');
    form.setModel(zoetrope.model);
    form.setButton(true, 'Generate');
    void showFacts();
    void showLine();
  }

  async function generate(): Promise<void> {
    const request = form.request();
    if (!zoetrope || controller) return;
    const { generate: start } = zoetrope;
    await make(request, (options) => start(request, options));
  }

  /**
   * Follows a job on the stage, and then the next one of the line.
   * @param start begins it with the page's listeners.
   */
  async function make(
    request: Request | undefined,
    start: (options: ResumeOptions) => Promise<Generation | undefined>,
  ): Promise<void> {
    controller = new AbortController();
    form.showProblems([]);
    form.setButton(true, 'Add to the line');
    if (request) showJob(request);
    void showLine();
    try {
      const generation = await start({
        signal: controller.signal,
        onProgress: showProgress,
        onPreview: (preview) => {
          stage.showPreview(preview);
          void showFacts();
        },
      });
      if (generation) stage.showResult({ generation, size: sizeOf(generation) });
    } catch (error) {
      // A job that failed wants to be looked at before the next one takes the stage.
      if (!(error instanceof ZoetropeError) || error.code !== 'aborted') lineRuns = false;
      showFailure(error);
    } finally {
      controller = undefined;
      document.title = TITLE;
      form.setButton(zoetrope !== undefined, 'Generate');
      void showFacts();
    }
    await showLine();
    if (lineRuns) await runLine();
  }

  function showJob(request: Request): void {
    const outline = zoetrope && outlineOf(request, zoetrope.model.sizes);
    if (outline) stage.showJob(outline);
  }

  /** Runs what waits in line for this model, if anything does. */
  async function runLine(): Promise<void> {
    const jobs = (await zoetrope?.jobs.list().catch(() => [])) ?? [];
    if (!zoetrope || controller || !jobs.some((job) => job.state === 'waiting' && isOurs(job))) return;
    const { next } = zoetrope.jobs;
    lineRuns = true;
    await make(undefined, (options) =>
      next({
        ...options,
        onStart: ({ request }) => {
          showJob(request);
          void showLine();
        },
      }),
    );
  }

  async function addToLine(): Promise<void> {
    const request = form.request();
    form.showProblems([]);
    try {
      await zoetrope?.jobs.add(request);
      lineRuns = true;
      await showLine();
    } catch (error) {
      const { message, detail } = adviceFor(error);
      form.showProblems(detail);
      if (detail.length === 0) (await lineView()).say(message);
    }
  }

  function isOurs({ model: needed }: StoredJob): boolean {
    return needed.id === zoetrope?.model.id;
  }

  async function lineView(): Promise<LineView> {
    if (line) return line;
    const { createLineView } = await import('./line-view'); // few pages have something in line
    line ??= createLineView({
      onContinue({ id, request }) {
        if (!zoetrope || controller) return;
        const { jobs } = zoetrope;
        void make(request, (options) => jobs.continue(id, options));
      },
      onRemove: ({ id }) => void change((jobs) => jobs.remove(id)),
      onMove: ({ id }, position) => void change((jobs) => jobs.move(id, position)),
      onStart: () => void runLine(),
    });
    column.append(line.root);
    return line;
  }

  /** Changes the line, and shows it, with what went wrong if something did. */
  async function change(work: (jobs: Zoetrope['jobs']) => Promise<void>): Promise<void> {
    let said = '';
    try {
      if (zoetrope) await work(zoetrope.jobs);
    } catch (error) {
      said = adviceFor(error).message;
    }
    (await lineView()).say(said);
    await showLine();
  }

  /**
   * Shows the unfinished videos but for those that run, here or in another tab. Where nothing is stored there are none.
   */
  async function showLine(): Promise<void> {
    if (!zoetrope) return;
    const all = await zoetrope.jobs.list().catch(() => []);
    const jobs = all.filter(({ state }) => state !== 'running');
    if (jobs.length === 0 && !line) return;
    const view = await lineView();
    if (zoetrope) view.show(jobs, zoetrope.model.id, controller !== undefined, !lineRuns);
  }

  /**
   * Stops reading a stored model that is about to be deleted, unless a job needs it. Gives what opens the model again.
   */
  function closeStored(id: string): () => void {
    if (zoetrope?.model.storedId !== id || controller) return () => undefined;
    zoetrope.close();
    zoetrope = undefined;
    return () => void open();
  }

  function cancel(): void {
    controller?.abort();
    stage.showCancelling();
  }

  function showFailure(error: unknown): void {
    if (error instanceof ZoetropeError && error.code === 'aborted') {
      stage.showCancelled();
      return;
    }
    if (error instanceof ZoetropeError && error.code === 'worker-died') {
      zoetrope = undefined;
      showRefusal(error);
      return;
    }
    const advice = adviceFor(error);
    stage.showError(advice);
    form.showProblems(advice.detail);
  }

  /** There is no model, because of an error that concerns every request. */
  function showRefusal(error: unknown): void {
    const notice = createNotice(adviceFor(error), { text: 'Open the model again', onclick: () => void open() });
    showClosed(notice, 'failed');
    closed.scrollIntoView({ block: 'nearest' });
  }

  function showClosed(reason: HTMLElement, state: 'waiting' | 'failed'): void {
    showStatus('No model is open', state);
    form.setButton(false, 'Generate');
    stage.showClosed();
    closed.replaceChildren(reason);
  }

  function showProgress(progress: Progress): void {
    stage.showProgress(progress);
    document.title = `${Math.floor(progress.fraction * 100)} % · ${TITLE}`;
  }

  function showOutline(): void {
    if (!zoetrope) return;
    const outline = outlineOf(form.request(), zoetrope.model.sizes);
    if (outline) stage.showReady(outline);
    void showPlan(zoetrope);
  }

  /** What the request would take. The view comes after the page, which does not wait for it. */
  async function showPlan(opened: Zoetrope): Promise<void> {
    planView ??= import('./plan-view').then(({ createPlanView }) => createPlanView((fields) => form.write(fields)));
    const view = await planView;
    if (!view.root.isConnected) form.root.lastElementChild!.before(view.root);
    view.show(opened, form.request());
  }

  function showStatus(text: string, state: 'waiting' | 'ready' | 'failed'): void {
    setText(status, text);
    status.dataset.state = state;
  }

  /**
   * The line about model, GPU and memory. A worker that has died has nothing to tell, and its error is shown elsewhere.
   */
  async function showFacts(): Promise<void> {
    if (!zoetrope) return;
    const { name, license, gpu, f16, storedId } = zoetrope.model;
    const memory = await zoetrope.memory().catch(() => undefined);
    const use = memory && `${formatBytes(memory.liveBytes)} of GPU memory, ${formatBytes(memory.peakBytes)} at most`;
    const from = storedId === undefined ? '' : ', stored in this browser';
    const parts = [`Model ${name}, ${license}${from}`, gpu, f16 ? '16-bit attention' : '32-bit attention', use];
    setText(facts, parts.filter((part) => part).join(' · '));
  }

  function sizeOf({ request }: Generation): readonly [width: number, height: number] {
    return zoetrope!.model.sizes[request.resolution][request.aspect_ratio];
  }
}

/** The drum from the front: a band with slits. */
function logo(): SVGElement {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 32 24');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  path.setAttribute('fill-rule', 'evenodd');
  // The band with its curved edges, then five slits cut out of it.
  const slits = [4, 9.5, 15, 20.5, 26].map((x, index) => `M${x} ${[5, 6.4, 7, 6.4, 5][index]}h2v7h-2z`);
  path.setAttribute('d', `M0 1Q16 6 32 1V19Q16 27 0 19Z${slits.join('')}`);
  svg.append(path);
  return svg;
}
