import { messageOf, unlessAborted, ZoetropeError } from '../errors';
import type { Gpu } from './device';
import { GpuTensor } from './memory';

/** Access of a binding. `uniform` is the parameter block and must be called `params`. */
export type Access = 'read' | 'write' | 'uniform';

/** A uniform parameter: whole numbers are u32, `f32(x)` a float. */
export type Param = number | { f32: number };

/** Marks a parameter as f32. */
export const f32 = (value: number): Param => ({ f32: value });

/** What a kernel's pure plan decides for one launch. */
export interface KernelPlan {
  /** Types (`'f16'`, `'f32'`, `'u32'`) become aliases, whole numbers u32 constants, booleans bool constants. */
  prelude: Record<string, 'f16' | 'f32' | 'u32' | number | boolean>;
  /** Values of the shader's `override` declarations. */
  overrides: Record<string, number>;
  /** Fields of the uniform block, in order. */
  params: readonly Param[];
  /** Workgroups along x, y, z. */
  groups: readonly [number, number, number];
}

/** A buffer bound whole, or a range of it whose offset is a multiple of 256. */
export type Binding = GpuTensor | { tensor: GpuTensor; offsetBytes: number; sizeBytes: number };

/** A compute kernel: a WGSL source, its bindings and the pure plan of a launch. */
export interface Kernel<Shape, Name extends string> {
  readonly name: string;
  readonly source: string;
  readonly bindings: Readonly<Record<string, Access>>;
  readonly plan: (shape: Shape) => KernelPlan;
  /** Full WGSL of a plan, prelude included. */
  code(plan: KernelPlan): string;
  /**
   * Compiles (once a device and variant), then submits one dispatch. Returns when it is submitted, not when it is done.
   */
  run(gpu: Gpu, shape: Shape, tensors: Record<Name, Binding>): Promise<void>;
  /** Compiles a variant without running it. */
  prepare(gpu: Gpu, shape: Shape): Promise<void>;
}

/** Most workgroups along one axis that WebGPU guarantees. */
export const MAX_GROUPS = 65_535;

/** Folds a count of workgroups into x and y; the shader computes `group.y * grid.x + group.x` and checks the end. */
export function grid2d(count: number): [number, number, number] {
  if (count <= MAX_GROUPS) return [count, 1, 1];
  const y = Math.ceil(count / MAX_GROUPS);
  return [Math.ceil(count / y), y, 1];
}

/**
 * Defines a kernel. Key order in `bindings` is the binding number and keys equal the WGSL names; a test compares both.
 */
export function defineKernel<Shape, const B extends Record<string, Access>>(definition: {
  name: string;
  source: string;
  bindings: B;
  plan: (shape: Shape) => KernelPlan;
}): Kernel<Shape, Exclude<keyof B & string, 'params'>> {
  const { name, source, bindings, plan } = definition;
  const code = (planned: KernelPlan) => prelude(planned) + source;
  const names = Object.keys(bindings);
  return {
    name,
    source,
    bindings,
    plan,
    code,
    async prepare(gpu, shape) {
      const planned = plan(shape);
      await pipelineFor(gpu, name, code(planned), planned.overrides);
    },
    async run(gpu, shape, tensors) {
      const planned = plan(shape);
      const compiled = pipelineFor(gpu, name, code(planned), planned.overrides);
      const pipeline = await unlessAborted(compiled, gpu.memory.signal);
      gpu.check();
      const { device } = gpu;
      const entries = names.map((key, binding) => ({
        binding,
        resource: key === 'params' ? uniform(gpu, planned.params) : resource(tensors[key as keyof typeof tensors]),
      }));
      const encoder = device.createCommandEncoder({ label: name });
      const pass = encoder.beginComputePass({ label: name });
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, device.createBindGroup({ label: name, layout: pipeline.getBindGroupLayout(0), entries }));
      pass.dispatchWorkgroups(...planned.groups);
      pass.end();
      device.queue.submit([encoder.finish()]);
    },
  };
}

function prelude(plan: KernelPlan): string {
  const lines = Object.entries(plan.prelude).map(([key, value]) => {
    if (typeof value === 'string') return `alias ${key} = ${value};`;
    return typeof value === 'boolean' ? `const ${key}: bool = ${value};` : `const ${key}: u32 = ${value}u;`;
  });
  const half = Object.values(plan.prelude).includes('f16') ? ['enable f16;'] : [];
  return [...half, ...lines, ''].join('\n');
}

function resource(binding: Binding): GPUBufferBinding {
  if (binding instanceof GpuTensor) return { buffer: binding.buffer };
  return { buffer: binding.tensor.buffer, offset: binding.offsetBytes, size: binding.sizeBytes };
}

/** Compiled pipelines of a device. A failed compilation is forgotten, so that the next call reports it again. */
const pipelines = new WeakMap<GPUDevice, Map<string, Promise<GPUComputePipeline>>>();

function pipelineFor(
  gpu: Gpu,
  label: string,
  code: string,
  constants: Record<string, number>,
): Promise<GPUComputePipeline> {
  const { device } = gpu;
  const cache = pipelines.get(device) ?? new Map<string, Promise<GPUComputePipeline>>();
  pipelines.set(device, cache);
  const key = `${JSON.stringify(constants)}\n${code}`;
  const known = cache.get(key);
  if (known) return known;
  const made = compile(device, label, code, constants).catch((cause: unknown) => {
    cache.delete(key);
    gpu.check(); // A lost device explains a failed compilation better than the compiler does.
    throw new ZoetropeError('internal', `Kernel "${label}" does not compile: ${messageOf(cause)}`, { cause });
  });
  cache.set(key, made);
  return made;
}

async function compile(device: GPUDevice, label: string, code: string, constants: Record<string, number>) {
  const module = device.createShaderModule({ label, code });
  return device.createComputePipelineAsync({
    label,
    layout: 'auto',
    compute: { module, entryPoint: 'main', constants },
  });
}

/** Bytes between two parameter blocks: WebGPU's default minUniformBufferOffsetAlignment. */
const SLOT_BYTES = 256;
const SLOTS = 64;

/**
 * Ring of parameter blocks. A slot may be overwritten at once: the write is queued behind the dispatch that reads it.
 */
const rings = new WeakMap<GPUDevice, { buffer: GPUBuffer; next: number }>();

function uniform({ device }: Gpu, params: readonly Param[]): GPUBufferBinding {
  const ring = rings.get(device) ?? { buffer: parameterBuffer(device), next: 0 };
  rings.set(device, ring);
  const offset = ring.next * SLOT_BYTES;
  ring.next = (ring.next + 1) % SLOTS;
  const size = Math.ceil(params.length / 4) * 16;
  const block = new DataView(new ArrayBuffer(size));
  params.forEach((param, i) => {
    if (typeof param === 'number') block.setUint32(i * 4, param, true);
    else block.setFloat32(i * 4, param.f32, true);
  });
  device.queue.writeBuffer(ring.buffer, offset, block.buffer);
  return { buffer: ring.buffer, offset, size };
}

function parameterBuffer(device: GPUDevice): GPUBuffer {
  const usage = 0x40 | 0x08; // UNIFORM | COPY_DST
  return device.createBuffer({ label: 'params', size: SLOT_BYTES * SLOTS, usage });
}
