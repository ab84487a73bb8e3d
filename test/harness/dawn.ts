import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { brotliDecompressSync } from 'node:zlib';
import { type Gpu, type GpuOptions, requestGpu } from '../../src/gpu/device';
import { Ort, type OrtModule } from '../../src/gpu/ort';

/**
 * WebGPU in Node: Dawn (npm package `webgpu`) on the SwiftShader that ships inside @sparticuz/chromium, or on the
 * system's Vulkan driver when ZOETROPE_GPU=system. The `null` backend compiles shaders of every feature and computes
 * nothing.
 */

const root = resolve(import.meta.dirname, '../..');
const swiftshader = join(root, '.cache/swiftshader');

/** Unpacks SwiftShader once and makes it the Vulkan driver of this process. */
function useSwiftShader(): void {
  if (process.platform !== 'linux' || process.arch !== 'x64') return; // elsewhere Dawn finds the system's GPU
  const icd = join(swiftshader, 'icd.json');
  if (!existsSync(icd)) {
    mkdirSync(swiftshader, { recursive: true });
    const chromium = dirname(createRequire(import.meta.url).resolve('@sparticuz/chromium'));
    const archive = ['bin', '../bin', '../../bin']
      .map((path) => join(chromium, path, 'swiftshader.tar.br'))
      .find(existsSync);
    if (!archive) throw new Error(`@sparticuz/chromium holds no swiftshader.tar.br near ${chromium}; run npm ci.`);
    const tar = join(swiftshader, 'swiftshader.tar');
    writeFileSync(tar, brotliDecompressSync(readFileSync(archive)));
    execFileSync('tar', ['xf', tar, '-C', swiftshader]);
    const driver = { library_path: join(swiftshader, 'libvk_swiftshader.so'), api_version: '1.1.0' };
    writeFileSync(icd, JSON.stringify({ file_format_version: '1.0.0', ICD: driver }));
  }
  process.env.VK_ICD_FILENAMES = icd;
  process.env.VK_DRIVER_FILES = icd;
  // Dawn opens libvulkan.so.1 by its bare name. Loading the archive's copy first, never to be unloaded, makes that name
  // known on machines without a Vulkan loader. The file is no Node addon, so Node reports an error after loading it.
  const RTLD_NODELETE = 0x1000;
  try {
    const flags = constants.dlopen.RTLD_NOW | constants.dlopen.RTLD_GLOBAL | RTLD_NODELETE;
    process.dlopen({ exports: {} }, join(swiftshader, 'libvulkan.so.1'), flags);
  } catch {}
}

/** Dawn's `navigator.gpu`. Sets the WebGPU globals of the process, which ONNX Runtime looks up. */
export async function openDawn(backend: 'vulkan' | 'null' = 'vulkan'): Promise<GPU> {
  if (backend === 'vulkan' && process.env.ZOETROPE_GPU !== 'system') useSwiftShader();
  const { create, globals } = await import('webgpu');
  Object.assign(globalThis, globals);
  copySharedViews();
  const gpu = create(backend === 'null' ? ['backend=null'] : []) as GPU;
  Object.defineProperty(globalThis, 'navigator', {
    value: { gpu, hardwareConcurrency: 2, userAgent: 'node' },
    configurable: true,
  });
  return gpu;
}

/** Dawn for Node refuses views of SharedArrayBuffers in writeBuffer, and the heap of ONNX Runtime is one: copy them. */
function copySharedViews(): void {
  const prototype = (globalThis as unknown as { GPUQueue: { prototype: GPUQueue } }).GPUQueue.prototype;
  const original = prototype.writeBuffer as GPUQueue['writeBuffer'] & { copies?: boolean };
  if (original.copies) return;
  const patched = function (
    this: GPUQueue,
    ...[buffer, offset, data, from, size]: Parameters<GPUQueue['writeBuffer']>
  ) {
    if (!ArrayBuffer.isView(data) || !(data.buffer instanceof SharedArrayBuffer)) {
      return original.call(this, buffer, offset, data, from, size);
    }
    const unit = (data as Uint8Array).BYTES_PER_ELEMENT ?? 1;
    const start = (from ?? 0) * unit;
    const length = size === undefined ? data.byteLength - start : size * unit;
    const copy = new Uint8Array(length);
    copy.set(new Uint8Array(data.buffer, data.byteOffset + start, length));
    return original.call(this, buffer, offset, copy);
  };
  prototype.writeBuffer = Object.assign(patched, { copies: true }) as typeof original;
}

/** A device, a runtime and their end. */
export interface TestGpu {
  gpu: Gpu;
  ort: Ort;
  close(): Promise<void>;
}

/** Opens a device with ONNX Runtime on it. */
export async function openTestGpu(options: GpuOptions = {}, backend: 'vulkan' | 'null' = 'vulkan'): Promise<TestGpu> {
  const gpu = await requestGpu(await openDawn(backend), options);
  // Optimising one huge function of the asyncify build blocks V8 for 27 s (Node 20, 2 cores); the baseline compiler
  // takes 0.2 s and everything heavy runs in shaders. Browsers use the JSPI build, which has no such function.
  setFlagsFromString('--liftoff-only');
  const module = (await import('onnxruntime-web/webgpu')) as OrtModule;
  const ort = new Ort(module, gpu);
  return {
    gpu,
    ort,
    async close() {
      await ort.releaseAll();
      gpu.destroy();
    },
  };
}
