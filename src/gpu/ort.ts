import type { InferenceSession, Tensor } from 'onnxruntime-web/webgpu';
import { messageOf, ZoetropeError } from '../errors';
import type { Gpu } from './device';
import type { GpuTensor, GpuType } from './memory';
import { Workspace } from './workspace';

/** The part of onnxruntime-web that we call; `onnxruntime-web/webgpu` or `/jspi`, chosen by the host. */
export type OrtModule = typeof import('onnxruntime-web/webgpu');

interface Signature {
  dtype: string;
  shape: readonly number[];
}

/** A value between a graph's inputs and outputs. */
interface ScratchValue extends Signature {
  name: string;
}

/** A graph as `src/onnx` describes it: model bytes and the types it takes and gives. */
export interface GraphModel {
  readonly name: string;
  readonly inputs: ReadonlyMap<string, Signature>;
  readonly outputs: ReadonlyMap<string, Signature>;
  /** Slots of memory for the values in between; values that share one are never needed together. */
  scratch(): { values: readonly { value: ScratchValue; slot: number }[]; slotBytes: readonly number[] };
  /** @param exposeScratch values in between become outputs, so that we say where they lie. */
  toModel(exposeScratch: boolean): Uint8Array;
}

/**
 * A compiled graph. Inputs, outputs and everything in between are our own GPU tensors, so every byte of them is in the
 * ledger: what ONNX Runtime would allocate is declared as an output and bound to the runtime's {@link Workspace}.
 */
export interface OrtGraph {
  /**
   * Submits the graph. Returns when its commands are in the queue, not when they are done. No output may be an input.
   */
  run(feeds: Record<string, GpuTensor>, outputs: Record<string, GpuTensor>): Promise<void>;
  /** Frees the session. */
  release(): Promise<void>;
}

/** A value in host memory. */
export interface HostValue {
  type: 'float32' | 'int64';
  data: Float32Array | BigInt64Array;
  dims: readonly number[];
}

/** A model that runs on the CPU, for small ones whose shaders would take longer to compile than they run. */
export interface HostModel {
  readonly inputNames: readonly string[];
  /** Runs it; every output must be float32. */
  run(feeds: Record<string, HostValue>): Promise<Record<string, Float32Array>>;
  /** Frees the session. */
  release(): Promise<void>;
}

/** What a session is told to run on. */
export type ExecutionProvider = InferenceSession.ExecutionProviderConfig;

/**
 * The last call of each runtime. One wasm instance serves the devices of before and after a loss, so they share the
 * queue.
 */
const queues = new WeakMap<OrtModule, Promise<unknown>>();

/** Creates sessions on our device and keeps ONNX Runtime's calls apart: two at once hang or crash a tab (1.30). */
export class Ort {
  private readonly sessions = new Set<InferenceSession>();
  /**
   * The last session of a phase, kept until the next phase has one: ONNX Runtime forgets all pipelines with the last.
   */
  private parked: InferenceSession | undefined;
  private readonly workspace: Workspace;

  constructor(
    private readonly ort: OrtModule,
    private readonly gpu: Gpu,
  ) {
    // A second thread would only wait: everything runs on the GPU.
    ort.env.wasm.numThreads = 1;
    this.workspace = new Workspace(gpu);
  }

  /** Compiles a graph. Pipelines are made on the first run. */
  async compile(graph: GraphModel): Promise<OrtGraph> {
    const model = graph.toModel(true);
    const session = await this.exclusive(graph.name, () =>
      this.ort.InferenceSession.create(model, {
        executionProviders: [
          // NCHW, since the default NHWC wraps every Conv in Transposes. 'lazyRelease' keeps nothing: all that a graph
          // of ours needs is bound, and what a kernel might ask for inside goes when its commands are submitted.
          {
            name: 'webgpu',
            device: this.gpu.device,
            preferredLayout: 'NCHW',
            storageBufferCacheMode: 'lazyRelease',
            validationMode: 'basic',
          },
        ],
        // Nodes run as they are written: the plan of the workspace speaks of these values and no others.
        graphOptimizationLevel: 'disabled',
        preferredOutputLocation: 'gpu-buffer',
        logSeverityLevel: 3,
      } as InferenceSession.SessionOptions),
    );
    this.sessions.add(session);
    await this.unpark();
    const scratch = graph.scratch();
    return {
      run: (feeds, outputs) => this.run(graph, scratch, session, feeds, outputs),
      release: async () => {
        if (!this.sessions.delete(session)) return;
        if (this.sessions.size > 0) return await this.exclusive(graph.name, () => session.release());
        this.parked = session;
        this.workspace.clear();
      },
    };
  }

  /** Opens any ONNX model on the CPU, in the same queue. @param name shown in errors. */
  async openOnHost(name: string, model: Uint8Array): Promise<HostModel> {
    const session = await this.exclusive(name, () =>
      this.ort.InferenceSession.create(model, { executionProviders: ['wasm'], logSeverityLevel: 3 }),
    );
    return {
      inputNames: session.inputNames,
      run: async (feeds) => {
        const tensors = Object.entries(feeds).map(([key, { type, data, dims }]) => {
          const tensor =
            type === 'int64'
              ? new this.ort.Tensor('int64', data as BigInt64Array, dims)
              : new this.ort.Tensor('float32', data as Float32Array, dims);
          return [key, tensor] as const;
        });
        const outputs = await this.exclusive(name, () => session.run(Object.fromEntries(tensors)));
        const values = Object.entries(outputs).map(([key, tensor]) => [key, tensor.data as Float32Array] as const);
        return Object.fromEntries(values);
      },
      release: () => this.exclusive(name, () => session.release()),
    };
  }

  /**
   * Lends the runtime to a library that makes sessions of its own; all other calls wait until `work` is done.
   * @param what shown in errors.
   * @param work takes the runtime and what a session's `executionProviders` must be to run on our device.
   */
  lend<T>(what: string, work: (runtime: OrtModule, provider: ExecutionProvider) => Promise<T>): Promise<T> {
    const provider = { name: 'webgpu', device: this.gpu.device } as ExecutionProvider;
    return this.exclusive(what, () => work(this.ort, provider));
  }

  /** Releases every session, and with the last one ONNX Runtime's buffer pool. */
  async releaseAll(): Promise<void> {
    await this.unpark();
    for (const session of [...this.sessions]) {
      this.sessions.delete(session);
      await this.exclusive('release', () => session.release());
    }
    this.workspace.clear();
  }

  private async unpark(): Promise<void> {
    const { parked } = this;
    this.parked = undefined;
    if (parked) await this.exclusive('release', () => parked.release());
  }

  private async run(
    graph: GraphModel,
    scratch: ReturnType<GraphModel['scratch']>,
    session: InferenceSession,
    feeds: Record<string, GpuTensor>,
    outputs: Record<string, GpuTensor>,
  ): Promise<void> {
    const bound = bind(this.ort, graph, graph.inputs, feeds);
    const fetched = bind(this.ort, graph, graph.outputs, outputs);
    this.gpu.check();
    this.workspace.fit(scratch.slotBytes);
    for (const { value, slot } of scratch.values) {
      fetched[value.name] = wrap(this.ort, this.workspace.slot(slot).buffer, value);
    }
    await this.exclusive(graph.name, () => session.run(bound, fetched));
    this.gpu.check();
  }

  /** Runs one call after all earlier ones; a failed call does not block the next. */
  private exclusive<T>(what: string, call: () => Promise<T>): Promise<T> {
    const result = (queues.get(this.ort) ?? Promise.resolve()).then(call).catch((cause: unknown) => {
      this.gpu.check(); // A lost device explains the failure better than the runtime does.
      throw new ZoetropeError('internal', `ONNX Runtime failed on graph "${what}": ${messageOf(cause)}`, { cause });
    });
    queues.set(
      this.ort,
      result.catch(() => undefined),
    );
    return result;
  }
}

/** Wraps our buffers as tensors with the graph's own shapes, and refuses missing ones and wrong types. */
function bind(
  ort: OrtModule,
  graph: GraphModel,
  signatures: GraphModel['inputs'],
  tensors: Record<string, GpuTensor>,
): Record<string, Tensor> {
  const bound: Record<string, Tensor> = {};
  for (const [name, { dtype, shape }] of signatures) {
    const tensor = tensors[name];
    if (!tensor) throw new ZoetropeError('internal', `Graph "${graph.name}" needs "${name}" [${shape}].`);
    const elements = (dims: readonly number[]) => dims.reduce((product, size) => product * size, 1);
    if (tensor.type !== (dtype as GpuType) || elements(tensor.shape) !== elements(shape)) {
      throw new ZoetropeError(
        'internal',
        `Graph "${graph.name}" takes "${name}" as ${dtype} [${shape}], got ${tensor.type} [${tensor.shape}].`,
      );
    }
    bound[name] = wrap(ort, tensor.buffer, { dtype, shape });
  }
  return bound;
}

/** A buffer as ONNX Runtime takes it. */
function wrap(ort: OrtModule, buffer: GPUBuffer, { dtype, shape }: Signature): Tensor {
  return ort.Tensor.fromGpuBuffer(buffer, { dataType: dtype as never, dims: [...shape] });
}
