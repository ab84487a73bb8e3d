import type { Gpu } from '../gpu/device';
import type { Pace } from './pace';

/** What the plan has to know of a device. */
export interface DeviceLimits {
  /** Largest storage binding in bytes; WebGPU guarantees 128 MiB. */
  maxStorageBufferBindingSize: number;
  /** Largest buffer in bytes; WebGPU guarantees 256 MiB. */
  maxBufferSize: number;
  /** Half floats for attention. */
  f16: boolean;
  /** A CPU driver. */
  cpu: boolean;
  /** How fast it is; absent where nobody has measured. */
  pace?: Pace | undefined;
}

/** {@link DeviceLimits} and what a job may hold of them. */
export interface DeviceBudget extends DeviceLimits {
  /** Bytes of GPU memory that a job may take; Infinity for no bound. */
  budgetBytes: number;
}

/** What the plan has to know of a device that is there. */
export function deviceBudget({ device, f16, cpu }: Gpu, budgetBytes: number, pace: Pace | undefined): DeviceBudget {
  const { maxStorageBufferBindingSize, maxBufferSize } = device.limits;
  return { maxStorageBufferBindingSize, maxBufferSize, f16, cpu, budgetBytes, pace };
}

/** Limits that every WebGPU device has (WebGPU specification, "limits", default values). */
export const GUARANTEED_LIMITS = { maxStorageBufferBindingSize: 2 ** 27, maxBufferSize: 2 ** 28 } as const;

/** Bytes that one tensor may have. */
export function bindingLimit({ maxStorageBufferBindingSize, maxBufferSize }: DeviceLimits): number {
  return Math.min(maxStorageBufferBindingSize, maxBufferSize);
}

/** Budget where nobody has set one and the machine has enough: no request of a 4-bit A14B needs more. */
const USUAL_BUDGET = 8e9;
/** Share of the machine's memory that a job takes at most; GPUs without memory of their own live on the same. */
const MEMORY_SHARE = 0.7;

/**
 * The budget where nobody has set one. WebGPU does not tell how much memory a GPU has, so this is 8 GB, or 70 % of the
 * machine's memory where the browser says that it has little. Streamed weights cost so little time that a GPU with more
 * loses little.
 * @param deviceMemory gibibytes as `navigator.deviceMemory` tells them, rounded and capped; undefined where it does
 * not.
 */
export function estimateBudget(deviceMemory: number | undefined): number {
  if (deviceMemory === undefined) return USUAL_BUDGET;
  // A machine of 8 GiB and one of 64 both say 8 where the browser caps what it tells.
  return deviceMemory >= 8 ? USUAL_BUDGET : MEMORY_SHARE * deviceMemory * 2 ** 30;
}
