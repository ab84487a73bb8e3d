/**
 * The one build of onnxruntime-web that a worker loads, for our own calls and for libraries that bring calls of their
 * own (the builds redirect their import to this file): with two of them there would be two wasm heaps, and no common
 * order of calls.
 */

// JSPI needs less code and no transformed stack; the asyncify build runs everywhere else.
const build = (
  'Suspending' in WebAssembly ? await import('onnxruntime-web/jspi') : await import('onnxruntime-web/webgpu')
) as typeof import('onnxruntime-web/webgpu');

export const { InferenceSession, Tensor, env } = build;
export default build;
