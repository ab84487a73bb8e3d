import { messageOf, throwIfAborted, ZoetropeError } from '../errors';
import { GpuMemory } from './memory';

/** Limits that kernels and plans depend on; requested at the adapter's maximum. */
const WANTED_LIMITS = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
  'maxComputeWorkgroupsPerDimension',
] as const;

/** One of the limits of {@link requestGpu}. */
export type LimitName = (typeof WANTED_LIMITS)[number];

/**
 * Below this subgroup size ONNX Runtime's flash attention is wrong (measured at 4, SwiftShader), so the feature is not
 * requested.
 */
const MIN_SUBGROUP_SIZE = 8;

/** How to ask for a device. */
export interface GpuOptions {
  /** Upper bounds below the adapter's own limits, for tests of small devices. */
  limits?: Partial<Record<LimitName, number>>;
  /** Use half floats where the device has them. Default true. */
  f16?: boolean;
}

/** The one device of an engine, with its byte ledger. */
export interface Gpu {
  readonly device: GPUDevice;
  readonly memory: GpuMemory;
  /** Vendor, architecture and description as the browser tells them. */
  readonly name: string;
  /** The adapter is a CPU driver (SwiftShader, lavapipe): dispatches are kept small. */
  readonly cpu: boolean;
  /** `shader-f16` is on and wanted. */
  readonly f16: boolean;
  /** `subgroups` is on. */
  readonly subgroups: boolean;
  /** `timestamp-query` is on. */
  readonly timestamps: boolean;
  /** Resolves with the error to throw when the device is lost, for whatever reason. */
  readonly lost: Promise<ZoetropeError>;
  /**
   * Throws if the device is lost, a command of the job that runs has failed, or the job was cancelled. Called before
   * every dispatch, and by what loads beside the job, which must not use a failure up.
   */
  check(): void;
  /**
   * Runs a job: once its signal fires, {@link check} and reads throw `aborted`. What the device has reported explains a
   * foreign error better than that does itself. One job runs at a time.
   */
  job<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T>;
  /** Destroys the device. */
  destroy(): void;
}

/**
 * Requests an adapter and a device with its full limits. Throws `unsupported-device` with what is missing.
 * @param gpu `navigator.gpu`; undefined where the browser has no WebGPU.
 */
export async function requestGpu(gpu: GPU | undefined, options: GpuOptions = {}): Promise<Gpu> {
  if (!gpu) {
    throw new ZoetropeError(
      'unsupported-device',
      'This browser has no WebGPU. Use a current Chrome, Edge or Safari 26, over https or from localhost.',
    );
  }
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) {
    throw new ZoetropeError(
      'unsupported-device',
      'The browser has WebGPU but offers no GPU adapter. Check that hardware acceleration is on (chrome://gpu) and that the GPU is not on the block list.',
    );
  }
  const wanted: GPUFeatureName[] = ['timestamp-query'];
  if (options.f16 !== false) wanted.push('shader-f16');
  if ((adapter.info.subgroupMinSize ?? 0) >= MIN_SUBGROUP_SIZE) wanted.push('subgroups');
  const features = wanted.filter((feature) => adapter.features.has(feature));
  const limits: Record<string, number> = {};
  for (const name of WANTED_LIMITS) limits[name] = Math.min(adapter.limits[name], options.limits?.[name] ?? Infinity);
  try {
    const device = await adapter.requestDevice({ requiredFeatures: features, requiredLimits: limits });
    return watch(device, adapter.info);
  } catch (cause) {
    throw new ZoetropeError('unsupported-device', `The GPU adapter refused a device: ${messageOf(cause)}`, { cause });
  }
}

function watch(device: GPUDevice, info: GPUAdapterInfo): Gpu {
  let failure: ZoetropeError | undefined;
  const lost = device.lost.then(({ reason, message }) => {
    failure = new ZoetropeError(
      'device-lost',
      `The GPU device was lost (${reason}${message ? `: ${message}` : ''}). Start the generation again; a new device is made for it.`,
    );
    return failure;
  });
  device.addEventListener('uncapturederror', ({ error }) => {
    const outOfMemory = error.constructor.name === 'GPUOutOfMemoryError';
    failure ??= new ZoetropeError(
      outOfMemory ? 'out-of-memory' : 'internal',
      outOfMemory
        ? `The GPU is out of memory: ${error.message}. Close other pages that use the GPU or choose a smaller size.`
        : `The GPU refused a command: ${error.message}`,
    );
  });
  const memory = new GpuMemory(device);
  return {
    device,
    memory,
    name: [info.vendor, info.architecture, info.description].filter(Boolean).join(' ') || 'unnamed adapter',
    cpu: /swiftshader|llvmpipe|lavapipe/i.test(`${info.architecture} ${info.description} ${info.device}`),
    f16: device.features.has('shader-f16'),
    subgroups: device.features.has('subgroups'),
    timestamps: device.features.has('timestamp-query'),
    lost,
    check() {
      throwIfAborted(memory.signal);
      if (failure) throw failure;
    },
    async job(signal, work) {
      memory.startJob(signal);
      // A lost device stays lost; whatever else failed belongs to a job before.
      if (failure?.code !== 'device-lost') failure = undefined;
      try {
        return await work();
      } catch (error) {
        throw error instanceof ZoetropeError ? error : (failure ?? error);
      } finally {
        // The remains of a job that was given up may end when the next one runs.
        if (memory.signal === signal) memory.signal = undefined;
      }
    },
    destroy: () => device.destroy(),
  };
}
