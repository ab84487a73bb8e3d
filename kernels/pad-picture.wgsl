// pad-picture: one frame of a clip as a picture with channels last, extended to the right and below.
//   rgb [3, frames, height, width], clamped to -1..1    y [paddedHeight, paddedWidth, 4] in 0..1, all of f32
// Beyond the frame y repeats the frame's edge, or holds zeros where REPLICATE is false. Prelude: const REPLICATE.
override WORKGROUP: u32;

struct Params {
  frames: u32,
  frame: u32,
  height: u32,
  width: u32,
  paddedHeight: u32,
  paddedWidth: u32,
}

@group(0) @binding(0) var<storage, read> rgb: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * grid.x + group.x) * WORKGROUP + lane;
  if (index >= params.paddedHeight * params.paddedWidth) { return; }
  let row = index / params.paddedWidth;
  let column = index % params.paddedWidth;
  if (!REPLICATE && (row >= params.height || column >= params.width)) {
    y[index] = vec4f(0);
    return;
  }
  let plane = params.height * params.width;
  let at = params.frame * plane + min(row, params.height - 1) * params.width + min(column, params.width - 1);
  let color = vec3f(rgb[at], rgb[at + params.frames * plane], rgb[at + 2 * params.frames * plane]);
  y[index] = vec4f(clamp(color, vec3f(-1), vec3f(1)) * 0.5 + 0.5, 0);
}
