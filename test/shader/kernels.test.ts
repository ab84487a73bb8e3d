import { existsSync, readdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { messageOf } from '../../src/errors';
import type { Kernel } from '../../src/gpu/kernel';
import type { GpuTensor } from '../../src/gpu/memory';
import { openTestGpu, type TestGpu } from '../harness/dawn';

/**
 * Every kernel × its `examples` on Dawn's null backend, which compiles all features and computes nothing: WGSL that
 * does not compile, a binding that `layout: 'auto'` drops, and launches past the default limits fail here without a
 * GPU.
 */

type AnyKernel = Kernel<unknown, string>;

const folder = resolve(import.meta.dirname, '../../kernels');
const names = (ending: string) =>
  readdirSync(folder)
    .filter((file) => file.endsWith(ending))
    .map((file) => file.slice(0, -ending.length))
    .sort();
const modules = import.meta.glob<Record<string, unknown>>('../../kernels/*.ts', { eager: true });

/** `@group(0) @binding(n) var<...> name` of a shader, in the order of n. */
function bindingsOf(source: string) {
  return [...source.matchAll(/@group\((\d+)\)\s*@binding\((\d+)\)\s*var\s*<([^>]*)>\s*(\w+)/g)]
    .map(([, group, binding, space, name]) => ({
      group: Number(group),
      binding: Number(binding),
      name: name!,
      access: { 'storage,read': 'read', 'storage,read_write': 'write', uniform: 'uniform' }[space!.replaceAll(' ', '')],
    }))
    .sort((a, b) => a.binding - b.binding);
}

/** Types of the fields of `struct Params`. */
function paramTypes(source: string): string[] {
  const body = withoutComments(source).match(/struct\s+Params\s*\{([^}]*)\}/)?.[1] ?? '';
  return [...body.matchAll(/\w+\s*:\s*([\w<>]+)/g)].map((match) => match[1]!);
}

/** `override` declarations: name, and whatever follows it up to the semicolon. */
function overridesOf(source: string) {
  return [...withoutComments(source).matchAll(/\boverride\s+(\w+)([^;]*);/g)].map((match) => ({
    name: match[1]!,
    rest: match[2]!,
  }));
}

function withoutComments(source: string): string {
  return source.replace(/\/\/.*|\/\*[\s\S]*?\*\//g, '');
}

/** The one kernel that a module exports. */
function kernelOf(module: Record<string, unknown>): AnyKernel {
  const kernels = Object.values(module).filter(
    (value): value is AnyKernel => typeof value === 'object' && value !== null && 'plan' in value && 'source' in value,
  );
  expect(kernels, 'a kernel file exports one kernel').toHaveLength(1);
  return kernels[0]!;
}

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu({}, 'null');
});
afterAll(() => test.close());

it('has a device with half floats, so that no variant passes unseen', () => {
  expect(test.gpu.f16).toBe(true);
});

it('has a shader, a definition and a reference of one name for each kernel', () => {
  expect(names('.wgsl').length).toBeGreaterThan(0);
  expect(names('.ts')).toEqual(names('.wgsl'));
  const references = names('.wgsl').filter((name) => existsSync(resolve(folder, `../test/reference/${name}.ts`)));
  expect(references).toEqual(names('.wgsl'));
});

describe.each(names('.wgsl'))('%s', (name) => {
  const module = modules[`../../kernels/${name}.ts`] ?? {};
  const examples = (module.examples ?? []) as unknown[];

  it('is named after its file and gives examples', () => {
    expect(kernelOf(module).name).toBe(name);
    expect(module.examples, 'export const examples: Shape[]').toBeInstanceOf(Array);
    expect(examples.length).toBeGreaterThan(0);
  });

  it('declares the bindings that its WGSL has, in order', () => {
    const kernel = kernelOf(module);
    const declared = Object.entries(kernel.bindings).map(([key, access], binding) => ({
      group: 0,
      binding,
      name: key,
      access: access as string,
    }));
    expect(bindingsOf(withoutComments(kernel.source))).toEqual(declared);
    expect(kernel.bindings.params ?? 'uniform').toBe('uniform');
  });

  it('takes every override from its plan', () => {
    const kernel = kernelOf(module);
    const overrides = overridesOf(kernel.source);
    for (const { name: override, rest } of overrides) {
      expect(rest, `override ${override} has no default`).not.toContain('=');
    }
    for (const example of examples) {
      expect(Object.keys(kernel.plan(example).overrides).sort()).toEqual(overrides.map((o) => o.name).sort());
    }
  });

  it('fills struct Params field by field', () => {
    const kernel = kernelOf(module);
    for (const example of examples) {
      const given = kernel.plan(example).params.map((param) => (typeof param === 'number' ? 'u32' : 'f32'));
      expect(given).toEqual(paramTypes(kernel.source));
    }
  });

  it('gives numbers that their types hold', () => {
    const kernel = kernelOf(module);
    for (const example of examples) {
      const { params, groups } = kernel.plan(example);
      for (const param of params) {
        if (typeof param === 'number') expect(param >>> 0, `u32 ${param}`).toBe(param);
        else expect(Math.fround(param.f32), `f32 ${param.f32}`).toBeCloseTo(param.f32);
      }
      for (const count of groups) expect(count > 0 && count <= 65_535, `workgroups ${groups}`).toBe(true);
    }
  });

  it.each(examples.map((example) => [JSON.stringify(example), example]))(
    'compiles and binds %s',
    async (_, example) => {
      const kernel = kernelOf(module);
      const { gpu } = test;
      // The null backend touches no buffer, so small ones do. The bind group must have a place for each.
      const tensors: Record<string, GpuTensor> = {};
      for (const key of Object.keys(kernel.bindings)) tensors[key] = gpu.memory.tensor(key, 'float32', [64]);
      gpu.device.pushErrorScope('validation');
      const failure = await kernel.run(gpu, example, tensors).catch(messageOf);
      // The scope holds what the compiler says; the failure only that there is no pipeline.
      expect((await gpu.device.popErrorScope())?.message ?? failure).toBeUndefined();
      for (const tensor of Object.values(tensors)) tensor[Symbol.dispose]();
    },
  );
});
